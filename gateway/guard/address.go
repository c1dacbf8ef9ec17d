package guard

import (
	"net/http"
	"net/netip"
	"strings"
)

// proxies are the networks whose X-Forwarded-For is believed.
type proxies []netip.Prefix

func parseProxies(texts []string) proxies {
	var p proxies
	for _, text := range texts {
		if prefix, err := parsePrefix(text); err == nil {
			p = append(p, prefix)
		}
	}
	return p
}

// parsePrefix reads a network, or an address as the network of one.
func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		return p.Masked(), err
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Unmap().WithZone("").Prefix(a.Unmap().BitLen())
}

func (p proxies) trust(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// maxHops is how many entries of X-Forwarded-For are looked at; nobody has that many proxies.
const maxHops = 32

// client finds who sent the request. Each proxy appends the peer that it saw, so the list is read from its end, and only as long as
// the one who wrote the entry is trusted: what a client wrote itself counts for nothing. The zero Addr if the peer has none (a
// unix socket).
func (p proxies) client(r *http.Request) netip.Addr {
	addr, _ := parseAddress(r.RemoteAddr)
	if len(p) == 0 || !p.trust(addr) {
		return addr
	}
	lines := r.Header["X-Forwarded-For"]
	for hops := 0; len(lines) > 0; {
		line := lines[len(lines)-1]
		lines = lines[:len(lines)-1]
		for more := true; more; hops++ {
			var entry string
			line, entry, more = cutLast(line)
			next, ok := parseAddress(strings.TrimSpace(entry))
			if !ok || hops == maxHops {
				return addr
			}
			if addr = next; !p.trust(addr) {
				return addr
			}
		}
	}
	return addr
}

func cutLast(line string) (rest, entry string, more bool) {
	if i := strings.LastIndexByte(line, ','); i >= 0 {
		return line[:i], line[i+1:], true
	}
	return "", line, false
}

// parseAddress reads an address with or without a port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80.
func parseAddress(text string) (netip.Addr, bool) {
	if len(text) > 100 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		if with, err := netip.ParseAddrPort(text); err == nil {
			a = with.Addr()
		} else if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
			if a, err = netip.ParseAddr(inner[:len(inner)-1]); err != nil || !a.Is6() {
				return netip.Addr{}, false
			}
		} else {
			return netip.Addr{}, false
		}
	}
	return a.Unmap().WithZone(""), true
}

// household is what counts as one client: an IPv4 address, or the /64 that an IPv6 subscriber has for themselves.
func household(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	p, _ := a.Prefix(64)
	return p.Addr()
}
