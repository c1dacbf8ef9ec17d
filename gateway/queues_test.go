package gateway

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
)

// spoil enqueues a job and breaks its message.
func (d *door) spoil(message string) string {
	d.t.Helper()
	info, err := greetTask.Enqueue(d.t.Context(), job.NewClient(d.rdb), greet{Name: "x"})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.rdb.HSet(d.t.Context(), wire.JobKey("greetings", info.ID), "msg", message).Err(); err != nil {
		d.t.Fatal(err)
	}
	return info.ID
}

func TestQueuesAndWhatWasSetAside(t *testing.T) {
	t.Parallel()
	d := setup(t)
	if l := want[QueueList](t, d.call("GET", "/v1/queues", keys.Read, nil), 200); len(l.Queues) != 0 {
		t.Errorf("%+v", l)
	}
	long := "\xff" + string(make([]byte, fleet.LongestShown))
	messages := map[string]string{d.spoil("\xff\x00<"): "\xff\x00<", d.spoil(long): long, d.spoil(""): ""}
	waiting, err := greetTask.Enqueue(t.Context(), job.NewClient(d.rdb), greet{Name: "y"}, job.In(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	before := want[QueueList](t, d.call("GET", "/v1/queues", keys.Read, nil), 200)
	if diff := cmp.Diff([]QueueState{{Name: "greetings", Pending: 3, Scheduled: 1}}, before.Queues); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	d.work(func(context.Context, greet) error { return nil })
	served := QueueState{Name: "greetings", Scheduled: 1, Undecodable: 3, Served: true, Workers: 1}
	eventually(t, "three are set aside", func() bool {
		l := want[QueueList](t, d.call("GET", "/v1/queues", keys.Read, nil), 200)
		return len(l.Queues) == 1 && l.Queues[0] == served
	})

	for cursor, n := "", 0; ; n++ {
		page := want[UndecodablePage](t, d.call("GET", "/v1/queues/greetings/undecodable?limit=2&cursor="+url.QueryEscape(cursor), keys.Admin, nil), 200)
		for _, u := range page.Jobs {
			message := messages[u.ID]
			if string(u.Message) != message[:min(len(message), fleet.LongestShown)] || u.Size != len(message) || u.Cut != (len(message) > fleet.LongestShown) || time.Since(u.At).Abs() > time.Minute {
				t.Errorf("%s: %d bytes, %d shown, cut %v, at %v", u.ID, u.Size, len(u.Message), u.Cut, u.At)
			}
		}
		if cursor = page.Next; cursor == "" {
			if n != 1 || len(page.Jobs) != 1 {
				t.Errorf("page %d has %d jobs", n, len(page.Jobs))
			}
			break
		}
	}

	at := "/v1/queues/greetings/undecodable/"
	if p := want[problem.Problem](t, d.call("DELETE", at+waiting.ID, keys.Admin, nil), 404); p.Errors[0].Parameter != "id" {
		t.Errorf("a job that is not set aside: %+v", p)
	}
	for id := range messages {
		if a := d.call("DELETE", at+id, keys.Admin, nil); a.status != 204 || len(a.body) != 0 {
			t.Errorf("%d %s", a.status, a.body)
		}
		want[problem.Problem](t, d.call("DELETE", at+id, keys.Admin, nil), 404)
	}
	if page := want[UndecodablePage](t, d.call("GET", "/v1/queues/greetings/undecodable", keys.Admin, nil), 200); len(page.Jobs) != 0 {
		t.Errorf("%+v", page)
	}
	want[JobStatus](t, d.call("GET", "/v1/jobs/"+waiting.ID, keys.Read, nil), 200)

	for path, place := range map[string]string{"none/undecodable": "name", "a%7Bb/undecodable": "name"} {
		if p := want[problem.Problem](t, d.call("GET", "/v1/queues/"+path, keys.Admin, nil), 404); p.Errors[0].Parameter != place {
			t.Errorf("%s: %+v", path, p)
		}
	}
	for query, place := range map[string]string{"cursor=x": "cursor", "limit=101": "limit", "limit=-1": "limit", "limt=1": "limt"} {
		if p := want[problem.Problem](t, d.call("GET", "/v1/queues/greetings/undecodable?"+query, keys.Admin, nil), 422); p.Errors[0].Parameter != place {
			t.Errorf("%s: %+v", query, p)
		}
	}
}

func TestQueuesWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	d := setup(t, func(c *Config, _ *Deps) { c.RedisWithin = 200 * time.Millisecond })
	want[QueueList](t, d.call("GET", "/v1/queues", keys.Admin, nil), 200) // the key is known from now on
	if err := d.rdb.Close(); err != nil {
		t.Fatal(err)
	}
	for method, paths := range map[string][]string{
		"GET":    {"/v1/queues", "/v1/queues/q/undecodable", "/v1/endpoints", "/v1/endpoints/x"},
		"POST":   {"/v1/endpoints/x/enable"},
		"DELETE": {"/v1/queues/q/undecodable/x"},
	} {
		for _, path := range paths {
			a := d.call(method, path, keys.Admin, nil)
			if want[problem.Problem](t, a, 503); a.header.Get("Retry-After") == "" {
				t.Errorf("%s %s: %v", method, path, a.header)
			}
		}
	}
}
