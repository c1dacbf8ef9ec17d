package rabbitmq

import (
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// inbox holds what arrives while a batch is published, for the next one. The prefetch bounds it.
type inbox struct {
	signal chan struct{} // holds a token when something has changed

	mu     sync.Mutex
	list   []amqp.Delivery
	closed bool
}

func newInbox() *inbox { return &inbox{signal: make(chan struct{}, 1)} }

// fill ends with the consumer.
func (in *inbox) fill(deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		in.mu.Lock()
		in.list = append(in.list, d)
		in.mu.Unlock()
		in.tell()
	}
	in.mu.Lock()
	in.closed = true
	in.mu.Unlock()
	in.tell()
}

func (in *inbox) tell() {
	select {
	case in.signal <- struct{}{}:
	default:
	}
}

// empty takes what is there; open is false once no more can come.
func (in *inbox) empty() (list []amqp.Delivery, open bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	list, in.list = in.list, nil
	return list, !in.closed
}
