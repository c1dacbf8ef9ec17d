package docs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// The documents show parts of these: to be compiled is all that they are for.
var _ = []func(){enqueueWithAsynq, enqueueWithBellhop, serveBoth}

type WelcomeEmail struct {
	UserID string `json:"user_id"`
}

var SendWelcome = job.Define[WelcomeEmail]("email:welcome",
	job.Queue("mail"), job.MaxRetry(8), job.Timeout(30*time.Second))

func sendMail(context.Context, string) error { return nil }

var errGone = errors.New("user was deleted")

func enqueueWithAsynq() {
	ctx, client := context.Background(), asynq.NewClient(asynq.RedisClientOpt{Addr: "127.0.0.1:6379"})

	payload, err := json.Marshal(WelcomeEmail{UserID: "42"})
	if err != nil {
		panic(err)
	}
	task := asynq.NewTask("email:welcome", payload, asynq.Queue("mail"), asynq.MaxRetry(8), asynq.Timeout(30*time.Second))
	info, err := client.EnqueueContext(ctx, task, asynq.ProcessIn(time.Hour), asynq.TaskID("welcome-42"))
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		err = nil
	}

	fmt.Println(info, err)
}

func enqueueWithBellhop() {
	ctx, rdb := context.Background(), redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	client := job.NewClient(rdb)

	j, err := SendWelcome.Enqueue(ctx, client, WelcomeEmail{UserID: "42"}, job.In(time.Hour), job.ID("welcome-42"))
	if errors.Is(err, job.ErrDuplicate) {
		err = nil
	}

	fmt.Println(j, err)
}

func handleWithAsynq(ctx context.Context, t *asynq.Task) error {
	var p WelcomeEmail
	if err := json.Unmarshal(t.Payload(), &p); err != nil {
		return fmt.Errorf("decode: %w: %w", err, asynq.SkipRetry)
	}
	id, _ := asynq.GetTaskID(ctx)
	if err := sendMail(ctx, p.UserID); errors.Is(err, errGone) {
		return fmt.Errorf("%s: %w: %w", id, err, asynq.SkipRetry)
	}
	return nil
}

func handleWithBellhop(ctx context.Context, p WelcomeEmail) error {
	j, _ := job.FromContext(ctx)
	if err := sendMail(ctx, p.UserID); errors.Is(err, errGone) {
		return job.Discard(j.ID + ": " + err.Error())
	}
	return nil
}

func serveBoth() {
	ctx, rdb := context.Background(), redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})

	mux := asynq.NewServeMux() // what is not moved yet
	mux.HandleFunc("report:", handleWithAsynq)

	w, err := worker.New(rdb, worker.Config{
		Concurrency: 20,
		Queues:      []worker.Queue{{Name: "mail", Weight: 6}, {Name: "default", Weight: 3}},
	},
		SendWelcome.HandledBy(handleWithBellhop),                         // moved
		worker.Asynq("image:resize", asynq.HandlerFunc(handleWithAsynq)), // one alone, by its exact name
	)
	if err != nil {
		panic(err)
	}
	w.Mount(mux)
	err = w.Run(ctx)

	fmt.Println(err)
}
