package worker_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// openRedis stands for your own redis.NewClient.
func openRedis() (rdb *redis.Client, closeAll func()) {
	in, err := redisembed.Start(context.Background(), redisembed.Options{Addr: "127.0.0.1:0", InProcess: true})
	if err != nil {
		log.Fatal(err)
	}
	rdb = redis.NewClient(&redis.Options{Addr: in.Addr()})
	return rdb, func() { _, _ = rdb.Close(), in.Close() }
}

var quiet = slog.New(slog.DiscardHandler)

type resize struct {
	Image string `json:"image"`
	Width int    `json:"width"`
}

// A worker is made of the tasks that it serves, each with its handler. A burst returns once its queues are drained.
func ExampleNew() {
	rdb, closeAll := openRedis()
	defer closeAll()
	ctx := context.Background()

	resizeImage := job.Define[resize]("image:resize", job.MaxRetry(3), job.Timeout(10*time.Second))
	if _, err := resizeImage.Enqueue(ctx, job.NewClient(rdb), resize{Image: "cat.png", Width: 640}); err != nil {
		log.Fatal(err)
	}

	w, err := worker.New(rdb, worker.Config{Burst: true, Logger: quiet},
		resizeImage.HandledBy(func(ctx context.Context, p resize) error {
			j, _ := job.FromContext(ctx)
			fmt.Printf("%s, attempt %d: %s to %d pixels\n", j.Task, j.Attempt, p.Image, p.Width)
			return nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ended:", w.Run(ctx))
	// Output:
	// image:resize, attempt 1: cat.png to 640 pixels
	// ended: <nil>
}

// Handlers written for asynq are mounted unchanged: a whole ServeMux, or one with worker.Asynq.
func ExampleWorker_Mount() {
	rdb, closeAll := openRedis()
	defer closeAll()
	ctx, stop := context.WithCancel(context.Background())

	producer := asynq.NewClientFromRedisClient(rdb) // as it is in your services today
	if _, err := producer.Enqueue(asynq.NewTask("email:welcome", []byte(`{"user_id":"42"}`))); err != nil {
		log.Fatal(err)
	}
	sendWelcome := func(_ context.Context, t *asynq.Task) error {
		fmt.Printf("%s %s\n", t.Type(), t.Payload())
		stop()
		return nil
	}

	mux := asynq.NewServeMux()
	mux.HandleFunc("email:welcome", sendWelcome)
	w, err := worker.New(rdb, worker.Config{Concurrency: 20})
	if err != nil {
		log.Fatal(err)
	}
	w.Mount(mux)
	err = w.Run(ctx)

	fmt.Println("ended:", err)
	// Output:
	// email:welcome {"user_id":"42"}
	// ended: <nil>
}

// Middleware wraps every handler, with the whole job at hand.
func ExampleWorker_Use() {
	rdb, closeAll := openRedis()
	defer closeAll()
	ctx := context.Background()

	tellUser := job.Define[string]("user:tell", job.MaxRetry(0))
	for _, text := range []string{"hello", ""} {
		if _, err := tellUser.Enqueue(ctx, job.NewClient(rdb), text, job.Header("trace-id", "t-1")); err != nil {
			log.Fatal(err)
		}
	}

	w, err := worker.New(rdb, worker.Config{Burst: true, Concurrency: 1, Logger: quiet},
		tellUser.HandledBy(func(_ context.Context, text string) error {
			if text == "" {
				return job.Discard("nothing to tell")
			}
			return nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	w.Use(func(next job.Handler) job.Handler {
		return func(ctx context.Context, j *job.Job) error {
			err := next(ctx, j)
			fmt.Printf("%s trace=%s: %v\n", j.Task, j.Headers["trace-id"], err)
			return err
		}
	})
	fmt.Println("ended:", w.Run(ctx))
	// Output:
	// user:tell trace=t-1: <nil>
	// user:tell trace=t-1: discarded: nothing to tell
	// ended: jobs failed for good: 1
}
