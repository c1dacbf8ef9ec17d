package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/sources/webhook"
	"github.com/bellhop-dev/bellhop/worker"
)

// given is one call of Load.
type given struct {
	file  string            // bellhop.yaml in the directory; "" for none
	files map[string]string // others
	env   []string
	args  []string
	name  string // Options.File
}

func (g given) load(t *testing.T) (*Loaded, error) {
	t.Helper()
	dir := t.TempDir()
	if g.file != "" {
		write(t, dir, defaultFile, g.file)
	}
	for name, text := range g.files {
		write(t, dir, name, text)
	}
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	for _, f := range flags {
		AddFlags(set, f.name)
	}
	if err := set.Parse(g.args); err != nil {
		t.Fatal(err)
	}
	return Load(Options{File: g.name, Flags: set, Env: g.env, Dir: dir})
}

func (g given) mustLoad(t *testing.T) *Loaded {
	t.Helper()
	l, err := g.load(t)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// faults returns them one a line.
func (g given) faults(t *testing.T) []string {
	t.Helper()
	_, err := g.load(t)
	var all Faults
	if !errors.As(err, &all) {
		t.Fatalf("error is %v, want Faults", err)
	}
	var lines []string
	for _, f := range all {
		lines = append(lines, f.Error())
	}
	return lines
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := "worker: {concurrency: 2}\n"
	for _, tc := range []struct {
		name  string
		given given
		want  int
		from  string
	}{
		{"nothing", given{}, 10, "default"},
		{"file", given{file: file}, 2, "bellhop.yaml:1"},
		{"environment", given{env: []string{"BELLHOP_WORKER_CONCURRENCY=3"}}, 3, "BELLHOP_WORKER_CONCURRENCY"},
		{"flag", given{args: []string{"--concurrency=4"}}, 4, "--concurrency"},
		{"environment over file", given{file: file, env: []string{"BELLHOP_WORKER_CONCURRENCY=3"}}, 3, "BELLHOP_WORKER_CONCURRENCY"},
		{"flag over file", given{file: file, args: []string{"--concurrency=4"}}, 4, "--concurrency"},
		{"flag over both", given{file: file, env: []string{"BELLHOP_WORKER_CONCURRENCY=3"}, args: []string{"--concurrency=4"}}, 4, "--concurrency"},
		{"empty variable is unset", given{file: file, env: []string{"BELLHOP_WORKER_CONCURRENCY="}}, 2, "bellhop.yaml:1"},
		{"null is unset", given{file: "worker:\n  concurrency:\n"}, 10, "default"},
		{"--config", given{file: file, files: map[string]string{"o.yaml": "worker: {concurrency: 5}"}, args: []string{"--config", "o.yaml"}}, 5, "o.yaml:1"},
		{"BELLHOP_CONFIG", given{file: file, files: map[string]string{"o.yaml": "worker: {concurrency: 5}"}, env: []string{"BELLHOP_CONFIG=o.yaml"}}, 5, "o.yaml:1"},
		{
			"--config over BELLHOP_CONFIG",
			given{files: map[string]string{"o.yaml": "worker: {concurrency: 5}"}, env: []string{"BELLHOP_CONFIG=gone.yaml"}, args: []string{"--config=o.yaml"}},
			5, "o.yaml:1",
		},
		{"other keys of a section stay", given{file: file, env: []string{"BELLHOP_WORKER_GRACE=1s"}}, 2, "bellhop.yaml:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := tc.given.mustLoad(t)
			if got, from := l.Config.Worker.Concurrency, l.Origin("worker.concurrency"); got != tc.want || from != tc.from {
				t.Errorf("concurrency is %d from %s, want %d from %s", got, from, tc.want, tc.from)
			}
		})
	}
}

func TestEveryFlagSetsItsKey(t *testing.T) {
	t.Parallel()
	l := given{
		file: "http: {addr: ':1'}\ntriggers: {files: [a]}\n",
		args: []string{
			"--redis=redis://h", "--queues", "critical=6, default=3,low", "--concurrency=3", "--burst", "--engine=asynq", "--grace=3s",
			"--http=", "--triggers=x,y", "--triggers=z", "--log-level=warn", "--log-format=json",
			"--addr=:2", "--private-addr=:3", "--cert-file=c", "--key-file=k",
		},
	}.mustLoad(t)
	c := l.Config
	got := []any{c.Redis.URL, c.Worker.Queues, c.Worker.Concurrency, c.Worker.Burst, c.Worker.Grace, c.HTTP.Addr, c.Triggers.Files, c.Log.Level, c.Log.Format, c.Gateway.Addr, c.Gateway.PrivateAddr, c.Gateway.CertFile, c.Gateway.KeyFile}
	want := []any{
		"redis://h",
		[]worker.Queue{{Name: "critical", Weight: 6}, {Name: "default", Weight: 3}, {Name: "low", Weight: 1}},
		3, true,
		3 * time.Second, "",
		[]string{"x,y", "z"},
		"warn", "json",
		":2", ":3", "c", "k",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, f := range flags {
		if f.key != "" && l.Origin(f.key) != "--"+f.name {
			t.Errorf("%s comes from %s", f.key, l.Origin(f.key))
		}
	}
}

func TestFlagsOfOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	set.String("redis", "", "") // a command's own, of the same name
	AddFlags(set, "concurrency")
	if err := set.Parse([]string{"--redis=nonsense", "--concurrency=7"}); err != nil {
		t.Fatal(err)
	}
	l, err := Load(Options{Flags: set, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if l.Config.Worker.Concurrency != 7 || l.Origin("redis.url") != "default" {
		t.Errorf("concurrency is %d, redis.url comes from %s", l.Config.Worker.Concurrency, l.Origin("redis.url"))
	}
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	files := map[string]string{"url": "redis://:pw@h/2\r\n\n"}
	l := given{files: files, env: []string{"BELLHOP_REDIS_URL_FILE=url"}}.mustLoad(t)
	if l.Config.Redis.URL != "redis://:pw@h/2" || l.Origin("redis.url") != "BELLHOP_REDIS_URL_FILE" {
		t.Errorf("url is %q from %s", l.Config.Redis.URL, l.Origin("redis.url"))
	}
	// A key of its own, read by redisconn for each connection.
	l = given{env: []string{"BELLHOP_REDIS_PASSWORD_FILE=/run/secrets/pw"}}.mustLoad(t)
	if l.Config.Redis.PasswordFile != "/run/secrets/pw" || l.Config.Redis.Password != "" {
		t.Errorf("password_file is %q", l.Config.Redis.PasswordFile)
	}
	got := given{files: files, env: []string{"BELLHOP_REDIS_URL_FILE=gone"}}.faults(t)
	wantLines(t, got, `redis.url: cannot read the file "gone": no such file or directory; name one that holds the value (BELLHOP_REDIS_URL_FILE)`)
	got = given{files: files, env: []string{"BELLHOP_REDIS_URL_FILE=url", "BELLHOP_REDIS_URL=redis://h"}}.faults(t)
	wantLines(t, got, `redis.url: BELLHOP_REDIS_URL is set too; keep one of them (BELLHOP_REDIS_URL_FILE)`)
	got = given{env: []string{"BELLHOP_WORKER_GRACE_FILE=url"}}.faults(t) // no secret
	wantLines(t, got, `BELLHOP_WORKER_GRACE_FILE: unknown variable, did you mean "BELLHOP_WORKER_GRACE"? (environment)`)
}

func TestKubernetesServiceLinksAreNobodysMistake(t *testing.T) {
	t.Parallel()
	given{env: []string{
		"BELLHOP_GATEWAY_SERVICE_HOST=10.0.0.1", "BELLHOP_GATEWAY_SERVICE_PORT=80", "BELLHOP_GATEWAY_SERVICE_PORT_HTTP=80",
		"BELLHOP_GATEWAY_PORT=tcp://10.0.0.1:80", "BELLHOP_GATEWAY_PORT_80_TCP=tcp://10.0.0.1:80",
		"BELLHOP_GATEWAY_PORT_80_TCP_PROTO=tcp", "BELLHOP_GATEWAY_PORT_80_TCP_PORT=80", "BELLHOP_GATEWAY_PORT_80_TCP_ADDR=10.0.0.1",
		"BELLHOP_PORT=tcp://10.0.0.1:80", "OTHER_WORKER_GRACE=x", "BELLHOPPER=1",
	}}.mustLoad(t)
	wantLines(t, given{env: []string{"BELLHOP_HTTP_PORT=80"}}.faults(t), `BELLHOP_HTTP_PORT: unknown variable, did you mean "BELLHOP_HTTP_ADDR"? (environment)`)
}

func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// A new field must be reachable, have a default or none on purpose, and stand in the example.
func TestEveryFieldIsReachable(t *testing.T) {
	t.Parallel()
	var untagged func(section reflect.Type, path string)
	untagged = func(section reflect.Type, path string) {
		for f := range section.Fields() {
			if f.IsExported() && f.Tag.Get("mapstructure") == "" {
				t.Errorf("%s%s has no mapstructure tag", path, f.Name)
			}
			if isSection(f.Type) {
				untagged(f.Type, path+f.Name+".")
			}
		}
	}
	untagged(reflect.TypeFor[Config](), "Config.")

	byEnv := make(map[string]string)
	for _, k := range keys() {
		if other, taken := byEnv[k.env()]; taken {
			t.Errorf("%s and %s have the same variable %s", k.path, other, k.env())
		}
		byEnv[k.env()] = k.path

		text, want := sample(t, k)
		for from, g := range map[string]given{
			"bellhop.yaml:" + fmt.Sprint(strings.Count(k.path, ".")+1): {file: nested(k.path, text)},
			k.env(): {env: []string{k.env() + "=" + text}},
		} {
			var set layer
			var faults Faults
			if g.file != "" {
				set, faults = readYAML(defaultFile, []byte(g.file))
			} else {
				set, faults = readEnv(g.env, "")
			}
			if len(faults) > 0 {
				t.Errorf("%s by %s: %v", k.path, from, faults)
				continue
			}
			c, err := merge(set)
			if err != nil {
				t.Errorf("%s by %s: %v", k.path, from, err)
				continue
			}
			if diff := cmp.Diff(want, reflect.ValueOf(c).FieldByIndex(k.index).Interface()); diff != "" || set[k.path].from != from {
				t.Errorf("%s by %s, noted as %s (-want +got):\n%s", k.path, from, set[k.path].from, diff)
			}
		}
	}
}

// sample is a value that no default is.
func sample(t *testing.T, k key) (string, any) {
	t.Helper()
	switch {
	case k.typ == durationType:
		return "77s", 77 * time.Second
	case k.typ == reflect.SliceOf(queueType):
		return "a=2,b", []worker.Queue{{Name: "a", Weight: 2}, {Name: "b", Weight: 1}}
	case k.typ == reflect.TypeFor[RabbitMQ]():
		return "[{queue: a}]", RabbitMQ{{Queue: "a"}}
	case k.typ == reflect.TypeFor[[]handlers.WebhookEndpoint]():
		return "[{name: a, headers: {X: y}}]", []handlers.WebhookEndpoint{{Name: "a", Headers: map[string]string{"X": "y"}}}
	case k.typ == reflect.TypeFor[[]handlers.WebhookSigner]():
		return "[{name: a, hosts: [b]}]", []handlers.WebhookSigner{{Name: "a", Hosts: []string{"b"}}}
	case k.typ == reflect.TypeFor[webhook.Hooks]():
		return "[{name: a, signature: {header: b}}]", webhook.Hooks{{Name: "a", Signature: webhook.Signature{Header: "b"}}}
	case k.typ == reflect.TypeFor[[]string]():
		return "a,b", []string{"a", "b"}
	case k.typ.Kind() == reflect.String:
		return "sample", "sample"
	case k.typ.Kind() == reflect.Bool:
		return "true", true
	default:
		v, err := fromText(k.typ, "77")
		if err != nil {
			t.Errorf("%s is of type %s: teach sample about it, and text.go and yaml.go if they cannot read it", k.path, k.typ)
		}
		return "77", v.Interface()
	}
}

func nested(path, value string) string {
	var b strings.Builder
	names := strings.Split(path, ".")
	for depth, name := range names {
		b.WriteString(indent(depth) + name + ":")
		if depth < len(names)-1 {
			b.WriteString("\n")
		}
	}
	return b.String() + " " + value + "\n"
}

func TestEverySectionIsChecked(t *testing.T) {
	t.Parallel()
	var c Config
	for _, k := range keys() {
		if !slices.ContainsFunc(c.sections(), func(s section) bool { return strings.HasPrefix(k.path+".", s.path+".") }) {
			t.Errorf("%s is in no section of Config.sections", k.path)
		}
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	t.Parallel()
	none := []string{ // whose default is nothing
		"redis.username", "redis.password", "redis.password_file", "redis.ca_file", "redis.cert_file", "redis.key_file", "redis.server_name",
		"redis.pool_size", "redis.allow_eviction", "triggers.files", "triggers.allow_unknown_tasks", "worker.strict_priority", "worker.burst",
		"handlers.http.allow", "http.addr", "durable.replicas", "hooks", "sources.rabbitmq",
		"handlers.webhooks.endpoints", "handlers.webhooks.signers", "handlers.webhooks.allow", "handlers.email.host", "handlers.email.username", "handlers.email.password", "handlers.email.from", "handlers.email.ca_file",
		"handlers.amqp.url", "handlers.amqp.username", "handlers.amqp.password", "handlers.amqp.password_file", "handlers.amqp.ca_file", "handlers.amqp.cert_file", "handlers.amqp.key_file", "handlers.amqp.server_name",
		"gateway.cert_file", "gateway.key_file", "gateway.drain_delay", "gateway.guard.trusted_proxies", "gateway.guard.cors_origins",
	}
	c := Default()
	for _, k := range keys() {
		if zero := reflect.ValueOf(c).FieldByIndex(k.index).IsZero(); zero != slices.Contains(none, k.path) {
			t.Errorf("%s: default is zero: %v", k.path, zero)
		}
	}
	if c.Worker.Logger != nil {
		t.Error("the logger of this moment is kept in the configuration")
	}
	if diff := cmp.Diff(c, given{}.mustLoad(t).Config); diff != "" {
		t.Errorf("Default is not what Load makes of nothing (-Default +Load):\n%s", diff)
	}
}

func TestExampleHoldsEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	l, err := Load(Options{File: "bellhop.example.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Triggers.Files, want.Handlers.HTTP.Allow = []string{}, []string{}
	want.Hooks, want.Sources.RabbitMQ = webhook.Hooks{}, RabbitMQ{}
	want.Handlers.Webhooks.Endpoints, want.Handlers.Webhooks.Signers = []handlers.WebhookEndpoint{}, []handlers.WebhookSigner{}
	want.Handlers.Webhooks.Allow = []string{}
	want.Gateway.Guard.TrustedProxies, want.Gateway.Guard.CORSOrigins = []string{}, []string{}
	if diff := cmp.Diff(want, l.Config); diff != "" {
		t.Errorf("(-default +example):\n%s", diff)
	}
	for _, k := range keys() {
		if l.Origin(k.path) == "default" {
			t.Errorf("%s is missing", k.path)
		}
	}
}

// A zero would silently become the default: 10 jobs at once for who wants none.
func TestAWrittenZeroIsRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		given given
		says  string
	}{
		"flag":        {given{args: []string{"--concurrency=0"}}, "worker.concurrency: is 0, which would mean its default (10): leave it out for that, or give another value (--concurrency)"},
		"file":        {given{file: "worker:\n  grace: 0s\n"}, "worker.grace: is 0, which would mean its default (25s)"},
		"environment": {given{env: []string{"BELLHOP_EVENTS_MAX_DEAD=0"}}, "(BELLHOP_EVENTS_MAX_DEAD)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := tc.given.load(t)
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
	if l := (given{file: "redis: {pool_size: 0}\n"}).mustLoad(t); l.Config.Redis.PoolSize != 0 {
		t.Errorf("a zero that means something: %d", l.Config.Redis.PoolSize)
	}
}
