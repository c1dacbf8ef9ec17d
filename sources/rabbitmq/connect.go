package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	heartbeat = 10 * time.Second
	// setupTime bounds the way from dialling to the first message. A quorum queue without a leader leaves a consumer
	// without an answer for a minute, and then closes its connection.
	setupTime = 20 * time.Second
	closeTime = 2 * time.Second
)

// theConnection is what most faults are about, however they show.
const theConnection = "the connection"

// fault is an error with what it is about: while that stays the same, it isn't logged again.
type fault struct {
	about string
	err   error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func reasonOf(err error) string {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.about
	}
	return ""
}

// connect opens a connection and a channel. Until the returned function is called, the connection lives no longer than ctx.
func (c Config) connect(ctx context.Context, name string) (*amqp.Connection, *amqp.Channel, func() bool, error) {
	uri, err := amqp.ParseURI(c.URL)
	if err != nil {
		return nil, nil, nil, &fault{about: "the address", err: errors.New("does not parse")}
	}
	auth, err := c.credentials(uri)
	if err != nil {
		return nil, nil, nil, &fault{about: "the password", err: err}
	}
	config := amqp.Config{
		SASL:       []amqp.Authentication{auth},
		Vhost:      uri.Vhost,
		Heartbeat:  heartbeat,
		Locale:     "en_US",
		Properties: amqp.NewConnectionProperties(),
	}
	config.Properties.SetClientConnectionName(name)
	if uri.Scheme == "amqps" {
		if config.TLSClientConfig, err = c.TLS.config(uri.Host); err != nil {
			return nil, nil, nil, &fault{about: "tls", err: err}
		}
	}
	release := func() bool { return true }
	config.Dial = func(network, addr string) (net.Conn, error) {
		wire, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			release = context.AfterFunc(ctx, func() { _ = wire.Close() })
		}
		return wire, err
	}
	plain := amqp.URI{Scheme: uri.Scheme, Host: uri.Host, Port: uri.Port, Vhost: uri.Vhost}
	conn, err := amqp.DialConfig(plain.String(), config)
	if err != nil {
		release()
		return nil, nil, nil, dialFault(err)
	}
	ch, err := conn.Channel()
	if err != nil {
		release()
		closeSoon(conn)
		return nil, nil, nil, &fault{about: theConnection, err: fmt.Errorf("open a channel: %w", err)}
	}
	return conn, ch, release, nil
}

func dialFault(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok && (e.Code == amqp.AccessRefused || e.Code == amqp.NotAllowed) {
		return &fault{about: "log in", err: fmt.Errorf("%w; check the user, its password, and that it may use the virtual host in the url", err)}
	}
	return &fault{about: theConnection, err: err}
}

// closeSoon doesn't wait long for a broker that may be gone. What was not acknowledged goes back into the queue.
func closeSoon(conn *amqp.Connection) {
	_ = conn.CloseDeadline(time.Now().Add(closeTime))
}
