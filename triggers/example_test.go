package triggers_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redisembed"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/triggers"
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

type triage struct {
	Message string `json:"message"`
	Urgent  bool   `json:"urgent,omitempty"`
}

var triageMail = job.Define[triage]("mail:triage")

const inbox = `
triggers:
  - name: triage-inbox
    on: com.acme.email.received
    when: event.data.folder == "INBOX"
    run: mail:triage
    with:
      message: ${event.data.id}
      urgent: ${event.data.subject.startsWith("URGENT")}
`

// The whole way: an event is on the stream, a rule makes a job of it, and the worker runs it.
func ExampleOpen() {
	rdb, closeAll := openRedis()
	defer closeAll()
	ctx := context.Background()
	publish(ctx, rdb, map[string]string{"folder": "INBOX", "id": "m1", "subject": "URGENT: the lift is stuck"})
	publish(ctx, rdb, map[string]string{"folder": "SPAM", "id": "m2", "subject": "URGENT"})

	rules, err := triggers.Parse("inbox.yaml", []byte(inbox)) // triggers.Load("triggers.yaml") reads files
	if err != nil {
		log.Fatal(err)
	}
	feed, err := triggers.Open(rdb, triggers.TaskList(triageMail.Definition()), rules...)
	if err != nil {
		log.Fatal(err)
	}
	w, err := worker.New(rdb, worker.Config{Burst: true, Logger: slog.New(slog.DiscardHandler)},
		triageMail.HandledBy(func(ctx context.Context, p triage) error {
			j, _ := job.FromContext(ctx)
			fmt.Printf("message %s, urgent %t, by trigger %s\n", p.Message, p.Urgent, j.Event.Trigger)
			return nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	w.Feed("triggers", feed)
	if err := w.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// message m1, urgent true, by trigger triage-inbox
}

func publish(ctx context.Context, rdb redis.UniversalClient, data any) {
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		log.Fatal(err)
	}
	e, err := events.New("com.acme.email.received", "/mail", data)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := stream.PublishOne(ctx, e); err != nil {
		log.Fatal(err)
	}
}

// Rules are checked before anything runs, and every fault is told: this one is written in Go, but for YAML the file and the
// line come first.
func ExampleCompile() {
	_, err := triggers.Compile([]triggers.Trigger{{
		Name: "triage-inbox",
		On:   "com.acme.email.received",
		Run:  "mail:triaje",
	}}, triggers.TaskList(triageMail.Definition()), triggers.Config{})
	fmt.Println(err)
	// Output:
	// trigger "triage-inbox": run: no task "mail:triaje", did you mean "mail:triage"? (known: mail:triage): declare the task in the worker, or mend the name
}
