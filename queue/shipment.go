package queue

import (
	"context"
	"slices"
)

// The fewest and the most entries that one call hands to the outbox together. It begins with few: Redis stores them while the next ones
// are encoded.
const (
	firstLot = 32
	mostLot  = 256
)

// mostAhead is how many bytes are reserved for messages that are expected to be as long as the first one.
const mostAhead = 64 << 10

// shipment takes the entries of one call to the outboxes of their queues, each in lots.
type shipment struct {
	client   *Client
	delivery delivery
	left     int // entries to come
	last     *lot
	lots     map[string]*lot
	sent     [][]parcel
}

// lot is what goes to one queue next.
type lot struct {
	queue   string
	err     error // why nothing goes there
	size    int   // goes off with so many
	parcels []parcel
	text    []byte // their messages
	ends    []int  // of each message in the text
}

// add takes an entry, or tells why it can't be sent.
func (s *shipment) add(ctx context.Context, place int, e Entry) error {
	l := s.lot(ctx, e.Message.Queue)
	if l.err != nil {
		return l.err
	}
	text, err := e.Message.AppendTo(l.text)
	if err != nil {
		return err
	}
	if l.parcels == nil {
		l.parcels = make([]parcel, 0, min(l.size, s.left))
	}
	n := len(l.parcels)
	if n == 0 {
		text = slices.Grow(text, min((cap(l.parcels)-1)*len(text), mostAhead))
	}
	l.parcels = l.parcels[:n+1]
	l.parcels[n].fill(&s.delivery, place, e)
	l.text, l.ends = text, append(l.ends, len(text))
	if n+1 == cap(l.parcels) {
		s.send(l)
	}
	return nil
}

// lot finds the one of a queue.
func (s *shipment) lot(ctx context.Context, queue string) *lot {
	if s.last != nil && s.last.queue == queue {
		return s.last
	}
	l := s.lots[queue]
	if l == nil {
		l = &lot{queue: queue, err: s.client.ready(ctx, queue), size: firstLot}
		s.lots[queue] = l
	}
	s.last = l
	return l
}

// send hands a lot to the outbox.
func (s *shipment) send(l *lot) {
	if len(l.parcels) == 0 {
		return
	}
	text, begin := string(l.text), 0
	parcels := make([]*parcel, len(l.parcels))
	for i := range l.parcels {
		l.parcels[i].msg, begin = text[begin:l.ends[i]], l.ends[i]
		parcels[i] = &l.parcels[i]
	}
	s.delivery.open.Add(int64(len(parcels)))
	s.sent = append(s.sent, l.parcels)
	s.client.outbox(line{l.queue, true}).push(parcels...)
	l.parcels, l.text, l.ends = nil, l.text[:0], l.ends[:0]
	l.size = min(2*l.size, mostLot)
}

// finish sends the rest and waits for all answers.
func (s *shipment) finish(ctx context.Context, answers []Stored) {
	for _, l := range s.lots {
		s.send(l)
	}
	s.delivery.wait(ctx)
	for _, parcels := range s.sent {
		for i := range parcels {
			answers[parcels[i].place] = parcels[i].stored(ctx)
		}
	}
}
