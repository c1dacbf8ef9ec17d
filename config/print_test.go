package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func printed(t *testing.T, l *Loaded) string {
	t.Helper()
	var b bytes.Buffer
	if err := l.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var origin = regexp.MustCompile(`(?m) +# [^\n"']*$`)

func withoutOrigin(s string) string { return origin.ReplaceAllString(s, "") }

// full sets each key to something that is not its default.
var full = given{
	file: `redis: {url: "redis://h:7/3", username: ada, wait_for: 90s, ca_file: "", allow_eviction: true}
events: {prefix: "x:{y}:", batch: 7, max_events: 12}
triggers:
  files: ["a b.yaml", "c: d # e", "", 'true', "12", "ü\n\t\u0001"]
worker:
  queues: [{name: critical, weight: 6}, {name: "on", weight: 1}]
  retry: {first: 1m30s, max: 36h}
handlers: {http: {user_agent: "it's \"me\": {x} # *y &z", allow: ["*.internal", "[::1]:80"]}}
`,
	env:  []string{"BELLHOP_WORKER_GRACE=1h5m"},
	args: []string{"--http=:8080"},
}

func TestPrintedCanBeLoaded(t *testing.T) {
	t.Parallel()
	g := full
	g.file = strings.Replace(g.file, `"", 'true'`, `'true'`, 1)
	l := g.mustLoad(t)
	text := printed(t, l)
	again := given{file: text}.mustLoad(t)
	want := l.Config
	for _, k := range keys() { // an empty list is one that is not set
		if v := reflect.ValueOf(&want).Elem().FieldByIndex(k.index); v.Kind() == reflect.Slice && v.IsNil() {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
	}
	if diff := cmp.Diff(want, again.Config); diff != "" {
		t.Errorf("(-was +again):\n%s\n%s", diff, text)
	}
	if diff := cmp.Diff(withoutOrigin(text), withoutOrigin(printed(t, again))); diff != "" {
		t.Errorf("printed again:\n%s", diff)
	}
}

func TestPrintTellsWhereEachValueIsFrom(t *testing.T) {
	t.Parallel()
	l := given{
		file: "worker:\n  concurrency: 5\n  queues:\n  - critical=6\ngateway: {guard: {address_rate: 0.5, failure_rate: 1e6}}\n",
		env:  []string{"BELLHOP_WORKER_GRACE=24h"},
		args: []string{"--burst"},
	}.mustLoad(t)
	text := printed(t, l)
	want := `
  concurrency: 5                             # bellhop.yaml:2
  queues: [{name: critical, weight: 6}]      # bellhop.yaml:4
  strict_priority: false                     # default
  grace: 24h                                 # BELLHOP_WORKER_GRACE
  retry:
    first: 15s                               # default
    max: 24h                                 # default
  max_crashes: 3                             # default
  burst: true                                # --burst
handlers:
  http:
`
	if !strings.Contains(text, want) {
		t.Errorf("got\n%s\nwant in it\n%s", text, want)
	}

	for _, number := range []string{"\n    rate: 1000    ", "\n    address_rate: 0.5    ", "\n    failure_rate: 1000000    "} {
		if !strings.Contains(text, number) {
			t.Errorf("got\n%s\nwant in it %q", text, number)
		}
	}

	var b bytes.Buffer
	if err := l.PrintJSON(&b); err != nil {
		t.Fatal(err)
	}
	var got map[string]struct {
		Value any
		From  string
	}
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(keys()) || got["worker.concurrency"].Value != 5.0 || got["worker.concurrency"].From != "bellhop.yaml:2" || got["worker.grace"].Value != "24h" {
		t.Errorf("got %s", b.String())
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	t.Parallel()
	const canary = "hunter2canary"
	for name, g := range map[string]given{
		"password":             {file: "redis: {password: PW}"},
		"password in variable": {env: []string{"BELLHOP_REDIS_PASSWORD=PW"}},
		"address":              {file: "redis: {url: 'redis://u:PW@h/1'}"},
		"address in variable":  {env: []string{"BELLHOP_REDIS_URL=redis://:PW@h"}},
		"address in flag":      {args: []string{"--redis=redis://:PW@h"}},
		"address in file":      {files: map[string]string{"url": "redis://:PW@h"}, env: []string{"BELLHOP_REDIS_URL_FILE=url"}},
		"sentinel":             {args: []string{"--redis=redis-sentinel://h/m?sentinel_password=PW"}},
		"broken address":       {args: []string{"--redis=redis://:PW/@h"}},
		"no scheme":            {args: []string{"--redis=:PW@h"}},
		"no UTF-8":             {env: []string{"BELLHOP_REDIS_PASSWORD=PW\xff", "BELLHOP_REDIS_URL=redis://:PW\xff@h"}},
		"list":                 {file: "redis: {password: [PW], url: {redis: PW}}"},
		"at the section":       {file: "redis: redis://:PW@h"},
		"alias":                {file: "redis: {password: *PW}"},
		"tag":                  {file: "redis: {password: !x PW}"},
		"wrong key":            {file: "redis: {pasword: PW, uri: 'redis://:PW@h'}"},
		"wrong variable":       {env: []string{"BELLHOP_REDIS_PASWORD=PW"}},
		"wrong place":          {file: "worker: {engine: 'redis://u:PW@h', concurrency: 'redis://u:PW@h'}"},
		"both passwords":       {file: "redis: {password: PW, password_file: x}"},
		"user agent":           {file: "handlers: {http: {user_agent: 'see http://u:PW@h/'}}"},
		"list of addresses":    {file: "triggers: {files: ['https://u:PW@h/a']}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			put := func(s string) string { return strings.ReplaceAll(s, "PW", canary) }
			with := given{file: put(g.file), files: map[string]string{}}
			for file, text := range g.files {
				with.files[file] = put(text)
			}
			for _, e := range g.env {
				with.env = append(with.env, put(e))
			}
			for _, a := range g.args {
				with.args = append(with.args, put(a))
			}
			l, err := with.load(t)
			if err != nil {
				for text, e := err.Error(), err; ; {
					if strings.Contains(text, canary) {
						t.Errorf("told by: %s", text)
					}
					if e = errors.Unwrap(e); e == nil {
						return
					}
					text = e.Error()
				}
			}
			shown := printed(t, l)
			var b bytes.Buffer
			if err := l.PrintJSON(&b); err != nil {
				t.Fatal(err)
			}
			if shown += b.String(); strings.Contains(shown, canary) {
				t.Errorf("shown:\n%s", shown)
			}
			if name != "sentinel" && !strings.Contains(shown, masked) { // its parameters are left out
				t.Errorf("no value is masked:\n%s", shown)
			}
		})
	}
}

// Who knows the path or the query of a webhook's address is let in at many providers.
func TestAddressesOfEndpointsAreShownInPart(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://hooks.example.com/T0/B0/canary":          "https://hooks.example.com/***",
		"https://hooks.example.com?token=canary":          "https://hooks.example.com/***",
		"https://hooks.example.com:8443/#canary":          "https://hooks.example.com:8443/***",
		"https://canary:canary@hooks.example.com/":        "https://hooks.example.com/***",
		"https://hooks.example.com/":                      "https://hooks.example.com/",
		"http://10.0.0.7:8080":                            "http://10.0.0.7:8080",
		"hooks.example.com/canary":                        "***",
		"https://hooks.example.com/%zz/canary":            "***",
		"":                                                "",
		"https://hooks.example.com/${canary}/{canary}?a=": "https://hooks.example.com/***",
	} {
		if got := mask("handlers.webhooks.endpoints.url", address); got != want {
			t.Errorf("%s is shown as %s, want %s", address, got, want)
		}
	}
	l := given{file: `handlers:
  webhooks:
    endpoints:
      - name: shop
        url: https://hooks.example.com/canary?token=canary
        secrets: [whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=]
`}.mustLoad(t)
	var b bytes.Buffer
	if err := l.PrintJSON(&b); err != nil {
		t.Fatal(err)
	}
	for form, text := range map[string]string{"YAML": printed(t, l), "JSON": b.String()} {
		if strings.Contains(text, "canary") || !strings.Contains(text, "https://hooks.example.com/***") {
			t.Errorf("as %s:\n%s", form, text)
		}
	}
}

func TestSecretsAreKnownByName(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"redis.password": true, "redis.url": true, "redis.password_file": false, "redis.key_file": false, "gateway.api_keys": true,
		"gateway.webhooks[0].secret": true, "sources.rabbit.token": true, "worker.grace": false, "keyboard.layout": false, "a.headers[\"x\"]": true,
	} {
		if got := isSecret(path); got != want {
			t.Errorf("isSecret(%s) = %v", path, got)
		}
	}
}
