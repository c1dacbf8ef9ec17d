package acceptance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/triggers"
)

// TestEveryDeliveryArrivesOnce sends all deliveries through the whole path: events, triggers, jobs, workers, http:request.
// On the way one worker is stopped and replaced, and one is killed between enqueueing an event's jobs and acknowledging it.
func TestEveryDeliveryArrivesOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		begin := time.Now()
		p := newPath(t, rdb)
		first := p.worker("first")
		matcher := p.matcher()

		p.publishFile(p.deliveries[:160])
		died := p.awaitDeath(matcher)
		removed := p.finishJobsOf(died)

		second := p.worker("second", "--triggers", "triggers.yaml")
		p.publish(p.deliveries[120:280]) // 40 of them are there already
		p.awaitCallsInWork("first", len(p.receiver.expected)*2/5)
		first.stop()
		third := p.worker("third", "--triggers", "triggers.yaml")
		p.publish(p.deliveries[280:])

		p.awaitEnd()
		second.stop()
		third.stop()
		p.checkBooks(removed)
		t.Logf("in %v", time.Since(begin).Round(100*time.Millisecond))
	})
}

// path is what one run has.
type path struct {
	*testing.T
	rdb        redis.UniversalClient
	dir        string
	fleet      *fleet.Client
	events     *events.Client
	inspector  *asynq.Inspector
	deliveries []delivery
	receiver   *receiver
	published  map[string]bool
}

func newPath(t *testing.T, rdb redis.UniversalClient) *path {
	t.Helper()
	deliveries := readDeliveries(t)
	p := &path{
		T: t, rdb: rdb, dir: t.TempDir(), fleet: fleet.New(rdb), inspector: asynq.NewInspectorFromRedisClient(rdb),
		deliveries: deliveries, receiver: newReceiver(t, expectedMatches(deliveries)), published: make(map[string]bool),
	}
	client, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p.events = client
	rules, err := os.ReadFile("triggers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p.write("triggers.yaml", bytes.ReplaceAll(rules, []byte("http://receiver.example"), []byte(p.receiver.URL)))
	p.write("bellhop.yaml", []byte("redis: {url: "+redisURL(t, rdb)+`}
events: {batch: 20, claim_after: 1s}
worker:
  concurrency: 8
  queues: [{name: hooks, weight: 1}]
handlers:
  http: {allow: [127.0.0.1]}
`))
	return p
}

func (p *path) write(name string, content []byte) string {
	p.Helper()
	file := filepath.Join(p.dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		p.Fatal(err)
	}
	return file
}

// worker starts cmd/worker and returns once it takes jobs. The receiver knows it by its name.
func (p *path) worker(name string, args ...string) *process {
	p.Helper()
	w := prepare(p, p.dir, filepath.Join(watchedPrograms(p), "worker"), args...)
	w.name = "worker " + name
	w.cmd.Env = append(w.cmd.Env, "BELLHOP_HANDLERS_HTTP_USER_AGENT="+name)
	return w.start().ready(p.workers)
}

func (p *path) workers(ctx context.Context) (pids []int, err error) {
	workers, err := p.fleet.Workers(ctx)
	for _, w := range workers {
		pids = append(pids, w.PID)
	}
	return pids, err
}

func (p *path) matcher() *process {
	p.Helper()
	self, err := os.Executable()
	if err != nil {
		p.Fatal(err)
	}
	config := p.write("matcher.yaml", []byte("redis: {url: "+redisURL(p, p.rdb)+`}
events: {batch: 20, claim_after: 1s}
triggers: {files: [triggers.yaml]}
`))
	m := prepare(p, p.dir, self, config)
	m.name = "matcher"
	m.cmd.Env = append(m.cmd.Env, envRole+"="+roleMatcher)
	return m.start().ready(p.workers)
}

// publishFile gives the deliveries to enqueue --from.
func (p *path) publishFile(some []delivery) {
	p.Helper()
	var lines []byte
	for _, d := range some {
		lines = append(lines, d.record()...)
		p.published[d.ID] = true
	}
	file := p.write("events.ndjson", lines)
	enqueue := prepare(p, p.dir, filepath.Join(watchedPrograms(p), "enqueue"), "--from", file, "--json")
	enqueue.run().want(p, 0, fmt.Sprintf(`"stored":%d,"duplicates":0,"rejected":0`, len(some)))
}

// publish gives them to events.Client. Those published before are duplicates, and no others are.
func (p *path) publish(some []delivery) {
	p.Helper()
	batch := make([]*events.Event, len(some))
	for i, d := range some {
		event, err := events.New(d.Type, d.Source, d.Raw, events.ID(d.ID))
		if err != nil {
			p.Fatal(err)
		}
		batch[i] = event
	}
	outcomes, err := p.events.Publish(p.Context(), batch...)
	if err != nil {
		p.Fatal(err)
	}
	for i, d := range some {
		if outcomes[i].Duplicate != p.published[d.ID] {
			p.Errorf("event %s: duplicate is %v, published before is %v", d.ID, outcomes[i].Duplicate, p.published[d.ID])
		}
		p.published[d.ID] = true
	}
}

// awaitDeath returns the events that the matcher died with: their jobs are in Redis, and they are not acknowledged.
func (p *path) awaitDeath(matcher *process) (unacknowledged []string) {
	p.Helper()
	status, ok := matcher.wait().Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		p.Fatalf("the matcher ended with %v, want SIGKILL", matcher.cmd.ProcessState)
	}
	var words lastWords
	if err := json.Unmarshal([]byte(matcher.stdout.String()), &words); err != nil {
		p.Fatalf("the matcher's last words %q: %v", matcher.stdout.String(), err)
	}
	if words.Acknowledged == 0 || len(words.Enqueued) == 0 {
		p.Fatalf("the matcher died with %d events acknowledged and %d enqueued: it should have some of both", words.Acknowledged, len(words.Enqueued))
	}
	p.wantPending(words.Enqueued)
	p.Logf("killed with SIGKILL: %d events were acknowledged, %d are enqueued and not acknowledged", words.Acknowledged, len(words.Enqueued))
	return words.Enqueued
}

// wantPending wants the events in the group's list of what is delivered and not acknowledged.
func (p *path) wantPending(ids []string) {
	p.Helper()
	entries, err := p.rdb.XPendingExt(p.Context(), &redis.XPendingExtArgs{
		Stream: events.DefaultPrefix + "stream", Group: triggers.DefaultGroup, Start: "-", End: "+", Count: 1000,
	}).Result()
	if err != nil {
		p.Fatal(err)
	}
	pending := make(map[string]bool)
	for _, e := range entries {
		event, err := p.events.Get(p.Context(), e.ID)
		if err != nil {
			p.Fatal(err)
		}
		pending[event.ID] = true
	}
	for _, id := range ids {
		if !pending[id] {
			p.Errorf("event %s was acknowledged, or never delivered", id)
		}
	}
}

// finishJobsOf waits until all jobs of the events are done, while nobody can acknowledge the events, and removes what asynq
// keeps of finished jobs: from then on only the fired markers tell that these jobs were run.
func (p *path) finishJobsOf(ids []string) (removed int) {
	p.Helper()
	eventually(p, "the jobs of the unacknowledged events run", func() error {
		if missing := p.receiver.missing(func(event string) bool { return slices.Contains(ids, event) }); len(missing) > 0 {
			return fmt.Errorf("%d are missing, such as %v", len(missing), missing[0])
		}
		return p.idle()
	})
	p.wantPending(ids)
	removed, err := p.inspector.DeleteAllCompletedTasks("hooks")
	if err != nil {
		p.Fatal(err)
	}
	if removed == 0 {
		p.Fatal("no finished job is kept")
	}
	return removed
}

// idle is nil once no job waits or runs.
func (p *path) idle() error {
	b, err := p.fleet.Backlog(p.Context(), "hooks")
	if err == nil && b.Pending+b.Active+b.Scheduled+b.Retry > 0 {
		err = fmt.Errorf("jobs are left: %+v", b)
	}
	return err
}

// awaitCallsInWork returns at a moment when the worker has calls in work and so many jobs are done.
func (p *path) awaitCallsInWork(worker string, done int) {
	p.Helper()
	eventually(p, "half of the way", func() error {
		if n := p.receiver.successes(); n < done {
			return fmt.Errorf("%d of %d jobs are done", n, done)
		}
		if p.receiver.inWork(worker) == 0 {
			return errors.New("the worker has no call in work")
		}
		return nil
	})
	p.Logf("SIGTERM to %s, which has %d calls in work", worker, p.receiver.inWork(worker))
}

func (p *path) awaitEnd() {
	p.Helper()
	eventually(p, "every matched delivery arrives", func() error {
		p.wantNoDeadMatch()
		if missing := p.receiver.missing(func(string) bool { return true }); len(missing) > 0 {
			return fmt.Errorf("%d are missing, such as %v", len(missing), missing[0])
		}
		stats, err := p.events.Stats(p.Context())
		if err != nil {
			return err
		}
		if len(stats.Groups) != 1 || stats.Groups[0].Pending+stats.Groups[0].Lag > 0 {
			return fmt.Errorf("events are left: %+v", stats.Groups)
		}
		return p.idle()
	})
}

// wantNoDeadMatch ends the test with what a trigger has failed on: its jobs would be awaited in vain.
func (p *path) wantNoDeadMatch() {
	p.Helper()
	dead, _, err := p.events.DeadMatches(p.Context(), "", 10)
	if err != nil {
		p.Fatal(err)
	}
	for _, m := range dead {
		p.Fatalf("trigger %s failed on event %s (%s): %s", m.Trigger, m.Event.ID, m.Event.Type, m.Error)
	}
}

// checkBooks compares what the receiver has counted with what Redis holds.
func (p *path) checkBooks(removed int) {
	p.Helper()
	stats, err := p.events.Stats(p.Context())
	if err != nil {
		p.Fatal(err)
	}
	if stats.Length != deliveriesThere || stats.Dead != 0 || stats.Undecodable != 0 {
		p.Errorf("%d events on the stream, %d dead matches, %d undecodable: want %d, 0, 0", stats.Length, stats.Dead, stats.Undecodable, deliveriesThere)
	}
	b, err := p.fleet.Backlog(p.Context(), "hooks")
	if err != nil {
		p.Fatal(err)
	}
	expected := len(p.receiver.expected)
	if kept := int(b.Completed) + removed; kept != expected || b.Dead != 0 {
		p.Errorf("%d jobs were completed and %d are dead, want %d and 0", kept, b.Dead, expected)
	}
	r := p.receiver
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fault := range r.faults {
		p.Error(fault)
	}
	if len(r.jobs) != expected {
		p.Errorf("%d jobs have called, want %d", len(r.jobs), expected)
	}
	var attempts, failures, held int
	byRule := make(map[string]int)
	for id, j := range r.jobs {
		if j.successes != 1 || j.attempts != j.failures+j.held+1 {
			p.Errorf("job %s of %v: %d attempts, %d failures, %d never answered, %d successes", id, j.hooked, j.attempts, j.failures, j.held, j.successes)
		}
		byRule[j.rule]++
		attempts, failures, held = attempts+j.attempts, failures+j.failures, held+j.held
	}
	if share := failures * 100 / attempts; share < 15 || share > 25 || held == 0 {
		p.Errorf("the receiver has failed %d%% of the calls and not answered %d, want a fifth and some", share, held)
	}
	var rules []string
	for name := range mirrors {
		if byRule[name] == 0 {
			p.Errorf("rule %s has matched nothing: the test shows nothing of it", name)
		}
		rules = append(rules, fmt.Sprintf("%s %d", name, byRule[name]))
	}
	slices.Sort(rules)
	p.Logf("%d events, %d matches (%s)", stats.Length, expected, strings.Join(rules, ", "))
	p.Logf("%d calls: %d failed, %d never answered; 2xx by worker: %v", attempts, failures, held, r.by)
}
