package handlers

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// lastWord is how long the server may think about a message that it has wholly: whoever hangs up meanwhile sends it twice.
const lastWord = time.Minute

// Email runs email:send.
type Email struct {
	cfg      EmailConfig
	tls      *tls.Config
	lastWord time.Duration
}

// NewEmail returns a handler that opens a connection for each message; it fails if cfg does not validate, or its CAFile can't be read.
func NewEmail(cfg EmailConfig) (*Email, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("email:send: %w", err)
	}
	cfg = cfg.WithDefaults()
	trust, err := cfg.tlsConfig()
	if err != nil {
		return nil, fmt.Errorf("email:send: %w", err)
	}
	return &Email{cfg: cfg, tls: trust, lastWord: lastWord}, nil
}

// Send hands one message to the server. Once that has the message it is answerable for it, and the job is done. If its word for that is
// lost, the message goes out again, with the same Message-ID. A message goes to all of its recipients or, if the server refuses one of
// them, to none; the error names it. A 5xx for the sender, a recipient or the message is final; all else is tried again.
func (h *Email) Send(ctx context.Context, p tasks.Email) error {
	if h.cfg.Host == "" {
		return errors.New("handlers.email.host is not set in this worker: set it, or let another worker serve email:send")
	}
	m, err := newEmail(ctx, h.cfg, p)
	if err != nil {
		return job.Discard(err.Error())
	}
	during, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	said, err := h.deliver(during, m)
	if err != nil {
		return h.outcome(ctx, during, p, err)
	}
	j, ok := job.FromContext(ctx)
	if !ok {
		return nil
	}
	return j.SetResult(tasks.EmailSent{
		MessageID: "<" + m.id + ">", Recipients: len(m.recipients), Answer: h.secrets(p).mask(said, maxExcerpt),
	})
}

func (h *Email) deliver(ctx context.Context, m *email) (said string, err error) {
	conn, err := h.dial(ctx)
	if err != nil {
		return "", fmt.Errorf("connect: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the server has said its last word
	// A server that says nothing must not outlast the job: the end of ctx ends every read and write.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	s, err := h.greet(conn)
	if err != nil {
		return "", err
	}
	return s.send(m, func() error {
		// Neither the attempt's time nor a stop of the job ends the wait for the server's word.
		if !stop() {
			return ctx.Err()
		}
		return conn.SetDeadline(time.Now().Add(h.lastWord))
	})
}

func (h *Email) dial(ctx context.Context) (net.Conn, error) {
	address := net.JoinHostPort(h.cfg.Host, strconv.Itoa(h.cfg.Port))
	if h.cfg.TLS == tlsImplicit {
		return (&tls.Dialer{Config: h.tls}).DialContext(ctx, "tcp", address)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// outcome is how the job goes on. It tells the server's words, without what it may have been told.
func (h *Email) outcome(ctx, during context.Context, p tasks.Email, err error) error {
	told := "smtp " + net.JoinHostPort(h.cfg.Host, strconv.Itoa(h.cfg.Port))
	var refused *smtpRefusalError
	switch {
	case errors.As(err, &refused):
		text := told + ": " + refused.tell(func(s string) string { return h.secrets(p).mask(s, maxExcerpt) })
		if refused.final() {
			return job.Discard(text)
		}
		return errors.New(text)
	case errors.Is(err, errNoLastWord):
		return fmt.Errorf("%s: the server did not answer for the message within %v: it may have it", told, h.lastWord)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: the job was stopped: %w", told, ctx.Err())
	case during.Err() != nil:
		return fmt.Errorf("%s: no whole exchange within %v: %w", told, h.cfg.Timeout, during.Err())
	}
	return fmt.Errorf("%s: %s", told, h.secrets(p).mask(err.Error(), maxExcerpt))
}

func (h *Email) secrets(p tasks.Email) secrets {
	s := newSecrets()
	s.add(h.cfg.Password)
	s.addText(p.Subject)
	s.addText(p.Text)
	s.addText(p.HTML)
	for _, value := range p.Headers {
		s.addText(value)
	}
	return s
}
