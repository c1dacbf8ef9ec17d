package guard

import (
	"container/list"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// connections keeps count of who is connected. At a cap, the one that has waited longest without a request makes room: thousands that send
// their headers a byte at a time only push out one another.
type connections struct {
	max, maxEach int
	proxies      proxies
	observer     Observer

	mu    sync.Mutex
	total int
	all   waiting
	peers map[netip.Addr]*peer
}

func newConnections(cfg Config, p proxies, o Observer) *connections {
	return &connections{
		max: cfg.MaxConnections, maxEach: cfg.MaxConnectionsPerAddress, proxies: p, observer: o,
		all: newWaiting(), peers: make(map[netip.Addr]*peer),
	}
}

// peer is those who connect from one address.
type peer struct {
	count int
	own   waiting
}

// waiting is the connections without a request, the longest waiting in front.
type waiting struct {
	fresh *list.List // no request yet
	idle  *list.List // between requests
}

func newWaiting() waiting { return waiting{fresh: list.New(), idle: list.New()} }

// patience is what an honest client needs at most to send its headers when somebody else presses for room; those who
// keep a connection for their next request are spared as long as there is one that took longer.
const patience = 250 * time.Millisecond

// victim is who makes room, nil if all are at work.
func (w waiting) victim(now time.Time) *conn {
	fresh, idle := front(w.fresh), front(w.idle)
	if fresh != nil && (idle == nil || now.Sub(fresh.since) > patience) {
		return fresh
	}
	return idle
}

func front(l *list.List) *conn {
	if e := l.Front(); e != nil {
		return e.Value.(*conn) //nolint:forcetypeassert // nothing else is put in
	}
	return nil
}

// listener closes what is too many.
type listener struct {
	net.Listener
	conns *connections
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.conns.admit(raw); c != nil {
			return c, nil
		}
		_ = raw.Close() // nobody reads what it says
		l.conns.observer.Rejected(RejectedConnections)
	}
}

// conn is one that is counted until it is closed.
type conn struct {
	net.Conn
	conns  *connections
	peer   *peer
	addr   netip.Addr
	since  time.Time // when it began to wait
	places []place   // in the lists, while it waits
	closed bool
}

type place struct {
	list *list.List
	at   *list.Element
}

// Close gives the place free.
func (c *conn) Close() error {
	c.conns.mu.Lock()
	c.conns.forget(c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

func (cs *connections) admit(raw net.Conn) *conn {
	addr, _ := parseAddress(raw.RemoteAddr().String())
	trusted := !addr.IsValid() || cs.proxies.trust(addr) // one without an address comes by a unix socket
	addr = household(addr)

	cs.mu.Lock()
	now := time.Now()
	p := cs.peers[addr]
	var out []*conn
	fits := true
	if p != nil && !trusted && p.count >= cs.maxEach {
		fits, out = cs.pushOut(p.own.victim(now), out)
	}
	if fits && cs.total >= cs.max {
		fits, out = cs.pushOut(cs.all.victim(now), out)
	}
	var c *conn
	if fits {
		if p = cs.peers[addr]; p == nil {
			p = &peer{own: newWaiting()}
			cs.peers[addr] = p
		}
		c = &conn{Conn: raw, conns: cs, peer: p, addr: addr}
		p.count++
		cs.total++
		cs.wait(c, now, cs.all.fresh, p.own.fresh)
	}
	cs.mu.Unlock()

	for _, o := range out {
		_ = o.Conn.Close() // nobody reads what it says
		cs.observer.Rejected(RejectedConnections)
	}
	return c
}

func (cs *connections) pushOut(c *conn, out []*conn) (bool, []*conn) {
	if c == nil {
		return false, out
	}
	cs.forget(c)
	return true, append(out, c)
}

// state follows the server: http.Server.ConnState.
func (cs *connections) state(nc net.Conn, to http.ConnState) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case c.closed:
	case to == http.StateActive:
		cs.stopWaiting(c)
	case to == http.StateIdle:
		cs.stopWaiting(c)
		cs.wait(c, time.Now(), cs.all.idle, c.peer.own.idle)
	}
}

func (*connections) wait(c *conn, now time.Time, lists ...*list.List) {
	c.since = now
	for _, l := range lists {
		c.places = append(c.places, place{l, l.PushBack(c)})
	}
}

func (*connections) stopWaiting(c *conn) {
	for _, p := range c.places {
		p.list.Remove(p.at)
	}
	c.places = c.places[:0]
}

func (cs *connections) forget(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	cs.stopWaiting(c)
	cs.total--
	if c.peer.count--; c.peer.count == 0 {
		delete(cs.peers, c.addr)
	}
}
