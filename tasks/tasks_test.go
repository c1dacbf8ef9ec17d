package tasks_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/tasks"
)

func TestHTTPRequestSchema(t *testing.T) {
	t.Parallel()
	d := tasks.RequestHTTP.Definition()
	want := []string{"method", "url", "headers", "json", "body", "timeout", "no_redirects"}
	if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(d.Schema.Fields()))); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"url"}, d.Schema.Required()); diff != "" {
		t.Errorf("required (-want +got):\n%s", diff)
	}
	for payload, fault := range map[string]string{
		`{"url":"https://a.example"}`:                               "",
		`{"url":"https://a.example","json":{"a":[1,null,"x"]}}`:     "",
		`{"url":"https://a.example","json":"text"}`:                 "",
		`{"url":"https://a.example","json":null}`:                   "",
		`{"method":"GET"}`:                                          `field "url" is missing`,
		`{"url":"https://a.example","header":{}}`:                   `no field "header"`,
		`{"url":"https://a.example","headers":{"X-Number":12}}`:     `field "headers.X-Number" is a number, want a string`,
		`{"url":"nope"}`:                                            `field "url" does not match ^https?://`,
		`{"url":"https://a.example","timeout":30}`:                  "timeout",
		`{"url":"https://a.example","no_redirects":"yes","body":1}`: "string",
	} {
		_, err := d.Request([]byte(payload))
		switch {
		case fault == "" && err != nil:
			t.Errorf("%s: %v", payload, err)
		case fault != "" && (err == nil || !strings.Contains(err.Error(), fault)):
			t.Errorf("%s: got %v, want an error with %q", payload, err, fault)
		}
	}
}

func TestHTTPRequestKeepsNumbers(t *testing.T) {
	t.Parallel()
	var r tasks.HTTPRequest
	if err := json.Unmarshal([]byte(`{"url":"https://a.example","timeout":"5s","json":{"id":12345678901234567890}}`), &r); err != nil {
		t.Fatal(err)
	}
	if r.URL != "https://a.example" || r.Timeout != "5s" {
		t.Errorf("fields beside json are lost: %+v", r)
	}
	back, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(back), `"json":{"id":12345678901234567890}`) {
		t.Errorf("got %s", back)
	}
	if err := json.Unmarshal([]byte(`{"url":"x","json":null}`), &r); err != nil || r.JSON != nil {
		t.Errorf("null: got %v, %v", r.JSON, err)
	}
}

func TestLogLineSchema(t *testing.T) {
	t.Parallel()
	d := tasks.WriteLog.Definition()
	if diff := cmp.Diff([]string{"message"}, d.Schema.Required()); diff != "" {
		t.Errorf("required (-want +got):\n%s", diff)
	}
	if err := d.Schema.Check([]byte(`{"message":"m","level":"warn","fields":{"a":{"b":[1]}}}`)); err != nil {
		t.Error(err)
	}
	err := d.Schema.Check([]byte(`{"message":"m","level":"loud"}`))
	if err == nil || err.Error() != `field "level" is "loud", want "debug", "info", "warn" or "error"` {
		t.Errorf("an unknown level gave %v", err)
	}
}
