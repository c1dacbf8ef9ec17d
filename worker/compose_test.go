package worker

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Every state that asynq's client stores a job in is read off its call: this holds compose against asynq itself.
func TestComposeReadsEveryOption(t *testing.T) {
	t.Parallel()
	at := time.Unix(time.Now().Unix()+3600, 0)
	lock := wire.UniqueKey("q", "mail", []byte("p"))
	message := func(change func(*wire.Message)) *wire.Message {
		m := &wire.Message{Type: "mail", Payload: []byte("p"), Headers: map[string]string{"h": "v"}, ID: "id", Queue: "q", Retry: 25, Timeout: 1800}
		change(m)
		return m
	}
	for name, test := range map[string]struct {
		opts []asynq.Option
		want queue.Entry
	}{
		"plain": {nil, queue.Entry{Message: message(func(*wire.Message) {})}},
		"limits": {
			[]asynq.Option{asynq.MaxRetry(3), asynq.Timeout(time.Minute), asynq.Deadline(at), asynq.Retention(time.Hour), asynq.Queue("overruled")},
			queue.Entry{Message: message(func(m *wire.Message) { m.Retry, m.Timeout, m.Deadline, m.Retention = 3, 60, at.Unix(), 3600 })},
		},
		"unique":    {[]asynq.Option{asynq.Unique(time.Hour)}, queue.Entry{Message: message(func(m *wire.Message) { m.UniqueKey = lock }), UniqueFor: time.Hour}},
		"scheduled": {[]asynq.Option{asynq.ProcessAt(at)}, queue.Entry{Message: message(func(*wire.Message) {}), At: at}},
		"scheduled, unique": {
			[]asynq.Option{asynq.ProcessAt(at), asynq.Unique(time.Hour)},
			queue.Entry{Message: message(func(m *wire.Message) { m.UniqueKey = lock }), At: at, UniqueFor: time.Hour},
		},
		"group": {[]asynq.Option{asynq.Group("g")}, queue.Entry{Message: message(func(m *wire.Message) { m.GroupKey = "g" })}},
		"group, unique": {
			[]asynq.Option{asynq.Group("g"), asynq.Unique(time.Hour)},
			queue.Entry{Message: message(func(m *wire.Message) { m.GroupKey, m.UniqueKey = "g", lock }), UniqueFor: time.Hour},
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := asynq.NewTaskWithHeaders("mail", []byte("p"), map[string]string{"h": "v"}, append(test.opts, asynq.TaskID("id"))...)
			got, err := compose(t.Context(), task, asynq.Queue("q"))
			if err != nil {
				t.Fatal(err)
			}
			roughly := cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "UniqueFor" },
				cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() <= 2*time.Second }))
			if diff := cmp.Diff(test.want, got, roughly, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := compose(t.Context(), asynq.NewTask(" ", nil)); err == nil {
		t.Error("a task without a name was composed")
	}
}
