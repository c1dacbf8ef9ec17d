package triggers

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/bellhop-dev/bellhop/internal/cputime"
)

var ignoreOrigin = cmpopts.IgnoreUnexported(Trigger{})

func TestTriggerJSONIsWhatAFileSays(t *testing.T) {
	t.Parallel()
	inFile, err := Parse("f.yaml", []byte(`
triggers:
  - name: a-1
    on: com.acme.**
    when: event.data.n > 1 && "<" != ">"
    run: http:request
    with: {url: "http://x/${event.id}", deep: [1, 1.50, 12345678901234567890, true, ~, {"a.b": "<&>"}], "null": "null"}
    queue: q
    in: 90m
    max_retry: 0
    timeout: 1m30s
    retention: 24h
    unique: 100ms
    disabled: true
`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := inFile[0].MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"a-1","on":"com.acme.**","when":"event.data.n > 1 && \"<\" != \">\"","run":"http:request",` +
		`"with":{"deep":[1,1.50,12345678901234567890,true,null,{"a.b":"<&>"}],"null":"null","url":"http://x/${event.id}"},` +
		`"queue":"q","in":"1h30m","max_retry":0,"timeout":"1m30s","retention":"24h","unique":"100ms","disabled":true}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
	var back Trigger
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(inFile[0], back, ignoreOrigin); diff != "" {
		t.Error(diff)
	}
}

func TestTriggerJSONFaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		`{"name":"a","on":"b","run":"c","whenn":"true"}`:           {`/whenn unknown key "whenn", did you mean "when"?`},
		`{"name":"a","on":"b","run":"c","a/b~.c":1}`:               {`/a~1b~0.c unknown key`},
		`{"name":1,"on":["x"],"run":null,"when":""}`:               {`/on must be text`, `/run must be text`, `/when is empty`},
		`{"name":"a","in":10,"timeout":"0s","unique":"soon"}`:      {`/in "10" is no duration`, `/timeout is 0`, `/unique "soon" is no duration`},
		`{"name":"a","max_retry":1.5,"disabled":"perhaps"}`:        {`/max_retry "1.5" is no whole number`, `/disabled "perhaps" is neither`},
		`{"name":"a","name":"b","with":{"x":1,"x":2}}`:             {` has the key "name" twice`, `/with has the key "x" twice`},
		`{"name":"a","with":null}`:                                 {`/with is empty`},
		`{"name":"a","with":{"l":[[0,{"a.b":{"c/d":1,"c/d":2}}]]}`: {` not JSON`},
		`{"name":"a","with":{"l":[[0,{"a.b":{"":{"e":1,"e":2}}}]]}}`: {
			`/with/l/0/1/a.b/ has the key "e" twice`,
		},
		`[]`: {` must be a JSON object`}, `"x"`: {` must be a JSON object`}, ``: {` not JSON: it is empty`}, `{`: {` not JSON`},
		`{"name":"a"} {}`: {` not JSON: more follows`}, `{"name":"a",}`: {` not JSON`}, `{'a':1}`: {` not JSON`},
		`{"<<":{"name":"x"},"name":"a"}`:                                                             {`/<< unknown key`},
		`{"name":"` + strings.Repeat("x", MaxTriggerBytes) + `"}`:                                    {` has 65547 bytes, at most 65536`},
		`{"name":"a","with":` + strings.Repeat("[", 80) + strings.Repeat("]", 80) + `}`:              {` not JSON: nested deeper than 64`},
		`{"name":"a","with":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`:      {` not JSON: nested deeper than 64`},
		`{"name":"a","on":"b","run":"c","with":{"huge":1e999,"x":123456789012345678901234567890.5}}`: {`/with/huge is no number`},
	} {
		_, err := ParseJSON([]byte(text))
		var got []string
		for _, f := range Faults(err) {
			got = append(got, f.Pointer()+" "+f.Problem)
		}
		if len(got) != len(want) {
			t.Errorf("%.100s: %d faults, want %d: %v", text, len(got), len(want), err)
			continue
		}
		for i := range want {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Errorf("%.100s: %q, want %q", text, got[i], want[i])
			}
		}
	}
}

// A fault found by Compile leads to its place in the JSON form.
func TestFaultsPointIntoTheJSON(t *testing.T) {
	t.Parallel()
	text := `{"name":"a","on":"**.x","when":"1 +","run":"http:request","timeout":"-3s","with":{
		"method":"GET","url":7,"json":{"a.b":["${","ok",{"c/d":"${nope}"}],"":"${","[0]":"${","q\"":"${"},"auth":{"level":"x"},"haeders":{}}}`
	parsed, err := ParseJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Compile([]Trigger{parsed}, knownTasks(), Config{})
	var form any
	if err := json.Unmarshal([]byte(text), &form); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range Faults(err) {
		got = append(got, f.Pointer())
		if _, there := lookUp(form, f.Pointer()); !there {
			t.Errorf("%s leads nowhere: %v", f.Pointer(), f)
		}
	}
	want := []string{
		"/on", "/timeout", "/when", "/with/json/", "/with/json/[0]", "/with/json/a.b/0", "/with/json/a.b/2/c~1d", `/with/json/q"`,
		"/with/auth/level", "/with/auth", "/with/haeders", "/with/url",
	}
	if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("%s\n%v", diff, err)
	}
}

func lookUp(v any, pointer string) (any, bool) {
	for segment := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		segment = strings.NewReplacer("~1", "/", "~0", "~").Replace(segment)
		switch in := v.(type) {
		case map[string]any:
			next, there := in[segment]
			if !there {
				return nil, false
			}
			v = next
		case []any:
			var i int
			if _, err := fmt.Sscan(segment, &i); err != nil || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// Any path that child and item make comes back as the segments it was made of.
func TestPathsBecomePointers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		path, want := "with", "/with"
		for range rapid.IntRange(0, 6).Draw(t, "depth") {
			if rapid.Bool().Draw(t, "list") {
				i := rapid.IntRange(0, 1000).Draw(t, "i")
				path, want = item(path, i), fmt.Sprintf("%s/%d", want, i)
				continue
			}
			key := rapid.StringOf(rapid.RuneFrom([]rune("ab.[]\"\\/~ \n0ü$"))).Draw(t, "key")
			path, want = child(path, key), want+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
		}
		if got := pointer(path); got != want {
			t.Fatalf("%q became %q, want %q", path, got, want)
		}
	})
}

// What is hostile must be refused within 100 ms of processor time and 64 MiB. Not parallel: it measures.
//
//nolint:paralleltest // it measures the process
func TestJSONBombsAreRefused(t *testing.T) {
	open := func(s string, n int) string { return `{"name":"a","with":` + strings.Repeat(s, n) }
	for name, text := range map[string]string{
		"depth 100,000 of lists":   open("[", 100_000),
		"depth 100,000, closed":    open("[", 100_000) + strings.Repeat("]", 100_000) + "}",
		"depth 100,000 of objects": open(`{"a":`, 100_000),
		"depth 30,000, small":      open("[", 30_000),
		"many values":              open("[", 1) + strings.Repeat("1,", 500_000) + "1]}",
		"many keys":                `{` + strings.Repeat(`"a":1,`, 10_000) + `"b":1}`,
		"many faults":              `{"name":"a","on":"b","run":"any:thing","with":["` + strings.Repeat(`${x}`, 15_000) + `"]}`,
		"many expressions":         `{"name":"a","on":"b","run":"any:thing","with":["` + strings.Repeat(`${1}`, 15_000) + `"]}`,
		"long text":                `{"name":"` + strings.Repeat("x", 10<<20) + `"}`,
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := cputime.Used()
		trigger, err := ParseJSON([]byte(text))
		took := cputime.Used() - begin
		runtime.ReadMemStats(&after)
		allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
		if err == nil {
			begin = cputime.Used()
			_, err = Compile([]Trigger{trigger}, knownTasks(), Config{})
			t.Logf("%-26s compiled in %v", name, cputime.Used()-begin)
		}
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if limit := 100 * time.Millisecond * raceFactor; took > limit || allocated > 64 {
			t.Errorf("%s: took %v and %d MiB", name, took, allocated)
		}
		if len(err.Error()) > 64<<10 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
		t.Logf("%-26s %10v %3d MiB  %.100v", name, took.Round(time.Microsecond), allocated, err)
	}
}

func FuzzTriggerJSON(f *testing.F) {
	f.Add(`{"name":"a","on":"com.acme.*","when":"event.data.n > 1","run":"any:thing","with":{"a":"${event.id}","b":[1.50,null]},"in":"1h"}`)
	f.Add(`{"<<":{},"name":"a","max_retry":-1,"disabled":true,"unique":"1ms"}`)
	f.Add(`{"with":{"a.b":{"[0]":"${"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 10_000 {
			return
		}
		trigger, err := ParseJSON([]byte(text))
		if err == nil {
			again, err := json.Marshal(trigger)
			if err != nil {
				t.Fatalf("can't be written: %v", err)
			}
			back, err := ParseJSON(again)
			if err != nil {
				t.Fatalf("%s can't be read back: %v", again, err)
			}
			if diff := cmp.Diff(trigger, back, ignoreOrigin); diff != "" {
				t.Fatal(diff)
			}
			_, err = Compile([]Trigger{trigger}, knownTasks(), Config{})
			_ = err
		}
		for _, fault := range Faults(err) {
			_ = fault.Pointer()
		}
	})
}

func TestFaultsOfOtherErrors(t *testing.T) {
	t.Parallel()
	one, other := &Fault{Problem: "one"}, &Fault{Problem: "two"}
	err := fmt.Errorf("wrapped: %w", errors.Join(one, errors.New("else"), fmt.Errorf("deeper: %w", errors.Join(nil, other))))
	if diff := cmp.Diff([]*Fault{one, other}, Faults(err), cmpopts.IgnoreUnexported(Fault{})); diff != "" {
		t.Error(diff)
	}
	if got := Faults(errors.New("else")); got != nil {
		t.Errorf("%v", got)
	}
}
