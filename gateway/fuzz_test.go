package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/job"
)

func bareDecoder() jobDecoder {
	g := &Gateway{mux: http.NewServeMux()}
	g.api = newAPI(g)
	return newJobDecoder(g)
}

// Whatever a stranger sends is a request that can be enqueued, or faults that each have a place.
func FuzzDecodeJob(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `[]`, `{}`, `{"task":"a"}`, greetAda, `{"task":"a","payload":{"x":[1,2,{"y":1e400}]},"in":"1h","max_retry":3}`,
		`{"task":"a","at":"2030-01-01T00:00:00Z","deadline":"9999-12-31T23:59:59Z","timeout":"1ms","retention":"0s","unique":"24h"}`,
		`{"task":"a","headers":{"k":"v","bellhop-x":"y","":""},"group":"g","queue":"{","id":"\u0000"}`, `{"task":"a","Task":"b"}`,
		`{"task":"a","in":"-1s"}`, `{"task":"a","in":"9223372036854775807ns"}`, `{"task":"a","max_retry":1e9}`, `{"task":"a","max_retry":1.5}`, `{"task":"\ud800"}`,
		strings.Repeat("[", 20_000),
	} {
		f.Add([]byte(seed))
	}
	d := bareDecoder()
	f.Fuzz(func(t *testing.T, data []byte) {
		r, faults := d.decode(data, "jobs[3]")
		var options []job.Option
		if len(faults) == 0 {
			if r.Task == "" || !json.Valid(r.Payload) {
				t.Errorf("decoded %+v", r)
			}
			options, faults = r.options("jobs[3]")
		}
		for _, fault := range faults {
			if !strings.HasPrefix(fault.Pointer, "#/jobs/3") || fault.Detail == "" {
				t.Errorf("a fault without a place, or without a word: %+v", fault)
			}
		}
		if len(faults) == 0 {
			if _, err := job.Named("any").Request([]byte("null"), options...); err != nil {
				t.Errorf("options that job refuses together: %v", err)
			}
		}
	})
}

func FuzzSplitBatch(f *testing.F) {
	for _, seed := range []string{``, `{}`, `{"jobs":null}`, `{"jobs":[]}`, `{"jobs":[1,{},null,"x"]}`, `{"jobs":[1],"jobs":[2,3]}`, `{"JOBS":[1]}`, "{\"jobs\":[\"\xff\"]}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		items, err := splitBatch(data, "jobs", 5)
		if (err == nil) != (len(items) > 0) || len(items) > 5 {
			t.Errorf("%d items, %v", len(items), err)
		}
		for _, item := range items {
			if !json.Valid(item) {
				t.Errorf("item %q", item)
			}
		}
	})
}
