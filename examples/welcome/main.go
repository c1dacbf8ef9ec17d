// Command welcome is a worker of one's own: its tasks, its handlers, its triggers, in one process or in fifty.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/bellhop-dev/bellhop/worker"
	"github.com/redis/go-redis/v9"

	"example.com/welcome/handlers"
	"example.com/welcome/tasks"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	mailer := &handlers.Mailer{Out: os.Stdout, Gone: func(string) bool { return false }}
	if err := run(ctx, rdb, mailer); err != nil {
		slog.Error("welcome has failed", "err", err)
		os.Exit(1)
	}
}

// run returns once ctx has ended and the running jobs have finished or were handed back.
func run(ctx context.Context, rdb redis.UniversalClient, mailer *handlers.Mailer) error {
	w, err := worker.New(rdb, worker.Config{Queues: []worker.Queue{{Name: "mail", Weight: 1}}},
		tasks.SendWelcome.HandledBy(mailer.SendWelcome))
	if err != nil {
		return err
	}
	rules, err := triggers.Load("triggers.yaml")
	if err != nil {
		return err
	}
	feed, err := triggers.Open(rdb, triggers.TaskList(tasks.SendWelcome.Definition()), rules...)
	if err != nil {
		return err
	}
	w.Feed("triggers", feed)
	return w.Run(ctx)
}
