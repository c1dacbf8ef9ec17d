package triggers

import (
	"context"
	"errors"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/cputime"
)

const mailData = `{
	"id": 9007199254740993, "n": 3, "f": 3.0, "half": 0.5, "huge": 18446744073709551615, "beyond": 123456789012345678901234567890,
	"folder": "INBOX", "from": "ann@acme.com", "none": null, "yes": true,
	"tags": ["a", "b"], "items": [{"k": 1}, {"k": 2}], "deep": {"a": {"b": "c"}}
}`

func mail(t testing.TB) *events.Event {
	t.Helper()
	return event(t, "com.acme.email.received", mailData, events.Subject("s-1"), events.Extension("tenant", "t1"), events.Extension("priority", 7))
}

func TestFilters(t *testing.T) {
	t.Parallel()
	for when, want := range map[string]bool{
		`event.data.folder == "INBOX" && !event.data.from.endsWith("@noreply.acme.com")`: true,
		`event.data.n == 3`:                        true,
		`event.data.n == 3.0`:                      true,
		`event.data.f == 3`:                        true,
		`event.data.f > 2 && event.data.f < 4`:     true,
		`event.data.half < 1`:                      true,
		`event.data.id > 1000`:                     true,
		`event.data.id == 9007199254740993`:        true,
		`event.data.id == 9007199254740992`:        false,
		`event.data.huge > 1`:                      true,
		`event.data.huge == 18446744073709551615u`: true,
		`event.data.beyond > 1e20`:                 true,
		`event.data.n in [1, 2, 3]`:                true,
		`"b" in event.data.tags`:                   true,
		`event.data.items.exists(i, i.k == 2)`:     true,
		`event.data.items.all(i, i.k > 1)`:         false,
		`size(event.data.tags) == 2`:               true,
		`event.data.none == null`:                  true,
		`event.data.yes`:                           true,
		`event.id == "e-1" && event.source == "/mail" && event.type.startsWith("com.acme.") && event.specversion == "1.0"`: true,
		`event.subject == "s-1" && event["subject"] == event.subject && has(event.subject)`:                                true,
		`event.time < timestamp("2026-03-05T00:00:00Z") && event.time.getFullYear() == 2026`:                               true,
		`event.tenant == "t1" && event.priority == 7 && event["tenant"].upperAscii() == "T1"`:                              true,
		`has(event.other) || has(event.dataschema)`:                                                                        false,
		`has(event.data.deep.a.b) && !has(event.data.deep.x)`:                                                              true,
		`event.data.?missing.orValue(5) == 5`:                                                                              true,
		`event.data.from.matches("^[a-z]+@acme[.]com$")`:                                                                   true,
		`event.datacontenttype == "application/json"`:                                                                      true,
	} {
		got, err := fires(t, Config{}, when, mail(t))
		if err != nil || got != want {
			t.Errorf("%s gave %t, %v; want %t", when, got, err, want)
		}
	}
}

func TestAbsentFieldsAreNoMatch(t *testing.T) {
	t.Parallel()
	for _, when := range []string{
		`event.data.missing == 1`, `event.data.none.login == "x"`, `event.data.tags[2] == "c"`, `event.data.deep.a.x.y == 1`,
		`event.data["missing"] == 1`, `event.sequence == 1`, `event.dataschema == "x"`, `!event.data.missing`,
		`event.data.items.exists(i, i.missing == 1)`,
	} {
		if got, err := fires(t, Config{}, when, mail(t)); got || !isAbsent(err) {
			t.Errorf("%s gave %t, %v; want no match, as absent", when, got, err)
		}
	}
	empty := event(t, "a.b", "")
	if got, err := fires(t, Config{}, `event.data.x == 1`, empty); got || !isAbsent(err) {
		t.Errorf("an event without data gave %t, %v", got, err)
	}
	if got, err := fires(t, Config{}, `!has(event.data)`, empty); !got || err != nil {
		t.Errorf("has(event.data) without data gave %t, %v", got, err)
	}
}

func TestWrongTypesAreFaults(t *testing.T) {
	t.Parallel()
	for when, want := range map[string]string{
		`event.data.n.startsWith("x")`: "another type",
		`event.data.half + 1 == 1`:     "another type",
		`event.data.n`:                 "gave int, a filter must give a bool",
		`int(event.data.from) == 1`:    "",
		`1 / (event.data.n - 3) == 1`:  "division by zero",
	} {
		if got, err := fires(t, Config{}, when, mail(t)); got || err == nil || isAbsent(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %t, %v; want an error with %q", when, got, err, want)
		}
	}
}

func TestOtherDataThanJSON(t *testing.T) {
	t.Parallel()
	for contentType, data := range map[string]string{"text/plain": "hello", "application/octet-stream": "\xff\x00"} {
		e, err := events.New("a.b", "/s", []byte(data), events.ContentType(contentType))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := fires(t, Config{}, `size(event.data) > 1 && (event.data == "hello" || event.data == b"\xff\x00")`, e); !got || err != nil {
			t.Errorf("%s gave %t, %v", contentType, got, err)
		}
	}
}

// hostile expressions try to take time or memory without end.
func hostile() map[string]string {
	doubling := func(seed, step string, n int) string { return seed + strings.Repeat(step, n) }
	list := "[" + strings.Repeat("1,", 99) + "1]"
	return map[string]string{
		"nested loops":   list + ".all(a, " + list + ".all(b, " + list + ".all(c, a + b + c > 0)))",
		"loops on data":  `event.data.l.all(a, event.data.l.all(b, event.data.l.all(c, a == b || b == c || true)))`,
		"list tree":      doubling("[0]", ".map(v, [v, v])", 50) + ` == dyn([1])`,
		"equal trees":    `[` + doubling("[0]", ".map(v, [v, v])", 40) + `].exists(a, a == a)`,
		"map tree":       doubling("[{}]", ".map(v, {'a': v, 'b': v})", 40) + `.size() == 1`,
		"wide tree":      doubling("[0]", ".map(v, [v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v,v])", 12) + ` == dyn([])`,
		"list doubling":  doubling("[[0]]", ".map(v, v + v)", 60) + `[0] == []`,
		"text doubling":  doubling(`["0123456789"]`, ".map(v, v + v)", 60) + `[0] == ""`,
		"replace":        doubling(`["aaaaaaaaaaaaaaaaaaaa"]`, ".map(v, v.replace('a', v))", 12) + `[0] == ""`,
		"join":           doubling(`["aaaaaaaaaaaaaaaaaaaa"]`, ".map(v, [v,v,v,v,v,v,v,v,v,v].join(v))", 12) + `[0] == ""`,
		"format":         doubling(`["a"]`, ".map(v, '%s%s%s%s%s%s%s%s%s%s'.format([v,v,v,v,v,v,v,v,v,v]))", 9) + `[0] == ""`,
		"format of tree": `"%s".format([` + doubling("[0]", ".map(v, [v, v])", 30) + `]) == ""`,
		"same data":      `[event.data, event.data, event.data, event.data, event.data, event.data].map(a, [a,a,a,a,a,a]).map(b, [b,b,b,b,b,b]) == dyn([1])`,
		"search":         `event.data.s.contains(event.data.s + "x")`,
		"regex":          `event.data.s.matches("(a|a|a|a)*(a|b)*(.*a){10}(.*b){10}$")`,
		"optional chain": doubling("[optional.of([0])]", ".map(v, v.optMap(w, [w, w]))", 40) + `.size() == 0`,
	}
}

func hostileEvent(t testing.TB) *events.Event {
	t.Helper()
	return event(t, "a.b", `{"s": "`+strings.Repeat("a", 300_000)+`", "l": [`+strings.Repeat("1,", 999)+`1]}`)
}

// Not parallel: it measures memory.
//
//nolint:paralleltest // it measures the process
func TestHostileExpressionsAreStopped(t *testing.T) {
	e := hostileEvent(t)
	for name, when := range hostile() {
		begin := cputime.Used()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		set, err := Compile([]Trigger{{Name: "t", On: "**", When: when, Run: "any:thing"}}, knownTasks(), Config{})
		if err == nil {
			_, err = set.rules[0].match(t.Context(), &occurrence{vars: newEventVars(e)})
		}
		took := cputime.Used() - begin
		runtime.ReadMemStats(&after)
		allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
		t.Logf("%-15s %10v %4d MiB  %.120v", name, took.Round(time.Microsecond), allocated, err)
		if err == nil {
			t.Errorf("%s: came to an end, it isn't hostile", name)
		}
		if limit := time.Second * raceFactor; took > limit {
			t.Errorf("%s: took %v", name, took)
		}
		if allocated > 128 {
			t.Errorf("%s: allocated %d MiB", name, allocated)
		}
	}
}

// The hostile parser inputs: refused, or compiled, quickly.
func TestHostileSourcesAreRefused(t *testing.T) {
	t.Parallel()
	c, err := newCompiler(Config{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	for name, source := range map[string]string{
		"parentheses": strings.Repeat("(", 4000),
		"closed":      strings.Repeat("(", 2000) + "1" + strings.Repeat(")", 2000),
		"lists":       strings.Repeat("[", 4000),
		"maps":        strings.Repeat("{1:", 1300),
		"ternaries":   strings.Repeat("a?", 2000),
		"not":         strings.Repeat("!", 4000) + "true",
		"minus":       strings.Repeat("-", 4000) + "1",
		"sum":         strings.Repeat("1+", 2000) + "1",
		"and":         strings.Repeat("true&&", 600) + "true",
		"select":      "event" + strings.Repeat(".a", 2000),
		"index":       "event" + strings.Repeat("[0]", 1300),
		"macros":      strings.Repeat("[1].map(a,", 400),
		"quotes":      strings.Repeat("'", 4001),
		"noise":       strings.Repeat("@#$%", 1000),
		"nul":         strings.Repeat("\x00", 4000),
		"too long":    strings.Repeat("1", 5000),
	} {
		begin := time.Now()
		_, err := c.compile(source)
		if took := time.Since(begin); took > 2*time.Second*raceFactor {
			t.Errorf("%s: took %v", name, took)
		}
		if err != nil && len(err.Error()) > 1500 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
}

func TestEvaluationEndsWithItsContext(t *testing.T) {
	t.Parallel()
	set := compileAll(t, Config{CostLimit: 1 << 40, EvalTimeout: time.Hour}, Trigger{
		Name: "t", On: "**", Run: "any:thing",
		When: `event.data.l.all(a, event.data.l.all(b, event.data.l.all(c, event.data.l.all(d, a + b + c + d > 0))))`,
	})
	o := &occurrence{vars: newEventVars(hostileEvent(t))}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := set.rules[0].match(ctx, o)
	if !errors.Is(err, errInterrupted) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gave %v, want an interruption: the event must not become a dead match", err)
	}
	set.rules[0].when.timeout = 50 * time.Millisecond
	_, err = set.rules[0].match(t.Context(), o)
	if err == nil || errors.Is(err, errInterrupted) || !strings.Contains(err.Error(), "eval_timeout") {
		t.Errorf("gave %v, want the trigger's own timeout", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestCompileErrorsHelp(t *testing.T) {
	t.Parallel()
	for when, want := range map[string]string{
		`evnt.data.x == 1`:                     `undeclared reference to 'evnt.data.x'|did you mean 'event.data'|after the mark`,
		`data.x == 1`:                          `did you mean event.data?`,
		`event.tpye == "x"`:                    `did you mean event.type?|event["tpye"]`,
		`event.data.x = 1`:                     `equality is ==`,
		`event.data.x == 1 and event.id == ""`: `use &&, || and !|after the mark`,
		`event.data.x.startWith("a")`:          `did you mean 'startsWith'?`,
		`event.data.x == INBOX`:                `texts need quotes`,
		`event.id`:                             `gives string, a filter must give a bool`,
		`event.id + 1 == 2`:                    `types don't go together`,
		`${event.data.x}`:                      `without ${ }`,
		`event.data.x.matches("(")`:            ``,
	} {
		_, err := Compile([]Trigger{{Name: "t", On: "a", When: when, Run: "any:thing"}}, knownTasks(), Config{})
		wantFaults(t, err, `trigger "t": when: |`+want)
	}
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		`event.data.folder == "INBOX" && !event.data.from.endsWith("x")`, `event.data.items.exists(i, i.k == 2)`, `event`, `event.data.?a.orValue(1) == 1`,
		`event.time.getFullYear("Europe/Berlin") == 2026`, `"%d".format([1]) == "1"`, `math.greatest(1, 2) == 2`, `type(event.data) == map`,
		`event.data.map(k, k)`, `[1].exists(event, event.id == 1)`, `duration("1s") < duration("2s")`, `b"a" == base64.decode("YQ==")`, `dyn([]).all(x, x)`,
	} {
		f.Add(s)
	}
	for _, s := range hostile() {
		f.Add(s)
	}
	c, err := newCompiler(Config{}.withDefaults())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, source string) {
		begin := time.Now()
		if x, err := c.compile(source); err == nil {
			out := &output{limit: 1 << 20}
			if err := x.writeTo(t.Context(), newEventVars(mail(t)), out); err == nil {
				if _, err := decodeJSON(out.buf); err != nil {
					t.Errorf("%s gave %s: %v", source, out.buf, err)
				}
			} else if strings.Contains(err.Error(), "panicked") {
				t.Errorf("%s: %v", source, err)
			}
		}
		if took := time.Since(begin); took > 4*time.Second {
			t.Errorf("%s took %v", source, took)
		}
	})
}

// An expression reaches nothing but the event: every function that it can call is a pure one of this list.
func TestExpressionsHaveNoHostFunctions(t *testing.T) {
	t.Parallel()
	pure := regexp.MustCompile(`^(_|@|!|-|optional\.|optional_|math\.|sets\.|base64\.|strings\.|` +
		`(size|contains|endsWith|startsWith|matches|int|uint|double|bool|string|bytes|list|map|type|dyn|null_type|duration|timestamp|in|` +
		`getDate|getDayOfMonth|getDayOfWeek|getDayOfYear|getFullYear|getHours|getMilliseconds|getMinutes|getMonth|getSeconds|` +
		`charAt|format|indexOf|join|lastIndexOf|lowerAscii|quote|replace|reverse|split|substring|trim|upperAscii|` +
		`hasValue|or|orValue|value|first|last|unwrap|unwrapOpt|optMap|optFlatMap|google\..*)$)`)
	c, err := newCompiler(Config{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.env.Functions()) < 50 {
		t.Errorf("only %d functions are known", len(c.env.Functions()))
	}
	for name := range c.env.Functions() {
		if slices.Contains(unbounded, name) {
			continue
		}
		if !pure.MatchString(name) {
			t.Errorf("expressions can call %s: is it pure?", name)
		}
	}
	for _, source := range []string{
		`env("HOME")`, `now()`, `readFile("/etc/passwd")`, `http.get("http://x")`, `rand()`, `process.exit()`, `event.data.constructor()`, `__import__("os")`,
		`json.parse(event.data.s).orValue(1) == 1`, `yaml.parse("a: &a [x]").hasValue()`, `[1].exists(x, json.encode(event) == "")`, `yaml.encode(event.data) == ""`,
	} {
		if _, err := c.compile(source); err == nil {
			t.Errorf("%s compiles", source)
		}
	}
}
