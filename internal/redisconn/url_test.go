package redisconn

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]target{
		"redis://localhost":             {scheme: "redis", mode: modeStandalone, addrs: []string{"localhost:6379"}},
		"REDIS://:p%40ss@h:7/3":         {scheme: "redis", mode: modeStandalone, addrs: []string{"h:7"}, password: "p@ss", db: 3},
		"redis://:7":                    {scheme: "redis", mode: modeStandalone, addrs: []string{"127.0.0.1:7"}},
		"rediss://ada:pw@[::1]/":        {scheme: "rediss", mode: modeStandalone, tls: true, addrs: []string{"[::1]:6379"}, username: "ada", password: "pw"},
		"redis://h?db=2&pool_size=7":    {scheme: "redis", mode: modeStandalone, addrs: []string{"h:6379"}, db: 2, poolSize: 7},
		"redis-cluster://a,b:7,[::2]":   {scheme: "redis-cluster", mode: modeCluster, addrs: []string{"a:6379", "b:7", "[::2]:6379"}},
		"rediss-cluster://:x@a/0":       {scheme: "rediss-cluster", mode: modeCluster, tls: true, addrs: []string{"a:6379"}, password: "x"},
		"redis-sentinel://a:1,b/m":      {scheme: "redis-sentinel", mode: modeSentinel, addrs: []string{"a:1", "b:26379"}, master: "m"},
		"rediss-sentinel://u:p@a/m/4":   {scheme: "rediss-sentinel", mode: modeSentinel, tls: true, addrs: []string{"a:26379"}, master: "m", db: 4, username: "u", password: "p"},
		"unix:///run/r.sock?db=1":       {scheme: "unix", mode: modeUnix, addrs: []string{"/run/r.sock"}, db: 1},
		"unix://:pw@/run/a%20b.sock":    {scheme: "unix", mode: modeUnix, addrs: []string{"/run/a b.sock"}, password: "pw"},
		"redis://h?client_name=a%26b":   {scheme: "redis", mode: modeStandalone, addrs: []string{"h:6379"}, clientName: "a&b"},
		"redis://h?read_timeout=1500ms": {scheme: "redis", mode: modeStandalone, addrs: []string{"h:6379"}, readTimeout: 1500e6},
		"redis-sentinel://a/m?sentinel_username=s&sentinel_password=t": {
			scheme: "redis-sentinel", mode: modeSentinel, addrs: []string{"a:26379"}, master: "m", sentinelUsername: "s", sentinelPassword: "t",
		},
	} {
		got, err := parse(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(target{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestParseRefusesAndSuggests(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"localhost:6379":                "redis://host:6379/0",
		"redsi://h":                     "did you mean redis://",
		"redis-sentinal://h/m":          "did you mean redis-sentinel://",
		"http://h":                      "known are redis://",
		"redis://h?pool_sise=3":         "did you mean pool_size",
		"redis://h?whatever=3":          "known are client_name, db",
		"redis://h?skip_verify=true":    "ca_file",
		"redis://h?pool_size=x":         "parameter pool_size of the address: give a number",
		"redis://h?read_timeout=5":      "such as 5s",
		"redis://h?sentinel_password=p": "redis-sentinel://",
		"redis://a,b":                   "redis-cluster://h1,h2",
		"redis://h:port":                "host 1 of 1",
		"redis-cluster://a,b:0":         "host 2 of 2",
		"redis://::1":                   "brackets",
		"redis://h/one":                 "not a number",
		"redis://h/1/2":                 "goes on behind the database",
		"redis-cluster://h/1":           "no databases",
		"redis-cluster://h?db=1":        "no databases",
		"redis-sentinel://h":            "names no master",
		"redis-sentinel://h/m/0/1":      "goes on behind the database",
		"unix://run/r.sock":             "three slashes",
		"unix://":                       "names no socket",
		"redis://:hunter2/slash@h":      "%2F",
		"redis://:hunter2@sign@h":       "%40",
		"redis://:hunter2?mark@h":       "%3F",
		"redis://:hunter2#hash@h":       "%23",
		"redis://:hunter2%zz@h":         "%25",
		"redis-sentinel://h/m?sentinel_password=hunter2%zz": "%25",
	} {
		_, err := parse(raw)
		if err == nil {
			t.Errorf("%s is accepted", raw)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q does not say %q", raw, err, want)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q tells the password", raw, err)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"redis://h":              "redis://h:6379/0",
		"redis://:hunter2@h/2":   "redis://:***@h:6379/2",
		"rediss://ada:hunter2@h": "rediss://ada:***@h:6379/0",
		"redis-sentinel://u:hunter2@a,b/m?sentinel_password=hunter2": "redis-sentinel://u:***@a:26379,b:26379/m/0",
		"redis-cluster://:hunter2@a,b":                               "redis-cluster://:***@a:6379,b:6379",
		"unix://:hunter2@/r.sock?db=3":                               "unix://:***@/r.sock?db=3",
		"redis://:hunter2/@h":                                        "(unreadable Redis address)",
	} {
		if got := Redact(raw); got != want {
			t.Errorf("Redact(%s) = %s, want %s", raw, got, want)
		}
	}
}

// The fuzzer writes the canary wherever it likes; only where a reader would not
// call it a secret (host, master, user name ...) may Redact show it.
func FuzzParse(f *testing.F) {
	const canary = "hunter2canary"
	for _, seed := range []string{
		"redis://u:PW@h:6379/0", "redis://:PW/@h", "redis://:PW", "redis://h?PW=1", "redis://h?pool_size=PW", "PW://h", "PW",
		"redis-sentinel://:PW@a,b/m/1?sentinel_password=PW", "rediss-cluster://a:PW@b,c:1", "unix://:PW@/s?db=PW", "redis://u:%PW@h",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, shape string) {
		raw := strings.ReplaceAll(shape, "PW", canary)
		parsed, err := parse(raw)
		if err != nil {
			if strings.Contains(err.Error(), canary) {
				t.Fatalf("%q: the error tells the secret: %v", raw, err)
			}
			return
		}
		shown := strings.Join(append([]string{parsed.username, parsed.master}, parsed.addrs...), " ")
		if strings.Contains(Redact(raw), canary) && !strings.Contains(shown, canary) {
			t.Fatalf("Redact(%q) tells the secret: %s", raw, Redact(raw))
		}
		if len(parsed.addrs) == 0 {
			t.Fatalf("%q: no address", raw)
		}
	})
}
