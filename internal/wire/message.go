// Package wire knows asynq's layout in Redis: the bytes of a message and the names of the keys.
//
// It is a second, dependency-free writing of what asynq v0.26.0 stores, so that bellhop's scripts can share queues with
// every stock asynq producer, worker and tool. Tests hold it against asynq itself, both ways.
package wire

import (
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message is what asynq stores in the `msg` field of a job's hash. Times are Unix seconds, zero means "not set".
type Message struct {
	Type    string
	Payload []byte
	Headers map[string]string

	ID    string
	Queue string

	Retry   int // the most retries that the job may take
	Retried int // the retries taken so far

	ErrorMsg     string // of the last failure
	LastFailedAt int64

	Timeout  int64 // seconds that one attempt may take
	Deadline int64 // no attempt goes on after it

	UniqueKey string // the lock that the job holds, a key
	GroupKey  string // the group that the job waits in

	Retention   int64 // seconds that a completed job is kept
	CompletedAt int64
}

// Field numbers of asynq's TaskMessage (internal/proto/asynq.proto).
const (
	fieldType         = 1
	fieldPayload      = 2
	fieldID           = 3
	fieldQueue        = 4
	fieldRetry        = 5
	fieldRetried      = 6
	fieldErrorMsg     = 7
	fieldTimeout      = 8
	fieldDeadline     = 9
	fieldUniqueKey    = 10
	fieldLastFailedAt = 11
	fieldRetention    = 12
	fieldCompletedAt  = 13
	fieldGroupKey     = 14
	fieldHeaders      = 15

	mapKey   = 1
	mapValue = 2
)

// ErrNotUTF8 tells that a text field would make a message that stock asynq can't decode.
var ErrNotUTF8 = errors.New("text is not valid UTF-8")

// Encode returns the message as asynq writes it. It fails with ErrNotUTF8 where proto3 would refuse the text.
func (m *Message) Encode() ([]byte, error) {
	return m.AppendTo(make([]byte, 0, m.sizeHint()))
}

// AppendTo is Encode behind what b holds.
func (m *Message) AppendTo(b []byte) ([]byte, error) {
	for _, f := range [...]struct{ name, text string }{
		{"task", m.Type}, {"id", m.ID}, {"queue", m.Queue}, {"error", m.ErrorMsg}, {"unique key", m.UniqueKey}, {"group", m.GroupKey},
	} {
		if !utf8.ValidString(f.text) {
			return nil, fmt.Errorf("encode message: %s: %w", f.name, ErrNotUTF8)
		}
	}
	for k, v := range m.Headers {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("encode message: header %q: %w", k, ErrNotUTF8)
		}
	}
	return m.append(b), nil
}

func (m *Message) sizeHint() int {
	n := 96 + len(m.Type) + len(m.Payload) + len(m.ID) + len(m.Queue) + len(m.ErrorMsg) + len(m.UniqueKey) + len(m.GroupKey)
	for k, v := range m.Headers {
		n += len(k) + len(v) + 8
	}
	return n
}

func (m *Message) append(b []byte) []byte {
	b = appendString(b, fieldType, m.Type)
	if len(m.Payload) > 0 {
		b = protowire.AppendTag(b, fieldPayload, protowire.BytesType)
		b = protowire.AppendBytes(b, m.Payload)
	}
	b = appendString(b, fieldID, m.ID)
	b = appendString(b, fieldQueue, m.Queue)
	b = appendInt(b, fieldRetry, int64(m.Retry))
	b = appendInt(b, fieldRetried, int64(m.Retried))
	b = appendString(b, fieldErrorMsg, m.ErrorMsg)
	b = appendInt(b, fieldTimeout, m.Timeout)
	b = appendInt(b, fieldDeadline, m.Deadline)
	b = appendString(b, fieldUniqueKey, m.UniqueKey)
	b = appendInt(b, fieldLastFailedAt, m.LastFailedAt)
	b = appendInt(b, fieldRetention, m.Retention)
	b = appendInt(b, fieldCompletedAt, m.CompletedAt)
	b = appendString(b, fieldGroupKey, m.GroupKey)
	for k, v := range m.Headers {
		entry := protowire.SizeTag(mapKey) + protowire.SizeBytes(len(k)) + protowire.SizeTag(mapValue) + protowire.SizeBytes(len(v))
		b = protowire.AppendTag(b, fieldHeaders, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(entry))
		b = protowire.AppendTag(b, mapKey, protowire.BytesType)
		b = protowire.AppendString(b, k)
		b = protowire.AppendTag(b, mapValue, protowire.BytesType)
		b = protowire.AppendString(b, v)
	}
	return b
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func appendInt(b []byte, field protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}

// Decode reads a message that asynq or bellhop wrote. The result owns its memory. Unknown fields are skipped.
func Decode(data []byte) (*Message, error) {
	m := new(Message)
	if err := m.Read(string(data)); err != nil {
		return nil, err
	}
	return m, nil
}

// Read decodes into an empty message. Its texts are parts of data.
func (m *Message) Read(text string) error {
	data := unsafe.Slice(unsafe.StringData(text), len(text)) //nolint:gosec // nobody writes to it; its parts become texts again
	for len(data) > 0 {
		field, typ, n := consumeTag(data)
		if n < 0 {
			return fmt.Errorf("decode message: %w", protowire.ParseError(n))
		}
		data = data[n:]
		n, err := m.consume(field, typ, data)
		if err != nil {
			return fmt.Errorf("decode message: field %d: %w", field, err)
		}
		data = data[n:]
	}
	return nil
}

// part is a text that is a part of Read's.
func part(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) //nolint:gosec // see Read
}

// consumeTag refuses the field numbers that proto refuses and protowire lets pass.
func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	field, typ, n := protowire.ConsumeTag(b)
	if n > 0 && field > protowire.MaxValidNumber {
		return 0, 0, invalidField
	}
	return field, typ, n
}

// invalidField is protowire's own (unnamed) code for a field number out of range.
const invalidField = -2

func (m *Message) consume(field protowire.Number, typ protowire.Type, data []byte) (int, error) {
	if text := m.text(field); text != nil && typ == protowire.BytesType {
		s, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		if !utf8.Valid(s) {
			return 0, ErrNotUTF8
		}
		*text = part(s)
		return n, nil
	}
	if number := m.number(field); number != nil && typ == protowire.VarintType {
		v, n := protowire.ConsumeVarint(data)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		*number = int64(v)
		return n, nil
	}
	switch {
	case field == fieldRetry && typ == protowire.VarintType:
		return consumeInt32(data, &m.Retry)
	case field == fieldRetried && typ == protowire.VarintType:
		return consumeInt32(data, &m.Retried)
	case field == fieldPayload && typ == protowire.BytesType:
		p, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		m.Payload = append([]byte(nil), p...)
		return n, nil
	case field == fieldHeaders && typ == protowire.BytesType:
		entry, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		return n, m.header(entry)
	}
	n := protowire.ConsumeFieldValue(field, typ, data)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	return n, nil
}

func (m *Message) text(field protowire.Number) *string {
	switch field {
	case fieldType:
		return &m.Type
	case fieldID:
		return &m.ID
	case fieldQueue:
		return &m.Queue
	case fieldErrorMsg:
		return &m.ErrorMsg
	case fieldUniqueKey:
		return &m.UniqueKey
	case fieldGroupKey:
		return &m.GroupKey
	}
	return nil
}

func (m *Message) number(field protowire.Number) *int64 {
	switch field {
	case fieldTimeout:
		return &m.Timeout
	case fieldDeadline:
		return &m.Deadline
	case fieldLastFailedAt:
		return &m.LastFailedAt
	case fieldRetention:
		return &m.Retention
	case fieldCompletedAt:
		return &m.CompletedAt
	}
	return nil
}

func consumeInt32(data []byte, to *int) (int, error) {
	v, n := protowire.ConsumeVarint(data)
	if n < 0 {
		return 0, protowire.ParseError(n)
	}
	*to = int(int32(v)) // proto3 int32: the low 32 bits are the value
	return n, nil
}

func (m *Message) header(entry []byte) error {
	var key, value string
	for len(entry) > 0 {
		field, typ, n := consumeTag(entry)
		if n < 0 {
			return protowire.ParseError(n)
		}
		entry = entry[n:]
		if (field == mapKey || field == mapValue) && typ == protowire.BytesType {
			s, n := protowire.ConsumeBytes(entry)
			if n < 0 {
				return protowire.ParseError(n)
			}
			if !utf8.Valid(s) {
				return ErrNotUTF8
			}
			if field == mapKey {
				key = part(s)
			} else {
				value = part(s)
			}
			entry = entry[n:]
			continue
		}
		n = protowire.ConsumeFieldValue(field, typ, entry)
		if n < 0 {
			return protowire.ParseError(n)
		}
		entry = entry[n:]
	}
	if m.Headers == nil {
		m.Headers = make(map[string]string)
	}
	m.Headers[key] = value
	return nil
}
