package sourcetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/sources"
)

// asProcess tells the test binary to be a source instead; its value is a task.
const asProcess = "BELLHOP_SOURCETEST"

// duplicates counts the events that a process published although they were stored before.
const duplicates = "sourcetest:duplicates"

type task struct{ Settings, Redis string }

// Main is what a TestMain calls: it runs the tests, or, started by one of them, the source of a harness's Settings until it is killed.
// Goroutines must not outlive the tests, but for those that the options name.
func Main(m *testing.M, open func(settings string, logger *slog.Logger) (sources.Source, error), leaks ...goleak.Option) {
	text, is := os.LookupEnv(asProcess)
	if !is {
		code := m.Run()
		if err := goleak.Find(leaks...); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code) //nolint:forbidigo // a TestMain ends the process
	}
	if err := be(text, open); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // likewise
	}
}

func be(text string, open func(string, *slog.Logger) (sources.Source, error)) error {
	var t task
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	source, err := open(t.Settings, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	opts, err := redis.ParseURL(t.Redis)
	if err != nil {
		return fmt.Errorf("read the address: %w", err)
	}
	rdb := redis.NewClient(opts)
	client, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		return err
	}
	// The pipe ends with the process that started this one, however that ends.
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // the root of a process
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return source.Run(ctx, &counter{Publisher: client, rdb: rdb})
}

// counter counts in Redis, where a kill doesn't reach.
type counter struct {
	events.Publisher
	rdb redis.UniversalClient
}

func (c *counter) Publish(ctx context.Context, list ...*events.Event) ([]events.Published, error) {
	outcomes, err := c.Publisher.Publish(ctx, list...)
	n := 0
	for _, o := range outcomes {
		if o.Duplicate {
			n++
		}
	}
	if n > 0 {
		c.rdb.IncrBy(ctx, duplicates, int64(n))
	}
	return outcomes, err
}

// process starts the source in a process of its own; kill ends it with SIGKILL.
func (b *bundle) process() (kill func()) {
	b.Helper()
	text, err := json.Marshal(task{Settings: b.Settings(), Redis: b.redis.URL()})
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0]) //nolint:gosec,noctx // this very binary, until it is killed
	cmd.Env = append(os.Environ(), asProcess+"="+string(text))
	cmd.Stderr = &lines{log: b.log}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = in.Close()
		_ = cmd.Wait()
	})
	b.Cleanup(kill)
	return kill
}

// lines adds what a process logs to the record.
type lines struct{ log *record }

func (l *lines) Write(p []byte) (int, error) {
	l.log.mu.Lock()
	defer l.log.mu.Unlock()
	l.log.lines = append(l.log.lines, "process: "+string(p))
	return len(p), nil
}
