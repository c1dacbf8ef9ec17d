package rabbittest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// A broker takes seconds to start: what is told of one is told in turn.
func TestBroker(t *testing.T) {
	t.Parallel()
	b := Start(t)
	v := b.VHost(t)

	t.Run("virtual hosts are apart", func(t *testing.T) {
		declare(t, v.Channel(t))
		if _, err := b.VHost(t).Channel(t).QueueDeclarePassive("q", true, false, false, false, nil); err == nil {
			t.Error("the queue of one virtual host is in the other")
		}
	})

	t.Run("an operator closes connections", func(t *testing.T) {
		conn := v.Connect(t)
		closed := conn.NotifyClose(make(chan *amqp.Error, 1))
		v.CloseConnections(t, "")
		select {
		case err := <-closed:
			if err == nil {
				t.Error("the connection ended in order")
			}
		case <-time.After(time.Minute):
			t.Error("the connection is still open")
		}
	})

	t.Run("durable messages are kept over a kill", func(t *testing.T) {
		ch := v.Channel(t)
		declare(t, ch)
		if err := ch.Confirm(false); err != nil {
			t.Fatal(err)
		}
		confirmed, err := ch.PublishWithDeferredConfirm("", "q", true, false, amqp.Publishing{Body: []byte("kept"), DeliveryMode: amqp.Persistent})
		if err != nil || !confirmed.Wait() {
			t.Fatalf("publish: %v", err)
		}

		b.Kill(t)
		b.Restart(t)

		got, there, err := v.Channel(t).Get("q", true)
		if err != nil || !there || string(got.Body) != "kept" {
			t.Fatalf("after the restart there is %q, %v, %v", got.Body, there, err)
		}
	})
}

func TestNothingIsLeftOfABroker(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "broker")
	end, err := guard(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := startProcess(dir, "child", nil, "sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	end()
	<-p.done
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory is still there")
	}
}

func declare(t *testing.T, ch *amqp.Channel) {
	t.Helper()
	if _, err := ch.QueueDeclare("q", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		t.Fatal(err)
	}
}
