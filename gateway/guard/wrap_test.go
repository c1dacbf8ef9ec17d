package guard

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestAuthorize(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{FailureRate: -1})
	tokens := map[string]string{"none": "", "malformed": "bh_x", "unknown": "bh_aaaaaaaaaaaa_" + strings.Repeat("a", 47)}
	for _, s := range keys.Scopes() {
		tokens[string(s)] = b.key(keys.Key{Name: string(s), Scopes: []keys.Scope{s}})
	}
	revoked := b.key(keys.Key{Name: "revoked", Scopes: []keys.Scope{keys.Admin}})
	if err := b.store.Revoke(t.Context(), revoked[3:15]); err != nil {
		t.Fatal(err)
	}
	tokens["revoked"] = revoked
	ends := time.Now().Add(50 * time.Millisecond)
	tokens["expired"] = b.key(keys.Key{Name: "expired", Scopes: []keys.Scope{keys.Admin}, Expires: ends})
	eventually(t, "the key ends", func() bool { return time.Now().After(ends) })

	for _, scope := range keys.Scopes() {
		for name, token := range tokens {
			want, challenge := http.StatusUnauthorized, `Bearer realm="bellhop", error="invalid_token"`
			switch {
			case name == "none":
				challenge = `Bearer realm="bellhop"`
			case name == string(scope) || name == "admin":
				want, challenge = http.StatusOK, ""
			case slices.Contains(keys.Scopes(), keys.Scope(name)):
				want, challenge = http.StatusForbidden, fmt.Sprintf(`Bearer realm="bellhop", error="insufficient_scope", scope="%s"`, scope)
			}
			var settings []setting
			if token != "" {
				settings = append(settings, bearer(token))
			}
			w := b.do(http.MethodPost, "/"+string(scope)+"/1", strings.NewReader("{}"), settings...)
			if w.Code != want || w.Header().Get("WWW-Authenticate") != challenge {
				t.Errorf("%s with %s: %d %q, want %d %q", scope, name, w.Code, w.Header().Get("WWW-Authenticate"), want, challenge)
			}
			if want != http.StatusOK {
				problemOf(t, w, want)
			} else if !strings.Contains(w.Body.String(), `"key":"`+name+`"`) {
				t.Errorf("the handler does not know who it is: %s", w.Body)
			}
		}
	}
	admin := tokens["admin"]
	for value, want := range map[string]int{
		"bearer " + admin: 200, "BEARER  " + admin: 200, admin: 401, "Basic " + admin: 401, "Bearer": 401, "Bearer " + admin + "x": 401,
		"Bearer " + admin + " " + admin: 401,
	} {
		if w := b.do(http.MethodPost, "/read/1", nil, header("Authorization", value)); w.Code != want {
			t.Errorf("%q: %d, want %d", strings.ReplaceAll(value, admin, "TOKEN"), w.Code, want)
		} else if said := strings.Contains(w.Body.String(), "send it as Authorization: Bearer"); want != http.StatusOK && said == strings.HasPrefix(value, "Bearer") {
			t.Errorf("%q: %s", strings.ReplaceAll(value, admin, "TOKEN"), w.Body)
		}
	}
	if w := b.do(http.MethodPost, "/read/1", nil, bearer(admin), bearer(admin)); w.Code != http.StatusUnauthorized {
		t.Errorf("two headers: %d", w.Code)
	}
	if w := b.do(http.MethodPost, "/read/1?access_token="+admin, nil); w.Code != http.StatusUnauthorized {
		t.Errorf("a token in the URL: %d", w.Code)
	}
}

func TestARouteOutsideOfWrapStaysShut(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	w := httptest.NewRecorder()
	b.mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/read/1", nil))
	problemOf(t, w, http.StatusInternalServerError)
}

func TestKeysCannotBeCheckedWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := setupOn(t, server.Client(), Config{})
	server.Kill()
	w := b.do(http.MethodPost, "/read/1", nil, bearer("bh_aaaaaaaaaaaa_"+strings.Repeat("a", 47)))
	problemOf(t, w, http.StatusUnauthorized) // the checksum is wrong: no Redis is needed to tell
	good := setup(t, Config{})
	w = b.do(http.MethodPost, "/read/1", nil, bearer(good.key(keys.Key{Name: "n", Scopes: []keys.Scope{keys.Read}})))
	problemOf(t, w, http.StatusServiceUnavailable)
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if w := b.do(http.MethodGet, "/open", nil); w.Code != http.StatusOK {
		t.Errorf("what needs no key: %d", w.Code)
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	var inside string
	b.mux.HandleFunc("GET /id", func(_ http.ResponseWriter, r *http.Request) { inside = RequestID(r.Context()) })
	for _, test := range []struct {
		id   string
		kept bool
	}{
		{"abc-DEF_1.2", true},
		{"", false},
		{"a b", false},
		{"a\"b", false},
		{"<script>", false},
		{"ä", false},
		{strings.Repeat("x", 64), true},
		{strings.Repeat("x", 65), false},
	} {
		w := b.do(http.MethodGet, "/id", nil, header("X-Request-Id", test.id))
		got := w.Header().Get("X-Request-Id")
		if got == "" || got != inside || (got == test.id) != test.kept {
			t.Errorf("%q became %q, inside %q", test.id, got, inside)
		}
	}
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	token := b.key(keys.Key{Name: "n", Scopes: []keys.Scope{keys.Publish}})
	b.do(http.MethodPost, "/publish/some-id?q=secret", strings.NewReader("{}"), bearer(token), header("X-Request-Id", "r1"), from("198.51.100.7:99"))
	b.do("BREW", "/nowhere/secret", nil, header("X-Request-Id", "r2"))
	lines := b.log.lines(t, "request")
	for _, l := range lines {
		text, _ := l["took"].(string)
		if took, err := time.ParseDuration(text); err != nil || took < 0 {
			t.Errorf("took %v, want text such as 460µs", l["took"])
		}
		for _, name := range []string{"took", "time", "level", "msg"} {
			delete(l, name)
		}
	}
	want := []map[string]any{
		{
			"method": "POST", "route": "/publish/{id}", "status": 200.0, "bytes": 22.0, "key": token[3:15],
			"request_id": "r1", "addr": "198.51.100.7",
		},
		{"method": "OTHER", "route": "none", "status": 404.0, "bytes": 19.0, "key": "", "request_id": "r2", "addr": "192.0.2.1"},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"POST /publish/{id} OK", "OTHER none Not Found"}, b.seen.done); diff != "" || b.seen.inFlight != 0 {
		t.Errorf("observed (-want +got), %d in flight:\n%s", b.seen.inFlight, diff)
	}
}

// S11: whatever a client sends, nothing of it stands in the log or in an error.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	const canary = "cAnArY"
	b := setup(t, Config{MaxBodyBytes: 4096})
	token := b.key(keys.Key{Name: "n", Scopes: []keys.Scope{keys.Publish}})
	b.mux.HandleFunc("POST /panic/{id}", func(http.ResponseWriter, *http.Request) { panic(errors.New("broken by " + canary)) })
	b.mux.HandleFunc("POST /bounds/{id}", func(_ http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		_ = data[len(data)+1]
	})
	body := func() io.Reader { return strings.NewReader(`{"password":"` + canary + `"}`) }
	secrets := []setting{
		header("X-Secret", canary), header("Cookie", "session="+canary), header("X-Request-Id", canary+" "), header("Referer", "https://x/"+canary),
		header("User-Agent", canary), header("X-Forwarded-For", canary), header("Origin", "https://"+canary), header(canary, "x"),
	}
	for _, path := range []string{"/publish/", "/admin/", "/panic/", "/bounds/", "/none/", "/open/"} {
		for name, auth := range map[string]setting{
			"good": bearer(token), "malformed": bearer("bh_" + canary), "wrong": bearer(token[:len(token)-1] + "a" + canary), "basic": header("Authorization", "Basic "+canary),
			"none": func(*http.Request) {},
		} {
			for _, packed := range []bool{false, true} {
				settings := append(slices.Clone(secrets), auth)
				if packed { // and is not: that is an error which could quote
					settings = append(settings, header("Content-Encoding", "gzip"))
				}
				w := b.do(http.MethodPost, path+canary+"?token="+canary, body(), settings...)
				if answer := fmt.Sprint(w.Header(), w.Body); strings.Contains(answer, canary) || strings.Contains(answer, token) {
					t.Errorf("%s with %s: %s", path, name, answer)
				}
			}
		}
	}
	b.do(http.MethodPost, "/publish/1", strings.NewReader(strings.Repeat(canary, 1000)), bearer(token))
	b.do(http.MethodPost, "/publish/1", strings.NewReader(canary), bearer(token), header("Content-Encoding", canary))
	log := b.log.String()
	if strings.Contains(log, canary) || strings.Contains(log, token[16:]) {
		for line := range strings.Lines(log) {
			if strings.Contains(line, canary) || strings.Contains(line, token[16:]) {
				t.Errorf("logged: %s", line)
			}
		}
	}
	if got := fmt.Sprint(b.seen.done, b.seen.rejected); strings.Contains(got, canary) || strings.Contains(got, token) {
		t.Errorf("observed: %s", got)
	}
	if len(b.log.lines(t, "handler panicked")) == 0 || !strings.Contains(log, "index out of range") {
		t.Error("panics are not logged")
	}
}

func TestPanics(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	b.mux.HandleFunc("GET /early", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"half":`)
		panic("x")
	})
	b.mux.HandleFunc("GET /late", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic("x")
	})
	b.mux.HandleFunc("GET /abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	problemOf(t, b.do(http.MethodGet, "/early", nil, header("Accept-Encoding", "gzip")), http.StatusInternalServerError)
	url := serve(t, b)
	for _, path := range []string{"/late", "/abort"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the client does not see that the answer broke", path)
		}
	}
	if n := len(b.log.lines(t, "handler panicked")); n != 2 {
		t.Errorf("%d panics were logged, want 2: one was on purpose", n)
	}
}

func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	for _, target := range []string{"/open", "/none", "/read/1"} {
		h := b.do(http.MethodGet, target, nil, header("Origin", "https://evil.example")).Header()
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Access-Control-Allow-Origin": "",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", target, name, h.Get(name), want)
			}
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{CORSOrigins: []string{"https://app.example.com"}})
	ask := func(origin string) http.Header {
		return b.do(http.MethodOptions, "/publish/1", nil, header("Origin", origin), header("Access-Control-Request-Method", "POST"),
			header("Access-Control-Request-Headers", "authorization,ce-type")).Header()
	}
	h := ask("https://app.example.com")
	if h.Get("Access-Control-Allow-Origin") != "https://app.example.com" || h.Get("Access-Control-Allow-Headers") != "authorization,ce-type" ||
		h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Vary") != "Origin" {
		t.Errorf("named: %v", h)
	}
	for _, origin := range []string{"https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null"} {
		if h := ask(origin); h.Get("Access-Control-Allow-Origin") != "" || h.Get("Vary") != "Origin" {
			t.Errorf("%s: %v", origin, h)
		}
	}
	w := b.do(http.MethodPost, "/publish/1", nil, header("Origin", "https://app.example.com"))
	if w.Code != http.StatusUnauthorized || w.Header().Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("an origin is no key, and its script may see so: %d %v", w.Code, w.Header())
	}
}

func TestAnswersArePacked(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{})
	long := strings.Repeat("bellhop ", 1000)
	send := func(media, text string, parts int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", media)
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
			w.WriteHeader(http.StatusAccepted)
			for i := range parts {
				io.WriteString(w, text[i*len(text)/parts:(i+1)*len(text)/parts])
			}
		}
	}
	for _, test := range []struct {
		name, accept string
		handler      http.HandlerFunc
		want         string
		packed       bool
	}{
		{"long", "gzip", send("application/json", long, 1), long, true},
		{"long in parts", "br, gzip;q=0.5", send("application/problem+json; charset=utf-8", long, 100), long, true},
		{"not asked for", "", send("application/json", long, 1), long, false},
		{"refused", "gzip;q=0", send("application/json", long, 1), long, false},
		{"short", "gzip", send("application/json", "{}", 1), "{}", false},
		{"nothing", "gzip", send("application/json", "", 1), "", false},
		{"an image", "gzip", send("image/png", long, 1), long, false},
		{"of no type", "gzip", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, long) }, long, true},
		{"a stream", "gzip", send("text/event-stream", long, 1), long, false},
	} {
		path := "/" + strings.ReplaceAll(test.name, " ", "-")
		b.mux.HandleFunc("GET "+path, test.handler)
		w := b.do(http.MethodGet, path, nil, header("Accept-Encoding", test.accept))
		text := w.Body.String()
		packed := w.Header().Get("Content-Encoding") == "gzip"
		if packed {
			if w.Body.Len() > len(long)/2 || w.Header().Get("Content-Length") != "" {
				t.Errorf("%s: %d bytes, %v", test.name, w.Body.Len(), w.Header())
			}
			r, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err != nil {
				t.Error(test.name, err)
			}
			text = string(data)
		}
		if packed != test.packed || text != test.want {
			t.Errorf("%s: packed %v, %d bytes", test.name, packed, len(text))
		}
	}
	b.mux.HandleFunc("GET /parts", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "first")
		if _, ok := w.(http.Flusher); !ok {
			t.Error("no http.Flusher")
		}
		_ = http.NewResponseController(w).Flush()
		io.WriteString(w, long)
	})
	if w := b.do(http.MethodGet, "/parts", nil, header("Accept-Encoding", "gzip")); w.Body.String() != "first"+long || !w.Flushed {
		t.Errorf("flushed %v, %d bytes", w.Flushed, w.Body.Len())
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Config{
		TrustedProxies: []string{"10.0.0.0/8", "nowhere"}, Rate: -2, AddressRate: 1e9, FailureRate: -0.5, Burst: time.Microsecond, MaxBodyBytes: 1,
		MaxConnections: -1, ReadTimeout: -1, CORSOrigins: []string{"https://ok.example", "*", "https://x/path"},
	}.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, name := range []string{"trusted_proxies: item 2", "rate:", "address_rate:", "failure_rate:", "burst:", "max_body_bytes:", "max_connections:", "read_timeout:", "cors_origins: item 2", "cors_origins: item 3"} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not in:\n%v", name, err)
		}
	}
}
