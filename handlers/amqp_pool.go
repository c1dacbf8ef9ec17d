package handlers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// amqpPool is one connection, opened when it is needed, and the channels on it. A channel carries one message at a time: what the
// broker says on it, a return, a confirmation, an end, is about that message.
type amqpPool struct {
	cfg     AMQPConfig
	tls     *tls.Config
	slots   chan struct{}           // a token for each message under way
	turn    chan struct{}           // holds a token while somebody looks at conn; unlike a mutex it is waited for with a context
	idle    chan *amqpChannel       // channels that nobody uses
	conn    *amqp.Connection        // under turn
	blocked *atomic.Pointer[string] // of conn: why the broker takes nothing
}

type amqpChannel struct {
	*amqp.Channel
	returned chan amqp.Return
	closed   chan *amqp.Error
	blocked  *atomic.Pointer[string]
}

func newAMQPPool(cfg AMQPConfig, trust *tls.Config) *amqpPool {
	return &amqpPool{
		cfg: cfg, tls: trust,
		slots: make(chan struct{}, cfg.Channels), turn: make(chan struct{}, 1), idle: make(chan *amqpChannel, cfg.Channels),
	}
}

// get returns a channel for one message; put takes it back.
func (p *amqpPool) get(ctx context.Context) (*amqpChannel, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for one of %d channels: %w", p.cfg.Channels, ctx.Err())
	}
	ch, err := p.channel(ctx)
	if err != nil {
		<-p.slots
	}
	return ch, err
}

// put keeps a channel on which nothing is under way; any other is closed.
func (p *amqpPool) put(ch *amqpChannel, reusable bool) {
	if reusable && !ch.IsClosed() {
		p.idle <- ch // has room: there are no more channels than slots
	} else {
		go func() { _ = ch.Close() }() // waits for an answer of the broker
	}
	<-p.slots
}

func (p *amqpPool) channel(ctx context.Context) (*amqpChannel, error) {
	for {
		select {
		case ch := <-p.idle:
			if !ch.IsClosed() {
				return ch, nil
			}
			continue
		default:
		}
		return p.open(ctx)
	}
}

// openTime is how long a broker may take to open a channel, which it does at once.
const openTime = 5 * time.Second

func (p *amqpPool) open(ctx context.Context) (*amqpChannel, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("connect: %w", ctx.Err())
	}
	if err := ctx.Err(); err != nil { // a select takes either way when both are open
		return nil, fmt.Errorf("connect: %w", err)
	}
	if p.conn == nil || p.conn.IsClosed() {
		conn, err := p.dial(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}
		p.conn, p.blocked = conn, new(atomic.Pointer[string])
		go watchBlocked(conn.NotifyBlocked(make(chan amqp.Blocking, 1)), p.blocked)
	}
	if err := taken(p.blocked); err != nil {
		return nil, err
	}
	// A broker that hangs would keep the turn from all others: its connection ends then. Not with ctx, for others publish over it.
	conn := p.conn
	hanging := time.AfterFunc(openTime, func() { _ = conn.CloseDeadline(time.Now()) })
	defer hanging.Stop()
	ch, err := conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("open a channel: %w", err)
	}
	if err := ch.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirmations: %w", err)
	}
	return &amqpChannel{
		Channel: ch, blocked: p.blocked,
		returned: ch.NotifyReturn(make(chan amqp.Return, 1)),
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
	}, nil
}

func (p *amqpPool) dial(ctx context.Context) (*amqp.Connection, error) {
	uri, err := amqp.ParseURI(p.cfg.URL)
	if err != nil {
		return nil, errors.New("handlers.amqp.url does not parse")
	}
	auth, err := p.cfg.credentials(uri)
	if err != nil {
		return nil, err
	}
	config := amqp.Config{
		SASL: []amqp.Authentication{auth}, Vhost: uri.Vhost, Heartbeat: 10 * time.Second, Locale: "en_US",
		Properties: amqp.NewConnectionProperties(),
	}
	config.Properties.SetClientConnectionName("bellhop amqp:publish")
	if uri.Scheme == "amqps" {
		config.TLSClientConfig = p.tls.Clone()
		if config.TLSClientConfig.ServerName == "" {
			config.TLSClientConfig.ServerName = uri.Host
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
	// Without who logs in: what is wrong with the address may be told.
	plain := amqp.URI{Scheme: uri.Scheme, Host: uri.Host, Port: uri.Port, Vhost: uri.Vhost}
	conn, err := amqp.DialConfig(plain.String(), config)
	if !release() && err == nil {
		err = ctx.Err()
		_ = conn.CloseDeadline(time.Now())
	}
	return conn, err
}

// taken fails if the broker has said that it takes nothing. What is written all the same waits on the way, and is taken later: once for
// each attempt.
func taken(blocked *atomic.Pointer[string]) error {
	if reason := blocked.Load(); reason != nil {
		return fmt.Errorf("the broker takes no messages: %s; free memory or disk there", *reason)
	}
	return nil
}

// watchBlocked ends with the connection.
func watchBlocked(changes <-chan amqp.Blocking, reason *atomic.Pointer[string]) {
	for b := range changes {
		if b.Active {
			reason.Store(&b.Reason)
		} else {
			reason.Store(nil)
		}
	}
}

func (p *amqpPool) close() {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.conn != nil {
		_ = p.conn.CloseDeadline(time.Now().Add(time.Second))
	}
}
