package acceptance_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// TestBulkMemory streams a long file through a program that may not hold it.
func TestBulkMemory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("300,000 lines take a while")
	}
	const lines, mostMiB = 300_000, 200
	rdb := redistest.New(t)
	enqueue := prepare(t, t.TempDir(), filepath.Join(programs(t), "enqueue"), "--redis", redisURL(t, rdb), "--from", "-", "--json")
	in, out := io.Pipe()
	enqueue.cmd.Stdin = in
	go func() {
		w := bufio.NewWriterSize(out, 1<<16)
		filler := strings.Repeat("x", 200)
		for n := range lines {
			// A thousand ids: what is measured is enqueue, not how much the server can hold.
			fmt.Fprintf(w, `{"task":"log:write","id":"m%d","payload":{"message":"%d %s"}}`+"\n", n%1000, n, filler)
		}
		_ = out.CloseWithError(w.Flush())
	}()
	enqueue.start()
	most := highWater(enqueue)
	enqueue.wait()
	wantTally(t, ran{stdout: enqueue.stdout.String()}, tally{Lines: lines, Stored: 1000, Duplicates: lines - 1000})
	t.Logf("%d lines, at most %d MiB resident", lines, most)
	if most == 0 || most > mostMiB {
		t.Errorf("%d MiB resident, at most %d should be needed however long the file is", most, mostMiB)
	}
}

// highWater is the most memory that the child has ever held in MiB, looked at until it ends. Its rusage tells another figure:
// the kernel counts in what its parent held when it was forked.
func highWater(p *process) (most int) {
	status := fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		content, err := os.ReadFile(status)
		if err == nil {
			_, rest, _ := strings.Cut(string(content), "VmHWM:")
			var kib int
			if _, err := fmt.Sscanf(rest, "%d kB", &kib); err == nil {
				most = max(most, kib>>10)
			}
		}
		select {
		case <-p.ended:
			return most
		case <-ticker.C:
		}
	}
}
