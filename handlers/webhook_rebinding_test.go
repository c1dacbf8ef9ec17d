package handlers

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// A name that leads to an allowed address first and to a private one then is refused then: what counts is where the socket connects to.
// 127.0.0.2 stands for the public server.
func TestWebhookDNSRebinding(t *testing.T) {
	t.Parallel()
	var outside, inside atomic.Int32
	public := listen(t, "127.0.0.2:0", &outside)
	_, port, err := net.SplitHostPort(public)
	if err != nil {
		t.Fatal(err)
	}
	listen(t, "127.0.0.1:"+port, &inside)
	names := newDNS(t)

	state, err := endpoints.New(redistest.Embedded(t), endpoints.Config{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWebhooks(WebhookConfig{Endpoints: []WebhookEndpoint{{
		Name: "e", URL: "http://rebind.example:" + port, Secrets: []string{"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="},
	}}}, Deps{Endpoints: state})
	if err != nil {
		t.Fatal(err)
	}
	allow, _ := parseAllow([]string{"127.0.0.2"})
	g := newGuard(allow, "handlers.webhooks.allow")
	g.resolver = names.resolver()
	w.transport = g.transport()
	t.Cleanup(w.Close)
	deliver := func() error {
		j := &job.Job{ID: "j", Attempt: 1}
		return w.Deliver(job.NewContext(t.Context(), j), tasks.WebhookDelivery{Endpoint: "e", JSON: 1})
	}

	names.set("127.0.0.2")
	if err := deliver(); err != nil {
		t.Fatal(err)
	}
	names.set("127.0.0.1")
	if err := deliver(); err != nil { // over the connection that is open, to where it was
		t.Fatal(err)
	}
	w.Close()
	if err := deliver(); !job.IsDiscard(err) {
		t.Errorf("the name leads inside: got %v, want a discard", err)
	}
	if outside.Load() != 2 || inside.Load() != 0 || names.asked.Load() == 0 {
		t.Errorf("%d calls outside, %d inside, %d questions of names", outside.Load(), inside.Load(), names.asked.Load())
	}
}

func listen(t *testing.T, address string, calls *atomic.Int32) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) })}}
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String()
}

// dns answers every question for an IPv4 address with the one that is set.
type dns struct {
	conn    net.PacketConn
	address atomic.Pointer[netip.Addr]
	asked   atomic.Int32
}

func newDNS(t *testing.T) *dns {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &dns{conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.serve()
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return d
}

func (d *dns) set(address string) {
	a := netip.MustParseAddr(address)
	d.address.Store(&a)
}

func (d *dns) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", d.conn.LocalAddr().String())
	}}
}

func (d *dns) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		question := buf[12:n]
		end := 0
		for question[end] != 0 {
			end += int(question[end]) + 1
		}
		question = question[:end+5] // name, type, class
		reply := make([]byte, 12, 512)
		copy(reply, buf[:2]) // id
		reply[2], reply[3], reply[5] = 0x81, 0x80, 1
		reply = append(reply, question...)
		if binary.BigEndian.Uint16(question[end+1:]) == 1 { // A
			d.asked.Add(1)
			reply[7] = 1
			reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4) // the name above, A, IN, no time to live, 4 bytes
			reply = append(reply, d.address.Load().AsSlice()...)
		}
		if _, err := d.conn.WriteTo(reply, from); err != nil {
			return
		}
	}
}
