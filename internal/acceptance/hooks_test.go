package acceptance_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
)

const (
	// hookRate is how many deliveries a second are sent for the first time.
	hookRate = 200
	// hookRounds is how often all deliveries are sent, each time under ids of their own: one round would be over before the first restart.
	hookRounds = 3
	hookSecret = "what-GitHub-and-we-know-and-nobody-else"
)

// TestHooksSurviveRestarts posts all deliveries of GitHub to /hooks/github, signed as GitHub signs, 200 a second, while workers, the
// gateway and Redis are stopped, killed and started again in turn. The sender sends a delivery again until it sees a 2xx, and some
// even then.
func TestHooksSurviveRestarts(t *testing.T) {
	t.Parallel()
	p := newHookPath(t)
	gateway := p.gateway()
	first := p.worker("first")
	p.begin = time.Now()
	sent := p.send()

	p.awaitAccepted(15)
	second := p.worker("second")
	first.stop()
	p.tell("a worker was replaced")

	p.awaitAccepted(30)
	gateway.stop()
	gateway = p.gateway()
	p.tell("the gateway was stopped and started")

	p.awaitAccepted(45)
	p.redis.Kill()
	p.redis.Restart()
	p.mark()
	p.tell("Redis was killed and started")

	p.awaitAccepted(60)
	second.signal(syscall.SIGKILL)
	p.mark()
	third := p.worker("third")
	p.tell("a worker was killed, another one has started")

	p.awaitAccepted(75)
	gateway.signal(syscall.SIGKILL)
	gateway.wait()
	gateway = p.gateway()
	p.tell("the gateway was killed and started")

	<-sent
	p.tell("the last delivery is accepted")
	p.awaitJobs()
	p.tell("the last job is done")
	gateway.stop()
	third.stop()
	p.checkStream()
	p.checkJobs()
	p.tell("all is checked")
}

// hookPath is what the run has.
type hookPath struct {
	*testing.T
	redis      *redistest.Server
	dir        string
	addr       string
	fleet      *fleet.Client
	events     *events.Client
	deliveries []delivery
	service    *hookService
	begin      time.Time

	accepted atomic.Int64
	posts    atomic.Int64
	answers  sync.Map // status, or what went wrong -> *atomic.Int64
}

func newHookPath(t *testing.T) *hookPath {
	t.Helper()
	server := redistest.Start(t, redistest.WithAOF())
	rdb := server.Client()
	client, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p := &hookPath{
		T: t, redis: server, dir: t.TempDir(), addr: closedAddr(t), fleet: fleet.New(rdb), events: client,
		deliveries: severalRounds(readDeliveries(t)),
	}
	p.service = newHookService(t, expectedMatches(p.deliveries))
	rules, err := os.ReadFile("triggers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p.write("triggers.yaml", bytes.ReplaceAll(rules, []byte("http://receiver.example"), []byte(p.service.URL)))
	p.write("bellhop.yaml", []byte("redis: {url: "+server.URL()+`}
events: {batch: 20, claim_after: 1s}
worker:
  concurrency: `+fmt.Sprint(hookConcurrency)+`
  queues: [{name: hooks, weight: 1}]
handlers:
  http: {allow: [127.0.0.1]}
hooks:
  - {name: github, kind: github, secrets: [`+hookSecret+`]}
`))
	return p
}

// hookConcurrency is how many jobs one worker runs at once.
const hookConcurrency = 8

// tell logs when something was.
func (p *hookPath) tell(what string) {
	p.Helper()
	p.Logf("after %v: %s; %d deliveries are accepted", time.Since(p.begin).Round(10*time.Millisecond), what, p.accepted.Load())
}

func severalRounds(once []delivery) []delivery {
	all := make([]delivery, 0, hookRounds*len(once))
	for round := range hookRounds {
		for _, d := range once {
			d.ID = uuid.NewSHA1(uuid.MustParse(d.ID), []byte{byte(round)}).String()
			all = append(all, d)
		}
	}
	return all
}

func (p *hookPath) write(name string, content []byte) {
	p.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), content, 0o600); err != nil {
		p.Fatal(err)
	}
}

// gateway starts one, always on the same address, and returns once it answers.
func (p *hookPath) gateway() *process {
	p.Helper()
	g := prepare(p, p.dir, filepath.Join(watchedPrograms(p), "gateway"), "--addr", p.addr, "--private-addr", closedAddr(p))
	g.start()
	eventually(p, "the gateway answers", func() error {
		if g.exited() {
			p.Fatalf("the gateway has ended: %v", g.cmd.ProcessState)
		}
		res, err := http.Post("http://"+p.addr+"/hooks/nobody", "", nil)
		if err != nil {
			return err
		}
		if res.Body.Close(); res.StatusCode != http.StatusNotFound {
			return fmt.Errorf("status %d", res.StatusCode)
		}
		return nil
	})
	return g
}

func (p *hookPath) worker(name string) *process {
	p.Helper()
	w := prepare(p, p.dir, filepath.Join(watchedPrograms(p), "worker"), "--triggers", "triggers.yaml")
	w.name = "worker " + name
	return w.start().ready(func(ctx context.Context) (pids []int, err error) {
		workers, err := p.fleet.Workers(ctx)
		for _, w := range workers {
			pids = append(pids, w.PID)
		}
		return pids, err
	})
}

// send posts every delivery at its time; the channel is closed once the last one was accepted.
func (p *hookPath) send() <-chan struct{} {
	client := &http.Client{
		Timeout:   10 * time.Second, // GitHub's
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}
	p.Cleanup(client.CloseIdleConnections)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var all sync.WaitGroup
		tick := time.NewTicker(time.Second / hookRate)
		defer tick.Stop()
		for i, d := range p.deliveries {
			all.Go(func() { p.deliver(client, d, i%10 == 0) })
			select {
			case <-tick.C:
			case <-p.Context().Done():
				return
			}
		}
		all.Wait()
	}()
	return done
}

// deliver sends until it sees a 2xx; with again, once more after that, as if the answer had been lost.
func (p *hookPath) deliver(client *http.Client, d delivery, again bool) {
	for pause := 50 * time.Millisecond; p.Context().Err() == nil; pause = min(2*pause, 2*time.Second) {
		status, body, err := p.post(client, d)
		switch {
		case err == nil && status/100 == 2 && again:
			if again = false; p.wasStored(client, d) {
				p.accepted.Add(1)
				return
			}
		case err == nil && status/100 == 2:
			p.accepted.Add(1)
			return
		case err == nil && status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests:
			p.Errorf("delivery %s (%s): status %d: %s", d.ID, d.Type, status, body)
			p.accepted.Add(1)
			return
		}
		select {
		case <-time.After(pause):
		case <-p.Context().Done():
		}
	}
}

// wasStored sends what was accepted once more: if it is answered, then with a 2xx that tells so.
func (p *hookPath) wasStored(client *http.Client, d delivery) bool {
	status, body, err := p.post(client, d)
	if err != nil || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		return false
	}
	if status/100 != 2 || !strings.Contains(body, `"duplicate":true`) {
		p.Errorf("delivery %s was accepted, and is answered with %d %s when it comes again", d.ID, status, body)
	}
	return true
}

func (p *hookPath) post(client *http.Client, d delivery) (status int, body string, err error) {
	p.posts.Add(1)
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPost, "http://"+p.addr+"/hooks/github", bytes.NewReader(d.Raw))
	if err != nil {
		p.Error(err)
		return 0, "", err
	}
	mac := hmac.New(sha256.New, []byte(hookSecret))
	mac.Write(d.Raw)
	name, _, _ := strings.Cut(strings.TrimPrefix(d.Type, "com.github."), ".")
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {"GitHub-Hookshot/044aadd"}, "X-Github-Event": {name},
		"X-Github-Delivery": {d.ID}, "X-Hub-Signature-256": {"sha256=" + hex.EncodeToString(mac.Sum(nil))},
	}
	res, err := client.Do(req)
	if err != nil {
		p.count("no answer")
		return 0, "", err
	}
	defer res.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(res.Body); err != nil {
		p.count("half an answer")
		return 0, "", err
	}
	p.count(fmt.Sprint(res.StatusCode))
	return res.StatusCode, text.String(), nil
}

func (p *hookPath) count(what string) {
	n, _ := p.answers.LoadOrStore(what, new(atomic.Int64))
	n.(*atomic.Int64).Add(1)
}

// awaitAccepted returns once so many of a hundred deliveries are accepted.
func (p *hookPath) awaitAccepted(percent int) {
	p.Helper()
	eventually(p, fmt.Sprintf("%d%% of the deliveries are accepted", percent), func() error {
		if n := int(p.accepted.Load()); n*100 < percent*len(p.deliveries) {
			return fmt.Errorf("%d of %d are", n, len(p.deliveries))
		}
		return nil
	})
}

// mark remembers the calls in work at a violent moment: those jobs, and no others, may be seen twice.
// mark excuses one more call of each job that has called, and of whose end Redis knows nothing after somebody was killed.
func (p *hookPath) mark() {
	p.Helper()
	running, err := p.redis.Admin().LRange(p.Context(), wire.ActiveKey("hooks"), 0, -1).Result()
	if err != nil {
		p.Fatal(err)
	}
	p.service.mark(p.completed(), running)
}

func (p *hookPath) awaitJobs() {
	p.Helper()
	eventually(p, "every matched job ends", func() error {
		dead, _, err := p.events.DeadMatches(p.Context(), "", 1)
		if err != nil {
			return err
		}
		if len(dead) > 0 {
			p.Fatalf("trigger %s failed on event %s: %s", dead[0].Trigger, dead[0].Event.ID, dead[0].Error)
		}
		if missing := p.service.missing(); len(missing) > 0 {
			return fmt.Errorf("%d are missing, such as %v", len(missing), missing[0])
		}
		stats, err := p.events.Stats(p.Context())
		if err != nil {
			return err
		}
		if len(stats.Groups) != 1 || stats.Groups[0].Pending+stats.Groups[0].Lag > 0 {
			return fmt.Errorf("events are left: %+v", stats.Groups)
		}
		b, err := p.fleet.Backlog(p.Context(), "hooks")
		if err == nil && b.Pending+b.Active+b.Scheduled+b.Retry > 0 {
			err = fmt.Errorf("jobs are left: %+v", b)
		}
		return err
	})
}

// checkStream wants each delivery on the stream once, as it was sent.
func (p *hookPath) checkStream() {
	p.Helper()
	sent := make(map[string]delivery, len(p.deliveries))
	for _, d := range p.deliveries {
		sent[d.ID] = d
	}
	seen := make(map[string]bool, len(sent))
	for from := ""; ; {
		entries, next, err := p.events.Range(p.Context(), from, 500)
		if err != nil {
			p.Fatal(err)
		}
		for _, e := range entries {
			if e.Err != nil {
				p.Fatal(e.Err)
			}
			d, known := sent[e.Event.ID]
			switch {
			case !known || seen[e.Event.ID]:
				p.Errorf("event %s (%s): known %v, on the stream before %v", e.Event.ID, e.Event.Type, known, seen[e.Event.ID])
			case e.Event.Type != d.Type || !bytes.Equal(e.Event.Data, d.Raw) || !p.isSourceOf(e.Event.Source, d):
				p.Errorf("event %s is %s from %s, want %s; its data is the delivery's: %v", d.ID, e.Event.Type, e.Event.Source, d.Type, bytes.Equal(e.Event.Data, d.Raw))
			}
			seen[e.Event.ID] = true
		}
		if len(entries) == 0 || next == "" {
			break
		}
		from = next
	}
	if len(seen) != len(sent) {
		p.Errorf("%d deliveries are on the stream, want %d", len(seen), len(sent))
	}
	var answers []string
	p.answers.Range(func(what, n any) bool {
		answers = append(answers, fmt.Sprintf("%v: %d", what, n.(*atomic.Int64).Load()))
		return true
	})
	slices.Sort(answers)
	p.Logf("%d deliveries, %d posts (%s): %d events on the stream", len(sent), p.posts.Load(), strings.Join(answers, ", "), len(seen))
}

// isSourceOf: the page of the repository, if the delivery is of one.
func (*hookPath) isSourceOf(source string, d delivery) bool {
	if page := d.text("repository", "html_url"); page != "" {
		return source == page
	}
	u, err := url.Parse(source)
	return err == nil && (u.Host == "api.github.com" || u.Host == "github.com" || source == "/hooks/github")
}

// checkJobs compares the jobs that have called the service with those that Redis holds as completed: by their ids.
func (p *hookPath) checkJobs() {
	p.Helper()
	completed := p.completed()
	b, err := p.fleet.Backlog(p.Context(), "hooks")
	if err != nil {
		p.Fatal(err)
	}
	expected := len(p.service.expected)
	if len(completed) != expected || int(b.Completed) != expected || b.Dead != 0 {
		p.Errorf("%d jobs are completed (%d are counted), %d are dead; want %d and 0", len(completed), b.Completed, b.Dead, expected)
	}
	p.service.check(p, completed)
}

// completed are the jobs that Redis knows as such.
func (p *hookPath) completed() map[string]bool {
	p.Helper()
	ids, err := p.redis.Client().ZRange(p.Context(), wire.CompletedKey("hooks"), 0, -1).Result()
	if err != nil {
		p.Fatal(err)
	}
	completed := make(map[string]bool, len(ids))
	for _, id := range ids {
		completed[id] = true
	}
	return completed
}
