package gateway

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// withHooks mounts webhooks, so that every route there can be is there.
func withHooks(_ *Config, d *Deps) {
	d.Hooks = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.PathValue("name"))) })
}

// sample is a path with something in the place of its parameters.
func (r Route) sample() string {
	return strings.NewReplacer("{$}", "", "{id}", "x", "{name}", "x", "{", "", "}", "").Replace(r.Path)
}

// The table comes from the router itself: whatever is added is tested.
func TestEveryRouteAsksForItsScope(t *testing.T) {
	t.Parallel()
	d := setup(t, withHooks, strict(guard.Config{}, slog.New(slog.DiscardHandler)))
	routes := d.gateway.Routes()
	if len(routes) < 9 {
		t.Fatalf("%d routes", len(routes))
	}
	for _, r := range routes {
		t.Run(r.Method+" "+r.Path, func(t *testing.T) {
			t.Parallel()
			if r.Open() {
				if !slices.Contains([]string{"/{$}", "/openapi.json", "/hooks/{name}"}, r.Path) {
					t.Errorf("it is open to everybody")
				}
				if a := d.call(r.Method, r.sample(), "", nil); a.status == 401 || a.status == 403 {
					t.Errorf("it is no open route: %d", a.status)
				}
				return
			}
			refused := func(who string, a answer, status int) {
				t.Helper()
				p := want[problem.Problem](t, a, status)
				if p.Detail == "" || a.header.Get("Content-Type") != problem.ContentType || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: %+v %v", who, p, a.header)
				}
			}
			refused("nobody", d.call(r.Method, r.sample(), "", nil), 401)
			refused("a stranger", d.call(r.Method, r.sample(), "", nil, "Authorization: Bearer bh_000000000000_nonsense"), 401)
			for _, scope := range keys.Scopes() {
				switch {
				case scope != r.Scope && scope != keys.Admin:
					refused(string(scope), d.call(r.Method, r.sample(), scope, nil), 403)
				case strings.HasSuffix(r.Path, "/stream"): // it would go on
				default:
					if a := d.call(r.Method, r.sample(), scope, nil); a.status == 401 || a.status == 403 || a.status == 500 {
						t.Errorf("%s: %d %s", scope, a.status, a.body)
					}
				}
			}
		})
	}
}

// What the document says of each operation is whole, and it has what the router has.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	d := setup(t, withHooks)
	a := d.call("GET", "/openapi.json", "", nil)
	document := want[map[string]any](t, a, 200)
	if document["openapi"] != "3.1.0" || strings.Contains(string(a.body), "ErrorModel") || strings.Contains(string(a.body), strings.TrimPrefix(d.url, "http://")) {
		t.Errorf("the document is of %v, or has parts that are not ours", document["openapi"])
	}
	if a := d.call("GET", "/openapi.json", "", nil, "If-None-Match: "+a.header.Get("ETag")); a.status != http.StatusNotModified {
		t.Errorf("the same again: %d", a.status)
	}
	refs(t, document, document)

	api := d.gateway.api.OpenAPI()
	for name, closed := range map[string]bool{"JobRequest": true, "BatchRequest": true, "StoredJob": false, "JobStatus": false, "Problem": false} {
		if extra := api.Components.Schemas.Map()[name].AdditionalProperties; (extra == false) != closed {
			t.Errorf("%s: additionalProperties is %v", name, extra)
		}
	}
	ids := make(map[string]bool)
	for _, r := range d.gateway.Routes() {
		if r.Path == "/{$}" || r.Path == "/openapi.json" {
			continue
		}
		op := d.gateway.documented(huma.Operation{Method: r.Method, Path: r.Path})
		fault := func(what string) { t.Errorf("%s %s %s", r.Method, r.Path, what) }
		if op == nil {
			fault("is not in the document")
			continue
		}
		if op.OperationID != r.OperationID || ids[op.OperationID] || op.OperationID == "" {
			fault("has no id of its own: " + op.OperationID)
		}
		ids[op.OperationID] = true
		if op.Summary == "" || len(op.Description) < 40 || len(op.Tags) != 1 {
			fault("is not described, or not under one tag")
		}
		if r.Open() != (len(op.Security) == 0) || !r.Open() && op.Security[0][securityScheme][0] != string(r.Scope) {
			fault("does not name its scope")
		}
		checkParameters(t, r, op)
		checkBody(t, r, op, api)
		checkResponses(t, r, op)
	}
	for path, item := range api.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete} {
			if op != nil && !slices.ContainsFunc(d.gateway.Routes(), func(r Route) bool { return r.Path == path && r.Method == method }) {
				t.Errorf("%s %s is in the document, but no route", method, path)
			}
		}
	}
}

// refs follows every reference.
func refs(t *testing.T, document map[string]any, v any) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			var at any = document
			for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				at = at.(map[string]any)[name] //nolint:forcetypeassert // a wrong one is a fault
			}
			if at == nil {
				t.Errorf("%s is nowhere", ref)
			}
		}
		for _, inner := range v {
			refs(t, document, inner)
		}
	case []any:
		for _, inner := range v {
			refs(t, document, inner)
		}
	}
}

func checkParameters(t *testing.T, r Route, op *huma.Operation) {
	t.Helper()
	var inPath []string
	for _, p := range op.Parameters {
		if p.Description == "" || p.Schema == nil {
			t.Errorf("%s %s: parameter %s is not described", r.Method, r.Path, p.Name)
		}
		if p.In == "path" {
			inPath = append(inPath, p.Name)
		}
	}
	for part := range strings.SplitSeq(r.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok && !slices.Contains(inPath, strings.TrimSuffix(name, "}")) {
			t.Errorf("%s %s: %s is not described", r.Method, r.Path, part)
		}
	}
}

// checkBody asks for an example of each JSON body, and that it fits its schema.
func checkBody(t *testing.T, r Route, op *huma.Operation, api *huma.OpenAPI) {
	t.Helper()
	if op.RequestBody == nil {
		return
	}
	for media, content := range op.RequestBody.Content {
		if content.Schema == nil || media == "*/*" {
			continue
		}
		examples := []any{content.Example}
		for _, e := range content.Examples {
			examples = append(examples, e.Value)
		}
		examples = slices.DeleteFunc(examples, func(e any) bool { return e == nil })
		if len(examples) == 0 {
			t.Errorf("%s %s: its %s has no example", r.Method, r.Path, media)
		}
		for _, example := range examples {
			text, err := json.Marshal(example)
			if err != nil {
				t.Error(err)
			}
			var value any
			if err := json.Unmarshal(text, &value); err != nil {
				t.Error(err)
			}
			result := new(huma.ValidateResult)
			huma.Validate(api.Components.Schemas, content.Schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, value, result)
			for _, err := range result.Errors {
				t.Errorf("%s %s: the example of %s: %v", r.Method, r.Path, media, err)
			}
		}
	}
}

func checkResponses(t *testing.T, r Route, op *huma.Operation) {
	t.Helper()
	fine := false
	needed := []string{"422", "429", "500", "503"}
	if !r.Open() {
		needed = append(needed, "401", "403")
	}
	if op.RequestBody != nil {
		needed = append(needed, "400", "413", "415")
	}
	if strings.Contains(r.Path, "{") && r.Method != http.MethodPut { // a PUT makes what is not there
		needed = append(needed, "404")
	}
	for status, response := range op.Responses {
		fine = fine || status[0] == '2'
		needed = slices.DeleteFunc(needed, func(s string) bool { return s == status })
		if response.Description == "" {
			t.Errorf("%s %s: answer %s is not described", r.Method, r.Path, status)
		}
		if status[0] >= '4' && response.Content[problem.ContentType] == nil {
			t.Errorf("%s %s: answer %s is no problem", r.Method, r.Path, status)
		}
	}
	if !fine || len(needed) > 0 {
		t.Errorf("%s %s: answers are missing: %v", r.Method, r.Path, needed)
	}
}

func TestWhatNoRouteTakes(t *testing.T) {
	t.Parallel()
	d := setup(t, withHooks)
	p := want[problem.Problem](t, d.call("GET", "/v2/jobs", keys.Admin, nil), 404)
	if p.Type != "about:blank" || !strings.Contains(p.Detail, "/openapi.json") {
		t.Errorf("404: %+v", p)
	}
	a := d.call("PUT", "/v1/jobs", keys.Admin, `{}`)
	if p := want[problem.Problem](t, a, 405); a.header.Get("Allow") != "POST" || p.Detail != "/v1/jobs takes POST" {
		t.Errorf("405: %v %+v", a.header, p)
	}
	for _, path := range []string{"/docs", "/schemas/JobRequest.json", "/openapi.yaml", "/debug/pprof/", "/metrics", "/healthz", "/readyz"} {
		want[problem.Problem](t, d.call("GET", path, keys.Admin, nil), 404)
	}
	if a := d.call("POST", "/hooks/shop", "", `{}`); a.status != 200 || string(a.body) != "shop" {
		t.Errorf("a hook: %d %s", a.status, a.body)
	}
	root := want[map[string]string](t, d.call("GET", "/", "", nil), 200)
	if root["openapi"] != "/openapi.json" {
		t.Errorf("/ says %v", root)
	}
	if a := d.call("HEAD", "/", "", nil); a.status != 200 {
		t.Errorf("HEAD /: %d", a.status)
	}
}

func TestPanicIsAProblem(t *testing.T) {
	t.Parallel()
	d := setup(t, func(_ *Config, d *Deps) {
		d.Hooks = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret") })
	})
	a := d.call("POST", "/hooks/x", "", `{}`)
	if p := want[problem.Problem](t, a, 500); strings.Contains(string(a.body), "secret") || p.Status != 500 {
		t.Errorf("%+v", p)
	}
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	d := setup(t, func(_ *Config, d *Deps) {
		d.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("up 1\n")) })
	})
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		d.gateway.Private().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	for path, text := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "up 1", "/debug/pprof/": "goroutine"} {
		if status, body := ask(path); status != 200 || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := ask("/v1/jobs"); status != 404 || !strings.Contains(body, "about:blank") {
		t.Errorf("/v1/jobs: %d %s", status, body)
	}
	d.gateway.Drain()
	d.gateway.Drain()
	if status, body := ask("/readyz"); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if status, _ := ask("/healthz"); status != 200 {
		t.Errorf("/healthz: %d", status)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	bad := Config{
		Addr: "8080", PrivateAddr: "x", CertFile: "c", JobRetention: -1, MaxWait: 1, MaxBatch: 10_001, PageSize: 100, MaxPageSize: 10,
		IdempotencyTTL: 1, RedisWithin: 1, Grace: 1, DrainDelay: 2,
	}
	bad.Guard.Rate, bad.Keys.Trust = -2, 1
	err := bad.Validate()
	for _, key := range []string{
		"addr", "private_addr", "cert_file", "job_retention", "max_wait", "max_batch", "page_size", "idempotency_ttl", "redis_within", "drain_delay", "guard.rate", "auth.trust",
	} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+key) {
			t.Errorf("%s is not told: %v", key, err)
		}
	}
	if _, err := New(Config{Addr: "x"}, Deps{}); err == nil || !strings.Contains(err.Error(), "Deps") {
		t.Errorf("New: %v", err)
	}
}
