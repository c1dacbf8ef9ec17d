package handlers_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// privateHosts are not of the public internet, in all the ways to write that.
var privateHosts = []string{
	"127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", // private, CGNAT
	"169.254.169.254", "192.0.0.192", "[fd00:ec2::254]", // metadata
	"224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1",
	"[::1]", "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[ff02::1]",
	"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", // IPv4 within IPv6
	"[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", // NAT64, 6to4, Teredo
	"localhost", "LOCALHOST", // names that resolve to loopback
	"①②⑦.⓪.⓪.①", // digits that IDNA maps to ASCII
}

// numericHosts are numbers that some resolvers take for 127.0.0.1 and the like.
var numericHosts = []string{
	"2130706433", "017700000001", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "127.1", "127.0.1", "0x7F.1", "127.0.0.01", "1.1.1.1.1", "2852039166.", "１２７.0.0.1",
}

func TestHTTPRefusesPrivateAddresses(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	h := newHTTP(t, handlers.HTTPConfig{})
	for _, host := range privateHosts {
		_, err := run(t, h, tasks.HTTPRequest{URL: "http://" + host + ":" + port + "/"})
		wantDiscard(t, err, "is a private, local or reserved address", ":"+port+`" to handlers.http.allow`)
	}
	for _, host := range numericHosts {
		_, err := run(t, h, tasks.HTTPRequest{URL: "http://" + host + ":" + port + "/"})
		wantDiscard(t, err, "a number that is no plain IP address")
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls reached the loopback server", n)
	}
}

func TestHTTPAllowList(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, test := range []struct {
		allow, host string
		want        bool
	}{
		{"127.0.0.1", "127.0.0.1", true},
		{"127.0.0.1:" + port, "127.0.0.1", true},
		{"127.0.0.1:1", "127.0.0.1", false},
		{"127.0.0.0/8", "127.0.0.1", true},
		{"127.0.0.0/8", "[::ffff:127.0.0.1]", true},
		{"::ffff:127.0.0.1", "127.0.0.1", true},
		{"10.0.0.0/8", "127.0.0.1", false},
		{"127.0.0.1", "localhost", true}, // by what it resolves to
		{"localhost", "localhost", true},
		{"LocalHost.", "localhost", true},
		{"localhost:" + port, "LOCALHOST", true},
		{"localhost:1", "localhost", false},
		{"localhost", "127.0.0.1", false}, // the name is allowed, not its address
		{"*.localhost", "localhost", false},
		{"host", "localhost", false},
	} {
		h := newHTTP(t, handlers.HTTPConfig{Allow: []string{test.allow}})
		_, err := run(t, h, tasks.HTTPRequest{URL: "http://" + test.host + ":" + port})
		if got := err == nil; got != test.want || err != nil && !job.IsDiscard(err) {
			t.Errorf("allow %s, call %s: %v", test.allow, test.host, err)
		}
	}
}

func TestHTTPChecksRedirects(t *testing.T) {
	t.Parallel()
	var hops atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		hops.Add(1)
		http.Redirect(w, r, r.URL.Query().Get("to"), http.StatusTemporaryRedirect)
	})
	h := newHTTP(t, handlers.HTTPConfig{Allow: []string{s.Listener.Addr().String()}})
	for to, part := range map[string]string{
		"http://169.254.169.254/latest/meta-data/": "169.254.169.254 is a private",
		"http://[::ffff:169.254.169.254]/":         "is a private",
		"http://localhost:1/":                      "localhost (",
		"http://2852039166/":                       "a number that is no plain IP address",
		"file:///etc/passwd":                       "must begin with http",
		"gopher://127.0.0.1/":                      "must begin with http",
	} {
		_, err := run(t, h, tasks.HTTPRequest{URL: s.URL + "?to=" + to})
		wantDiscard(t, err, "GET "+s.URL, part)
	}
	hops.Store(0)
	_, err := run(t, h, tasks.HTTPRequest{URL: s.URL + "?to=" + "http://169.254.169.254", NoRedirects: true})
	wantDiscard(t, err, "answered 307", "no_redirects")
	if n := hops.Load(); n != 1 {
		t.Errorf("no_redirects: %d calls", n)
	}
}

func TestHTTPRedirectsAsNetHTTPDoes(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := int(calls.Add(1))
		switch {
		case r.URL.Path == "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case r.URL.Path == "/five" && n <= 5:
			http.Redirect(w, r, "/five", http.StatusFound)
		case r.URL.Path == "/307":
			http.Redirect(w, r, "/end", http.StatusTemporaryRedirect)
		case r.URL.Path == "/303":
			http.Redirect(w, r, "/end", http.StatusSeeOther)
		default:
			body, _ := io.ReadAll(r.Body)
			answer(w, r.Method+" "+string(body)+" "+r.Header.Get("Authorization")+" "+r.Header.Get("Referer"))
		}
	})
	h := newHTTP(t, allowLoopback)
	for path, want := range map[string]string{"/five": "GET  Bearer t ", "/307": "POST data Bearer t ", "/303": "GET  Bearer t "} {
		calls.Store(0)
		p := tasks.HTTPRequest{URL: s.URL + path, Headers: map[string]string{"Authorization": "Bearer t"}}
		if path != "/five" {
			p.Body = "data"
		}
		j, err := run(t, h, p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, resultOf(t, j).Body); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	calls.Store(0)
	_, err := run(t, h, tasks.HTTPRequest{URL: s.URL + "/loop"})
	wantDiscard(t, err, "more than 5 redirects")
	if n := calls.Load(); n != 6 {
		t.Errorf("%d calls, want 6", n)
	}
}

// Neither Authorization nor any other header of the payload's own goes to another host, nor comes back from there.
func TestHTTPKeepsSecretsHome(t *testing.T) {
	t.Parallel()
	var home, away string
	var back http.Header
	homeServer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			back = r.Header.Clone()
			return
		}
		http.Redirect(w, r, away, http.StatusTemporaryRedirect)
	})
	var seen http.Header
	awayServer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		http.Redirect(w, r, home+"/back", http.StatusTemporaryRedirect)
	})
	home, away = homeServer.URL, awayServer.URL
	h := newHTTP(t, allowLoopback)
	_, err := run(t, h, tasks.HTTPRequest{
		URL: strings.Replace(home, "http://", "http://user:canary-1@", 1) + "/?token=canary-2", JSON: 1,
		Headers: map[string]string{"X-Api-Key": "canary-3", "Cookie": "canary-4", "Accept": "text/plain"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for where, headers := range map[string]http.Header{"away": seen, "back": back} {
		for name, values := range headers {
			if text := strings.Join(values, " "); strings.Contains(text, "canary") || name == "Authorization" || name == "Referer" {
				t.Errorf("%s: got %s: %s", where, name, text)
			}
		}
		for name, want := range map[string]string{"Accept": "text/plain", "Content-Type": "application/json", "Idempotency-Key": "job-1"} {
			if got := headers.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", where, name, got, want)
			}
		}
	}
}

func TestHTTPConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	cfg := handlers.Config{HTTP: handlers.HTTPConfig{
		Allow: []string{
			"http://agents.internal", "10.1.2.3/8", "::ffff:10.0.0.0/104", "10.0.0.0/8:80", "host:0", "host:99999", "*", "2130706433", "a b", "", "bücher.example", "127.0.0.1:x",
			"agents.internal", "*.internal:8080", "10.0.0.0/8", "[::1]", "[::1]:80", "::1",
		},
		MaxResponseBytes: 2 << 20, Timeout: -1, UserAgent: "a\nb",
	}}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	lines := strings.Split(err.Error(), "\n")
	want := []string{
		`http.allow[0]: "http://agents.internal" is a URL`, `http.allow[1]: "10.1.2.3/8" has bits set beyond its length: did you mean 10.0.0.0/8`,
		`http.allow[2]`, `http.allow[3]`, `http.allow[4]`, `http.allow[5]`, `http.allow[6]`, `http.allow[7]`, `http.allow[8]`, `http.allow[9]`, `http.allow[10]`, `http.allow[11]`,
		`http.max_response_bytes:`, `http.timeout:`, `http.user_agent:`,
	}
	if len(lines) != len(want) {
		t.Fatalf("got %d faults, want %d:\n%v", len(lines), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("fault %d is %q, want %q ...", i, lines[i], want[i])
		}
	}
	if _, err := handlers.Routes(cfg, handlers.Deps{}); err == nil {
		t.Error("Routes took it")
	}
	routes, err := handlers.Routes(handlers.Config{}, handlers.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	var served, declared []string
	for _, r := range routes {
		served = append(served, r.Definition.Name)
	}
	for _, d := range tasks.BuiltIn() {
		declared = append(declared, d.Name)
	}
	if diff := cmp.Diff(declared, served); diff != "" {
		t.Errorf("tasks declared and served (-declared +served):\n%s", diff)
	}
}

func FuzzHTTPAllow(f *testing.F) {
	for _, seed := range []string{"agents.internal:80", "*.x", "10.0.0.0/8", "[::1]:80", "127.1", "::ffff:1.2.3.4", "[[::1]]", "a..b", "x:y:z"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		cfg := handlers.HTTPConfig{Allow: []string{entry}}
		if cfg.Validate() != nil {
			return
		}
		if _, err := handlers.NewHTTP(cfg); err != nil {
			t.Errorf("%q validates but %v", entry, err)
		}
	})
}
