package wire_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	_ "github.com/hibiken/asynq" // registers asynq.TaskMessage, the oracle below
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// oracle is asynq's own description of its message, in the protobuf runtime's hands.
func oracle(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	d, err := protoregistry.GlobalFiles.FindDescriptorByName("asynq.TaskMessage")
	if err != nil {
		t.Fatalf("asynq's message is not registered: %v", err)
	}
	return d.(protoreflect.MessageDescriptor)
}

func toOracle(d protoreflect.MessageDescriptor, m *wire.Message) *dynamicpb.Message {
	p := dynamicpb.NewMessage(d)
	set := func(name protoreflect.Name, v any) {
		p.Set(d.Fields().ByName(name), protoreflect.ValueOf(v))
	}
	set("type", m.Type)
	set("payload", m.Payload)
	set("id", m.ID)
	set("queue", m.Queue)
	set("retry", int32(m.Retry))
	set("retried", int32(m.Retried))
	set("error_msg", m.ErrorMsg)
	set("last_failed_at", m.LastFailedAt)
	set("timeout", m.Timeout)
	set("deadline", m.Deadline)
	set("unique_key", m.UniqueKey)
	set("group_key", m.GroupKey)
	set("retention", m.Retention)
	set("completed_at", m.CompletedAt)
	headers := p.Mutable(d.Fields().ByName("headers")).Map()
	for k, v := range m.Headers {
		headers.Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfString(v))
	}
	return p
}

func drawMessage(t *rapid.T) *wire.Message {
	return &wire.Message{
		Type:         rapid.String().Draw(t, "type"),
		Payload:      rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
		Headers:      rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "headers"),
		ID:           rapid.String().Draw(t, "id"),
		Queue:        rapid.String().Draw(t, "queue"),
		Retry:        int(rapid.Int32().Draw(t, "retry")),
		Retried:      int(rapid.Int32().Draw(t, "retried")),
		ErrorMsg:     rapid.String().Draw(t, "error"),
		LastFailedAt: rapid.Int64().Draw(t, "failed"),
		Timeout:      rapid.Int64().Draw(t, "timeout"),
		Deadline:     rapid.Int64().Draw(t, "deadline"),
		UniqueKey:    rapid.String().Draw(t, "unique"),
		GroupKey:     rapid.String().Draw(t, "group"),
		Retention:    rapid.Int64().Draw(t, "retention"),
		CompletedAt:  rapid.Int64().Draw(t, "completed"),
	}
}

func TestMessageIsAsynqs(t *testing.T) {
	t.Parallel()
	d := oracle(t)
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		want := toOracle(d, m)

		data, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got := dynamicpb.NewMessage(d)
		if err := proto.Unmarshal(data, got); err != nil {
			t.Fatalf("asynq can't decode what we wrote: %v", err)
		}
		if !proto.Equal(got, want) {
			t.Fatalf("asynq reads\n%v\nwe wrote\n%v", got, want)
		}

		theirs, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		back, err := wire.Decode(theirs)
		if err != nil {
			t.Fatalf("we can't decode what asynq wrote: %v", err)
		}
		if diff := cmp.Diff(m, back, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("asynq wrote, we read (-want +got):\n%s", diff)
		}
	})
}

func TestEncodeRefusesWhatAsynqCantRead(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*wire.Message{
		"task":         {Type: "\xff"},
		"error":        {ErrorMsg: "a\xc3"},
		"header key":   {Headers: map[string]string{"\xff": ""}},
		"header value": {Headers: map[string]string{"a": "\xff"}},
	} {
		if _, err := m.Encode(); !errors.Is(err, wire.ErrNotUTF8) {
			t.Errorf("%s: got %v, want ErrNotUTF8", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	seed, err := (&wire.Message{Type: "a", ID: "b", Payload: []byte("{}"), Headers: map[string]string{"k": "v"}, Retry: -1}).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{0x7a, 0x03, 0x0a, 0x01, 0xff})
	d := oracle(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := wire.Decode(data)
		theirs := dynamicpb.NewMessage(d)
		theirErr := proto.Unmarshal(data, theirs)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("we say %v, asynq says %v", err, theirErr)
		}
		if err == nil && !proto.Equal(toOracle(d, m), normalised(d, theirs)) {
			t.Fatalf("we read %+v, asynq reads %v", m, theirs)
		}
	})
}

// normalised drops unknown fields, which we don't keep.
func normalised(d protoreflect.MessageDescriptor, m *dynamicpb.Message) *dynamicpb.Message {
	m.SetUnknown(nil)
	return m
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"default", "mail-high", "team.a/b_c", "é"} {
		if err := wire.CheckQueue(good); err != nil {
			t.Errorf("%q is refused: %v", good, err)
		}
	}
	for _, bad := range []string{"", " ", "a b", "a\nb", "{x}", "a*", "\xff", "\x00", "x}y", string(make([]byte, 300))} {
		for what, check := range map[string]func(string) error{"queue": wire.CheckQueue, "id": wire.CheckID, "task": wire.CheckTask, "group": wire.CheckGroup} {
			if check(bad) == nil {
				t.Errorf("%s %q is taken", what, bad)
			}
		}
	}
}
