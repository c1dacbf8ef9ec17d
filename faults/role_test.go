package faults

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// Who runs the jobs.
const (
	bellhop = "bellhop"
	stock   = "stock"
)

// roleVariable makes this binary a worker: it holds the role as JSON.
const roleVariable = "BELLHOP_FAULTS_ROLE"

// role is what a child process is to be.
type role struct {
	Name        string
	Fleet       string // bellhop or stock
	Redis       string // URL
	Ledger      string // URL
	Concurrency int
	Queues      map[string]int
	Grace       time.Duration
	MaxCrashes  int

	binary string        // to run; "" is this one
	skew   time.Duration // of its wall clock, if the binary was built for it
}

// work is a job's payload: what its handler does.
type work struct {
	For      time.Duration `json:"for,omitempty"`      // how long it takes
	Gate     string        `json:"gate,omitempty"`     // it goes on until this gate is opened
	Stubborn bool          `json:"stubborn,omitempty"` // it ignores its context
	Exit     bool          `json:"exit,omitempty"`     // it kills its process
	Fail     bool          `json:"fail,omitempty"`
	Pad      []byte        `json:"pad,omitempty"`
}

var workTask = job.Define[work]("work")

// playRole is the child's main.
func playRole(text string) int {
	var r role
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	redisconn.QuietDriver(log)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // a child must not outlive the test
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	hand, err := newHand(r)
	if err == nil {
		if r.Fleet == stock {
			err = playStock(ctx, r, hand)
		} else {
			err = playBellhop(ctx, r, hand, log)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the worker failed:", err)
		return 1
	}
	return 0
}

func playBellhop(ctx context.Context, r role, h *hand, log *slog.Logger) error {
	cfg := redisconn.Config{URL: r.Redis}
	rdb, err := redisconn.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	if _, err := redisconn.Check(ctx, rdb, cfg, log); err != nil {
		return err
	}
	wcfg := worker.Config{Concurrency: r.Concurrency, Grace: r.Grace, MaxCrashes: r.MaxCrashes, Logger: log}
	for name, weight := range r.Queues {
		wcfg.Queues = append(wcfg.Queues, worker.Queue{Name: name, Weight: weight})
	}
	w, err := worker.New(rdb, wcfg, workTask.HandledBy(func(ctx context.Context, p work) error {
		j, _ := job.FromContext(ctx)
		return h.do(ctx, j.ID, p)
	}))
	if err != nil {
		return err
	}
	go h.announce(ctx, func() bool { return w.Ready() == nil })
	return w.Run(ctx)
}

func playStock(ctx context.Context, r role, h *hand) error {
	opt, err := asynq.ParseRedisURI(r.Redis)
	if err != nil {
		return err
	}
	server := asynq.NewServer(opt, asynq.Config{Concurrency: r.Concurrency, Queues: r.Queues, ShutdownTimeout: r.Grace})
	err = server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		var p work
		if err := json.Unmarshal(task.Payload(), &p); err != nil {
			return err
		}
		id, _ := asynq.GetTaskID(ctx)
		return h.do(ctx, id, p)
	}))
	if err != nil {
		return err
	}
	go h.announce(ctx, func() bool { return true })
	<-ctx.Done()
	server.Shutdown()
	return nil
}

// hand is what runs jobs in a child, and writes into the ledger what it does.
type hand struct {
	name   string
	ledger *redis.Client
	now    atomic.Int64 // handlers that run
}

func newHand(r role) (*hand, error) {
	opts, err := redis.ParseURL(r.Ledger)
	if err != nil {
		return nil, err
	}
	opts.MaxRetries = 10
	return &hand{name: r.Name, ledger: redis.NewClient(opts)}, nil
}

// announce tells the ledger once the worker is ready.
func (h *hand) announce(ctx context.Context, ready func() bool) {
	for !ready() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	h.note(entryReady, "", 0)
}

// note must not fail: what is not in the ledger has not happened.
func (h *hand) note(kind, id string, beside int64) {
	err := h.ledger.XAdd(context.Background(), &redis.XAddArgs{
		Stream: ledgerStream, Values: []any{"kind", kind, "id", id, "who", h.name, "beside", beside},
	}).Err()
	if err != nil {
		panic(err)
	}
}

var errAsked = errors.New("failed as asked")

func (h *hand) do(ctx context.Context, id string, p work) error {
	h.note(entryStart, id, h.now.Add(1))
	defer h.now.Add(-1)
	if p.Exit {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if p.Stubborn {
		ctx = context.WithoutCancel(ctx)
	}
	if err := h.toil(ctx, p); err != nil {
		h.note(entryCut, id, 0)
		return err
	}
	if p.Fail {
		return errAsked
	}
	h.note(entryEnd, id, 0)
	return nil
}

// toil takes the time that the work takes, and waits for its gate.
func (h *hand) toil(ctx context.Context, p work) error {
	select {
	case <-time.After(p.For):
	case <-ctx.Done():
		return ctx.Err()
	}
	for p.Gate != "" && h.ledger.Exists(ctx, gatePrefix+p.Gate).Val() == 0 {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
