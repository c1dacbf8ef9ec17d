package handlers

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/textproto"
	"os"
	"slices"
	"strings"

	"github.com/wneessen/go-mail/smtp"
)

// smtpSession is a connection on which the server has let us in.
type smtpSession struct{ client *smtp.Client }

// greet says hello, encrypts the connection and logs in. Whatever fails on the way is a fault of the server or of the configuration, not
// of the message.
func (h *Email) greet(conn net.Conn) (*smtpSession, error) {
	client, err := smtp.NewClient(conn, h.cfg.Host)
	if err != nil {
		return nil, beforeMessage("greet", err)
	}
	if err := client.Hello(h.cfg.Hello); err != nil {
		return nil, beforeMessage("hello", err)
	}
	if h.cfg.TLS == tlsStartTLS {
		if offered, _ := client.Extension("STARTTLS"); !offered {
			return nil, errors.New("the server does not offer STARTTLS, and nothing is sent in plain text: set handlers.email.tls to implicit if the port speaks TLS at once")
		}
		if err := client.StartTLS(h.tls); err != nil {
			return nil, beforeMessage("starttls", err)
		}
	}
	if h.cfg.Username == "" {
		return &smtpSession{client}, nil
	}
	auth, err := h.auth(client)
	if err != nil {
		return nil, err
	}
	if err := client.Auth(auth); err != nil {
		return nil, beforeMessage("log in", err)
	}
	return &smtpSession{client}, nil
}

// auth takes the strongest that the server offers. All of them are inside of TLS, or on this machine.
func (h *Email) auth(client *smtp.Client) (smtp.Auth, error) {
	_, offered := client.Extension("AUTH")
	mechanisms := strings.Fields(strings.ToUpper(offered))
	user, password := h.cfg.Username, h.cfg.Password
	switch {
	case slices.Contains(mechanisms, "SCRAM-SHA-256"):
		return smtp.ScramSHA256Auth(user, password), nil
	case slices.Contains(mechanisms, "PLAIN"):
		return smtp.PlainAuth("", user, password, h.cfg.Host, isLocal(h.cfg.Host)), nil
	case slices.Contains(mechanisms, "LOGIN"):
		return smtp.LoginAuth(user, password, h.cfg.Host, isLocal(h.cfg.Host)), nil
	case slices.Contains(mechanisms, "CRAM-MD5"):
		return smtp.CRAMMD5Auth(user, password), nil
	}
	return nil, fmt.Errorf("the server offers no way to log in that is known here (SCRAM-SHA-256, PLAIN, LOGIN, CRAM-MD5) but %.60q", offered)
}

// errNoLastWord tells that the server said nothing to a message that it was sent.
var errNoLastWord = errors.New("no answer for the message")

// send hands the message over and returns what the server said to it. It asks ending just before the end of the message goes out, from
// where on the server may have it.
func (s *smtpSession) send(m *email, ending func() error) (said string, err error) {
	if err := s.client.Mail(bracketed(m.from)); err != nil {
		return "", refusal("sender", "", err)
	}
	if err := s.recipients(m.recipients); err != nil {
		_ = s.client.Quit()
		return "", err
	}
	w, err := s.client.Data()
	if err != nil {
		return "", refusal("message", "", err)
	}
	if _, err := m.content.WriteTo(w); err != nil {
		return "", fmt.Errorf("send the message: %w", err) // half of it, without the dot at its end: the server drops it
	}
	if err := ending(); err != nil {
		return "", fmt.Errorf("send the message: %w", err)
	}
	if err := w.Close(); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "", errNoLastWord
		}
		return "", refusal("message", "", err)
	}
	if d, ok := w.(*smtp.DataCloser); ok {
		said = d.ServerResponse()
	}
	_ = s.client.Quit() // the message is theirs
	return said, nil
}

// recipients asks for each, so that the error names all that are refused.
func (s *smtpSession) recipients(all []string) error {
	var refused *smtpRefusalError
	for _, address := range all {
		err := s.client.Rcpt(bracketed(address))
		if err == nil {
			continue
		}
		var one *smtpRefusalError
		if !errors.As(refusal("recipient", address, err), &one) {
			return fmt.Errorf("name the recipients: %w", err) // the connection is gone
		}
		if refused == nil {
			refused = one
		} else {
			refused.words = append(refused.words, one.words...)
		}
	}
	if refused != nil {
		return refused
	}
	return nil
}

func bracketed(address string) string { return (&mail.Address{Address: address}).String() }

// smtpRefusalError is a server's no to a sender, to recipients or to a message.
type smtpRefusalError struct {
	what  string
	words []smtpWords
}

type smtpWords struct {
	recipient string
	code      int
	text      string
}

// refusal is what a server's answer to a part of a message means; another error stays as it is.
func refusal(what, recipient string, err error) error {
	var answer *textproto.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("send the message: %w", err)
	}
	return &smtpRefusalError{what: what, words: []smtpWords{{recipient, answer.Code, answer.Msg}}}
}

func (e *smtpRefusalError) Error() string { return e.tell(func(s string) string { return s }) }

// tell says it, with the server's texts as clean makes them.
func (e *smtpRefusalError) tell(clean func(string) string) string {
	parts := make([]string, len(e.words))
	for i, w := range e.words {
		parts[i] = fmt.Sprintf("%d %s", w.code, clean(w.text))
		if w.recipient != "" {
			parts[i] = w.recipient + ": " + parts[i]
		}
	}
	text := fmt.Sprintf("the %s is refused: %s", e.what, strings.Join(parts, "; "))
	if e.what == "recipient" {
		text += " (the message was sent to nobody)"
	}
	return text
}

// final tells that one of the words is a 5xx: the message can't go to all of its recipients any more.
func (e *smtpRefusalError) final() bool {
	return slices.ContainsFunc(e.words, func(w smtpWords) bool { return w.code/100 == 5 })
}

// beforeMessage names the step; its code says nothing about the message, and is told as text.
func beforeMessage(step string, err error) error {
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		return fmt.Errorf("%s: %d %s", step, answer.Code, answer.Msg)
	}
	return fmt.Errorf("%s: %w", step, err)
}
