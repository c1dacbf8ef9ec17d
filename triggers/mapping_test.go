package triggers

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

func TestPayloads(t *testing.T) {
	t.Parallel()
	type nested struct {
		B []string `json:"b"`
		A string   `json:"a"`
	}
	for name, c := range map[string]struct {
		with any
		want string
	}{
		"literals":       {map[string]any{"s": "x<y&\"\\\n\u0001é", "n": 1, "f": 1.5, "b": true, "z": nil, "l": []any{}, "o": map[string]any{}}, `{"b":true,"f":1.5,"l":[],"n":1,"o":{},"s":"x<y&\"\\\n\u0001é","z":null}`},
		"of Go types":    {nested{B: []string{"${event.id}"}, A: "a"}, `{"a":"a","b":["e-1"]}`},
		"typed":          {[]any{"${event.data.n}", "${ event.data.f }", "${event.data.yes}", "${event.data.none}", "${event.data.tags}", "${event.data.deep}"}, `[3,3.0,true,null,["a","b"],{"a":{"b":"c"}}]`},
		"exact numbers":  {[]any{"${event.data.id}", "${event.data.huge}", "${event.data.beyond}", "${[event.data.id, event.data.huge]}"}, `[9007199254740993,18446744073709551615,123456789012345678901234567890,[9007199254740993,18446744073709551615]]`},
		"computed":       {[]any{"${event.data.n + 1}", "${event.data.half * 3.0}", "${double(event.data.n)}", "${1e300}", "${-9223372036854775808}"}, `[4,1.5,3,1e+300,-9223372036854775808]`},
		"times":          {[]any{"${event.time}", "${event.time + duration('1h')}", "${duration('90s')}", "at ${event.time}"}, `["2026-03-04T05:06:07.008Z","2026-03-04T06:06:07.008Z","90s","at 2026-03-04T05:06:07.008Z"]`},
		"bytes":          {[]any{"${b'\\xff\\x00'}", "${b'hi'}!"}, `["/wA=","aGk=!"]`},
		"text":           {"id ${event.data.n} of ${event.data.from}: ${event.data.tags} ${event.data.none} ${event.data.f} ${event.data.yes}", `"id 3 of ann@acme.com: [\"a\",\"b\"] null 3.0 true"`},
		"text of maps":   {"${ {'b': 1, 'a': [true, 'x']} }.", `"{\"a\":[true,\"x\"],\"b\":1}."`},
		"escaped":        {"$${event.id} costs $5 $$", `"${event.id} costs $5 $$"`},
		"braces":         {"${ {'a': {'b': '}'}}.a.b }", `"}"`},
		"lists of loops": {"${event.data.items.map(i, {'key': i.k, 'x': event.id})}", `[{"key":1,"x":"e-1"},{"key":2,"x":"e-1"}]`},
		"filtered":       {"${event.data.items.filter(i, i.k > 1)}", `[{"k":2}]`},
		"defaults":       {[]any{"${event.data.?missing.orValue('d')}", "${event.data.?missing}", "${event.data.?n}", "<${event.data.?n}>"}, `["d",null,3,"<3>"]`},
		"whole data":     {"${event.data.deep}", `{"a":{"b":"c"}}`},
		"extensions":     {"${event.tenant}/${event.priority}", `"t1/7"`},
		"attributes":     {"${event}", `{"data":` + compactMail + `,"datacontenttype":"application/json","id":"e-1","priority":7,"source":"/mail","specversion":"1.0","subject":"s-1","tenant":"t1","time":"2026-03-04T05:06:07.008Z","type":"com.acme.email.received"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := payloadOf(t, Config{}, c.with, mail(t))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("not JSON: %s", got)
			}
		})
	}
}

const compactMail = `{"beyond":123456789012345678901234567890,"deep":{"a":{"b":"c"}},"f":3.0,"folder":"INBOX","from":"ann@acme.com","half":0.5,"huge":18446744073709551615,"id":9007199254740993,"items":[{"k":1},{"k":2}],"n":3,"none":null,"tags":["a","b"],"yes":true}`

// A whole event in a payload is the CloudEvent that it was, whatever its data is, wherever it stands.
func TestWholeEventsAreCloudEvents(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		e := event(t, "com.acme.file.made", "")
		e.DataContentType = rapid.SampledFrom([]string{"", "application/json", "application/x+json", "text/plain", "application/octet-stream", "image/png"}).Draw(rt, "content type")
		switch {
		case e.IsJSON():
			e.Data = []byte(rapid.SampledFrom([]string{"null", `"text"`, `{"a":[1.50,12345678901234567890],"data":"x"}`, `{"data":{"data_base64":"AA=="}}`, "[]", "7"}).Draw(rt, "json"))
		case rapid.Bool().Draw(rt, "text"):
			e.Data = []byte(rapid.String().Draw(rt, "data"))
		default:
			e.Data = append([]byte{0xff, 0}, rapid.SliceOf(rapid.Byte()).Draw(rt, "data")...)
		}
		if rapid.Bool().Draw(rt, "extended") {
			e.Subject, e.Extensions = "s", map[string]any{"tenant": "t1", "priority": int32(7), "urgent": true}
		}
		if err := e.Validate(); err != nil {
			rt.Fatal(err)
		}
		got, err := payloadOf(t, Config{}, map[string]any{"e": "${event}", "in": "${[event]}", "if": "${true ? event : {}}", "text": "<${event}>"}, e)
		if err != nil {
			rt.Fatal(err)
		}
		var payload struct {
			E, If json.RawMessage
			In    []json.RawMessage
			Text  string
		}
		if err := json.Unmarshal([]byte(got), &payload); err != nil {
			rt.Fatalf("%v in %s", err, got)
		}
		for _, text := range []string{string(payload.E), string(payload.If), string(payload.In[0]), strings.Trim(payload.Text, "<>")} {
			decoded, err := events.Decode([]byte(text))
			if err != nil {
				rt.Fatalf("%v in %s", err, text)
			}
			if diff := cmp.Diff(e, decoded); diff != "" {
				rt.Errorf("%s (-was +is):\n%s", text, diff)
			}
		}
	})
}

func TestPayloadFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		with any
		want string
	}{
		"missing":      {map[string]any{"a": []any{1, "${event.data.missing}"}}, `with.a[1]: no such key: missing`},
		"missing text": {map[string]any{"a": "x ${event.data.missing}"}, `with.a: no such key: missing`},
		"type":         {"${event.data.n.startsWith('x')}", "another type"},
		"not a number": {"${0.0 / 0.0}", "NaN has no JSON form"},
		"keys":         {"${ {1: 2} }", "keys that are no strings"},
		"a type":       {"${type(event.data)}", "has no JSON form"},
		"beyond":       {"${[event.data.missing]}", "no such key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := payloadOf(t, Config{}, c.with, mail(t)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("gave %s, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}

func TestPayloadIsBounded(t *testing.T) {
	t.Parallel()
	many := make([]any, 2000)
	for i := range many {
		many[i] = "${event.data}"
	}
	e := event(t, "a.b", `{"s": "`+strings.Repeat("\u0001", 0)+strings.Repeat("x", 100_000)+`"}`)
	if _, err := payloadOf(t, Config{}, many, e); err == nil || !strings.Contains(err.Error(), "max_payload_bytes") {
		t.Errorf("200 MB of payload gave %v", err)
	}
	if _, err := payloadOf(t, Config{MaxPayloadBytes: 1000}, nil, e); err == nil || !strings.Contains(err.Error(), "max_payload_bytes") {
		t.Errorf("data beyond the limit gave %v", err)
	}
	if _, err := payloadOf(t, Config{}, "${"+strings.Repeat("[", 20)+"event.data.map(k, k)"+strings.Repeat("]", 20)+"}", e); err != nil {
		t.Error(err)
	}
}

func TestWithoutMappingThePayloadIsTheData(t *testing.T) {
	t.Parallel()
	binary, err := events.New("a.b", "/s", []byte{0xff, 0})
	if err != nil {
		t.Fatal(err)
	}
	text, err := events.New("a.b", "/s", []byte("hi \"you\""), events.ContentType("text/plain"))
	if err != nil {
		t.Fatal(err)
	}
	for want, e := range map[string]*events.Event{
		`{ "b": 1.0,  "a": [1]}`: event(t, "a.b", `{ "b": 1.0,  "a": [1]}`),
		`null`:                   event(t, "a.b", ""),
		`"hi \"you\""`:           text,
		`"/wA="`:                 binary,
	} {
		if got, err := payloadOf(t, Config{}, nil, e); err != nil || got != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

// Whatever JSON comes in goes out the same, through the data as such, through an expression on it, and as a literal.
func TestJSONGoesThroughUnchanged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		value := drawJSON(rt, 4)
		text, err := json.Marshal(map[string]any{"v": value})
		if err != nil {
			rt.Fatal(err)
		}
		e := event(t, "a.b", string(text))
		var want any
		if want, err = decodeJSON(text); err != nil {
			rt.Fatal(err)
		}
		want = want.(map[string]any)["v"]
		for _, with := range []any{"${event.data.v}", "${event.data['v']}", "${[event.data.v][0]}"} {
			got, err := payloadOf(t, Config{}, with, e)
			if err != nil {
				rt.Fatalf("%s of %s: %v", with, text, err)
			}
			back, err := decodeJSON([]byte(got))
			if err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff(want, back, cmpNumbers); diff != "" {
				rt.Fatalf("%s: %s", with, diff)
			}
		}
	})
}

func drawJSON(t *rapid.T, depth int) any {
	kinds := []string{"null", "bool", "int", "uint", "float", "string"}
	if depth > 0 {
		kinds = append(kinds, "list", "object")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "bool":
		return rapid.Bool().Draw(t, "bool")
	case "int":
		return rapid.Int64().Draw(t, "int")
	case "uint":
		return rapid.Uint64().Draw(t, "uint")
	case "float":
		return rapid.Float64Range(-1e300, 1e300).Draw(t, "float")
	case "string":
		return rapid.String().Draw(t, "string")
	case "list":
		list := make([]any, rapid.IntRange(0, 4).Draw(t, "length"))
		for i := range list {
			list[i] = drawJSON(t, depth-1)
		}
		return list
	case "object":
		object := make(map[string]any)
		for range rapid.IntRange(0, 4).Draw(t, "length") {
			object[rapid.String().Draw(t, "key")] = drawJSON(t, depth-1)
		}
		return object
	}
	return nil
}

func TestCompileChecksTheMappingAgainstTheSchema(t *testing.T) {
	t.Parallel()
	good := func(more map[string]any) map[string]any {
		with := map[string]any{"method": "POST", "url": "${event.data.url}"}
		maps.Copy(with, more)
		return with
	}
	for name, c := range map[string]struct {
		with any
		want []string
	}{
		"good": {good(map[string]any{
			"json": map[string]any{"a": "${event.data}"}, "retries": 3, "follow": "${event.data.n > 1}", "tags": []any{"a", "${event.id}"},
			"auth": map[string]any{"user": "x ${event.data.n}", "level": "${event.data.level}"}, "headers": map[string]any{"X-A": "${event.data.a}"},
		}), nil},
		"nullable":     {good(map[string]any{"auth": nil, "retries": nil, "tags": nil}), nil},
		"all dynamic":  {"${event.data}", nil},
		"double":       {good(map[string]any{"retries": "${double(event.data.n)}"}), nil},
		"missing":      {map[string]any{"method": "GET"}, []string{`with: field "url" is missing: task "http:request" requires it`}},
		"unknown":      {good(map[string]any{"metod": "x"}), []string{`with.metod: task "http:request" has no such field, did you mean "method"?`}},
		"deep unknown": {good(map[string]any{"auth": map[string]any{"usr": "x"}}), []string{`with.auth.usr: |did you mean "user"?`, `with.auth: field "user" is missing`}},
		"wrong types": {
			good(map[string]any{"follow": "yes", "retries": 1.5, "tags": "a", "headers": []any{}, "auth": 3, "json": true}),
			[]string{`with.auth: is 3, task "http:request" wants null or object`, `with.follow: is "yes", |wants boolean`, `with.headers: is a list, |wants object`, `with.retries: is 1.5, |wants null or integer`, `with.tags: is "a", |wants null or array`},
		},
		"items":        {good(map[string]any{"tags": []any{"a", 1}, "headers": map[string]any{"X": 1}}), []string{`with.headers.X: is 1, |wants string`, `with.tags[1]: is 1, |wants string`}},
		"expressions":  {good(map[string]any{"follow": "${event.id}", "retries": "${event.time}", "tags": "${size(event.data)}"}), []string{`with.follow: the expression gives string, |wants boolean`, `with.retries: the expression gives google.protobuf.Timestamp, |wants null or integer`, `with.tags: the expression gives int`}},
		"text":         {good(map[string]any{"follow": "x ${event.data.n}"}), []string{`with.follow: is text, |wants boolean: make the whole value one ${ }`}},
		"whole":        {"${event.id}", []string{`with: the expression gives string, |wants object`}},
		"list":         {[]any{1}, []string{`with: is a list, |wants object`}},
		"both faults":  {map[string]any{"url": "${event.data.", "method": "${nope}"}, []string{`with.method: undeclared reference to 'nope'`, `with.url: the ${ at character 1 is never closed`}},
		"bad Go value": {map[string]any{"url": func() {}}, []string{`with: has no JSON form`}},
		"key":          {good(map[string]any{"headers": map[string]any{"${event.id}": "x"}}), []string{`with.headers: key "${event.id}": ${ } works in values only`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile([]Trigger{{Name: "t", On: "a", Run: "http:request", With: c.with}}, knownTasks(), Config{})
			wantFaults(t, err, c.want...)
		})
	}
}

// What a task's tags say of a text holds for literals; what an expression gives is checked with the event.
func TestCompileHoldsLiteralsAgainstTags(t *testing.T) {
	t.Parallel()
	type ringing struct {
		Level string `json:"level,omitempty" enum:"low,high"`
		URL   string `json:"url,omitempty" pattern:"^https?://"`
		Hard  bool   `json:"hard,omitempty"`
	}
	tasks := TaskList(job.Define[ringing]("bell:ring").Definition())
	for name, c := range map[string]struct {
		with map[string]any
		want []string
	}{
		"good":        {map[string]any{"level": "low", "url": "https://x"}, nil},
		"expressions": {map[string]any{"level": "${event.data.level}", "url": "${event.data.base}/x"}, nil},
		"bad": {
			map[string]any{"level": "loud", "url": "nope"},
			[]string{`with.level: is "loud", task "bell:ring" wants "low" or "high"`, `with.url: is "nope", task "bell:ring" wants a text that matches ^https?://`},
		},
		"a type":    {map[string]any{"level": 7}, []string{`with.level: is 7, task "bell:ring" wants string`}},
		"templates": {map[string]any{"level": "${", "hard": "${event.id"}, []string{`with.hard: the ${ at`, `with.level: the ${ at`}},
	} {
		_, err := Compile([]Trigger{{Name: "t", On: "a", Run: "bell:ring", With: c.with}}, tasks, Config{})
		t.Log(name)
		wantFaults(t, err, c.want...)
	}
}

func TestCompileTellsEveryFaultOfATrigger(t *testing.T) {
	t.Parallel()
	negative := -1
	_, err := Compile([]Trigger{
		{Name: "Über", On: "a.**.b", When: "1", Run: "http:reqest", Queue: "a b", Timeout: 1, In: -1, MaxRetry: &negative},
		{},
		{Name: "ok", On: "a", Run: "log:write"},
		{Name: "ok", On: "a", Run: "log:write"},
		{Name: strings.Repeat("x", 129), On: "a", Run: "log:write"},
	}, knownTasks(), Config{})
	wantFaults(
		t, err,
		`name: "Über": use small letters`, `on: event type pattern "a.**.b"`, `in: is -1ns`, `queue: queue "a b" contains white space`,
		`timeout: timeout is 1ns, it must be at least 1ms`, `max_retry: max retry is -1`, `when: gives int, a filter must give a bool`,
		`run: no task "http:reqest", did you mean "http:request"?|(known: any:thing, http:request, log:write)`,
		`name: is missing`, `on: is missing`, `run: is missing`,
		`name: has 129 bytes`, `trigger "ok": name: is used already before`,
	)
}

func TestUnknownTaskCanBeAWarning(t *testing.T) {
	t.Parallel()
	set, err := Compile([]Trigger{{Name: "t", On: "a", Run: "later:task"}}, knownTasks(), Config{AllowUnknownTasks: true})
	if err != nil || len(set.Warnings()) != 1 || !strings.Contains(set.Warnings()[0].Error(), `no task "later:task"`) {
		t.Errorf("%v, %v", set, err)
	}
}

func TestFaultsNameTheLineWithinAnExpression(t *testing.T) {
	t.Parallel()
	triggers, err := Parse("f.yaml", []byte(`triggers:
  - name: t
    on: a
    run: log:write
    when: |
      event.data.a == 1 &&
      nope
    with:
      ok: 1
      text: |-
        ${event.id}
        ${event.id +
          nope}
`))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Compile(triggers, knownTasks(), Config{})
	wantFaults(t, err, `f.yaml:7: trigger "t": when: undeclared reference to 'nope'`, `f.yaml:13: trigger "t": with.text: undeclared reference to 'nope'`)
}

func TestConfigTellsEveryFault(t *testing.T) {
	t.Parallel()
	err := Config{CostLimit: 1, EvalTimeout: 1, MaxExpressionBytes: -1, MaxPayloadBytes: -1}.Validate()
	if err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("%v", err)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	if _, err := Compile(nil, TaskList(), Config{CostLimit: 1}); err == nil {
		t.Error("Compile took a bad Config")
	}
}

func TestMatchingKeepsTheOrder(t *testing.T) {
	t.Parallel()
	set := compileAll(
		t, Config{},
		Trigger{Name: "a", On: "x.y", Run: "log:write"}, Trigger{Name: "b", On: "x.*", Run: "log:write"},
		Trigger{Name: "c", On: "x.y", Run: "log:write"}, Trigger{Name: "d", On: "x.z", Run: "log:write"},
		Trigger{Name: "e", On: "**", Run: "log:write"}, Trigger{Name: "f", On: "x.y", Run: "log:write", Disabled: true},
		Trigger{Name: "g", On: "x.y", Run: "log:write"}, Trigger{Name: "h", On: "y.**", Run: "log:write"},
	)
	for typ, want := range map[string]string{"x.y": "abceg", "x.z": "bde", "x": "e", "y.a.b": "eh", "x.yy": "be"} {
		got := ""
		set.matching(typ, func(r *rule) { got += r.Name })
		if got != want {
			t.Errorf("%s fires %q, want %q", typ, got, want)
		}
	}
}
