//go:build unix

package job_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
)

// onceHolderVariable makes this test's binary the holder of a key in the Redis of that address.
const onceHolderVariable = "BELLHOP_JOB_ONCE_HOLDER"

const onceHolderLease = 500 * time.Millisecond

func TestMain(m *testing.M) {
	if addr := os.Getenv(onceHolderVariable); addr != "" {
		holdOnce(addr)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// holdOnce says "runs" in its effect, which ends with standard input, and then what Do returned.
func holdOnce(addr string) {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	once, err := job.NewOnce(rdb, job.OnceConfig{Lease: onceHolderLease})
	if err == nil {
		err = once.Do(context.Background(), "k", func(context.Context) error {
			fmt.Println("runs")
			_, _ = io.Copy(io.Discard, os.Stdin)
			return nil
		})
	}
	fmt.Println("returned", err, errors.Is(err, job.ErrOnceLost))
}

// holder is a process in its effect.
type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startHolder(t *testing.T, rdb redis.UniversalClient) *holder {
	t.Helper()
	h := &holder{cmd: exec.Command(os.Args[0])}
	h.cmd.Env = append(os.Environ(), onceHolderVariable+"="+rdb.(*redis.Client).Options().Addr)
	var err error
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewScanner(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = h.cmd.Process.Kill(), h.cmd.Wait() })
	if got := h.line(); got != "runs" {
		t.Fatalf("the holder says %q", got)
	}
	return h
}

func (h *holder) line() string {
	h.out.Scan()
	return h.out.Text()
}

func TestOnceACrashedHolderIsTakenOverAfterItsLease(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		h := startHolder(t, rdb)
		once := newOnce(t, rdb, job.OnceConfig{Lease: onceHolderLease})
		var effect counter
		if err := once.Do(t.Context(), "k", effect.run); !errors.Is(err, job.ErrOnceBusy) {
			t.Fatalf("while the holder lives: %v", err)
		}
		if err := h.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		killed := time.Now()
		takeOver(t, once, effect.run)
		if took := time.Since(killed); took > 10*onceHolderLease {
			t.Errorf("taken over after %v", took)
		}
		effect.want(t, 2)
	})
}

func TestOnceAFrozenHolderIsTakenOverAndToldSo(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		h := startHolder(t, rdb)
		once := newOnce(t, rdb, job.OnceConfig{Lease: onceHolderLease})
		var effect counter
		if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		takeOver(t, once, effect.run)
		if err := h.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		_ = h.in.Close()
		if got := h.line(); !strings.HasPrefix(got, "returned") || !strings.HasSuffix(got, " true") {
			t.Errorf("the holder says %q", got)
		}
		if err := once.Do(t.Context(), "k", effect.run); err != nil {
			t.Fatal(err)
		}
		effect.want(t, 2)
	})
}
