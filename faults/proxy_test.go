package faults

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between clients and Redis and cuts some replies off: the connection ends, and the reply is never seen.
type proxy struct {
	listener net.Listener
	target   string
	cuts     atomic.Int64 // replies cut
	percent  atomic.Int64 // of the replies to cut
	shut     atomic.Bool  // nobody gets through

	mu    sync.Mutex
	rand  *rand.Rand
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newProxy(t testing.TB, target string, seed uint64) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, rand: rand.New(rand.NewPCG(seed, seed)), conns: make(map[net.Conn]bool)}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		p.drop()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "redis://" + p.listener.Addr().String() + "/0" }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		if p.shut.Load() {
			_, _ = client.Close(), server.Close()
			continue
		}
		p.keep(client, server)
		p.wg.Go(func() {
			_, _ = io.Copy(server, client)
			p.end(client, server)
		})
		p.wg.Go(func() {
			p.replies(client, server)
			p.end(client, server)
		})
	}
}

// replies passes on what the server says, and mostly says one reply at a time.
func (p *proxy) replies(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if p.cut() {
			p.cuts.Add(1)
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) cut() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rand.Int64N(100) < p.percent.Load()
}

func (p *proxy) keep(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
}

func (p *proxy) end(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// drop ends all connections.
func (p *proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// split lets nobody through until it is healed.
func (p *proxy) split() {
	p.shut.Store(true)
	p.drop()
}

func (p *proxy) heal() { p.shut.Store(false) }
