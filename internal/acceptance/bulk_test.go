package acceptance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// tally is what enqueue --from --json prints.
type tally struct {
	Lines      int    `json:"lines"`
	Stored     int    `json:"stored"`
	Duplicates int    `json:"duplicates"`
	Rejected   int    `json:"rejected"`
	RejectedIn string `json:"rejected_in"`
}

// badLines are lines that can't be taken, and what is said of them.
var badLines = []struct{ text, reason string }{
	{`{"task":"log:write","payload":{"message":"no end"`, "unexpected EOF"},
	{`not JSON at all`, "invalid character"},
	{`{"task":"log:wirte","payload":{"message":"m"}}`, `did you mean "log:write"?`},
	{`{"task":"log:write","payload":{"massage":"m"}}`, `"massage"`},
	{`{"task":"log:write","payload":{"message":7}}`, "message"},
	{`{"task":"log:write","payloat":{}}`, `did you mean "payload"?`},
	{`{"task":"log:write","event":"a.b"}`, "both"},
	{`{}`, "neither"},
	{`{"task":"log:write","payload":{"message":"m"},"in":"soon"}`, "duration"},
	{`{"task":"log:write","payload":{"message":"m"}} {"task":"log:write"}`, "more follows"},
	{"  {\"event\":\"\xff\xfe\", \"data\":{}}\t ", ""},
	{"{\"nul\":\x00}\r", "invalid character"},
}

// TestBulkFile enqueues a large file of jobs and events with bad lines among them, twice.
func TestBulkFile(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		const badEvery = 97
		lines := 20_000
		if strings.HasSuffix(t.Name(), "/embedded") {
			lines = 2_000 // its scripts run in this process, under the race detector
		}
		dir := t.TempDir()
		var file, wantRejected bytes.Buffer
		reasons := make(map[int]string)
		jobs, published := 0, 0
		for n := 1; n <= lines; n++ {
			var text string
			switch {
			case n%badEvery == 0:
				bad := badLines[len(reasons)%len(badLines)]
				text, reasons[n] = bad.text, bad.reason
				wantRejected.WriteString(text + "\n")
			case n%3 == 0:
				published++
				text = fmt.Sprintf(`{"event":"com.acme.bulk","id":"e%d","source":"/bulk","data":{"n":%d}}`, n, n)
			default:
				jobs++
				text = fmt.Sprintf(`{"task":"log:write","id":"j%d","payload":{"message":"line %d"}}`, n, n)
			}
			file.WriteString(text + "\n")
		}
		file.WriteString("\n\r\n") // blank lines are none
		from := filepath.Join(dir, "bulk.ndjson")
		if err := os.WriteFile(from, file.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}

		args := []string{"--redis", redisURL(t, rdb), "--from", "bulk.ndjson", "--json"}
		want := tally{Lines: lines, Stored: jobs + published, Rejected: len(reasons), RejectedIn: "bulk.ndjson.rejected"}
		got := prepare(t, dir, filepath.Join(programs(t), "enqueue"), args...).run().want(t, 1)
		wantTally(t, got, want)
		wantNamed(t, got.stderr, reasons)
		wantFile(t, from+".rejected", wantRejected.Bytes())
		wantStored(t, rdb, jobs, published)

		want.Stored, want.Duplicates = 0, want.Stored
		again := prepare(t, dir, filepath.Join(programs(t), "enqueue"), args...).run().want(t, 1)
		wantTally(t, again, want)
		wantStored(t, rdb, jobs, published)
	})
}

func wantTally(t *testing.T, r ran, want tally) {
	t.Helper()
	var got tally
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
		t.Fatalf("%q: %v", r.stdout, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tally (-want +got):\n%s", diff)
	}
}

// wantNamed wants each bad line named by its number and reason, and no other line.
func wantNamed(t *testing.T, stderr string, reasons map[int]string) {
	t.Helper()
	named := 0
	for l := range strings.SplitSeq(stderr, "\n") {
		rest, ok := strings.CutPrefix(l, "line ")
		if !ok {
			continue
		}
		number, text, _ := strings.Cut(rest, ": ")
		n, err := strconv.Atoi(number)
		reason, bad := reasons[n]
		if err != nil || !bad || !strings.Contains(text, reason) {
			t.Errorf("%q: want a bad line and %q", l, reason)
		}
		named++
	}
	if named != len(reasons) {
		t.Errorf("%d lines are named, want %d", named, len(reasons))
	}
}

func wantFile(t *testing.T, name string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what was rejected, to the letter (%d bytes, want %d)", filepath.Base(name), len(got), len(want))
	}
}

func wantStored(t *testing.T, rdb redis.UniversalClient, jobs, published int) {
	t.Helper()
	b, err := fleet.New(rdb).Backlog(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	if int(b.Pending) != jobs {
		t.Errorf("%d jobs wait, want %d", b.Pending, jobs)
	}
	client, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	stats, err := client.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if int(stats.Length) != published {
		t.Errorf("%d events are on the stream, want %d", stats.Length, published)
	}
}

// TestBulkLongLine sets a line aside that is too long to be held, whole.
func TestBulkLongLine(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	dir := t.TempDir()
	good := `{"task":"log:write","payload":{"message":"m"}}` + "\n"
	long := `{"task":"log:write","payload":{"message":"` + strings.Repeat("0123456789abcdef", 20<<20/16) + `"}}`
	for name, end := range map[string]string{"then.ndjson": "\n" + good, "last.ndjson": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(good+long+end), 0o600); err != nil {
			t.Fatal(err)
		}
		r := prepare(t, dir, filepath.Join(programs(t), "enqueue"), "--redis", redisURL(t, rdb), "--from", name, "--json").run()
		r.want(t, 1, "line 2: the line is longer than 16 MiB")
		goods := 1 + strings.Count(end, good)
		wantTally(t, r, tally{Lines: goods + 1, Stored: goods, Rejected: 1, RejectedIn: name + ".rejected"})
		wantFile(t, filepath.Join(dir, name+".rejected"), []byte(long+end[:min(1, len(end))]))
	}
}

// TestBulkRejectedIsNotTheFile refuses to empty the file that it reads.
func TestBulkRejectedIsNotTheFile(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	dir := t.TempDir()
	content := []byte("{}\n")
	file := filepath.Join(dir, "jobs.ndjson")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	prepare(t, dir, filepath.Join(programs(t), "enqueue"), "--redis", redisURL(t, rdb), "--from", "jobs.ndjson", "--rejected", "./jobs.ndjson").
		run().want(t, 2, "name another one")
	wantFile(t, file, content)
}
