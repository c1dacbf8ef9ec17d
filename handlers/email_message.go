package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/mail"
	"slices"
	"strings"

	gomail "github.com/wneessen/go-mail"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// maxRecipients is what every SMTP server takes (RFC 5321, 4.5.3.1.8).
const maxRecipients = 100

// email is a message made ready: the envelope and what is in it.
type email struct {
	id         string // Message-ID, without its angle brackets
	from       string
	recipients []string
	content    *gomail.Msg
}

// newEmail checks the payload. Its errors are all final, and quote nothing of it.
func newEmail(ctx context.Context, cfg EmailConfig, p tasks.Email) (*email, error) {
	m := &email{content: gomail.NewMsg()}
	if p.Text == "" && p.HTML == "" {
		return nil, errors.New("the message is empty: give text, html or both")
	}
	if err := m.address(cfg, p); err != nil {
		return nil, err
	}
	if !isLine(p.Subject) {
		return nil, errors.New("subject: has a line break or another control character")
	}
	if err := m.setHeaders(p.Headers); err != nil {
		return nil, err
	}
	key, err := job.IdempotencyKey(ctx, "email")
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(key))
	m.id = hex.EncodeToString(sum[:16]) + m.from[strings.LastIndexByte(m.from, '@'):]
	m.content.SetMessageIDWithValue(m.id)
	m.content.SetDate()
	m.content.Subject(p.Subject)
	if p.Text == "" {
		m.content.SetBodyString(gomail.TypeTextHTML, p.HTML)
	} else {
		m.content.SetBodyString(gomail.TypeTextPlain, p.Text)
		if p.HTML != "" {
			m.content.AddAlternativeString(gomail.TypeTextHTML, p.HTML)
		}
	}
	return m, nil
}

func (m *email) address(cfg EmailConfig, p tasks.Email) error {
	from := p.From
	if from == "" {
		from = cfg.From
	}
	if from == "" {
		return errors.New("from: is not given, and handlers.email.from is not set")
	}
	sender, err := parseAddress(from)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	m.from = sender.Address
	m.content.FromMailAddress(sender)
	for _, field := range []struct {
		name  string
		texts []string
		set   func(...*mail.Address)
	}{
		{"to", p.To, m.content.ToMailAddress}, {"cc", p.Cc, m.content.CcMailAddress}, {"bcc", p.Bcc, m.content.BccMailAddress},
	} {
		var list []*mail.Address
		for i, text := range field.texts {
			a, err := parseAddress(text)
			if err != nil {
				return fmt.Errorf("%s[%d]: %w", field.name, i, err)
			}
			list = append(list, a)
			if !slices.Contains(m.recipients, a.Address) {
				m.recipients = append(m.recipients, a.Address)
			}
		}
		if len(list) > 0 {
			field.set(list...)
		}
	}
	switch n := len(m.recipients); {
	case n == 0:
		return errors.New("to: is empty, name a recipient")
	case n > maxRecipients:
		return fmt.Errorf("to, cc and bcc name %d recipients, at most %d are allowed: enqueue several jobs", n, maxRecipients)
	}
	if p.ReplyTo != "" {
		a, err := parseAddress(p.ReplyTo)
		if err != nil {
			return fmt.Errorf("reply_to: %w", err)
		}
		m.content.ReplyToMailAddress(a)
	}
	return nil
}

// ownHeaders are set by the message itself, or by the servers on its way.
var ownHeaders = []string{
	"from", "sender", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "mime-version", "return-path", "received",
	"dkim-signature", "authentication-results",
}

func (m *email) setHeaders(headers map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		lower := strings.ToLower(name)
		switch {
		case !isFieldName(name) || !isLine(headers[name]):
			return fmt.Errorf("headers: %.40q has a name or value that no header may have, such as a space in the name or a line break", name)
		case slices.Contains(ownHeaders, lower), strings.HasPrefix(lower, "content-"), strings.HasPrefix(lower, "resent-"):
			return fmt.Errorf("headers: %.40q can't be set here: addresses and subject have fields of their own, the rest is set with each message", name)
		}
		m.content.SetGenHeader(gomail.Header(name), headers[name])
	}
	return nil
}

func isFieldName(s string) bool {
	return s != "" && len(s) <= 76 && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) < 0
}

func isLine(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}
