package gateway

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// strict is a guard as in production, but for who sends many wrong keys: these tests do.
func strict(cfg guard.Config, log *slog.Logger) func(*Config, *Deps) {
	return func(_ *Config, d *Deps) {
		cfg.FailureRate = -1
		g, err := guard.New(cfg, guard.Deps{Redis: d.Redis, Keys: keys.NewStore(d.Redis, keys.Config{}), Log: log})
		if err != nil {
			panic(err)
		}
		d.Guard, d.Logger = g, log
	}
}

// Every route but those listed answers to nobody without a good key of its scope, and does nothing for them. The table is the router's.
func TestNoRouteWithoutAKey(t *testing.T) {
	t.Parallel()
	d := setup(t, withHooks, strict(guard.Config{}, slog.New(slog.DiscardHandler)))
	ctx, store := t.Context(), keys.NewStore(d.rdb, keys.Config{})
	create := func(k keys.Key) (string, keys.Key) {
		t.Helper()
		token, made, err := store.Create(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		return token, made
	}
	admin, _ := create(keys.Key{Name: "a", Scopes: []keys.Scope{keys.Admin}})
	other, _ := create(keys.Key{Name: "b", Scopes: []keys.Scope{keys.Admin}})
	revoked, gone := create(keys.Key{Name: "revoked", Scopes: []keys.Scope{keys.Admin}})
	if err := store.Revoke(ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	expired, ends := create(keys.Key{Name: "expired", Scopes: []keys.Scope{keys.Admin}, Expires: time.Now().Add(20 * time.Millisecond)})
	eventually(t, "the key ends", func() bool { return ends.Expired(time.Now()) })

	wrong := map[string]string{
		"none":            "",
		"wrong":           "Bearer bh_aaaaaaaaaaaa_" + strings.Repeat("a", 47),
		"another's":       "Bearer " + admin[:16] + other[16:],
		"malformed":       "Bearer bh_",
		"long":            "Bearer " + strings.Repeat("bh_", 5000),
		"revoked":         "Bearer " + revoked,
		"expired":         "Bearer " + expired,
		"no scheme":       admin,
		"another scheme":  "Basic " + admin,
		"two at once":     "Bearer " + admin + "," + admin,
		"in other case":   "Bearer " + strings.ToUpper(admin),
		"a letter less":   "Bearer " + admin[:len(admin)-1],
		"a letter more":   "Bearer " + admin + "a",
		"only its id":     "Bearer " + admin[:15],
		"null characters": "Bearer " + admin[:20] + "%00" + admin[20:],
	}
	before := contents(t, d)
	asked := 0
	for _, r := range d.gateway.Routes() {
		if r.Open() {
			continue
		}
		for name, authorization := range wrong {
			if a := d.call(r.Method, r.sample()+"?access_token="+admin, "", `{}`, "Authorization: "+authorization); a.status != http.StatusUnauthorized {
				t.Errorf("%s %s, token %s: %d %s", r.Method, r.Path, name, a.status, a.body)
			}
			asked++
		}
		for _, scope := range keys.Scopes() {
			if scope == r.Scope || scope == keys.Admin {
				continue
			}
			if a := d.call(r.Method, r.sample(), scope, `{}`); a.status != http.StatusForbidden {
				t.Errorf("%s %s with scope %s: %d %s", r.Method, r.Path, scope, a.status, a.body)
			}
			asked++
		}
	}
	if diff := cmp.Diff(before, contents(t, d)); diff != "" {
		t.Errorf("refused requests have changed Redis (-before +after):\n%s", diff)
	}
	t.Logf("%d requests to %d routes were refused", asked, len(d.gateway.Routes()))

	// Nor do other spellings of a path lead past the key.
	for _, r := range d.gateway.Routes() {
		if r.Open() {
			continue
		}
		path := r.sample()
		for _, spelt := range []string{
			"/" + path, path + "/", "/." + path, "/x/.." + path, strings.Replace(path, "v1", "%76%31", 1), strings.ToUpper(path), path + "%2f", path + ";a=b",
			"/openapi.json/.." + path, "/hooks/..%2f.." + path,
		} {
			for _, method := range []string{r.Method, http.MethodHead, http.MethodOptions, http.MethodTrace, "PROPFIND"} {
				w := httptest.NewRecorder()
				req := httptest.NewRequestWithContext(ctx, method, "http://x"+spelt, strings.NewReader("{}"))
				req.Header.Set("X-Http-Method-Override", r.Method)
				d.gateway.Handler().ServeHTTP(w, req)
				if w.Code < 300 && !strings.HasPrefix(spelt, "/hooks/") {
					t.Errorf("%s %s without a key: %d %s", method, spelt, w.Code, w.Body)
				}
			}
		}
	}
}

// contents is what Redis holds, but for what the guard counts.
func contents(t *testing.T, d *door) []string {
	t.Helper()
	var kept []string
	names, err := d.rdb.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "bellhop:limit:") || name == "bellhop:{keys}:used" {
			continue
		}
		dump, err := d.rdb.Dump(t.Context(), name).Result()
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, fmt.Sprintf("%s %x", name, dump))
	}
	slices.Sort(kept)
	return kept
}

// Who adds a route that asks for no key adds it here too.
func TestPublicRoutes(t *testing.T) {
	t.Parallel()
	var open []string
	for _, r := range setup(t, withHooks).gateway.Routes() {
		if r.Open() {
			open = append(open, r.Method+" "+r.Path)
		} else if !slices.Contains(keys.Scopes(), r.Scope) {
			t.Errorf("%s %s asks for %q, which is no scope", r.Method, r.Path, r.Scope)
		}
	}
	slices.Sort(open)
	if diff := cmp.Diff([]string{"GET /openapi.json", "GET /{$}", "POST /hooks/{name}"}, open); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// withBody are the routes that read JSON, with a key that may.
func withBody(d *door) []Route {
	var routes []Route
	for _, r := range d.gateway.Routes() {
		if !r.Open() && slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch}, r.Method) {
			routes = append(routes, r)
		}
	}
	return routes
}

func TestBodiesTooLarge(t *testing.T) {
	t.Parallel()
	const most = 64 << 10
	d := setup(t, strict(guard.Config{MaxBodyBytes: most}, slog.New(slog.DiscardHandler)))
	for _, r := range withBody(d) {
		for name, body := range map[string]io.Reader{
			"sized":   bytes.NewReader(make([]byte, most+1)),
			"chunked": io.LimitReader(spaces{}, most+1),
			"endless": io.LimitReader(spaces{}, 1<<40),
		} {
			req, err := http.NewRequestWithContext(t.Context(), r.Method, d.url+r.sample(), body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+d.tokens[keys.Admin])
			req.Header.Set("Content-Type", "application/json")
			if r.Path == "/v1/events" {
				req.Header.Set("Content-Type", "application/cloudevents+json")
			}
			resp, err := d.client.Do(req)
			if err != nil {
				t.Errorf("%s %s, %s: %v", r.Method, r.Path, name, err)
				continue
			}
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			takesNone := resp.StatusCode == http.StatusNotFound && !strings.Contains(string(text), "larger")
			if takesNone && name != "sized" && strings.Contains(r.Path, "{") {
				continue // an action on a thing that is not there: its body is not read
			}
			if resp.StatusCode != http.StatusRequestEntityTooLarge || resp.Header.Get("Content-Type") != problem.ContentType {
				t.Errorf("%s %s, %s: %d %s", r.Method, r.Path, name, resp.StatusCode, text)
			}
		}
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// S15: JSON made to exhaust a parser is an error, soon and in little memory.
func TestHostileJSON(t *testing.T) { //nolint:paralleltest // it measures the memory of the process
	d := setup(t, strict(guard.Config{}, slog.New(slog.DiscardHandler)))
	const depth = 100_000
	deep := map[string]string{
		"arrays":           strings.Repeat("[", depth) + strings.Repeat("]", depth),
		"arrays, open":     strings.Repeat("[", depth),
		"objects":          strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth),
		"in a payload":     `{"task":"test:greet","payload":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}`,
		"in data":          `{"specversion":"1.0","id":"1","type":"a.b","source":"/x","data":` + strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth) + `}`,
		"in a batch":       `[{"task":"test:greet","payload":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}]`,
		"many keys":        "{" + strings.Repeat(`"aaaa":0,`, depth) + `"b":1}`,
		"a long number":    `{"task":` + strings.Repeat("9", 10*depth) + `}`,
		"a huge exponent":  `{"task":"test:greet","payload":{"times":1e` + strings.Repeat("9", 1000) + `}}`,
		"many empty parts": "[" + strings.Repeat("{},", depth) + "{}]",
	}
	types := []string{"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"}
	for _, r := range withBody(d) {
		for name, body := range deep {
			for _, media := range types {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				began := time.Now()
				a := d.call(r.Method, r.sample(), keys.Admin, body, "Content-Type: "+media)
				took := time.Since(began)
				runtime.ReadMemStats(&after)
				used := float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20) // garbage included
				if took > 100*time.Millisecond || used > 32 {
					t.Logf("%s %s, %s as %s: %d after %v, %.0f MiB", r.Method, r.Path, name, media, a.status, took, used)
				}
				if a.status < 400 || a.status >= 500 {
					t.Errorf("%s %s, %s as %s: %d %.200s", r.Method, r.Path, name, media, a.status, a.body)
				}
				if took > 10*time.Second || used > 64 {
					t.Errorf("%s %s, %s as %s: took %v and %.0f MiB", r.Method, r.Path, name, media, took, used)
				}
				if len(a.body) > 64<<10 {
					t.Errorf("%s %s, %s as %s: an answer of %d bytes", r.Method, r.Path, name, media, len(a.body))
				}
			}
		}
	}
}

// A batch of as many parts as a body can hold, which gzip makes a few KiB of, costs no memory for each of them.
func TestBatchesOfVeryManyParts(t *testing.T) { //nolint:paralleltest // it measures the memory of the process
	d := setup(t, strict(guard.Config{}, slog.New(slog.DiscardHandler)))
	const most = guard.DefaultMaxBodyBytes
	fill := func(before, part, after string) string {
		return before + strings.Repeat(part, (most-len(before)-len(after))/len(part)) + after
	}
	for name, test := range map[string]struct{ path, media, body string }{
		"jobs":          {"/v1/jobs/batch", "application/json", fill(`{"jobs":[0`, ",0", "]}")},
		"jobs, open":    {"/v1/jobs/batch", "application/json", fill(`{"jobs":[0`, ",0", "")},
		"unknown names": {"/v1/jobs/batch", "application/json", fill("{", `"a":0,`, `"b":0}`)},
		"lists":         {"/v1/jobs/batch", "application/json", fill("{", `"jobs":[0],`, `"jobs":0}`)},
		"events":        {"/v1/events", "application/cloudevents-batch+json", fill("[0", ",0", "]")},
		"events, open":  {"/v1/events", "application/cloudevents-batch+json", fill("[0", ",0", "")},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		a := d.call("POST", test.path, keys.Admin, test.body, "Content-Type: "+test.media)
		runtime.ReadMemStats(&after)
		used := float64(after.TotalAlloc-before.TotalAlloc) / (1 << 20) // garbage included
		t.Logf("%s: %d with %.0f MiB", name, a.status, used)
		if a.status != 422 && a.status != 400 || len(a.body) > 4<<10 {
			t.Errorf("%s: %d %.300s", name, a.status, a.body)
		}
		if used > 64 {
			t.Errorf("%s: %.0f MiB were used for a body of %d", name, used, most>>20)
		}
	}
}

// S11: what a client sends as a secret stands in no log and in no answer that is an error.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	const canary = "cAnArY0815"
	var log buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d := setup(t, withHooks, strict(guard.Config{}, logger))
	for _, r := range d.gateway.Routes() {
		if r.Path == "/hooks/{name}" {
			continue // the double in the tests echoes the name
		}
		path := strings.NewReplacer("{id}", canary, "{name}", canary, "{$}", "").Replace(r.Path)
		for _, method := range []string{r.Method, http.MethodPost, http.MethodDelete} {
			for _, query := range []string{"?token=" + canary, "?wait=" + canary, "?limit=" + canary + "&cursor=" + canary + "&queue=" + canary} {
				for _, body := range []string{
					`{"task":"test:greet","payload":{"name":7,"password":"` + canary + `"}}`,
					`{"task":"test:greet","queue":"q","payload":{"password":"` + canary + `"}}`,
					`{"` + canary, `"` + canary + `"`, `{"specversion":"1.0","data":"` + canary + `"}`,
				} {
					for _, scope := range []keys.Scope{"", keys.Read, keys.Admin} {
						if strings.HasSuffix(r.Path, "/stream") && scope != "" {
							continue // it goes on
						}
						a := d.call(method, path+query, scope, body, "X-Secret: "+canary, "Cookie: s="+canary, "Idempotency-Key: "+canary)
						if a.status >= 400 && strings.Contains(string(a.body), canary) && !namesWhatWasAsked(string(a.body), canary) {
							t.Errorf("%s %s%s: %d %s", method, path, query, a.status, a.body)
						}
						if token := d.tokens[scope]; token != "" && strings.Contains(string(a.body), token[16:]) {
							t.Errorf("%s %s tells the key: %s", method, path, a.body)
						}
					}
				}
			}
		}
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, canary) {
			t.Errorf("logged: %s", line)
		}
		for scope, token := range d.tokens {
			if strings.Contains(line, token[16:]) {
				t.Errorf("the key of %s was logged: %s", scope, line)
			}
		}
	}
	if !strings.Contains(log.String(), `"msg":"request"`) {
		t.Error("nothing was logged at all")
	}
}

// namesWhatWasAsked: an answer may quote the name of the job, trigger or queue, or the parameter, that the client asked for, never a
// payload or a header.
func namesWhatWasAsked(body, canary string) bool {
	return !strings.Contains(body, `password`) && !strings.Contains(body, "specversion") && strings.Count(body, canary) <= 3
}

type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
