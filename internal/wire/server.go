package wire

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// ServerInfo is what asynq's list of servers holds of one worker process.
type ServerInfo struct {
	Host           string
	PID            int
	ServerID       string
	Concurrency    int
	Queues         map[string]int // weight by name
	StrictPriority bool
	Status         string
	Started        time.Time
	ActiveWorkers  int // running jobs
}

// Status of a server, as asynq names it.
const (
	StatusActive  = "active"
	StatusStopped = "stopped" // takes no more jobs
)

// WorkerInfo is what asynq's list holds of one running job.
type WorkerInfo struct {
	Host     string
	PID      int
	ServerID string
	ID       string
	Type     string
	Payload  []byte
	Queue    string
	Started  time.Time
	Deadline time.Time
}

// Keys are where a server's own record and its running jobs are stored.
func (s *ServerInfo) Keys() (server, workers string) {
	tag := "{" + s.Host + ":" + strconv.Itoa(s.PID) + ":" + s.ServerID + "}"
	return AllServers + ":" + tag, AllWorkers + ":" + tag
}

// Encode returns the record as asynq writes it.
func (s *ServerInfo) Encode() ([]byte, error) {
	if err := checkText(s.Host, s.ServerID, s.Status); err != nil {
		return nil, fmt.Errorf("encode server: %w", err)
	}
	b := appendString(nil, 1, s.Host)
	b = appendInt(b, 2, int64(s.PID))
	b = appendString(b, 3, s.ServerID)
	b = appendInt(b, 4, int64(s.Concurrency))
	for name, weight := range s.Queues {
		if err := checkText(name); err != nil {
			return nil, fmt.Errorf("encode server: queue: %w", err)
		}
		entry := protowire.AppendTag(nil, mapKey, protowire.BytesType)
		entry = protowire.AppendString(entry, name)
		entry = protowire.AppendTag(entry, mapValue, protowire.VarintType)
		entry = protowire.AppendVarint(entry, uint64(weight))
		b = appendBytes(b, 5, entry)
	}
	if s.StrictPriority {
		b = appendInt(b, 6, 1)
	}
	b = appendString(b, 7, s.Status)
	b = appendTime(b, 8, s.Started)
	return appendInt(b, 9, int64(s.ActiveWorkers)), nil
}

// Encode returns the record as asynq writes it.
func (w *WorkerInfo) Encode() ([]byte, error) {
	if err := checkText(w.Host, w.ServerID, w.ID, w.Type, w.Queue); err != nil {
		return nil, fmt.Errorf("encode running job: %w", err)
	}
	b := appendString(nil, 1, w.Host)
	b = appendInt(b, 2, int64(w.PID))
	b = appendString(b, 3, w.ServerID)
	b = appendString(b, 4, w.ID)
	b = appendString(b, 5, w.Type)
	if len(w.Payload) > 0 {
		b = appendBytes(b, 6, w.Payload)
	}
	b = appendString(b, 7, w.Queue)
	b = appendTime(b, 8, w.Started)
	return appendTime(b, 9, w.Deadline), nil
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, v)
}

// appendTime writes a google.protobuf.Timestamp.
func appendTime(b []byte, field protowire.Number, t time.Time) []byte {
	stamp := appendInt(nil, 1, t.Unix())
	stamp = appendInt(stamp, 2, int64(t.Nanosecond()))
	return appendBytes(b, field, stamp)
}

func checkText(texts ...string) error {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return fmt.Errorf("%q: %w", text, ErrNotUTF8)
		}
	}
	return nil
}
