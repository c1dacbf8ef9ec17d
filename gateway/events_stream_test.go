package gateway

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// sse is a server-sent event.
type sse struct{ name, id, data string }

// following is a client of the stream, as EventSource is one: it reads events by the standard's rules and remembers the last id.
type following struct {
	events chan sse
	beats  chan string // comments
	stop   func()
	mu     sync.Mutex
	last   string
}

func (f *following) lastID() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func follow(t *testing.T, d *door, query, lastID string) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/v1/events/stream?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.tokens[keys.Read])
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := (&http.Client{Transport: d.client.Transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the stream answered %d %v", resp.StatusCode, resp.Header)
	}
	f := &following{events: make(chan sse, 10_000), beats: make(chan string, 1000), last: lastID}
	opened := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() { f.read(bufio.NewReader(resp.Body), sync.OnceFunc(func() { close(opened) })) })
	f.stop = sync.OnceFunc(func() {
		cancel()
		_ = resp.Body.Close()
		reading.Wait()
	})
	t.Cleanup(f.stop)
	select {
	case <-opened:
	case <-time.After(limit):
		t.Fatal("the stream doesn't begin")
	}
	return f
}

// read parses as the standard says: a block without data moves the last id and is no event.
func (f *following) read(r *bufio.Reader, opened func()) {
	defer close(f.events)
	defer opened()
	var e sse
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\n")
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if e.id != "" {
				f.mu.Lock()
				f.last = e.id
				f.mu.Unlock()
			}
			if e.data != "" {
				f.events <- e
			}
			e = sse{}
			opened()
		case field == "":
			f.beats <- value
		case field == "event":
			e.name = value
		case field == "id":
			e.id = value
		case field == "data":
			e.data += value
		}
	}
}

func (f *following) next(t *testing.T) sse {
	t.Helper()
	select {
	case e, ok := <-f.events:
		if !ok {
			t.Fatal("the stream has ended")
		}
		return e
	case <-time.After(limit):
		t.Fatal("no event comes")
		return sse{}
	}
}

// publishMany publishes events and returns their places.
func publishMany(t *testing.T, d *door, typ string, n int) []string {
	t.Helper()
	var places []string
	for range n {
		e, err := events.New(typ, "/s", nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.gateway.deps.Events.PublishOne(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, p.StreamID)
	}
	return places
}

func TestStreamFollows(t *testing.T) {
	t.Parallel()
	d := setup(t)
	old := publishMany(t, d, "com.acme.old", 2)
	now := follow(t, d, "", "")
	if now.lastID() != old[1] {
		t.Errorf("before the first event the id is %q, want %q", now.lastID(), old[1])
	}
	filtered := follow(t, d, "after=0-0&type=com.*.paid", "")
	a := want[PublishedEvent](t, structuredly(d, "{\n"+`"specversion":"1.0","type":"com.acme.paid","source":"/shop","id":"1",`+"\r\n"+`"data":{"a":`+"\n"+`1}}`), 201)
	for _, f := range []*following{now, filtered} {
		e := f.next(t)
		if e.id != a.StreamID || e.name != "" || !strings.Contains(e.data, `"data":{"a":1}`) {
			t.Errorf("got %+v", e)
		}
		if got, err := events.Decode([]byte(e.data)); err != nil || got.ID != "1" {
			t.Errorf("%v in %q", err, e.data)
		}
	}
	for query, place := range map[string]string{"after=x": "after", "type=a.**.b": "type", "typ=a": "typ"} {
		p := want[problem.Problem](t, d.call("GET", "/v1/events/stream?"+query, keys.Read, nil), 422)
		if len(p.Errors) != 1 || p.Errors[0].Parameter != place {
			t.Errorf("%s: %+v", query, p)
		}
	}
	p := want[problem.Problem](t, d.call("GET", "/v1/events/stream", keys.Read, nil, "Last-Event-ID: x"), 422)
	if p.Errors[0].Header != "Last-Event-ID" {
		t.Errorf("%+v", p)
	}
}

// A gateway goes, another comes: a client that resumes has each event once.
func TestStreamOverARestart(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	first := setupOver(t, rdb)
	publisher := setupOver(t, rdb) // it stays
	client := follow(t, first, "type="+url.QueryEscape("com.acme.**"), "")
	var stored []string
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for range 40 {
			stored = append(stored, publishMany(t, publisher, "com.acme.paid", 5)...)
			publishMany(t, publisher, "com.other", 1)
		}
	})
	var got []string
	for len(got) < 60 {
		got = append(got, client.next(t).id)
	}
	first.gateway.Drain()
	for e := range client.events { // ends, for the gateway drains
		got = append(got, e.id)
	}
	second := setupOver(t, rdb)
	again := follow(t, second, "type="+url.QueryEscape("com.acme.**"), client.lastID())
	publishing.Wait()
	for len(got) < len(stored) {
		got = append(got, again.next(t).id)
	}
	if !slices.Equal(got, stored) {
		t.Errorf("the client has %d events of %d, or in another order (-stored +got):\n%s", len(got), len(stored), cmp.Diff(stored, got))
	}
	last := publishMany(t, publisher, "com.acme.last", 1)
	if e := again.next(t); e.id != last[0] {
		t.Errorf("after them comes %+v, want %s", e, last[0])
	}
}

func TestStreamTellsOfAGap(t *testing.T) {
	t.Parallel()
	d := setup(t)
	ids := publishMany(t, d, "a", 6)
	if err := d.rdb.XTrimMinID(t.Context(), events.DefaultPrefix+"stream", ids[3]).Err(); err != nil {
		t.Fatal(err)
	}
	f := follow(t, d, "", ids[0])
	gap := f.next(t)
	if gap.name != "gap" || !strings.Contains(gap.data, "trimmed") || gap.id == "" {
		t.Errorf("got %+v, want a gap", gap)
	}
	for _, id := range ids[3:] {
		if e := f.next(t); e.id != id {
			t.Errorf("got %+v, want %s", e, id)
		}
	}
	// Who resumes from the gap is not told of it again.
	if e := follow(t, d, "", gap.id).next(t); e.id != ids[3] || e.name != "" {
		t.Errorf("resumed from the gap: %+v", e)
	}
}

// A quiet stream shows that it lives, and moves the client on over what it doesn't ask for.
func TestStreamBeats(t *testing.T) {
	t.Parallel()
	d := setup(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tail, err := d.gateway.deps.Events.Tail(r.Context(), "", "wanted")
		if err != nil {
			t.Error(err)
			return
		}
		defer tail.Close()
		s := &eventStream{w: w, beat: 20 * time.Millisecond, allowed: func(context.Context) bool { return true }}
		w.Header().Set("Content-Type", "text/event-stream")
		_ = s.run(r.Context(), tail)
	}))
	t.Cleanup(server.Close)
	direct := *d
	direct.url = server.URL
	f := follow(t, &direct, "", "")
	places := publishMany(t, d, "other", 3)
	for range 3 {
		select {
		case <-f.beats:
		case <-time.After(limit):
			t.Fatal("no heartbeat")
		}
	}
	eventually(t, "the last id moves on", func() bool { return f.lastID() == places[2] })
	if len(f.events) != 0 {
		t.Errorf("an event came that wasn't asked for: %+v", <-f.events)
	}
	f.stop()
}

// One client that reads nothing keeps no other waiting.
// A key that is revoked, or expires, sees no event any more, also not on a stream that it had opened before.
func TestStreamEndsWithItsKey(t *testing.T) {
	t.Parallel()
	d := setup(t)
	store := keys.NewStore(d.rdb, keys.Config{}) // another process'
	expiring, _, err := store.Create(t.Context(), keys.Key{Name: "guest", Scopes: []keys.Scope{keys.Read}, Expires: time.Now().Add(10 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	list, err := store.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*following{"revoked": follow(t, d, "", "")}
	d.tokens[keys.Read] = expiring
	all["expired"] = follow(t, d, "", "")
	want := publishMany(t, d, "a.b", 1)[0]
	for name, f := range all {
		if got := f.next(t); got.id != want {
			t.Fatalf("%s: got %+v, want %s", name, got, want)
		}
	}
	for _, k := range list {
		if slices.Equal(k.Scopes, []keys.Scope{keys.Read}) && k.Name != "guest" {
			if err := store.Revoke(t.Context(), k.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "no event is sent any more", func() bool {
		publishMany(t, d, "a.b", 1)
		open := 0
		for _, f := range all {
			if !f.ended() {
				open++
			}
		}
		return open == 0
	})
}

// ended drops what came, and tells whether no more will come.
func (f *following) ended() bool {
	for {
		select {
		case _, more := <-f.events:
			if !more {
				return true
			}
		default:
			return false
		}
	}
}

func TestStreamWithASlowClient(t *testing.T) {
	t.Parallel()
	d := setup(t)
	start := publishMany(t, d, "a", 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/v1/events/stream?after="+start, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.tokens[keys.Read])
	stuck, err := d.client.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Body.Close()
	quick := follow(t, d, "after="+start, "")
	large := strings.Repeat("x", 100_000)
	for i := range 100 { // far more than sockets hold
		want[PublishedEvent](t, structuredly(d, fmt.Sprintf(`{"specversion":"1.0","type":"a","source":"/s","id":"%d","data":%q}`, i, large)), 201)
		quick.next(t)
	}
	cancel()
}
