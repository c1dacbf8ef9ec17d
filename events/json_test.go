package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 890000000, time.UTC)
	for _, tc := range []struct {
		name, json string
		want       Event
	}{
		{
			"all attributes",
			`{"specversion":"1.0","id":"1","source":"/mail","type":"a.b","subject":"s","time":"2026-03-04T05:06:07.89Z",` +
				`"datacontenttype":"application/json","dataschema":"https://x/y","data":{"n": 1},"traceparent":"00-ab","flag":true,"count":-7}`,
			Event{
				SpecVersion: "1.0", ID: "1", Source: "/mail", Type: "a.b", Subject: "s", Time: at, DataContentType: "application/json",
				DataSchema: "https://x/y", Data: []byte(`{"n": 1}`),
				Extensions: map[string]any{"traceparent": "00-ab", "flag": true, "count": int32(-7)},
			},
		},
		{"null is unset", `{"specversion":"1.0","id":"1","source":"s","type":"t","subject":null,"ext":null}`, Event{SpecVersion: "1.0", ID: "1", Source: "s", Type: "t"}},
		{"null data is JSON", `{"specversion":"1.0","id":"1","source":"s","type":"t","data":null}`, Event{SpecVersion: "1.0", ID: "1", Source: "s", Type: "t", Data: []byte("null")}},
		{"text", `{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":"a\n\u00fc"}`, Event{SpecVersion: "1.0", ID: "1", Source: "s", Type: "t", DataContentType: "text/plain", Data: []byte("a\nü")}},
		{"object under text", `{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/xml","data":{"a":1}}`, Event{SpecVersion: "1.0", ID: "1", Source: "s", Type: "t", DataContentType: "text/xml", Data: []byte(`{"a":1}`)}},
		{"base64", `{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"image/png","data_base64":"/wA="}`, Event{SpecVersion: "1.0", ID: "1", Source: "s", Type: "t", DataContentType: "image/png", Data: []byte{0xff, 0}}},
		{"JSON as base64", `{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"e30="}`, Event{SpecVersion: "1.0", ID: "1", Source: "s", Type: "t", Data: []byte("{}")}},
		{"small letters in time", `{"specversion":"1.0","id":"1","source":"s","type":"t","time":"2026-03-04t05:06:07.89z"}`, Event{SpecVersion: "1.0", ID: "1", Source: "s", Type: "t", Time: at}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := Decode([]byte(tc.json))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, *got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestDecodeReportsEveryFault(t *testing.T) {
	t.Parallel()
	const head = `{"specversion":"1.0","id":"1","source":"s","type":"t",`
	for _, tc := range []struct {
		name, json string
		want       []string
	}{
		{"no JSON", `{`, []string{"is not a JSON object"}},
		{"a list", `[]`, []string{"is not a JSON object"}},
		{"null", `null`, []string{"is null"}},
		{"nothing there", `{}`, []string{"specversion: is missing", "id: is missing", "source: is missing", "type: is missing"}},
		{"wrong types", `{"specversion":1,"id":2,"source":"s","type":"t","time":"noon"}`, []string{"specversion: is not a string", "id: is not a string", `time: "noon"`}},
		{"version", `{"specversion":"0.3","id":"1","source":"s","type":"t"}`, []string{`specversion: is "0.3"`}},
		{"two data", head + `"data":1,"data_base64":"AA=="}`, []string{"both there"}},
		{"broken base64", head + `"data_base64":"%"}`, []string{"data_base64: illegal"}},
		{"base64 that is no JSON", head + `"data_base64":"AA=="}`, []string{"data_base64: is not JSON"}},
		{"extensions", head + `"Big":1,"snake_case":"x","obj":{},"half":0.5,"huge":2147483648}`, []string{`"Big"`, `"snake_case"`, "obj: is an object", "half: 0.5", "huge: 2147483648"}},
		{"control character", head + `"subject":"a\u0000b"}`, []string{"subject: has the character U+0000"}},
		{"schema and content type", head + `"dataschema":"x","datacontenttype":"nonsense//"}`, []string{`dataschema: "x" is not absolute`, "datacontenttype:"}},
		{"long id", `{"specversion":"1.0","source":"s","type":"t","id":"` + strings.Repeat("x", maxID+1) + `"}`, []string{"id: has 1025 bytes"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := Decode([]byte(tc.json))
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error is %v, want ErrInvalid", err)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	a, err := New("a.b", "/s", map[string]int{"n": 1}, Subject("sub"), Extension("n", 3), Extension("when", time.Unix(0, 0).UTC()))
	if err != nil {
		t.Fatal(err)
	}
	b, err := New("a.b", "/s", []byte{1, 2}, ID("mine"), At(time.Unix(5, 0)))
	if err != nil {
		t.Fatal(err)
	}
	if a.ID == "" || time.Since(a.Time) > time.Minute || string(a.Data) != `{"n":1}` || !a.IsJSON() {
		t.Errorf("got %+v", a)
	}
	if diff := cmp.Diff(map[string]any{"n": int32(3), "when": "1970-01-01T00:00:00Z"}, a.Extensions); diff != "" {
		t.Error(diff)
	}
	if b.ID != "mine" || b.IsJSON() || b.Time.Unix() != 5 {
		t.Errorf("got %+v", b)
	}
	var data map[string]int
	if err := a.DataAs(&data); err != nil || data["n"] != 1 {
		t.Errorf("data is %v, error %v", data, err)
	}
	_, err = New("", "", json.RawMessage("{"), Extension("Big", 1), Extension("list", []int{1}))
	for _, want := range []string{"type: is missing", "source: is missing", "data: is not JSON", `"Big"`, "list: is a []int"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if _, err := New("t", "s", 1, ContentType("text/plain")); err == nil {
		t.Error("an int went as text/plain")
	}
}

// What we write, the reference implementation reads as the same event, and the other way round.
func TestSameAsSDK(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t)
		ours := e.AppendJSON(nil)
		var sdk ce.Event
		if err := json.Unmarshal(ours, &sdk); err != nil {
			t.Fatalf("the SDK refuses %s: %v", ours, err)
		}
		if err := sdk.Validate(); err != nil {
			t.Fatalf("the SDK calls %s invalid: %v", ours, err)
		}
		compareWithSDK(t, e, &sdk)
		theirs, err := json.Marshal(sdk)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(theirs)
		if err != nil {
			t.Fatalf("we refuse the SDK's %s: %v", theirs, err)
		}
		compareWithSDK(t, back, &sdk)
		again, err := Decode(ours)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatalf("not what was encoded: %s", diff)
		}
	})
}

func drawEvent(t *rapid.T) *Event {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("abcXYZ09 .:/-_\"\\<>&'üß漢🦘")), 1, 30, -1)
	e := &Event{
		SpecVersion: SpecVersion,
		ID:          "i" + text.Draw(t, "id"),
		Type:        "t" + text.Draw(t, "type"),
		Source:      rapid.StringMatching(`(https://[a-z]{1,8}\.com)?(/[a-z0-9]{1,8}){1,3}(\?q=[a-z]{1,4})?`).Draw(t, "source"),
	}
	if rapid.Bool().Draw(t, "more") {
		e.Subject = "s" + text.Draw(t, "subject")
		e.DataSchema = "https://example.com/schema"
		e.Time = time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "s"), rapid.Int64Range(0, 1e9-1).Draw(t, "ns")).UTC()
		e.Extensions = map[string]any{
			rapid.StringMatching(`x[a-z0-9]{1,10}`).Draw(t, "name"): rapid.OneOf(
				text.AsAny(), rapid.Bool().AsAny(), rapid.Int32().AsAny()).Draw(t, "value"),
		}
	}
	switch rapid.IntRange(0, 3).Draw(t, "data") {
	case 1:
		e.DataContentType = rapid.SampledFrom([]string{"", "application/json", "text/json", "application/cloudevents+json"}).Draw(t, "json type")
		e.Data = []byte(rapid.SampledFrom([]string{`{"a": [1, "ü<"]}`, `"s"`, `12`, `true`, `[]`}).Draw(t, "json"))
	case 2:
		e.DataContentType = "text/plain; charset=utf-8"
		e.Data = []byte(text.Draw(t, "text"))
	case 3:
		e.DataContentType = "application/octet-stream"
		e.Data = rapid.SliceOfN(rapid.Byte(), 1, 30).Draw(t, "bytes")
	}
	return e
}

func compareWithSDK(t *rapid.T, e *Event, sdk *ce.Event) {
	t.Helper()
	got := []any{e.ID, e.Source, e.Type, e.Subject, e.DataSchema, e.DataContentType, e.Time.UTC().Format(time.RFC3339Nano)}
	want := []any{sdk.ID(), sdk.Source(), sdk.Type(), sdk.Subject(), sdk.DataSchema(), sdk.DataContentType(), sdk.Time().UTC().Format(time.RFC3339Nano)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("attributes differ from the SDK's: %s", diff)
	}
	if len(e.Extensions) != len(sdk.Extensions()) || len(e.Extensions) > 0 && !cmp.Equal(e.Extensions, sdk.Extensions()) {
		t.Fatalf("extensions are %v, the SDK has %v", e.Extensions, sdk.Extensions())
	}
	if !bytes.Equal(compact(e), compactBytes(sdk.Data(), e.IsJSON())) {
		t.Fatalf("data is %q, the SDK has %q", e.Data, sdk.Data())
	}
}

func compact(e *Event) []byte { return compactBytes(e.Data, e.IsJSON()) }

func compactBytes(b []byte, isJSON bool) []byte {
	var v any
	if !isJSON || json.Unmarshal(b, &v) != nil {
		return b
	}
	out, _ := json.Marshal(v)
	return out
}

// Whatever is accepted is valid, survives a round trip, and is read by the SDK too.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data":{"a":[1,2]}}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","datacontenttype":"text/plain","data":"x\u2028"}`,
		`{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"AA==","datacontenttype":"a/b","time":"2026-01-01T00:00:00+23:59"}`,
		`{"specversion":"1.0","id":"\ud800","source":"s","type":"t","ext":1e3,"b":false}`,
		`{}`, `null`, `[`, `{"data":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("the error is no ErrInvalid: %v", err)
			}
			return
		}
		if err := e.Validate(); err != nil {
			t.Fatalf("%s was accepted, but is invalid: %v", b, err)
		}
		out := e.AppendJSON(nil)
		again, err := Decode(out)
		if err != nil {
			t.Fatalf("%s was accepted, but not its own form %s: %v", b, out, err)
		}
		if !e.Time.Equal(again.Time) {
			t.Fatalf("time was %v, is %v", e.Time, again.Time)
		}
		e.Time, again.Time = time.Time{}, time.Time{}
		if diff := cmp.Diff(e, again); diff != "" {
			t.Fatalf("%s: %s", out, diff)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	e, err := New("com.github.issues.opened", "https://github.com/acme/x", json.RawMessage(`{"a":"`+strings.Repeat("x", 1000)+`"}`), Subject("x"))
	if err != nil {
		b.Fatal(err)
	}
	text := e.AppendJSON(nil)
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sdk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var sdk ce.Event
			if err := json.Unmarshal(text, &sdk); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestDecodeNewMakesAnID(t *testing.T) {
	t.Parallel()
	made := func() string { return "made" }
	e, err := DecodeNew([]byte(`{"specversion":"1.0","type":"a","source":"/s"}`), made)
	if err != nil || e.ID != "made" {
		t.Errorf("got %+v, %v", e, err)
	}
	if e, err = DecodeNew([]byte(`{"specversion":"1.0","type":"a","source":"/s","id":"given"}`), made); err != nil || e.ID != "given" {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, bad := range []string{`""`, `7`, `null`} {
		if _, err := DecodeNew([]byte(`{"specversion":"1.0","type":"a","source":"/s","id":`+bad+`}`), made); !errors.Is(err, ErrInvalid) {
			t.Errorf("id %s: %v", bad, err)
		}
	}
}

func TestFaultsNameTheirAttribute(t *testing.T) {
	t.Parallel()
	_, err := Decode([]byte(`{"specversion":"1.1","id":"x","time":"now","ext":[]}`))
	got := Faults(fmt.Errorf("publish: %w", err))
	for _, attribute := range []string{"specversion", "time", "source", "type", "ext"} {
		if !slices.ContainsFunc(got, func(f string) bool { return strings.HasPrefix(f, attribute+": ") }) {
			t.Errorf("no fault of %s in %q", attribute, got)
		}
	}
	if _, err = Decode([]byte(`[`)); len(Faults(err)) != 1 || Faults(errors.New("other")) != nil {
		t.Errorf("got %q", Faults(err))
	}
}
