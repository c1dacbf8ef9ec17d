package job_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
	"github.com/bellhop-dev/bellhop/job"
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

type WelcomeEmail struct {
	UserID string `json:"user_id"`
}

var SendWelcome = job.Define[WelcomeEmail]("email:welcome",
	job.Queue("mail"), job.MaxRetry(8), job.Timeout(30*time.Second))

// A task is declared once; every service that imports the declaration can enqueue. A duplicate is no failure: what was asked
// for is there already.
func ExampleTask_Enqueue() {
	rdb, closeAll := openRedis()
	defer closeAll()
	ctx := context.Background()
	client := job.NewClient(rdb)

	for range 2 {
		j, err := SendWelcome.Enqueue(ctx, client, WelcomeEmail{UserID: "42"}, job.ID("welcome-42"))
		switch {
		case errors.Is(err, job.ErrDuplicate):
			fmt.Println(err)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println(j.ID, "is", j.State, "in", j.Queue)
		}
	}
	j, err := SendWelcome.Enqueue(ctx, client, WelcomeEmail{UserID: "43"}, job.In(time.Hour))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the other one is", j.State)
	// Output:
	// welcome-42 is pending in mail
	// duplicate of job welcome-42: a job with this id exists
	// the other one is scheduled
}

// EnqueueMany stores many jobs in few round trips, and each has its own outcome.
func ExampleTask_EnqueueMany() {
	rdb, closeAll := openRedis()
	defer closeAll()

	users := []WelcomeEmail{{UserID: "1"}, {UserID: "2"}, {UserID: "1"}}
	for i, r := range SendWelcome.EnqueueMany(context.Background(), job.NewClient(rdb), users, job.Unique(time.Hour)) {
		fmt.Printf("user %s: duplicate %t, failed %t\n", users[i].UserID,
			errors.Is(r.Err, job.ErrDuplicate), r.Err != nil && !errors.Is(r.Err, job.ErrDuplicate))
	}
	// Output:
	// user 1: duplicate false, failed false
	// user 2: duplicate false, failed false
	// user 1: duplicate true, failed false
}

// The payload's JSON Schema comes from its Go type. Who has only the definition, learned from the registry, is told as well
// what does not fit.
func ExampleDefinition_Request() {
	d := SendWelcome.Definition()
	_, err := d.Request([]byte(`{"userid": "42"}`))
	fmt.Println(err)
	// Output:
	// payload of email:welcome: no field "userid" (it has user_id); field "user_id" is missing
}

// A handler's error says how the attempt ended. A plain error is tried again after the task's back-off.
func ExampleDiscard() {
	handle := func(_ context.Context, p WelcomeEmail) error {
		switch p.UserID {
		case "gone":
			return job.Discard("user was deleted") // dead at once, with the reason
		case "busy":
			return job.RetryIn(time.Minute, errors.New("mail server is busy")) // a failure, tried again then
		case "asleep":
			return job.Snooze(8 * time.Hour) // no failure: spends no attempt
		}
		return nil
	}
	for _, id := range []string{"42", "gone", "busy", "asleep"} {
		fmt.Printf("%s: %v\n", id, handle(context.Background(), WelcomeEmail{UserID: id}))
	}
	// Output:
	// 42: <nil>
	// gone: discarded: user was deleted
	// busy: mail server is busy
	// asleep: snoozed for 8h0m0s
}
