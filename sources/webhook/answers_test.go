package webhook_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/sources/webhook"
)

func newAnswer() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// TestAnswers: what is no delivery, one that is refused after its signature held, and what the observer is told.
func TestAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	good := github(secret, "push", "id", `{}`)
	b.post(good.to("nobody"), http.StatusNotFound, webhook.UnknownHook)
	if a := b.last(); a.Hook != "" || a.Kind != "" {
		t.Errorf("a name that a stranger made up became a label: %+v", a)
	}
	for _, name := range []string{"GitHub", "github%2F", "github%00", "%7B%7D", "..%2Fgithub", strings.Repeat("a", 5000)} {
		b.post(good.to(name), http.StatusNotFound, webhook.UnknownHook)
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		r := good.http()
		r.Method = method
		if w := b.serve(r, http.StatusMethodNotAllowed, webhook.BadMethod); w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: Allow is %q", method, w.Header().Get("Allow"))
		}
	}
	for name, r := range map[string]request{
		"no id":              good.without("X-GitHub-Delivery"),
		"an id with a space": good.with("X-GitHub-Delivery", "a b"),
		"an id without end":  good.with("X-GitHub-Delivery", strings.Repeat("a", 257)),
		"no event":           good.without("X-GitHub-Event"),
		"a list":             github(secret, "push", "id", `[]`),
		"a text":             github(secret, "push", "id", `hello`),
		"half":               github(secret, "push", "id", `{"a":`),
		"nothing":            github(secret, "push", "id", ``),
		"a broken form":      github(secret, "push", "id", `payload=%zz`).with("Content-Type", "application/x-www-form-urlencoded"),
		"an empty form":      github(secret, "push", "id", `a=b`).with("Content-Type", "application/x-www-form-urlencoded"),
		"Slack: no type":     slack(secret, noon, "application/json", `{}`),
		"Slack: no event":    slack(secret, noon, "application/json", `{"type":"event_callback","event_id":"1"}`),
		"Slack: no event id": slack(secret, noon, "application/json", `{"type":"event_callback","event":{"type":"x"}}`),
		"Slack: no question": slack(secret, noon, "application/json", `{"type":"url_verification"}`),
		"Slack: a form":      slack(secret, noon, "application/x-www-form-urlencoded", `a=b`),
		"Slack: a payload":   slack(secret, noon, "application/x-www-form-urlencoded", `payload=x`),
		"Stripe: no id":      stripe(secret, noon, `{"type":"a"}`),
		"Stripe: no type":    stripe(secret, noon, `{"id":"a"}`),
		"hmac: no JSON":      custom(secret, "id", noon, `{`),
	} {
		t.Log(name)
		if w := b.post(r, http.StatusBadRequest, webhook.Malformed); !strings.Contains(w.Header().Get("Content-Type"), "application/problem+json") {
			t.Errorf("%s: answered as %s", name, w.Header().Get("Content-Type"))
		}
	}
	b.wantStored(0)
}

// TestRefusalsAreAlike: nobody learns from the answer what of a signature was wrong.
func TestRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	bodies := make(map[string]bool)
	for _, r := range []request{
		stripe(secret, noon.Add(-time.Hour), `{}`), stripe("another secret, just as long", noon, `{}`), stripe(secret, noon, `{}`).carrying("x"),
		stripe(secret, noon, `{}`).without("Stripe-Signature"), stripe(secret, noon, `{}`).with("Stripe-Signature", "v1=00"),
	} {
		w := newAnswer()
		b.mux.ServeHTTP(w, r.http())
		bodies[fmt.Sprint(w.Code, w.Header(), w.Body)] = true
	}
	if len(bodies) != 1 {
		t.Errorf("there are %d answers: %v", len(bodies), bodies)
	}
}

// TestLargeBodies: one byte too many is refused, however it comes, and costs no more than twice the limit.
//
//nolint:paralleltest // memory is measured
func TestLargeBodies(t *testing.T) {
	const limit = 256 << 10
	hooks := everyKind()
	hooks[0].MaxBodyBytes = limit
	b := setup(t, hooks...)
	whole := `{"a":"` + strings.Repeat("x", limit-8) + `"}`
	b.post(github(secret, "push", "whole", whole), http.StatusAccepted, webhook.Stored)
	b.post(github(secret, "push", "more", whole+" "), http.StatusRequestEntityTooLarge, webhook.TooLarge)

	chunked := github(secret, "push", "id", "").http()
	chunked.Body, chunked.ContentLength = io.NopCloser(io.LimitReader(endless{}, 100*limit)), -1
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.serve(chunked, http.StatusRequestEntityTooLarge, webhook.TooLarge)
	runtime.ReadMemStats(&after)
	// A buffer that grows by doubling has thrown away as much as it holds.
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 6*limit {
		t.Errorf("a body of %d bytes took %d bytes of memory in all, the limit is %d", 100*limit, grown, limit)
	}

	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	if _, err := z.Write(make([]byte, 10<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	b.post(github(secret, "push", "id", bomb.String()).with("Content-Encoding", "gzip"), http.StatusUnsupportedMediaType, webhook.BadEncoding)

	broken := github(secret, "push", "id", "").http()
	broken.Body, broken.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("{"), failing{})), 100
	b.serve(broken, http.StatusBadRequest, webhook.Incomplete)
	b.wantStored(1)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestDeepJSON: depth costs neither time nor memory, in whatever is signed with the right key.
//
//nolint:paralleltest // memory is measured
func TestDeepJSON(t *testing.T) {
	b := setup(t, everyKind()...)
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for name, body := range map[string]string{"lists": `{"a":` + deep + `}`, "open": strings.Repeat(`{"a":`, 100_000), "in a form": "payload=" + deep} {
		r := github(secret, "push", "id", body)
		if name == "in a form" {
			r = r.with("Content-Type", "application/x-www-form-urlencoded")
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		begin := time.Now()
		b.post(r, http.StatusBadRequest, webhook.Malformed)
		took := time.Since(begin)
		runtime.ReadMemStats(&after)
		t.Logf("%s: %v, %d KiB", name, took, (after.TotalAlloc-before.TotalAlloc)>>10)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
			t.Errorf("%s: %d bytes of memory", name, grown)
		}
	}
	b.wantStored(0)
}

// TestStreamFull: a provider is asked to come again, and then is stored.
func TestStreamFull(t *testing.T) {
	t.Parallel()
	b := setupWith(t, redistest.New(t), events.Config{MaxEvents: 2}, everyKind()...)
	for i := range 2 {
		b.post(github(secret, "push", fmt.Sprint(i), `{}`), http.StatusAccepted, webhook.Stored)
	}
	w := b.post(github(secret, "push", "third", `{}`), http.StatusServiceUnavailable, webhook.StreamFull)
	if w.Header().Get("Retry-After") != "5" {
		t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
	}
	b.post(github(secret, "push", "1", `{}`), http.StatusAccepted, webhook.Duplicate) // what is there needs no room
	b.wantStored(2)
}

// TestTooLargeForTheStream: the body is within its limit, the event is not.
func TestTooLargeForTheStream(t *testing.T) {
	t.Parallel()
	b := setupWith(t, redistest.New(t), events.Config{MaxEventBytes: 2048}, everyKind()...)
	b.post(github(secret, "push", "id", `{"a":"`+strings.Repeat("x", 2048)+`"}`), http.StatusRequestEntityTooLarge, webhook.TooLarge)
}

// TestRedisAway: nothing is acknowledged while Redis is down, and what is sent again then is stored once.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithAOF())
	b := setupWith(t, server.Client(), events.Config{}, everyKind()...)
	r := github(secret, "push", "id", `{}`)
	b.post(r, http.StatusAccepted, webhook.Stored)
	server.Kill()
	w := b.post(github(secret, "push", "id-2", `{}`), http.StatusServiceUnavailable, webhook.Unavailable)
	if w.Header().Get("Retry-After") == "" {
		t.Error("Retry-After is missing")
	}
	b.post(slack(secret, noon, "application/json", `{"type":"url_verification","challenge":"c"}`), http.StatusOK, webhook.Answered)
	server.Restart()
	b.post(github(secret, "push", "id-2", `{}`), http.StatusAccepted, b.nowOrBefore("id-2"))
	b.post(r, http.StatusAccepted, webhook.Duplicate)
	b.wantStored(2)
}

func (b *bundle) nowOrBefore(id string) webhook.Outcome {
	for _, e := range b.stored() {
		if e.ID == id {
			return webhook.Duplicate
		}
	}
	return webhook.Stored
}

// TestFrozenRedis: a Redis that hangs is given up before Slack gives up.
func TestFrozenRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := setupWith(t, server.Client(), events.Config{}, everyKind()...)
	b.post(github(secret, "push", "id", `{}`), http.StatusAccepted, webhook.Stored)
	server.Pause()
	begin := time.Now()
	b.post(github(secret, "push", "id-2", `{}`), http.StatusServiceUnavailable, webhook.Unavailable)
	t.Logf("answered after %v", time.Since(begin))
	server.Resume()
}

// TestOverload: beyond what is taken at once, a sender is sent away at once, and what is taken comes to its end.
func TestOverload(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := setupWith(t, server.Client(), events.Config{}, everyKind()...)
	b.post(github(secret, "push", "before", `{}`), http.StatusAccepted, webhook.Stored)
	server.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var senders sync.WaitGroup
	for i := range webhook.MaxInWork + 16 {
		senders.Go(func() {
			for ctx.Err() == nil {
				w := newAnswer()
				b.mux.ServeHTTP(w, github(secret, "push", fmt.Sprint(i), `{}`).http())
				if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
					t.Errorf("status %d", w.Code)
				}
				if b.saw(webhook.Overloaded) {
					return
				}
			}
		})
	}
	senders.Wait()
	server.Resume()
	if !b.saw(webhook.Overloaded) {
		t.Error("nobody was sent away")
	}
	b.post(github(secret, "push", "after", `{}`), http.StatusAccepted, webhook.Stored)
}

func (b *bundle) saw(o webhook.Outcome) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.answers, func(a webhook.Answer) bool { return a.Outcome == o })
}

// TestSenderGoesAway: no 2xx is counted for whom nobody answered.
func TestSenderGoesAway(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.serve(github(secret, "push", "id", `{}`).http().WithContext(ctx), http.StatusBadRequest, webhook.Incomplete)
}

// TestCanaries: what is secret, or just somebody's, is in no log, no answer and nothing that is counted.
func TestCanaries(t *testing.T) {
	t.Parallel()
	const canary = "c4n4ry"
	hooks := everyKind()
	for i, h := range hooks {
		if len(h.Secrets) > 0 && h.Kind != webhook.Standard {
			hooks[i].Secrets = []string{canary + " in a secret of the configuration"}
		}
	}
	b := setup(t, hooks...)
	b.receiver.SetClock(ticking())
	header := map[string]string{"X-Other": canary, "Authorization": "Bearer " + canary, "X-GitHub-Delivery": canary, "X-GitHub-Event": canary}
	var answers strings.Builder
	for _, h := range append(hooks, webhook.Hook{Name: canary}) {
		for _, name := range append(signedParts[h.Name], "X-Gitlab-Token", "Content-Encoding", "Content-Type") {
			r := request{hook: h.Name, header: header, body: `{"` + canary}.with(name, canary)
			r.hook += "?token=" + canary
			w := newAnswer()
			b.mux.ServeHTTP(w, r.http())
			if w.Code/100 == 2 && h.Kind != webhook.None {
				t.Errorf("%s took it: %d", h.Name, w.Code)
			}
			answers.WriteString(w.Body.String())
		}
	}
	signed := github(canary+" in a secret of the configuration", "push", canary+" ", canary) // proven, and then refused
	b.post(signed, http.StatusBadRequest, webhook.Malformed)
	for what, text := range map[string]string{"the log": b.log.String(), "an answer": answers.String(), "what is counted": fmt.Sprint(b.answers)} {
		if strings.Contains(text, canary) {
			t.Errorf("%s tells the canary:\n%s", what, text)
		}
	}
	if !strings.Contains(b.log.String(), "hook refused") {
		t.Error("nothing was logged, so that nothing is shown")
	}
}

// ticking lets every line of the log through.
func ticking() func() time.Time {
	now := noon
	return func() time.Time { now = now.Add(10 * time.Second); return now }
}

// TestFloodIsLoggedInPart: a thousand refusals are a few lines, and the rest is counted.
func TestFloodIsLoggedInPart(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	now := noon
	b.receiver.SetClock(func() time.Time { return now })
	for range 1000 {
		b.post(request{hook: "stripe"}, http.StatusUnauthorized, webhook.BadSignature)
	}
	if n := strings.Count(b.log.String(), "hook refused"); n != 5 {
		t.Errorf("%d lines are logged, want 5", n)
	}
	now = now.Add(time.Minute)
	b.post(request{hook: "stripe"}, http.StatusUnauthorized, webhook.BadSignature)
	if !strings.Contains(b.log.String(), "unlogged=995") {
		t.Errorf("the others are not counted: %s", b.log)
	}
}

// TestComparedInConstantTime reads the source: what proves a delivery compares in no other way.
func TestComparedInConstantTime(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "proof.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	safe := map[string]bool{"hmac.Equal": true, "ed25519.Verify": true, "subtle.ConstantTimeCompare": true}
	forbidden := map[string]bool{"bytes.Equal": true, "bytes.Compare": true, "strings.Compare": true, "strings.EqualFold": true, "reflect.DeepEqual": true, "slices.Equal": true}
	methods, compared := 0, 0
	for _, d := range file.Decls {
		method, ok := d.(*ast.FuncDecl)
		if !ok || method.Name.Name != "proves" {
			continue
		}
		methods++
		ast.Inspect(method, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok {
					name := fmt.Sprint(f.X, ".", f.Sel)
					if safe[name] {
						compared++
					}
					if forbidden[name] {
						t.Errorf("%s is used", name)
					}
				}
			case *ast.BinaryExpr:
				if (n.Op == token.EQL || n.Op == token.NEQ) && !literal(n.Y) {
					t.Errorf("%s compares at %v", n.Op, n.Pos())
				}
			}
			return true
		})
	}
	if methods != 4 || compared != 3 {
		t.Errorf("%d methods compare %d times, want 4 and 3: look at what is new", methods, compared)
	}
}

func literal(e ast.Expr) bool { _, ok := e.(*ast.BasicLit); return ok }

// TestNewReadsTheFiles: what Validate cannot see is reported at the start.
func TestNewReadsTheFiles(t *testing.T) {
	t.Parallel()
	_, err := webhook.New(webhook.Hooks{{Name: "a", Kind: webhook.GitHub, SecretsFiles: []string{"/nowhere/secret"}}, {Name: "b", Kind: webhook.Slack, SecretsFiles: []string{t.TempDir()}}}, nil, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "hooks[0] (a): secrets_files[0]") || !strings.Contains(err.Error(), "hooks[1] (b)") || errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}
