package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve runs the guard's own server, and returns its URL.
func serve(t *testing.T, b *bundle) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := b.Server(b.handler)
	stopped := make(chan error, 1)
	go func() { stopped <- server.Serve(b.Listener(l)) }()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		_ = server.Close()
		if err := <-stopped; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		eventually(t, "no connection is counted any more", func() bool {
			b.conns.mu.Lock()
			defer b.conns.mu.Unlock()
			return b.conns.total == 0 && len(b.conns.peers) == 0 && b.conns.all.fresh.Len()+b.conns.all.idle.Len() == 0
		})
	})
	return "http://" + l.Addr().String()
}

func TestHeaderLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxHeaderBytes: 4096})
	url := serve(t, b)
	for size, want := range map[int]int{1000: http.StatusOK, 3 * 4096: http.StatusRequestHeaderFieldsTooLarge} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/open", nil)
		req.Header.Set("X-Long", strings.Repeat("x", size))
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("a header of %d bytes: %d, want %d", size, resp.StatusCode, want)
		}
	}
}

// S8: 2,000 connections send their headers a byte at a time; healthy clients are served as ever, be there room for all or not.
func TestSlowConnections(t *testing.T) { //nolint:paralleltest // it measures
	for name, cfg := range map[string]Config{
		"all have room": {MaxConnections: 4000, MaxConnectionsPerAddress: 4000},
		"most have not": {MaxConnections: 500, MaxConnectionsPerAddress: 400},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.AddressRate = -1
			b := setup(t, cfg)
			url := serve(t, b)
			quiet := healthyRequests(t, url)
			attack := startSlowly(t, strings.TrimPrefix(url, "http://"), 2000)
			b.conns.mu.Lock()
			held := b.conns.total
			b.conns.mu.Unlock()
			attacked := healthyRequests(t, url)
			eventually(t, "a slow connection is cut", func() bool { return attack.cut.Load() > 0 })
			attack.end()
			t.Logf("healthy p99 is %v, with 2,000 slow connections, %d of them held, %v", p99(quiet), held, p99(attacked))
			if held > cfg.MaxConnections {
				t.Errorf("%d connections are held, at most %d may be", held, cfg.MaxConnections)
			}
		})
	}
}

func p99(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)*99/100]
}

// healthyRequests fails the test unless all are answered. Half of the clients connect for each request, half keep their connection.
func healthyRequests(t *testing.T, url string) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var times []time.Duration
	var wg sync.WaitGroup
	for i := range 8 {
		transport := &http.Transport{DisableKeepAlives: i%2 == 0}
		wg.Go(func() {
			defer transport.CloseIdleConnections()
			for range 50 {
				began := time.Now()
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/open", nil)
				resp, err := transport.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				text, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(text) != "open" {
					t.Error(string(text), err)
				}
				mu.Lock()
				times = append(times, time.Since(began))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(times) != 400 {
		t.Fatalf("%d of 400 healthy requests were answered", len(times))
	}
	return times
}

// slowAttack holds connections open, a byte at a time, and makes new ones for those that are cut.
type slowAttack struct {
	stop chan struct{}
	wg   sync.WaitGroup
	cut  atomic.Int64
}

func startSlowly(t *testing.T, addr string, n int) *slowAttack {
	t.Helper()
	a := &slowAttack{stop: make(chan struct{})}
	begun := make(chan struct{}, n)
	const each = 20
	for range n / each {
		a.wg.Go(func() {
			conns := make([]net.Conn, each)
			open := func(i int) {
				c, err := net.Dial("tcp", addr)
				if err == nil {
					conns[i] = c
					io.WriteString(c, "GET /open HTTP/1.1\r\nHost: x\r\nX-Slow: ")
				}
			}
			for i := range conns {
				open(i)
				begun <- struct{}{}
			}
			every(t, time.Second, a.stop, func(context.Context) {
				for i, c := range conns {
					if c == nil {
						open(i)
					} else if _, err := c.Write([]byte("x")); err != nil {
						a.cut.Add(1)
						c.Close()
						conns[i] = nil
					}
				}
			})
			for _, c := range conns {
				if c != nil {
					c.Close()
				}
			}
		})
	}
	for range n {
		<-begun
	}
	return a
}

func (a *slowAttack) end() {
	close(a.stop)
	a.wg.Wait()
}

func TestConnectionCaps(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{MaxConnections: 10, MaxConnectionsPerAddress: 2, TrustedProxies: []string{"10.0.0.0/8"}})
	cs := b.conns
	var refused []bool
	admit := func(addr string) *conn {
		c := cs.admit(&fakeConn{addr: addr})
		refused = append(refused, c == nil)
		return c
	}
	work := func(c *conn) { cs.state(c, http.StateActive) }
	closed := func(c *conn) bool { return c.Conn.(*fakeConn).closed }

	first, second := admit("192.0.2.1:1"), admit("192.0.2.1:2")
	third := admit("192.0.2.1:3")
	if !closed(first) || closed(second) || closed(third) {
		t.Error("the first of three of one address should have made room")
	}
	work(second)
	work(third)
	if admit("192.0.2.1:4") != nil {
		t.Error("two of one address are at work, there is room for no third")
	}
	cs.state(second, http.StateIdle)
	if fourth := admit("192.0.2.1:5"); fourth == nil || !closed(second) {
		t.Error("the idle one should have made room")
	}
	for i := range 8 { // a proxy may hold all there are
		if c := admit(fmt.Sprintf("10.0.0.1:%d", i)); c == nil {
			t.Errorf("the proxy's connection %d was refused", i)
		} else {
			work(c)
		}
	}
	if c := admit("198.51.100.1:1"); c == nil {
		t.Error("the waiting one of the first address should have made room")
	} else if work(c); admit("198.51.100.2:1") != nil {
		t.Error("all ten are at work")
	}
	if cs.total != 10 {
		t.Errorf("%d are counted", cs.total)
	}
	if n := b.seen.count(RejectedConnections); n != 3 { // who was refused, the listener counts
		t.Errorf("%d made room, want 3", n)
	}
}

type fakeConn struct {
	net.Conn
	addr   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return fakeAddr(c.addr) }

func (c *fakeConn) Close() error { c.closed = true; return nil }

type fakeAddr string

func (fakeAddr) Network() string { return "tcp" }

func (a fakeAddr) String() string { return string(a) }

// An answer that waits, and a stream, outlive the server's time-outs; others don't.
func TestUnhurried(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	b := setup(t, Config{ReadTimeout: timeout, WriteTimeout: timeout})
	wait := func(w http.ResponseWriter, r *http.Request) {
		for i := range 4 {
			select {
			case <-r.Context().Done():
				return
			case <-time.After(timeout / 2):
			}
			fmt.Fprintf(w, "%d ", i)
			_ = http.NewResponseController(w).Flush()
		}
	}
	b.mux.HandleFunc("GET /hurried", wait)
	b.mux.HandleFunc("GET /unhurried", func(w http.ResponseWriter, r *http.Request) {
		if err := Unhurried(w, 0); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		wait(w, r)
	})
	url := serve(t, b)
	for path, whole := range map[string]bool{"/hurried": false, "/unhurried": true} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if (err == nil && string(text) == "0 1 2 3 ") != whole {
			t.Errorf("%s: %q, %v", path, text, err)
		}
	}
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{IdleTimeout: 100 * time.Millisecond, ReadHeaderTimeout: 100 * time.Millisecond})
	addr := strings.TrimPrefix(serve(t, b), "http://")
	for _, text := range []string{"", "GET /open HTTP/1.1\r\nHost: x\r\n", "GET /open HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text)
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, bufio.NewReader(c)); err != nil {
			t.Errorf("after %q: %v, want the server's end", text, err)
		}
		c.Close()
	}
}
