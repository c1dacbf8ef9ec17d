package rabbitmq_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// wire leads to a broker, and can be cut.
type wire struct {
	addr     string
	endsWith []byte       // what the broker sends ends the connection, before it arrives
	made     atomic.Int64 // connections

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newWire(t *testing.T, to string, endsWith ...byte) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String(), endsWith: endsWith, conns: make(map[net.Conn]bool)}
	t.Cleanup(func() {
		l.Close()
		w.cut()
	})
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go w.join(in, to)
		}
	}()
	return w
}

func (w *wire) join(in net.Conn, to string) {
	defer in.Close()
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	w.made.Add(1)
	w.mu.Lock()
	w.conns[in], w.conns[out] = true, true
	w.mu.Unlock()
	go func() {
		_, _ = io.Copy(out, in)
		out.Close()
	}()
	_, _ = io.Copy(in, &until{out, w.endsWith})
	w.mu.Lock()
	delete(w.conns, in)
	delete(w.conns, out)
	w.mu.Unlock()
}

// until reads until something comes.
type until struct {
	io.Reader
	what []byte
}

func (u *until) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if len(u.what) > 0 && bytes.Contains(p[:n], u.what) {
		return 0, io.EOF
	}
	return n, err
}

// cut ends what runs over the wire; new connections are let through.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
}
