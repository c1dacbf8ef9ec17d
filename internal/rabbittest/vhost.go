package rabbittest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// VHost is a virtual host of one test.
type VHost struct {
	Broker *Broker
	Name   string
}

// VHost makes a virtual host for this test.
func (b *Broker) VHost(t testing.TB) *VHost {
	t.Helper()
	b.mu.Lock()
	b.vhosts++
	name := "test" + strconv.Itoa(b.vhosts)
	b.mu.Unlock()
	if err := b.call(t.Context(), http.MethodPut, "/api/vhosts/"+name, nil); err != nil {
		t.Fatal(err)
	}
	return &VHost{Broker: b, Name: name}
}

// URL is the address of the virtual host, with the credentials.
func (v *VHost) URL() string { return v.Broker.url(v.Name) }

// Connect opens a connection that is closed with the test.
func (v *VHost) Connect(t testing.TB) *amqp.Connection {
	t.Helper()
	conn, err := amqp.Dial(v.URL())
	if err != nil {
		t.Fatalf("dial RabbitMQ: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Channel opens a channel on a connection of its own, closed with the test.
func (v *VHost) Channel(t testing.TB) *amqp.Channel {
	t.Helper()
	ch, err := v.Connect(t).Channel()
	if err != nil {
		t.Fatalf("open a channel of RabbitMQ: %v", err)
	}
	return ch
}

// CloseConnections has the broker close the connections whose clients gave them that name, or all, as an operator would by force. It
// waits until it has closed one.
func (v *VHost) CloseConnections(t testing.TB, client string) {
	t.Helper()
	deadline := time.Now().Add(startLimit)
	for closed := 0; closed == 0; {
		var all []struct {
			Name   string `json:"name"`
			Client string `json:"user_provided_name"`
		}
		if err := v.Broker.call(t.Context(), http.MethodGet, "/api/vhosts/"+v.Name+"/connections", &all); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if client != "" && c.Client != client || c.Name == "" {
				continue
			}
			if err := v.Broker.call(t.Context(), http.MethodDelete, "/api/connections/"+url.PathEscape(c.Name), nil); err == nil {
				closed++
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("RabbitMQ lists no connection named %q within %s", client, startLimit)
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // nothing tells of a new list
	}
}

// SetMemoryLimit sets the share of the memory above which the broker blocks its publishers: all of them at 0.
func (b *Broker) SetMemoryLimit(t testing.TB, share string) {
	t.Helper()
	if err := b.control(t.Context(), "set_vm_memory_high_watermark", share); err != nil {
		t.Fatal(err)
	}
}

// call asks the management API.
func (b *Broker) call(ctx context.Context, method, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	address := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(b.ports.http)) + path
	req, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask RabbitMQ: %w", err)
	}
	req.SetBasicAuth("guest", "guest")
	req.Close = true // no idle connection is left for a test that looks for leaks
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask RabbitMQ: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("ask RabbitMQ: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("ask RabbitMQ: %s %s: %s: %s", method, path, resp.Status, text)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("ask RabbitMQ: %s %s: %w", method, path, err)
	}
	return nil
}
