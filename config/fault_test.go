package config

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"
)

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		given given
		want  []string
	}{
		{"unknown key", given{file: "worker:\n  concurency: 3\n"}, []string{`worker.concurency: unknown key, did you mean "worker.concurrency"? (bellhop.yaml:2)`}},
		{"unknown section", given{file: "wroker: {}\n"}, []string{`wroker: unknown key, did you mean "worker"? (bellhop.yaml:1)`}},
		{"upper case", given{file: "Worker: {}\n"}, []string{`Worker: unknown key, did you mean "worker"? (bellhop.yaml:1)`}},
		{"key of another section", given{file: "concurrency: 3\n"}, []string{`concurrency: unknown key, did you mean "worker.concurrency"? (bellhop.yaml:1)`}},
		{"dotted key", given{file: "worker.grace: 3s\n"}, []string{`"worker.grace": write each part of the key as a section of its own, one below the other (bellhop.yaml:1)`}},
		{"nothing alike", given{file: "log: {zzzzzzzzzz: 1}\n"}, []string{`log.zzzzzzzzzz: unknown key, known are level, format (bellhop.yaml:1)`}},
		{"unknown key in a list", given{file: "worker:\n  queues:\n  - {name: a, wieght: 1}\n"}, []string{`worker.queues[0].wieght: unknown key, did you mean "worker.queues[0].weight"? (bellhop.yaml:3)`}},
		{"key twice", given{file: "log:\n  level: info\n  level: warn\n"}, []string{`log.level: is given twice, first in line 2; keep one of them (bellhop.yaml:3)`}},
		{"unknown variable", given{env: []string{"BELLHOP_WORKER_CONCURENCY=3"}}, []string{`BELLHOP_WORKER_CONCURENCY: unknown variable, did you mean "BELLHOP_WORKER_CONCURRENCY"? (environment)`}},

		{"no number", given{file: "worker:\n\n  concurrency: ten\n"}, []string{`worker.concurrency: "ten" is not a whole number (bellhop.yaml:3)`}},
		{"no number in a variable", given{env: []string{"BELLHOP_WORKER_CONCURRENCY=ten"}}, []string{`worker.concurrency: "ten" is not a whole number (BELLHOP_WORKER_CONCURRENCY)`}},
		{"no number in a flag", given{args: []string{"--concurrency=ten"}}, []string{`worker.concurrency: "ten" is not a whole number (--concurrency)`}},
		{"fraction", given{file: "worker: {concurrency: 1.5}\n"}, []string{`worker.concurrency: "1.5" is not a whole number (bellhop.yaml:1)`}},
		{"number out of range", given{file: "events: {max_events: 9223372036854775808}\n"}, []string{`events.max_events: "9223372036854775808" is out of range (bellhop.yaml:1)`}},
		{"negative for unsigned", given{file: "triggers: {cost_limit: -1}\n"}, []string{`triggers.cost_limit: "-1" is not a whole number (bellhop.yaml:1)`}},
		{"no duration", given{file: "worker: {grace: soon}\n"}, []string{`worker.grace: "soon" is not a duration such as 500ms, 30s or 24h (bellhop.yaml:1)`}},
		{"duration without unit", given{file: "worker: {grace: 30}\n"}, []string{`worker.grace: "30" has no unit, write it such as 30s (bellhop.yaml:1)`}},
		{"no bool", given{file: "worker: {burst: perhaps}\n"}, []string{`worker.burst: "perhaps" is not true or false (bellhop.yaml:1)`}},
		{"value for a section", given{file: "worker: 3\n"}, []string{
			`worker: is a single value, expected a section with engine, concurrency, queues, strict_priority, grace, retry, max_crashes, burst (bellhop.yaml:1)`,
		}},
		{"section for a value", given{file: "worker:\n  grace:\n    first: 1s\n"}, []string{`worker.grace: is a section, expected a duration such as 500ms, 30s or 24h (bellhop.yaml:3)`}},
		{"list for text", given{file: "log: {level: [info]}\n"}, []string{`log.level: is a list, expected text (bellhop.yaml:1)`}},
		{"list of sections", given{file: "hooks:\n  - {name: gh, kind: github, secret: x}\n"}, []string{`hooks[0].secret: unknown key, did you mean "hooks[0].secrets"? (bellhop.yaml:2)`}},
		{"a section of a list", given{file: "hooks:\n  - {name: gh, kind: github}\n"}, []string{
			`hooks[0] (gh): secrets: are missing: give the one that the provider signs with, here or in secrets_files (bellhop.yaml:2)`,
		}},
		{"sections in a variable", given{env: []string{"BELLHOP_HOOKS=[{name: gh, kind: github, secret: hunter2hunter2}]"}}, []string{
			`hooks: the value [0].secret: unknown key, did you mean "[0].secrets"? (BELLHOP_HOOKS)`,
		}},
		{"no YAML in a variable", given{env: []string{"BELLHOP_HOOKS=[{name: gh"}}, []string{`hooks: the value is no YAML, write it such as [{name: a}, {name: b}] (BELLHOP_HOOKS)`}},
		{"a word for sections in a variable", given{env: []string{"BELLHOP_HOOKS=github"}}, []string{`hooks: the value is no list, write it such as [{name: a}, {name: b}] (BELLHOP_HOOKS)`}},
		{"a word for sections", given{file: "hooks: github\n"}, []string{`hooks: the value is no list, write it such as [{name: a}, {name: b}] (bellhop.yaml:1)`}},
		{"list for the file", given{file: "- worker\n"}, []string{
			`the file: is a list, expected a section with redis, events, triggers, durable, worker, handlers, gateway, hooks, sources, http, log (bellhop.yaml:1)`,
		}},
		{"queues by name", given{file: "worker: {queues: {critical: 6}}\n"}, []string{
			`worker.queues: is a section, expected a list of queues such as [{name: default, weight: 1}] or critical=6,default=3 (bellhop.yaml:1)`,
		}},
		{"two parts of a list", given{args: []string{"--queues=a=x,b,=,c=y"}}, []string{
			`worker.queues: "a=x" has a weight that is not a whole number, write it such as critical=6 (--queues)`,
			`worker.queues: "=" has a weight that is not a whole number, write it such as critical=6 (--queues)`,
			`worker.queues: "c=y" has a weight that is not a whole number, write it such as critical=6 (--queues)`,
		}},
		{"no UTF-8", given{env: []string{"BELLHOP_LOG_LEVEL=\xff"}}, []string{`log.level: "\xff" is not UTF-8 (BELLHOP_LOG_LEVEL)`}},

		{"refused by the package", given{file: "worker:\n  concurrency: -3\n"}, []string{`worker.concurrency: -3, it must be between 1 and 100000 (bellhop.yaml:2)`}},
		{"two keys in one fault", given{file: "worker:\n  retry:\n    first: 9s\n", env: []string{"BELLHOP_WORKER_RETRY_MAX=2s"}}, []string{
			`worker.retry: first 9s and max 2s, they must be positive and max not below first (bellhop.yaml:3, BELLHOP_WORKER_RETRY_MAX)`,
		}},
		{"weight zero", given{args: []string{"--queues=a=0"}}, []string{`worker.queues: "a=0" has a weight below 1, leave the queue out or write it such as critical=6 (--queues)`}},
		{"one of a list", given{file: "worker:\n  queues:\n  - {name: a, weight: -1}\n"}, []string{`worker.queues[0] (a): weight is -1, it must be at least 1 (bellhop.yaml:3)`}},
		{"redis by address", given{args: []string{"--redis=redsi://h"}}, nil},
		{"inner section", given{file: "handlers:\n  http:\n    timeout: 1us\n"}, []string{`handlers.http.timeout: is 1µs, at least 1ms is needed (bellhop.yaml:3)`}},
		{"log", given{args: []string{"--log-level=wran", "--log-format=yaml"}}, []string{
			`log.level: "wran" is unknown, did you mean "warn"? (--log-level)`, `log.format: "yaml" is unknown, known are auto, text, json (--log-format)`,
		}},
		{"addr", given{args: []string{"--http=8080"}}, []string{`http.addr: "8080" is no address, give host:port such as 127.0.0.1:8080, or :8080 for all interfaces (--http)`}},
		{"a type fault has no second one", given{file: "redis: {url: 'rediss://h', cert_file: [x], key_file: k}\n"}, []string{`redis.cert_file: is a list, expected text (bellhop.yaml:1)`}},

		{"every fault, none hides another", given{
			file: "wroker: {}\nworker:\n  concurrency: ten\n  grace: -1s\nlog:\n  level: loud\n",
			env:  []string{"BELLHOP_EVENTS_BATCH=0x", "BELLHOP_NOPE=1", "BELLHOP_EVENTS_CLAIM_AFTER=1ms"},
			args: []string{"--burst=perhaps", "--http=x"},
		}, []string{
			`wroker: unknown key, did you mean "worker"? (bellhop.yaml:1)`,
			`worker.concurrency: "ten" is not a whole number (bellhop.yaml:3)`,
			`events.batch: "0x" is not a whole number (BELLHOP_EVENTS_BATCH)`,
			`BELLHOP_NOPE: unknown variable; remove it, BELLHOP_* are the names of keys (environment)`,
			`worker.burst: "perhaps" is not true or false (--burst)`,
			`events.claim_after: is 1ms, at least 100ms is needed (BELLHOP_EVENTS_CLAIM_AFTER)`,
			`worker.grace: -1s, it must not be negative (bellhop.yaml:4)`,
			`http.addr: "x" is no address, give host:port such as 127.0.0.1:8080, or :8080 for all interfaces (--http)`,
			`log.level: "loud" is unknown, known are debug, info, warn, error (bellhop.yaml:6)`,
		}},

		{"unknown tag", given{file: "log: {level: !vault info}\n"}, []string{`log.level: has the tag "!vault", tags mean nothing here: remove it (bellhop.yaml:1)`}},
		{"alias of a list", given{file: "triggers:\n  files: &a [x]\nhandlers:\n  http:\n    allow: *a\n"}, []string{
			`handlers.http.allow: is an alias of a list, only single values can have aliases: write it out (bellhop.yaml:5)`,
		}},
		{"two documents", given{file: "log: {}\n---\nworker: {}\n"}, []string{`a second document begins here, a configuration is one: remove the line --- (bellhop.yaml:2)`}},
		{"indentation", given{file: "worker:\n  grace: 3s\n burst: true\n"}, []string{`is no YAML: did not find expected key (bellhop.yaml:3)`}},
		{"open bracket", given{file: "log:\n  level: info\ntriggers:\n  files: [a\nworker: {}\n"}, []string{`is no YAML: did not find expected ',' or ']' (bellhop.yaml:4)`}},
		{"tab", given{file: "log:\n\tlevel: info\n"}, nil},
		{"first line", given{file: "a: b: c\n"}, []string{`is no YAML: mapping values are not allowed in this context (bellhop.yaml:1)`}},
		{"no alias of that name", given{file: "redis:\n  password: *hunter2\n"}, []string{
			`is no YAML: a value that begins with * is an alias of one that is not there; put it in quotes if it is none (bellhop.yaml:2)`,
		}},
		{"file is not there", given{name: "gone.yaml", env: []string{"BELLHOP_NOPE=1"}}, []string{
			`cannot read gone.yaml: no such file or directory; name one that can be read with --config or BELLHOP_CONFIG`,
			`BELLHOP_NOPE: unknown variable; remove it, BELLHOP_* are the names of keys (environment)`,
		}},
		{"file is a directory", given{name: "."}, []string{`cannot read .: is a directory; name one that can be read with --config or BELLHOP_CONFIG`}},
		{"file is too large", given{file: "#" + strings.Repeat(" ", maxFileBytes)}, []string{
			`cannot read bellhop.yaml: it is too large, at most 1048576 bytes are read; a configuration is never that large`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := tc.given.faults(t)
			if tc.want == nil { // the words are another package's
				if len(got) != 1 || !strings.HasSuffix(got[0], "(--redis)") && !strings.HasSuffix(got[0], "(bellhop.yaml:2)") {
					t.Errorf("got %q", got)
				}
				return
			}
			wantLines(t, got, tc.want...)
		})
	}
}

func TestFaultsCanBeAskedFor(t *testing.T) {
	t.Parallel()
	_, err := given{name: "gone.yaml", env: []string{"BELLHOP_NOPE=1"}}.load(t)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	want := "configuration: 2 faults\n  cannot read gone.yaml"
	if !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%q does not begin with %q", err, want)
	}
}

func TestScalarsOfYAML(t *testing.T) {
	t.Parallel()
	l := given{file: "log: &x {level: &l warn}\nworker: {concurrency: \"7\", grace: 1s, engine: asynq}\nevents: {max_events: 1_000}\n" +
		"redis: {password: 0123, username: true, server_name: ~}\nhandlers:\ntriggers: {files: *l}\n"}.mustLoad(t)
	c := l.Config
	if c.Worker.Concurrency != 7 || c.Events.MaxEvents != 1000 || c.Redis.Password != "0123" || c.Redis.Username != "true" || c.Redis.ServerName != "" || c.Triggers.Files[0] != "warn" {
		t.Errorf("got %+v %+v %q", c.Worker, c.Events, c.Redis.Password)
	}
}

// What is made to take long must not.
func TestHostileFilesAreQuick(t *testing.T) {
	t.Parallel()
	fill := func(unit string) string { return strings.Repeat(unit, (maxFileBytes-100)/len(unit)) }
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x]\n")
	for i := 1; i < 30; i++ {
		n, before := string(rune('a'+i%26))+strings.Repeat("z", i/26), string(rune('a'+(i-1)%26))+strings.Repeat("z", (i-1)/26)
		if i == 1 {
			before = "a0"
		}
		laughs.WriteString(n + ": &" + n + " [" + strings.TrimSuffix(strings.Repeat("*"+before+",", 9), ",") + "]\n")
	}
	for name, file := range map[string]string{
		"billion laughs":   laughs.String(),
		"many aliases":     "triggers:\n  files: [&a x," + fill("*a,") + "]\n",
		"deep":             fill("["),
		"deep sections":    fill("{a: "),
		"one long key":     fill("a") + ": 1\n",
		"many keys":        fill("ab: 1\n"),
		"long value":       "worker: {concurrency: " + fill("x") + "}\n",
		"broken at end":    fill("a: 1\n") + "\n b: [\n",
		"broken at start":  "a: [\n" + fill("b: 1\n"),
		"open quote":       "a: '\n" + fill("b: 1\n"),
		"questions":        fill("? "),
		"many list faults": "worker:\n  queues: [" + fill("[],") + "]\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, faults := readYAML(defaultFile, []byte(file))
			if n, size := len(faults), len(faults.Error()); n == 0 || n > maxFileFaults+1 || size > 64<<10 {
				t.Errorf("%d faults, %d bytes of error", n, size)
			}
			// Each takes about a second on an idle machine; what was multiplied would take hours.
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

func FuzzReadYAML(f *testing.F) {
	for _, seed := range []string{
		"redis:\n  url: redis://:PW@h\n  password: PW\n", "worker: {queues: [{name: a, weight: 2}, b=3], grace: 1s}\n", "redis: {password: [PW]}\n",
		"redis: {password: *PW}\n", "redis: {url: {a: PW}}\n", "redis: PW\n", "a: &a [*a]\n", "? [a]\n: b\n", "---\n---\n", "log: !!binary x\n", "%YAML 1.1\n---\n", "triggers: {files: [a, ~]}\n",
		"redis: {url: 'redis://u:PW@h?x=PW'}\nworker: {engine: 'redis://u:PW@h'}\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		set, faults := readYAML(defaultFile, []byte(text))
		c, err := merge(set)
		if err != nil {
			t.Fatalf("what was read cannot be merged: %v", err)
		}
		l := &Loaded{Config: c, from: origins(set)}
		if len(l.check(l.fillDefaults(faults))) > 0 {
			return
		}
		first := printed(t, l)
		again, faults := readYAML(defaultFile, []byte(first))
		if len(faults) > 0 {
			t.Fatalf("what is printed cannot be read: %v\n%s", faults, first)
		}
		if c, err = merge(again); err != nil {
			t.Fatal(err)
		}
		l = &Loaded{Config: c}
		if faults = l.fillDefaults(nil); len(faults) > 0 {
			t.Fatalf("what is printed is refused: %v\n%s", faults, first)
		}
		if second := printed(t, l); withoutOrigin(second) != withoutOrigin(first) {
			t.Fatalf("printed and read again:\n%s\nwas:\n%s", second, first)
		}
	})
}
