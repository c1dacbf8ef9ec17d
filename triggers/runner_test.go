package triggers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bundle struct {
	*Runner
	t      *testing.T
	rdb    redis.UniversalClient
	events *events.Client
}

func setup(t *testing.T, rdb redis.UniversalClient, cfg events.Config, triggers ...Trigger) *bundle {
	t.Helper()
	client, err := events.NewClient(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	runner := NewRunner(compileAll(t, Config{AllowUnknownTasks: true}, triggers...), Deps{
		Jobs: job.NewClient(rdb), Dead: client, Fired: queue.New(rdb),
		Logger: slog.New(slog.DiscardHandler),
	})
	return &bundle{Runner: runner, t: t, rdb: rdb, events: client}
}

// stored publishes events and returns them as they would be delivered.
func (b *bundle) stored(list ...*events.Event) []events.Delivery {
	b.t.Helper()
	published, err := b.events.Publish(b.t.Context(), list...)
	if err != nil {
		b.t.Fatal(err)
	}
	batch := make([]events.Delivery, len(list))
	for i, p := range published {
		batch[i] = events.Delivery{StreamID: p.StreamID, Event: list[i], Attempt: 1}
	}
	return batch
}

func (b *bundle) handled(batch []events.Delivery) {
	b.t.Helper()
	for i, err := range b.Handle(b.t.Context(), batch) {
		if err != nil {
			b.t.Fatalf("event %d: %v", i, err)
		}
	}
}

// jobs are the pending jobs of a queue in order, each as "task payload".
func (b *bundle) jobs(queue string) []string {
	b.t.Helper()
	ids, err := b.rdb.LRange(b.t.Context(), wire.PendingKey(queue), 0, -1).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	list := []string{}
	for i := range ids {
		m := b.job(queue, ids[len(ids)-1-i])
		list = append(list, m.Type+" "+string(m.Payload))
	}
	return list
}

func (b *bundle) job(queue, id string) *wire.Message {
	b.t.Helper()
	text, err := b.rdb.HGet(b.t.Context(), wire.JobKey(queue, id), "msg").Bytes()
	if err != nil {
		b.t.Fatalf("job %s: %v", id, err)
	}
	m, err := wire.Decode(text)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bundle) dead() []events.DeadMatch {
	b.t.Helper()
	list, _, err := b.events.DeadMatches(b.t.Context(), "", 100)
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func numbered(t testing.TB, n int, data string) *events.Event {
	t.Helper()
	return event(t, "com.acme.email.received", data, events.ID(fmt.Sprint("e-", n)))
}

func TestOneEventFiresEveryTriggerThatMatches(t *testing.T) {
	t.Parallel()
	retries := 2
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(
			t, rdb, events.Config{},
			Trigger{Name: "log", On: "com.acme.**", Run: "log:write"},
			Trigger{Name: "no", On: "com.acme.**", When: "event.data.n > 5", Run: "log:write"},
			Trigger{
				Name: "call", On: "com.acme.email.received", When: "event.data.n == 1", Run: "http:request", MaxRetry: &retries, Timeout: time.Minute,
				With: map[string]any{"method": "POST", "url": "http://x/${event.data.n}", "json": "${event.data}"},
			},
			Trigger{Name: "other-queue", On: "**", Run: "any:thing", Queue: "agents", With: "${event.id}", In: time.Hour, Retention: time.Hour},
			Trigger{Name: "other-type", On: "com.acme.email.sent", Run: "log:write"},
			Trigger{Name: "off", On: "**", Run: "log:write", Disabled: true},
		)
		batch := b.stored(numbered(t, 1, `{"n": 1}`), numbered(t, 2, `{"n": 2}`))
		b.handled(batch)
		if diff := cmp.Diff([]string{`log:write {"n": 1}`, `log:write {"n": 2}`}, b.jobs("default")); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{`http:request {"json":{"n":1},"method":"POST","url":"http://x/1"}`}, b.jobs("http")); diff != "" {
			t.Error(diff)
		}
		m := b.job("http", batch[0].StreamID+"-call")
		if m.Retry != 2 || m.Timeout != 60 {
			t.Errorf("options were lost: %+v", m)
		}
		_, from, _ := job.Open(m.Headers)
		at, err := storedAt(batch[0].StreamID)
		if err != nil {
			t.Fatal(err)
		}
		if want := (job.Event{ID: "e-1", Source: "/mail", Type: "com.acme.email.received", Trigger: "call", StreamID: batch[0].StreamID, StoredAt: at}); *from != want {
			t.Errorf("the job comes from %+v, want %+v", *from, want)
		}
		if n := b.rdb.ZCard(t.Context(), wire.ScheduledKey("agents")).Val(); n != 2 {
			t.Errorf("%d delayed jobs, want 2", n)
		}
		want := Stats{Events: 2, Triggers: map[string]TriggerStats{
			"log": {Matches: 2, Jobs: 2}, "no": {}, "call": {Matches: 1, Jobs: 1}, "other-queue": {Matches: 2, Jobs: 2},
		}}
		if diff := cmp.Diff(want, b.Stats()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestARedeliveredEventFiresOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, events.Config{}, Trigger{Name: "log", On: "**", Run: "log:write"})
		batch := b.stored(numbered(t, 1, `{}`), numbered(t, 2, `{}`))
		b.handled(batch)
		b.handled(batch) // the jobs still stand
		if n := len(b.jobs("default")); n != 2 {
			t.Fatalf("%d jobs, want 2", n)
		}
		// The jobs are done and gone, as a worker would leave them; then the event comes again after a crash.
		for _, d := range batch {
			if err := rdb.Del(t.Context(), wire.JobKey("default", d.StreamID+"-log")).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := rdb.Del(t.Context(), wire.PendingKey("default")).Err(); err != nil {
			t.Fatal(err)
		}
		b.handled(batch)
		if jobs := b.jobs("default"); len(jobs) != 0 {
			t.Errorf("finished jobs run again: %v", jobs)
		}
		if got, want := b.Stats().Triggers["log"], (TriggerStats{Matches: 6, Jobs: 2, Duplicates: 4}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}

		// Once the events have left the stream, so do the markers.
		last, err := storedAt(batch[1].StreamID)
		if err != nil {
			t.Fatal(err)
		}
		b.OnTrim(t.Context(), batch[0].StreamID)
		if n := rdb.ZCard(t.Context(), wire.FiredKey("default")).Val(); n != 2 {
			t.Errorf("%d markers, want both: their events still stand", n)
		}
		b.OnTrim(t.Context(), fmt.Sprintf("%d-0", last.UnixMilli()+1))
		b.OnTrim(t.Context(), "0-0")
		if n := rdb.ZCard(t.Context(), wire.FiredKey("default")).Val(); n != 0 {
			t.Errorf("%d markers are left of events that are gone", n)
		}
	})
}

func TestAFailingTriggerLeavesADeadMatchThatCanBeReplayed(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		bad := []Trigger{
			{Name: "bad-filter", On: "**", When: "event.data.n.startsWith('x')", Run: "log:write"},
			{Name: "bad-mapping", On: "**", Run: "log:write", With: map[string]any{"a": "${event.data.missing}"}},
			{Name: "bad-payload", On: "**", Run: "http:request", With: "${event.data}"},
			{Name: "costly", On: "**", When: "event.data.l.all(a, event.data.l.all(b, event.data.l.all(c, true)))", Run: "log:write"},
			{Name: "unknown-task", On: "**", Run: "later:task"},
		}
		good := []Trigger{{Name: "before", On: "**", Run: "log:write"}, {Name: "absent", On: "**", When: "event.data.missing", Run: "log:write"}}
		b := setup(t, rdb, events.Config{}, append(append(good, bad...), Trigger{Name: "after", On: "**", Run: "log:write"})...)
		secret := strings.Repeat("secret", 1000)
		batch := b.stored(numbered(t, 1, `{"n": 1, "secret": "`+secret+`", "l": [`+strings.Repeat("1,", 99)+`1]}`))
		b.handled(batch)
		b.handled(batch) // a redelivery adds nothing

		if n := len(b.jobs("default")); n != 2 {
			t.Errorf("%d jobs, want those of the two good triggers", n)
		}
		reasons := map[string]string{
			"bad-filter": "when: no such overload", "bad-mapping": "with.a: no such key: missing", "bad-payload": `field "method" is missing`,
			"costly": "cost_limit", "unknown-task": `no task "later:task"`,
		}
		dead := b.dead()
		if len(dead) != len(bad) {
			t.Errorf("%d dead matches, want %d", len(dead), len(bad))
		}
		for _, m := range dead {
			if !strings.Contains(m.Error, reasons[m.Trigger]) || strings.Contains(m.Error, secret) || len(m.Error) > 1100 {
				t.Errorf("%s died of %q, want %q", m.Trigger, m.Error, reasons[m.Trigger])
			}
			if m.Event.ID != "e-1" || m.StreamID != batch[0].StreamID {
				t.Errorf("%s kept %+v", m.Trigger, m)
			}
		}
		if got := b.Stats().Triggers["absent"]; got.Absent != 2 || got.Dead != 0 {
			t.Errorf("an absent field counts as %+v", got)
		}

		id := events.DeadMatchID(batch[0].StreamID, "", "bad-mapping")
		if _, err := b.Replay(t.Context(), id); err == nil || !strings.Contains(err.Error(), "no such key") || len(b.dead()) != len(bad) {
			t.Errorf("a replay that fails again gave %v; the dead match must stay", err)
		}
		b.Swap(compileAll(
			t, Config{},
			Trigger{Name: "bad-mapping", On: "**", Run: "log:write", With: map[string]any{"a": "${event.data.n}"}},
			Trigger{Name: "bad-filter", On: "**", When: "event.data.n == 2", Run: "log:write"},
		))
		got, err := b.Replay(t.Context(), id)
		if want := (Replayed{Matched: true, JobID: batch[0].StreamID + "-bad-mapping"}); err != nil || got != want {
			t.Errorf("replay gave %+v, %v; want %+v", got, err, want)
		}
		if jobs := b.jobs("default"); len(jobs) != 3 || jobs[2] != `log:write {"a":1}` {
			t.Errorf("after the replay: %v", jobs)
		}
		if _, err := b.Replay(t.Context(), id); !errors.Is(err, events.ErrNotFound) {
			t.Errorf("a second replay gave %v, want ErrNotFound", err)
		}
		got, err = b.Replay(t.Context(), events.DeadMatchID(batch[0].StreamID, "", "bad-filter"))
		if err != nil || got != (Replayed{}) {
			t.Errorf("a trigger that doesn't match any more gave %+v, %v", got, err)
		}
		if _, err = b.Replay(t.Context(), events.DeadMatchID(batch[0].StreamID, "", "costly")); err == nil || !strings.Contains(err.Error(), "no such trigger any more") {
			t.Errorf("a trigger that is gone gave %v", err)
		}
		if n := len(b.dead()); n != len(bad)-2 {
			t.Errorf("%d dead matches are left, want %d", n, len(bad)-2)
		}
	})
}

// A replay that is asked for twice at once, or whose removal was lost, enqueues one job, also if that is done.
func TestAReplayFiresOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t), events.Config{}, Trigger{Name: "t", On: "**", Run: "log:write"})
	batch := b.stored(numbered(t, 1, `{}`))
	m := events.DeadMatch{StreamID: batch[0].StreamID, Trigger: "t", Error: "x", Event: batch[0].Event}
	for i, want := range []Replayed{{Matched: true, JobID: m.StreamID + "-t"}, {Matched: true, JobID: m.StreamID + "-t", Duplicate: true}} {
		if err := b.events.AddDeadMatch(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		got, err := b.Replay(t.Context(), events.DeadMatchID(m.StreamID, "", m.Trigger))
		if err != nil || got != want {
			t.Errorf("replay %d gave %+v, %v; want %+v", i+1, got, err, want)
		}
		if err := b.rdb.Del(t.Context(), wire.JobKey("default", got.JobID)).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// What Redis doesn't take stays pending, and is nobody's fault: no dead match.
func TestTroubleWithRedisLeavesTheEventPending(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithAOF())
	b := setup(
		t, server.Client(), events.Config{},
		Trigger{Name: "even", On: "**", When: "event.data.n % 2 == 0", Run: "log:write"}, Trigger{Name: "dead", On: "**", When: "event.data.dead", Run: "later:task"},
	)
	batch := b.stored(numbered(t, 1, `{"n": 1}`), numbered(t, 2, `{"n": 2}`), numbered(t, 3, `{"n": 3, "dead": true}`))
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	outcomes := b.Handle(ctx, batch)
	if outcomes[0] != nil || outcomes[1] == nil || outcomes[2] == nil {
		t.Errorf("with Redis gone: %v; want errors for the events with a job and with a dead match", outcomes)
	}
	server.Restart()
	// It comes again until it is taken; the client's pool needs a moment to see that Redis is back.
	eventually(t, func() error { return errors.Join(b.Handle(t.Context(), batch)...) })
	if jobs := b.jobs("default"); len(jobs) != 1 || len(b.dead()) != 1 {
		t.Errorf("afterwards: %v, %v", jobs, b.dead())
	}

	ended, stop := context.WithCancel(t.Context())
	stop()
	again := b.stored(numbered(t, 4, `{"n": 4}`))
	if outcomes := b.Handle(ended, again); !errors.Is(outcomes[0], context.Canceled) {
		t.Errorf("with a context that ended: %v", outcomes)
	}
	if n := len(b.dead()); n != 1 {
		t.Errorf("leaving made %d dead matches", n-1)
	}
}

// An event whose dead match finds no room stays pending: nothing is lost.
func TestADeadMatchWithoutRoomKeepsTheEventPending(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t), events.Config{MaxDead: 1}, Trigger{Name: "t", On: "**", Run: "later:task"}, Trigger{Name: "log", On: "**", Run: "log:write"})
	batch := b.stored(numbered(t, 1, `{}`), numbered(t, 2, `{}`))
	if outcomes := b.Handle(t.Context(), batch[:1]); outcomes[0] != nil {
		t.Fatal(outcomes)
	}
	if outcomes := b.Handle(t.Context(), batch[1:]); !errors.Is(outcomes[0], events.ErrTooManyDead) {
		t.Errorf("gave %v", outcomes)
	}
	if n := len(b.jobs("default")); n != 2 {
		t.Errorf("the other trigger made %d jobs, want 2", n)
	}
	if err := b.events.RemoveDeadMatch(t.Context(), b.dead()[0].ID); err != nil {
		t.Fatal(err)
	}
	b.handled(batch[1:])
	if dead := b.dead(); len(dead) != 1 || dead[0].StreamID != batch[1].StreamID {
		t.Errorf("%v", dead)
	}
}

// panicking is a list of tasks that breaks for one of them.
type panicking struct{ Tasks }

func (p panicking) Task(name string) (job.Definition, bool) {
	if name == "any:thing" {
		panic("tasks are broken")
	}
	return p.Tasks.Task(name)
}

func TestAPanicIsADeadMatch(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.Embedded(t), events.Config{}, Trigger{Name: "panics", On: "**", Run: "any:thing"}, Trigger{Name: "log", On: "**", Run: "log:write"})
	b.Set().tasks = panicking{knownTasks()}
	b.handled(b.stored(numbered(t, 1, `{}`)))
	if dead := b.dead(); len(dead) != 1 || !strings.Contains(dead[0].Error, "tasks are broken") || len(b.jobs("default")) != 1 {
		t.Errorf("%v, %v", dead, b.jobs("default"))
	}
}

// The whole step: published events come through a durable group and end as jobs, and the stream's tail tells when markers go.
func TestEventsBecomeJobsThroughAConsumer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, events.Config{Batch: 7}, Trigger{Name: "even", On: "**", When: "event.data.n % 2 == 0", Run: "log:write", With: map[string]any{"n": "${event.data.n}"}})
		consumer, err := b.events.NewConsumer("triggers", b.Handle, events.ConsumerOptions{OnTrim: b.OnTrim, Logger: b.Logger})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- consumer.Run(ctx) }()
		const count = 100
		list := make([]*events.Event, count)
		for i := range list {
			list[i] = numbered(t, i, fmt.Sprintf(`{"n": %d}`, i))
		}
		b.stored(list...)
		eventually(t, func() error {
			if got := b.Stats(); got.Events < count || got.Triggers["even"].Jobs < count/2 {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		seen := map[int]bool{}
		for _, text := range b.jobs("default") {
			var payload struct{ N int }
			if err := json.Unmarshal([]byte(strings.TrimPrefix(text, "log:write ")), &payload); err != nil {
				t.Fatal(err)
			}
			if seen[payload.N] || payload.N%2 != 0 {
				t.Errorf("a second job, or a wrong one: %s", text)
			}
			seen[payload.N] = true
		}
		if len(seen) != count/2 {
			t.Errorf("%d jobs, want %d", len(seen), count/2)
		}
	})
}

func eventually(t testing.TB, ok func() error) {
	t.Helper()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-look.C
	}
}

// nowhere takes every job at once: the benchmark measures the triggers.
type nowhere struct{}

func (nowhere) EnqueueMany(_ context.Context, requests []job.Request) []job.Result {
	return make([]job.Result, len(requests))
}

// One event of 4 kB against 100 triggers of which ten are for its type and two match.
func BenchmarkHandle(b *testing.B) {
	var triggers []Trigger
	for i := range 100 {
		t := Trigger{Name: fmt.Sprint("t-", i), On: fmt.Sprint("com.acme.type", i/10), Run: "log:write", With: map[string]any{"id": "${event.id}", "text": "from ${event.data.from}"}}
		t.When = fmt.Sprintf("event.data.n == %d && event.data.folder in ['INBOX', 'SPAM']", i%5)
		triggers = append(triggers, t)
	}
	runner := NewRunner(compileAll(b, Config{}, triggers...), Deps{Jobs: nowhere{}})
	e := event(b, "com.acme.type3", `{"n": 3, "folder": "INBOX", "from": "ann", "body": "`+strings.Repeat("x", 3000)+`", "list": [`+strings.Repeat(`{"a": 1},`, 100)+`1]}`)
	batch := []events.Delivery{{StreamID: "1700000000000-0", Event: e}}
	b.ReportAllocs()
	for b.Loop() {
		runner.Handle(b.Context(), batch)
	}
	if got := runner.Stats().Triggers["t-33"]; got.Jobs == 0 {
		b.Errorf("%+v", got)
	}
}

// Programs of different groups may give their triggers the same names: neither takes the other's jobs or dead matches.
func TestGroupsDoNotCollide(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		fires := Trigger{Name: "notify", On: "**", Run: "log:write"}
		breaks := Trigger{Name: "broken", On: "**", Run: "log:write", With: map[string]any{"a": "${event.data.absent}"}}
		first := setup(t, rdb, events.Config{}, fires, breaks)
		second := setup(t, rdb, events.Config{}, fires, breaks)
		second.Swap(compileAll(t, Config{Group: "billing"}, fires, breaks))
		batch := first.stored(numbered(t, 1, `{"n": 1}`))
		place := batch[0].StreamID
		for range 2 { // delivered again, still once for each
			first.handled(batch)
			second.handled(batch)
		}
		for id, group := range map[string]string{place + "-notify": "", place + "-billing:notify": "billing"} {
			if _, from, _ := job.Open(first.job("default", id).Headers); from == nil || from.Group != group || from.Trigger != "notify" {
				t.Errorf("job %s comes from %+v", id, from)
			}
		}
		if jobs := first.jobs("default"); len(jobs) != 2 {
			t.Errorf("%d jobs, want one of each group: %v", len(jobs), jobs)
		}
		if dead := first.dead(); len(dead) != 2 {
			t.Errorf("%d dead matches, want one of each group", len(dead))
		}

		theirs := events.DeadMatchID(place, "billing", "broken")
		if _, err := first.Replay(t.Context(), theirs); err == nil || !strings.Contains(err.Error(), `group "billing"`) {
			t.Errorf("a replay by another group's triggers gave %v", err)
		}
		second.Swap(compileAll(t, Config{Group: "billing"}, Trigger{Name: "broken", On: "**", Run: "log:write"}))
		got, err := second.Replay(t.Context(), theirs)
		if want := (Replayed{Matched: true, JobID: place + "-billing:broken"}); err != nil || got != want {
			t.Errorf("replay gave %+v, %v; want %+v", got, err, want)
		}
	})
}
