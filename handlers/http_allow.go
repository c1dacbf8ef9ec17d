package handlers

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// allowed is one entry of the allow-list: a name, or a network of addresses, and a port unless it holds for all.
type allowed struct {
	name    string // lower case, no dot at its end; "*.x" is all below x
	network netip.Prefix
	port    uint16
}

type allowList []allowed

func parseAllow(entries []string) (list allowList, faults []error) {
	for i, entry := range entries {
		a, err := parseAllowed(strings.TrimSpace(entry))
		if err != nil {
			faults = append(faults, fmt.Errorf("allow[%d]: %q %w", i, entry, err))
			continue
		}
		list = append(list, a)
	}
	return list, faults
}

func parseAllowed(entry string) (allowed, error) {
	switch {
	case strings.Contains(entry, "://"):
		return allowed{}, errors.New("is a URL: write the host alone, or host:port")
	case strings.Contains(entry, "/"):
		return parseNetwork(entry)
	}
	if a, err := netip.ParseAddr(strings.Trim(entry, "[]")); err == nil {
		return ofAddress(a, 0), nil
	}
	host, port := entry, uint16(0)
	if h, p, err := net.SplitHostPort(entry); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return allowed{}, errors.New("has no valid port: ports are 1 to 65535")
		}
		host, port = h, uint16(n)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return ofAddress(a, port), nil
	}
	name := plainName(host)
	switch {
	case name == "*":
		return allowed{}, errors.New("is too wide: to allow every address write 0.0.0.0/0 and ::/0")
	case !isName(strings.TrimPrefix(name, "*.")) || looksNumeric(name):
		return allowed{}, errors.New("is no host, address or network: write for example agents.internal, 127.0.0.1:8080 or 10.0.0.0/8")
	}
	return allowed{name: name, port: port}, nil
}

func parseNetwork(entry string) (allowed, error) {
	network, err := netip.ParsePrefix(entry)
	switch {
	case err != nil:
		return allowed{}, errors.New("is no network: write for example 10.0.0.0/8; a network has no port")
	case network.Addr().Is4In6():
		return allowed{}, errors.New("is an IPv4 network in IPv6 form: write it as IPv4")
	case network.Masked() != network:
		return allowed{}, fmt.Errorf("has bits set beyond its length: did you mean %s, or the address %s alone?", network.Masked(), network.Addr())
	}
	return allowed{network: network}, nil
}

func ofAddress(a netip.Addr, port uint16) allowed {
	a = a.Unmap().WithZone("")
	return allowed{network: netip.PrefixFrom(a, a.BitLen()), port: port}
}

func (l allowList) hasName(host string, port uint16) bool {
	host = plainName(host)
	for _, a := range l {
		if a.name == "" || a.port != 0 && a.port != port {
			continue
		}
		below, wild := strings.CutPrefix(a.name, "*")
		if host == a.name || wild && strings.HasSuffix(host, below) && len(host) > len(below) {
			return true
		}
	}
	return false
}

func (l allowList) hasAddress(a netip.AddrPort) bool {
	for _, entry := range l {
		if entry.name == "" && entry.network.Contains(a.Addr()) && (entry.port == 0 || entry.port == a.Port()) {
			return true
		}
	}
	return false
}

func plainName(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// isName takes ASCII alone: a name in another script is dialled, and so compared, in its xn-- form.
func isName(host string) bool {
	for label := range strings.SplitSeq(host, ".") {
		if label == "" {
			return false
		}
		for _, r := range label {
			if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') {
				return false
			}
		}
	}
	return true
}

// looksNumeric tells whether a host that is no plain IP address would be read as one by some resolvers: 2130706433, 0x7f.1,
// 0177.0.0.1. By the URL standard a host whose last label is a number is an IPv4 address.
func looksNumeric(host string) bool {
	host = plainName(host)
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}
