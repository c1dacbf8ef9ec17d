package handlers_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/rabbittest"
	"github.com/bellhop-dev/bellhop/tasks"
)

// A job that has no time left, or is stopped, opens no channel; it does not take the connection from the jobs that publish over it.
func sparesTheConnection(t *testing.T, v *rabbittest.VHost) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int32
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			out, err := net.Dial("tcp", v.Broker.Addr())
			if err != nil {
				in.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(out, in)
				out.Close()
			}()
			go func() {
				_, _ = io.Copy(in, out)
				in.Close()
			}()
		}
	}()
	h := newAMQP(t, handlers.AMQPConfig{URL: strings.Replace(v.URL(), v.Broker.Addr(), l.Addr().String(), 1)})
	if err := publish(t, h, tasks.AMQPMessage{RoutingKey: "q"}); err != nil {
		t.Fatal(err)
	}
	wantDiscard(t, publish(t, h, tasks.AMQPMessage{Exchange: "none", RoutingKey: "q"}), "no exchange") // which ends the only channel
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for range 30 {
		if err := h.Publish(stopped, tasks.AMQPMessage{RoutingKey: "q"}); err == nil {
			t.Error("a stopped job published")
		}
	}
	if err := publish(t, h, tasks.AMQPMessage{RoutingKey: "q"}); err != nil {
		t.Fatal(err)
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}
