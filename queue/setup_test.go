package queue_test

import (
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/queue"
)

func newWorker(t testing.TB, client *queue.Client, queues ...string) *queue.Worker {
	t.Helper()
	name := strings.NewReplacer("/", "-", " ", "-", "#", "-").Replace(t.Name())
	w, err := client.NewWorker(name, queues...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}
