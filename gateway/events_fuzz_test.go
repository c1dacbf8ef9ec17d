package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// whole checks what came of a request: an event that can be stored and read again, or a problem that says something.
func whole(t *testing.T, e *events.Event, p *problem.Problem) {
	t.Helper()
	switch {
	case (e == nil) == (p == nil):
		t.Fatalf("event %v and problem %v", e, p)
	case p != nil:
		if p.Status < 400 || p.Status > 499 || p.Detail == "" || len(p.Errors) == 0 {
			t.Fatalf("problem %+v", p)
		}
		if _, err := json.Marshal(p); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := e.Validate(); err != nil {
		t.Fatalf("what was taken is not valid: %v", err)
	}
	back, err := events.Decode(e.AppendJSON(nil))
	if err != nil {
		t.Fatalf("what was taken can't be read again: %v", err)
	}
	if back.ID != e.ID || back.Source != e.Source || back.Type != e.Type {
		t.Fatalf("%+v became %+v", e, back)
	}
}

func made() string { return "made" }

func FuzzDecodeStructured(f *testing.F) {
	f.Add(`{"specversion":"1.0","type":"a","source":"/s","id":"1","data":{"a":1}}`)
	f.Add(`{"specversion":"1.0","type":"a","source":"/s","time":"2026-01-02T03:04:05z","ext":7,"data_base64":"AAE="}`)
	f.Add(`{"specversion":"1.0","replaytrigger":"x"}`)
	f.Add(`[{}]`)
	f.Fuzz(func(t *testing.T, body string) {
		e, p := decodeStructured([]byte(body), "", made)
		whole(t, e, p)
	})
}

func FuzzDecodeBinary(f *testing.F) {
	f.Add("specversion: 1.0\ntype: a\nsource: /s\nid: 1", "text/plain", "data")
	f.Add("specversion: \"1.0\"\ntype: a%20b\nsource: /s\nsubject: \"q\\\"uote\"\next-x: 1", "application/json", "{}")
	f.Add("type: %zz\ntime: now\ndatacontenttype: x", "", "")
	f.Fuzz(func(t *testing.T, attributes, contentType, body string) {
		h := make(http.Header)
		if contentType != "" {
			h.Set("Content-Type", contentType)
		}
		for line := range strings.SplitSeq(attributes, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			h.Add("ce-"+name, value)
		}
		e, p := decodeBinary(h, []byte(body), made)
		whole(t, e, p)
	})
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(`[{"specversion":"1.0","type":"a","source":"/s","id":"1"},7,null,{}]`)
	f.Add(`[]`)
	f.Add(`{}`)
	f.Fuzz(func(t *testing.T, body string) {
		items, p := splitEvents([]byte(body), 100)
		if p != nil {
			if p.Status < 400 || p.Status > 499 || len(p.Errors) != 1 {
				t.Fatalf("problem %+v", p)
			}
			return
		}
		for _, item := range items {
			e, p := decodeStructured(item, "[0]", made)
			whole(t, e, p)
		}
	})
}
