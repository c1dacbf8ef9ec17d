package rabbitmq

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// Mapping says what event a message becomes that is no CloudEvent. Each field is a text in which ${...} stands for a part of the
// message: routing_key, exchange, queue, header.NAME, and the properties message_id, type, app_id, correlation_id, reply_to and
// user_id. Of alternatives, ${type|routing_key}, the first that is not empty holds. In ID, content and random are names too.
type Mapping struct {
	// Type of the event. Default "${type|routing_key}"; where that is empty, "rabbitmq.message".
	Type string `mapstructure:"type"`
	// Source of the event. Default "/rabbitmq/" and the queue.
	Source string `mapstructure:"source"`
	// Subject of the event. Default "${routing_key}".
	Subject string `mapstructure:"subject"`
	// ID of the event, unique within the source. Default "${message_id|content}".
	//
	// A message needs the same id whenever it is delivered, or a redelivery is a second event: producers should set message_id.
	// For those that don't, content is a digest of the body, the routing key, the headers and properties. Two messages that are
	// equal in all of it are told apart as long as the broker says that neither was delivered before; after a crash that came
	// between the two they count as one. With random instead of content, every delivery is an event of its own.
	ID string `mapstructure:"id"`
}

// DefaultType is the type of an event whose message has neither a type nor a routing key.
const DefaultType = "rabbitmq.message"

func (m Mapping) withDefaults(queue string) Mapping {
	m.Type = cmp.Or(m.Type, "${type|routing_key}")
	m.Source = cmp.Or(m.Source, "/rabbitmq/"+url.PathEscape(queue))
	m.Subject = cmp.Or(m.Subject, "${routing_key}")
	m.ID = cmp.Or(m.ID, "${message_id|content}")
	return m
}

func (m Mapping) faults() []error {
	_, err := m.compile()
	return unjoin(err)
}

func unjoin(err error) []error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return nil
}

// The names that templates know, beside header.NAME.
const (
	headerPrefix = "header."
	contentName  = "content"
	randomName   = "random"
)

var parts = map[string]func(m *message, queue string) string{
	"routing_key":    func(m *message, _ string) string { return m.RoutingKey },
	"exchange":       func(m *message, _ string) string { return m.Exchange },
	"queue":          func(_ *message, queue string) string { return queue },
	"message_id":     func(m *message, _ string) string { return m.MessageId },
	"type":           func(m *message, _ string) string { return m.Type },
	"app_id":         func(m *message, _ string) string { return m.AppId },
	"correlation_id": func(m *message, _ string) string { return m.CorrelationId },
	"reply_to":       func(m *message, _ string) string { return m.ReplyTo },
	"user_id":        func(m *message, _ string) string { return m.UserId },
}

type compiledMapping struct{ typ, source, subject, id template }

func (m Mapping) compile() (compiledMapping, error) {
	var c compiledMapping
	var faults []error
	compile := func(name, text string, extra ...string) (t template) {
		t, err := parseTemplate(text, extra...)
		if err != nil {
			faults = append(faults, fmt.Errorf("mapping.%s: %w", name, err))
		}
		return t
	}
	c.typ = compile("type", m.Type)
	c.source = compile("source", m.Source)
	c.subject = compile("subject", m.Subject)
	c.id = compile("id", m.ID, contentName, randomName)
	return c, errors.Join(faults...)
}

// template is literal text and lists of alternatives, in turn: text, list, text, ...
type template struct {
	texts        []string
	alternatives [][]string
}

func parseTemplate(s string, extra ...string) (template, error) {
	var t template
	for {
		before, rest, found := strings.Cut(s, "${")
		t.texts = append(t.texts, before)
		if !found {
			return t, nil
		}
		inner, after, closed := strings.Cut(rest, "}")
		if !closed {
			return t, fmt.Errorf("%q opens ${ and never closes it", s)
		}
		names := strings.Split(inner, "|")
		for i, name := range names {
			names[i] = strings.TrimSpace(name)
			if err := checkName(names[i], extra); err != nil {
				return t, err
			}
		}
		t.alternatives = append(t.alternatives, names)
		s = after
	}
}

func checkName(name string, extra []string) error {
	if header, is := strings.CutPrefix(name, headerPrefix); is && header != "" {
		return nil
	}
	known := append([]string{headerPrefix + "NAME"}, extra...)
	for k := range parts {
		known = append(known, k)
	}
	slices.Sort(known)
	if slices.Contains(known, name) && name != headerPrefix+"NAME" {
		return nil
	}
	return fmt.Errorf("${%s} is not known%s; known are %s", name, suggest.DidYouMean(name, known), strings.Join(known, ", "))
}

// fill returns the text for a message, and whether a derived id went into it.
func (t template) fill(m *message, queue string) (text string, derived bool) {
	var b strings.Builder
	for i, literal := range t.texts {
		b.WriteString(literal)
		if i == len(t.alternatives) {
			break
		}
		for _, name := range t.alternatives[i] {
			var value string
			switch name {
			case contentName:
				value, derived = m.digest(), true
			case randomName:
				value = randomID()
			default:
				if header, is := strings.CutPrefix(name, headerPrefix); is {
					value, _ = attribute(m.Headers[header])
				} else {
					value = parts[name](m, queue)
				}
			}
			if value != "" {
				b.WriteString(value)
				break
			}
		}
	}
	return b.String(), derived
}
