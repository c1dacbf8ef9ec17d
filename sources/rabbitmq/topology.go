package rabbitmq

import (
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"
)

// prepare sees to it that all is there that the source needs.
func (c Config) prepare(ch *amqp.Channel) error {
	if c.Topology == Expect {
		return c.expect(ch)
	}
	return c.declare(ch)
}

func (c Config) declare(ch *amqp.Channel) error {
	if c.DeadLetter.Queue != "" {
		args := amqp.Table{"x-queue-type": Quorum}
		if _, err := ch.QueueDeclare(c.DeadLetter.Queue, true, false, false, false, args); err != nil {
			return topologyFault("declare the dead-letter queue "+c.DeadLetter.Queue, err)
		}
		if c.DeadLetter.Exchange != "" {
			if err := ch.QueueBind(c.DeadLetter.Queue, c.DeadLetter.RoutingKey, c.DeadLetter.Exchange, false, nil); err != nil {
				return topologyFault("bind the dead-letter queue to exchange "+c.DeadLetter.Exchange, err)
			}
		}
	}
	if _, err := ch.QueueDeclare(c.Queue, !c.Transient, false, false, false, c.queueArgs()); err != nil {
		return topologyFault("declare queue "+c.Queue, err)
	}
	for _, b := range c.Bindings {
		if b.ExchangeType != "" {
			if err := ch.ExchangeDeclare(b.Exchange, b.ExchangeType, true, false, false, false, nil); err != nil {
				return topologyFault("declare exchange "+b.Exchange, err)
			}
		}
		keys := b.RoutingKeys
		if len(keys) == 0 {
			keys = []string{""}
		}
		for _, key := range keys {
			if err := ch.QueueBind(c.Queue, key, b.Exchange, false, nil); err != nil {
				return topologyFault("bind queue "+c.Queue+" to exchange "+b.Exchange, err)
			}
		}
	}
	return nil
}

func (c Config) queueArgs() amqp.Table {
	args := amqp.Table{
		"x-queue-type":           c.QueueType,
		"x-dead-letter-exchange": c.DeadLetter.Exchange,
	}
	if c.DeadLetter.RoutingKey != "" {
		args["x-dead-letter-routing-key"] = c.DeadLetter.RoutingKey
	}
	if c.QueueType == Quorum {
		args["x-delivery-limit"] = int64(c.DeliveryLimit)
		// What the broker gives up reaches the dead-letter queue also when the broker fails meanwhile; that needs the overflow.
		args["x-dead-letter-strategy"] = "at-least-once"
		args["x-overflow"] = "reject-publish"
	}
	return args
}

func (c Config) expect(ch *amqp.Channel) error {
	if _, err := ch.QueueDeclarePassive(c.Queue, true, false, false, false, nil); err != nil {
		return topologyFault("look for queue "+c.Queue, err)
	}
	switch {
	case c.DeadLetter.Exchange != "":
		if err := ch.ExchangeDeclarePassive(c.DeadLetter.Exchange, "", true, false, false, false, nil); err != nil {
			return topologyFault("look for the dead-letter exchange "+c.DeadLetter.Exchange, err)
		}
	default:
		if _, err := ch.QueueDeclarePassive(c.DeadLetter.Queue, true, false, false, false, nil); err != nil {
			return topologyFault("look for the dead-letter queue "+c.DeadLetter.Queue, err)
		}
	}
	return nil
}

func topologyFault(action string, err error) error {
	advice, about := "", theConnection
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		switch e.Code {
		case amqp.NotFound:
			advice = "; make it, or have the source do so: topology: declare, and exchange_type for an exchange"
		case amqp.PreconditionFailed:
			advice = "; it is there with other settings: take it as it is with topology: expect, or delete it"
		case amqp.AccessRefused:
			advice = "; grant the user that permission, or let somebody else make it and set topology: expect"
		}
	}
	if advice != "" {
		about = action
	}
	return &fault{about: about, err: fmt.Errorf("%s: %w%s", action, err, advice)}
}
