package job

import (
	"maps"
	"strings"
	"time"
)

// Headers that bellhop adds to asynq's message. Stock workers pass them on and don't mind.
const (
	headerPrefix      = "bellhop-"
	headerTimeout     = headerPrefix + "timeout"  // a duration; asynq's field has whole seconds
	headerDeadline    = headerPrefix + "deadline" // RFC 3339; asynq's field has whole seconds
	headerEventID     = headerPrefix + "event-id"
	headerEventSource = headerPrefix + "event-source"
	headerEventType   = headerPrefix + "event-type"
	headerTrigger     = headerPrefix + "trigger"
	headerGroup       = headerPrefix + "trigger-group" // only of a group other than the default one
	headerStreamID    = headerPrefix + "stream-id"
)

type header struct{ key, value string }

func (e Event) headers() []header {
	headers := []header{
		{headerEventID, e.ID},
		{headerEventSource, e.Source},
		{headerEventType, e.Type},
		{headerTrigger, e.Trigger},
		{headerStreamID, e.StreamID},
	}
	if e.Group != "" {
		headers = append(headers, header{headerGroup, e.Group})
	}
	return headers
}

// Limits are the exact times of an attempt, where asynq's message has rounded ones. Zero means that the message's hold.
type Limits struct {
	Timeout  time.Duration
	Deadline time.Time
}

// Open splits a message's headers into the user's, the event that led to the job, and its exact limits.
func Open(headers map[string]string) (user map[string]string, event *Event, limits Limits) {
	if len(headers) == 0 {
		return headers, nil, limits
	}
	if id, ok := headers[headerEventID]; ok {
		event = &Event{
			ID: id, Source: headers[headerEventSource], Type: headers[headerEventType],
			Trigger: headers[headerTrigger], Group: headers[headerGroup], StreamID: headers[headerStreamID],
		}
		event.StoredAt, _ = storedAt(event.StreamID) // zero where the header is none of ours
	}
	if text, ok := headers[headerTimeout]; ok {
		if d, err := time.ParseDuration(text); err == nil && d > 0 {
			limits.Timeout = d
		}
	}
	if text, ok := headers[headerDeadline]; ok {
		if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
			limits.Deadline = t
		}
	}
	user = headers
	for k := range headers {
		if strings.HasPrefix(k, headerPrefix) {
			user = maps.Clone(headers)
			maps.DeleteFunc(user, func(k, _ string) bool { return strings.HasPrefix(k, headerPrefix) })
			break
		}
	}
	return user, event, limits
}
