package acceptance_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// TestEnqueueCommand goes through the command line: what it answers, and its exit codes.
func TestEnqueueCommand(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	address := redisURL(t, rdb)
	guarded := strings.Replace(redisURL(t, rdb), "redis://", "redis://nobody:wrong@", 1)
	if err := rdb.Set(t.Context(), "asynq:{paused}:paused", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"payload.json": "{\"message\":\"from a file\"}\n", "x.rejected": "no JSON\n", "x.rejected.2": "no JSON\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	worker := prepare(t, t.TempDir(), filepath.Join(programs(t), "worker"), "--redis", address)
	worker.start()

	const payload = `{"message":"hello"}`
	for name, c := range map[string]struct {
		args  []string
		stdin string
		code  int
		says  []string
		not   string
	}{
		"a job":                {args: []string{"log:write", payload}, says: []string{"job ", "log:write in queue default is pending"}},
		"a job of a file":      {args: []string{"log:write", "@payload.json", "--wait", "30s"}, says: []string{"is done"}},
		"a job of stdin":       {args: []string{"log:write", "-", "--wait", "30s"}, stdin: payload, says: []string{"is done"}},
		"later":                {args: []string{"log:write", payload, "--in", "1h"}, says: []string{"is scheduled, starts at "}},
		"at a time":            {args: []string{"log:write", payload, "--at", "2100-01-01T00:00:00Z"}, says: []string{"is scheduled, starts at 2100-01-01T"}},
		"into a queue":         {args: []string{"log:write", payload, "--queue", "other", "--max-retry", "0", "--timeout", "1s"}, says: []string{"in queue other"}},
		"unchecked":            {args: []string{"nobody:knows", `[1]`, "--force", "--queue", "other"}, says: []string{"is pending"}},
		"an event":             {args: []string{"--event", "com.acme.a", `{"n":1}`, "--source", "/s", "--id", "4711", "--subject", "x"}, says: []string{"event 4711: com.acme.a from /s"}},
		"the tasks":            {args: []string{"--list"}, says: []string{"http:request", "url*", "log:write", "message*", "LIVE WORKERS"}},
		"the version":          {args: []string{"--version"}, says: []string{"enqueue "}},
		"help":                 {args: []string{"--help"}, says: []string{"Exit codes: 0 done, 1 failed"}},
		"dead matches, none":   {args: []string{"--dead-matches"}},
		"a job that dies":      {args: []string{"http:request", `{"url":"http://127.0.0.1:1"}`, "--wait", "30s"}, code: 1, says: []string{"failed for good", "handlers.http.allow"}},
		"an end not reached":   {args: []string{"log:write", payload, "--queue", "other", "--wait", "100ms"}, code: 1, says: []string{"has not ended within 100ms: it is pending; no bellhop worker serves queue other"}},
		"... as JSON":          {args: []string{"log:write", payload, "--queue", "other", "--wait", "100ms", "--json"}, code: 1, says: []string{`"state":"pending"`, `"hint":"no bellhop worker serves queue other"`}},
		"a paused queue":       {args: []string{"log:write", payload, "--queue", "paused", "--wait", "100ms"}, code: 1, says: []string{"queue paused is paused"}},
		"nobody serves it":     {args: []string{"log:write", payload, "--queue", "other"}, says: []string{"no bellhop worker serves queue other at redis://", "--queues other"}},
		"a wrong password":     {args: []string{"--list", "--redis", guarded}, code: 1, says: []string{"WRONGPASS", "correct user name and password"}, not: "does not answer"},
		"a negative time":      {args: []string{"log:write", payload, "--in", "-5m"}, code: 2, says: []string{"--in -5m0s is negative"}},
		"no time to wait":      {args: []string{"log:write", payload, "--wait", "0"}, code: 2, says: []string{"--wait 0s"}},
		"a job's flags":        {args: []string{"--event", "com.acme.a", "--queue", "x", "--wait", "1s"}, code: 2, says: []string{"--queue and --wait can't be used with --event"}},
		"an event's flags":     {args: []string{"log:write", payload, "--source", "/x"}, code: 2, says: []string{"--source can't be used with a job"}},
		"two forms":            {args: []string{"--list", "--dead-matches"}, code: 2, says: []string{"--list and --dead-matches exclude each other"}},
		"a task to list":       {args: []string{"log:write", "--list"}, code: 2, says: []string{"--list takes no TASK"}},
		"an event with spaces": {args: []string{"--event", "com acme", "{}"}, code: 2, says: []string{"no spaces"}},
		"an empty event":       {args: []string{"--event", "", "{}"}, code: 2, says: []string{"--event is empty"}},
		"no dead matches":      {args: []string{"--dead-matches", "--json"}, says: []string{"[]\n"}},
		"bulk, an array":       {args: []string{"--from", "-"}, stdin: "[1]\n", code: 1, says: []string{"the line is a JSON array, want an object", "1 line: 0 stored, 0 duplicates, 1 rejected"}},
		"bulk, a field's type": {args: []string{"--from", "-"}, stdin: `{"task":"log:write","max_retry":"7"}`, code: 1, says: []string{`"max_retry" is a JSON string, want a whole number`}},
		"bulk, negative":       {args: []string{"--from", "-"}, stdin: `{"task":"log:write","payload":{"message":"m"},"in":"-5m"}`, code: 1, says: []string{"must not be negative"}},
		"bulk, spaces":         {args: []string{"--from", "-"}, stdin: `{"event":"a b"}`, code: 1, says: []string{"no spaces"}},
		"bulk, once more":      {args: []string{"--from", "x.rejected"}, code: 1, says: []string{"x.rejected.2:"}},
		"bulk, twice more":     {args: []string{"--from", "x.rejected.2"}, code: 1, says: []string{"x.rejected.3:"}},
		"no Redis":             {args: []string{"log:write", payload, "--redis", "redis://" + closedAddr(t)}, code: 1, says: []string{"does not answer", "--redis"}},
		"nothing":              {code: 2, says: []string{"what shall be enqueued?"}},
		"a typing error":       {args: []string{"log:wirte", payload}, code: 2, says: []string{`did you mean "log:write"?`, "--force"}},
		"an unknown flag":      {args: []string{"log:write", payload, "--que", "x"}, code: 2, says: []string{"unknown flag", "--queue"}},
		"a flag's value":       {args: []string{"log:write", payload, "--in", "soon"}, code: 2, says: []string{"--in \"soon\" is no duration"}},
		"no unit":              {args: []string{"log:write", payload, "--wait", "10"}, code: 2, says: []string{"write 10s"}},
		"an id":                {args: []string{"log:write", payload, "--id", "a b:c"}, code: 2, says: []string{"enqueue log:write: id"}, not: "enqueue: enqueue"},
		"a log level":          {args: []string{"log:write", `{"message":"m","level":"loud"}`}, code: 2, says: []string{`"debug", "info", "warn" or "error"`}},
		"an address":           {args: []string{"http:request", `{"url":"nope"}`}, code: 2, says: []string{`field "url" does not match ^https?://`}},
		"a time":               {args: []string{"log:write", payload, "--at", "tomorrow"}, code: 2, says: []string{"RFC 3339"}},
		"two times":            {args: []string{"log:write", payload, "--at", "2100-01-01T00:00:00Z", "--in", "1h"}, code: 2, says: []string{"exclude each other"}},
		"no JSON":              {args: []string{"log:write", `{"message"`}, code: 2},
		"an unknown field":     {args: []string{"log:write", `{"massage":"m"}`}, code: 2, says: []string{"massage"}},
		"no UTF-8":             {args: []string{"log:write", "{\"message\":\"\xff\"}"}, code: 2, says: []string{"UTF-8"}},
		"an event's UTF-8":     {args: []string{"--event", "com.acme.a", "-"}, stdin: "{\"message\":\"\xff\"}", code: 2, says: []string{"UTF-8"}},
		"a field's type":       {args: []string{"log:write", `{"message":1}`}, code: 2, says: []string{`field "message" is a number, want a string`}},
		"a missing field":      {args: []string{"log:write"}, code: 2, says: []string{`"message"`}},
		"unquoted":             {args: []string{"log:write", "{message:", "hello}"}, code: 2, says: []string{"quote the JSON"}},
		"a missing file":       {args: []string{"log:write", "@missing.json"}, code: 2, says: []string{"missing.json"}},
		"a queue's name":       {args: []string{"log:write", payload, "--queue", ""}, code: 2, says: []string{"queue"}},
		"retries":              {args: []string{"log:write", payload, "--max-retry", "-1"}, code: 2, says: []string{"max retry"}},
		"an event's data":      {args: []string{"--event", "com.acme.a", `{"n":`}, code: 2, says: []string{"not JSON"}},
		"an event's source":    {args: []string{"--event", "com.acme.a", `{}`, "--source", "%zz"}, code: 2, says: []string{"source"}},
		"no bulk file":         {args: []string{"--from", "missing.ndjson"}, code: 2, says: []string{"missing.ndjson"}},
		"bulk with a payload":  {args: []string{"log:write", payload, "--from", "x"}, code: 2, says: []string{"come from the file"}},
		"bulk with an id":      {args: []string{"--from", "payload.json", "--id", "x"}, code: 2, says: []string{"--id"}},
		"a Redis address":      {args: []string{"log:write", payload, "--redis", "reddis://x"}, code: 2, says: []string{"did you mean redis://"}},
		"an unknown replay":    {args: []string{"--replay", "x", "--triggers", triggersHere(t)}, code: 2, says: []string{"no dead match"}},
		"a replay of no rules": {args: []string{"--replay", "x"}, code: 2, says: []string{"--triggers"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{}, c.args...)
			if !strings.Contains(strings.Join(args, " "), "--redis") {
				args = append(args, "--redis", address)
			}
			enqueue := prepare(t, dir, filepath.Join(programs(t), "enqueue"), args...)
			enqueue.cmd.Stdin = strings.NewReader(c.stdin)
			r := enqueue.run().want(t, c.code, c.says...)
			if c.not != "" && strings.Contains(r.stdout+r.stderr, c.not) {
				t.Errorf("it says %q: %s%s", c.not, r.stdout, r.stderr)
			}
		})
	}
}

func triggersHere(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs("triggers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// closedAddr is a host and port where nobody listens.
func closedAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestEnqueueJSON is what scripts read.
func TestEnqueueJSON(t *testing.T) {
	t.Parallel()
	address := redisURL(t, redistest.New(t))
	enqueue := func(args ...string) map[string]any {
		t.Helper()
		r := prepare(t, t.TempDir(), filepath.Join(programs(t), "enqueue"), append(args, "--redis", address, "--json")...).run().want(t, 0)
		var answer map[string]any
		if err := json.Unmarshal([]byte(r.stdout), &answer); err != nil {
			t.Fatalf("%q: %v", r.stdout, err)
		}
		return answer
	}
	wantFields := func(got, want map[string]any) {
		t.Helper()
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s is %v, want %v (of %v)", name, got[name], value, got)
			}
		}
	}
	job := []string{"log:write", `{"message":"m"}`, "--id", "j1"}
	wantFields(enqueue(job...), map[string]any{"id": "j1", "task": "log:write", "queue": "default", "state": "pending"})
	wantFields(enqueue(job...), map[string]any{"id": "j1", "state": "duplicate"})
	unique := []string{"log:write", `{"message":"once"}`, "--unique", "1h", "--queue", "q"}
	first := enqueue(unique...)
	wantFields(enqueue(unique...), map[string]any{"id": first["id"], "state": "duplicate", "queue": "q"})

	event := []string{"--event", "com.acme.a", `{}`, "--source", "/s", "--id", "e1"}
	published := enqueue(event...)
	wantFields(published, map[string]any{"id": "e1", "type": "com.acme.a", "source": "/s", "duplicate": false})
	wantFields(enqueue(event...), map[string]any{"id": "e1", "duplicate": true, "stream_id": published["stream_id"]})

	worker := prepare(t, t.TempDir(), filepath.Join(programs(t), "worker"), "--redis", address)
	worker.start()
	wantFields(enqueue("log:write", `{"message":"waited for"}`, "--wait", "30s"), map[string]any{"state": "completed", "task": "log:write"})

	elsewhere := prepare(t, t.TempDir(), filepath.Join(programs(t), "worker"), "--redis", address, "--queues", "elsewhere")
	elsewhere.start()
	eventually(t, "it has started", func() error {
		if log := elsewhere.stderr.String(); !strings.Contains(log, "worker started") {
			return errors.New(log)
		}
		return nil
	})

	list := prepare(t, t.TempDir(), filepath.Join(programs(t), "enqueue"), "--list", "--redis", address, "--json").run().want(t, 0)
	var tasks []struct {
		Name    string         `json:"name"`
		Schema  map[string]any `json:"schema"`
		Workers int            `json:"workers"`
	}
	if err := json.Unmarshal([]byte(list.stdout), &tasks); err != nil {
		t.Fatalf("--list --json: %v\n%s", err, list.stdout)
	}
	names := make([]string, len(tasks))
	for i, task := range tasks {
		names[i] = task.Name
		if task.Schema["properties"] == nil {
			t.Errorf("--list --json: %s has no schema", task.Name)
		}
		if task.Workers != 1 { // the other one serves no queue of theirs
			t.Errorf("--list --json: %d workers run %s", task.Workers, task.Name)
		}
	}
	want := []string{"amqp:publish", "email:send", "events:replay", "http:request", "log:write", "webhook:deliver", "webhook:fanout"}
	if !slices.Equal(names, want) {
		t.Errorf("--list --json: %q, expected %q", names, want)
	}
}
