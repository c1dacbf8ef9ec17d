package handlers

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// guard dials for jobs. Whoever can enqueue a job names the URL, so a worker inside a network must not become a way into it: the
// address is checked after the name is resolved, when the socket connects, so that neither DNS nor a redirect can go around it.
type guard struct {
	allow  allowList
	key    string // of the allow-list in the configuration
	public *ssrf.Guardian

	resolver *net.Resolver // nil is the system's
}

func newGuard(allow allowList, key string) *guard {
	return &guard{allow: allow, key: key, public: ssrf.New(ssrf.WithAnyPort())}
}

func (g *guard) transport() *http.Transport {
	return &http.Transport{
		DialContext:            g.dial,
		Proxy:                  nil, // a proxy would resolve and dial for us, unguarded
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		TLSHandshakeTimeout:    10 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %s: it must be 1 to 65535", service)
	}
	d := net.Dialer{Timeout: 10 * time.Second, Resolver: g.resolver}
	if !g.allow.hasName(host, uint16(port)) {
		d.ControlContext = func(_ context.Context, network, address string, conn syscall.RawConn) error {
			return g.check(host, network, address, conn)
		}
	}
	return d.DialContext(ctx, network, address)
}

func (g *guard) check(host, network, address string, conn syscall.RawConn) error {
	resolved, err := netip.ParseAddrPort(address)
	if err != nil {
		return &refusedError{host: host, key: g.key}
	}
	resolved = netip.AddrPortFrom(resolved.Addr().Unmap().WithZone(""), resolved.Port())
	if g.allow.hasAddress(resolved) {
		return nil
	}
	if g.public.Safe(network, resolved.String(), conn) != nil {
		return &refusedError{host: host, address: resolved, key: g.key}
	}
	return nil
}

// refusedError tells that an address is not of the public internet and not allowed either.
type refusedError struct {
	host    string
	address netip.AddrPort
	key     string
}

func (e *refusedError) Error() string {
	name := e.host
	if a := e.address.Addr().String(); a != e.host {
		name = fmt.Sprintf("%s (%s)", e.host, a)
	}
	return fmt.Sprintf("%s is a private, local or reserved address, which jobs may not call: if they should, add %q to %s",
		name, net.JoinHostPort(e.host, strconv.Itoa(int(e.address.Port()))), e.key)
}
