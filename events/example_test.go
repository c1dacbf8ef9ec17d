package events_test

import (
	"context"
	"fmt"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redisembed"
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

// Source and id name an event: a second delivery of a webhook, say, is stored once.
func ExampleClient_PublishOne() {
	rdb, closeAll := openRedis()
	defer closeAll()
	ctx := context.Background()
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		log.Fatal(err)
	}

	for range 2 {
		e, err := events.New("com.acme.email.received", "/mail/inbox", map[string]string{"folder": "INBOX"},
			events.ID("msg-4711"), events.Subject("ada@example.com"))
		if err != nil {
			log.Fatal(err)
		}
		p, err := stream.PublishOne(ctx, e)
		if err != nil {
			log.Fatal(err) // not stored, or not known to be: publish it again, it is stored once
		}
		fmt.Println("duplicate:", p.Duplicate)
	}
	// Output:
	// duplicate: false
	// duplicate: true
}

// A durable group sees every event at least once, also those from before its first consumer. An error leaves the event
// pending, and it comes again.
func ExampleClient_Consume() {
	rdb, closeAll := openRedis()
	defer closeAll()
	ctx, stop := context.WithCancel(context.Background())
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		log.Fatal(err)
	}
	e, err := events.New("com.acme.order.paid", "/shop", map[string]int{"order": 7})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := stream.PublishOne(ctx, e); err != nil {
		log.Fatal(err)
	}

	err = stream.Consume(ctx, "audit", func(_ context.Context, batch []events.Delivery) []error {
		outcomes := make([]error, len(batch))
		for i, d := range batch {
			var data struct{ Order int }
			if outcomes[i] = d.Event.DataAs(&data); outcomes[i] == nil {
				fmt.Println(d.Event.Type, data.Order)
			}
		}
		stop()
		return outcomes
	})
	fmt.Println("ended:", err)
	// Output:
	// com.acme.order.paid 7
	// ended: <nil>
}

func ExampleMatchType() {
	for _, pattern := range []string{"com.acme.email.received", "com.acme.*.received", "com.acme.**", "com.acme.*"} {
		fmt.Println(pattern, events.MatchType(pattern, "com.acme.email.received"))
	}
	// Output:
	// com.acme.email.received true
	// com.acme.*.received true
	// com.acme.** true
	// com.acme.* false
}
