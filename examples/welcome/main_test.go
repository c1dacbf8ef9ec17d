package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/redis/go-redis/v9"

	"example.com/welcome/handlers"
	"example.com/welcome/tasks"
)

// openRedis is one inside this test, or the one at REDIS_URL.
func openRedis(t *testing.T) redis.UniversalClient {
	t.Helper()
	url := os.Getenv("REDIS_URL")
	if url == "" {
		url = "redis://" + miniredis.RunT(t).Addr()
	}
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// sent tells the test of each mail.
type sent chan string

func (s sent) Write(mail []byte) (int, error) {
	s <- string(mail)
	return len(mail), nil
}

// start runs the whole program until the test ends.
func start(t *testing.T, rdb redis.UniversalClient) sent {
	t.Helper()
	mails := make(sent, 10)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, rdb, &handlers.Mailer{Out: mails, Gone: func(string) bool { return false }}) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return mails
}

func (s sent) next(t *testing.T) string {
	t.Helper()
	select {
	case mail := <-s:
		return mail
	case <-time.After(30 * time.Second):
		t.Fatal("no mail was sent within 30 s")
		return ""
	}
}

func (s sent) want(t *testing.T, mail string) {
	t.Helper()
	if got := s.next(t); got != mail {
		t.Errorf("sent %q, want %q", got, mail)
	}
}

// Event, trigger, job, handler: the way of a sign-up, and of a second delivery of the same sign-up.
func TestASignUpIsGreetedOnce(t *testing.T) {
	rdb := openRedis(t)
	mails := start(t, rdb)
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(eventID, userID, plan string) events.Published {
		t.Helper()
		e, err := events.New("com.acme.user.registered", "/accounts", map[string]string{"id": userID, "plan": plan}, events.ID(eventID+t.Name()+time.Now().Format(time.DateOnly)))
		if err != nil {
			t.Fatal(err)
		}
		p, err := stream.PublishOne(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	publish("1", "7", "internal") // the filter keeps it out
	publish("2", "42", "free")
	if p := publish("2", "42", "free"); !p.Duplicate {
		t.Error("the same source and id was stored twice")
	}
	mails.want(t, "to user 42: Welcome!\n")
	publish("3", "43", "free")
	mails.want(t, "to user 43: Welcome!\n") // and none in between
}

// Any service with a Redis client may ask for a job by itself.
func TestAServiceEnqueues(t *testing.T) {
	rdb := openRedis(t)
	mails := start(t, rdb)
	client := job.NewClient(rdb)
	j, err := tasks.SendWelcome.Enqueue(t.Context(), client, tasks.WelcomeEmail{UserID: "44"}, job.In(500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	if j.Queue != "mail" || j.At.IsZero() {
		t.Errorf("job %+v, want it scheduled in queue mail", j)
	}
	mails.want(t, "to user 44: Welcome!\n")
}

// Many at once take few round trips, and each has its own answer.
func TestAServiceEnqueuesMany(t *testing.T) {
	rdb := openRedis(t)
	mails := start(t, rdb)
	client := job.NewClient(rdb)
	users := []tasks.WelcomeEmail{{UserID: "45"}, {UserID: "46"}, {UserID: "47"}}
	for i, r := range tasks.SendWelcome.EnqueueMany(t.Context(), client, users) {
		if r.Err != nil {
			t.Errorf("user %s: %v", users[i].UserID, r.Err)
		}
	}
	for range users {
		if mail := mails.next(t); !strings.HasSuffix(mail, ": Welcome!\n") {
			t.Errorf("sent %q", mail)
		}
	}
}

// The rule of triggers.yaml may be written in Go as well: both are one type.
func TestTheSameRuleInGo(t *testing.T) {
	inGo := triggers.Trigger{
		Name: "greet-new-users",
		On:   "com.acme.user.registered",
		When: `event.data.plan != "internal"`,
		Run:  tasks.SendWelcome.Name(),
		With: map[string]any{"user_id": "${event.data.id}"},
		In:   time.Second,
	}
	inYAML, err := triggers.Load("triggers.yaml")
	if err != nil || len(inYAML) != 1 {
		t.Fatalf("read %d rules: %v", len(inYAML), err)
	}
	if got, want := asJSON(t, inYAML[0]), asJSON(t, inGo); got != want {
		t.Errorf("in YAML %s\nin Go   %s", got, want)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
