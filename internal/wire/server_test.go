package wire_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
)

// decoded reads data as asynq's own description of the record says.
func decoded(t *rapid.T, name protoreflect.FullName, data []byte) (get func(protoreflect.Name) protoreflect.Value) {
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		t.Fatalf("%s is not registered: %v", name, err)
	}
	m := dynamicpb.NewMessage(d.(protoreflect.MessageDescriptor))
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatalf("asynq can't read %s: %v", name, err)
	}
	if len(m.GetUnknown()) > 0 {
		t.Fatalf("%s has fields that asynq does not know: %x", name, m.GetUnknown())
	}
	return func(field protoreflect.Name) protoreflect.Value { return m.Get(m.Descriptor().Fields().ByName(field)) }
}

func timeOf(v protoreflect.Value) time.Time {
	m := v.Message()
	fields := m.Descriptor().Fields()
	return time.Unix(m.Get(fields.ByName("seconds")).Int(), m.Get(fields.ByName("nanos")).Int())
}

func drawTime(t *rapid.T, label string) time.Time {
	return time.Unix(rapid.Int64Range(-1<<35, 1<<35).Draw(t, label), rapid.Int64Range(0, 1e9-1).Draw(t, label+" ns"))
}

func TestServerInfoIsAsynqs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := wire.ServerInfo{
			Host: rapid.String().Draw(t, "host"), PID: int(rapid.Int32().Draw(t, "pid")), ServerID: rapid.String().Draw(t, "id"),
			Concurrency: int(rapid.Int32().Draw(t, "concurrency")), StrictPriority: rapid.Bool().Draw(t, "strict"),
			Queues: rapid.MapOf(rapid.String(), rapid.IntRange(0, 1<<30)).Draw(t, "queues"),
			Status: rapid.String().Draw(t, "status"), Started: drawTime(t, "started"),
			ActiveWorkers: int(rapid.Int32().Draw(t, "active")),
		}
		data, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		get := decoded(t, "asynq.ServerInfo", data)
		got := wire.ServerInfo{
			Host: get("host").String(), PID: int(get("pid").Int()), ServerID: get("server_id").String(),
			Concurrency: int(get("concurrency").Int()), StrictPriority: get("strict_priority").Bool(), Queues: map[string]int{},
			Status: get("status").String(), Started: timeOf(get("start_time")), ActiveWorkers: int(get("active_worker_count").Int()),
		}
		get("queues").Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			got.Queues[k.String()] = int(v.Int())
			return true
		})
		if diff := cmp.Diff(s, got); diff != "" {
			t.Errorf("asynq reads another server (-ours +theirs):\n%s", diff)
		}
	})
}

func TestWorkerInfoIsAsynqs(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := wire.WorkerInfo{
			Host: rapid.String().Draw(t, "host"), PID: int(rapid.Int32().Draw(t, "pid")), ServerID: rapid.String().Draw(t, "server"),
			ID: rapid.String().Draw(t, "id"), Type: rapid.String().Draw(t, "type"), Queue: rapid.String().Draw(t, "queue"),
			Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"), Started: drawTime(t, "started"), Deadline: drawTime(t, "deadline"),
		}
		data, err := w.Encode()
		if err != nil {
			t.Fatal(err)
		}
		get := decoded(t, "asynq.WorkerInfo", data)
		got := wire.WorkerInfo{
			Host: get("host").String(), PID: int(get("pid").Int()), ServerID: get("server_id").String(),
			ID: get("task_id").String(), Type: get("task_type").String(), Queue: get("queue").String(),
			Payload: append([]byte{}, get("task_payload").Bytes()...), Started: timeOf(get("start_time")), Deadline: timeOf(get("deadline")),
		}
		if diff := cmp.Diff(w, got); diff != "" {
			t.Errorf("asynq reads another job (-ours +theirs):\n%s", diff)
		}
	})
}

// A stock server's record, read by the stock inspector and written by us, is byte for byte the same.
func TestServerRecordIsTheSameBytes(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	server := asynq.NewServerFromRedisClient(rdb, asynq.Config{Concurrency: 3, Queues: map[string]int{"mail": 2}, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	inspector := asynq.NewInspectorFromRedisClient(rdb)
	var listed []*asynq.ServerInfo
	for end := time.Now().Add(20 * time.Second); len(listed) == 0; listed, _ = inspector.Servers() {
		if time.Now().After(end) {
			t.Fatal("the stock server does not list itself")
		}
		<-time.After(5 * time.Millisecond)
	}
	s := listed[0]
	ours := wire.ServerInfo{
		Host: s.Host, PID: s.PID, ServerID: s.ID, Concurrency: s.Concurrency, Queues: s.Queues,
		StrictPriority: s.StrictPriority, Status: s.Status, Started: s.Started,
	}
	key, _ := ours.Keys()
	theirs, err := rdb.Get(t.Context(), key).Bytes()
	if err != nil {
		t.Fatalf("its key is not %s: %v", key, err)
	}
	data, err := ours.Encode()
	if err != nil || string(data) != string(theirs) {
		t.Errorf("%v\nours   %x\ntheirs %x", err, data, theirs)
	}
}

func TestServerRecordRefusesBadText(t *testing.T) {
	t.Parallel()
	if _, err := (&wire.ServerInfo{Host: "\xff"}).Encode(); err == nil {
		t.Error("a server is taken that asynq can't read")
	}
	if _, err := (&wire.WorkerInfo{Type: "\xff"}).Encode(); err == nil {
		t.Error("a job is taken that asynq can't read")
	}
}
