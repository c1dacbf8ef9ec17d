package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

var (
	//go:embed enqueue.lua
	enqueueSource string
	//go:embed push.lua
	pushSource string

	enqueueScript = newScript(enqueueSource)
	pushScript    = newScript(pushSource)
)

// The most jobs and message bytes that one call of a script carries: it must not hold Redis' one thread for long.
const (
	maxCallJobs  = 500
	maxCallBytes = 4 << 20
)

// pipelined is how many calls share a round trip.
const pipelined = 4

// sendTime bounds one round trip of jobs whose callers may have gone: go-redis tries again within it. It may last twice as long.
const sendTime = 30 * time.Second

// sending makes the contexts of round trips. Their callers' differ, each waits under its own, and one that ends must not take the others'
// jobs along. Those of sendTime share an end, which costs a timer.
type sending struct{ shared atomic.Pointer[sendContext] }

type sendContext struct {
	context.Context //nolint:containedctx // the end
	values          context.Context
	since           time.Time
}

// Value is the caller's, which hooks of go-redis may want. What tells how a context ends is not.
func (c *sendContext) Value(key any) any {
	if own := c.Context.Value(key); own != nil {
		return own
	}
	return c.values.Value(key)
}

func (s *sending) context(values context.Context) context.Context {
	shared := s.shared.Load()
	if shared == nil || time.Since(shared.since) > sendTime {
		ctx, cancel := context.WithTimeout(context.Background(), 2*sendTime) //nolint:forbidigo // shared by callers: it can be none of theirs
		context.AfterFunc(ctx, cancel)                                       // not before its time: a round trip may be under way
		shared = &sendContext{Context: ctx, since: time.Now()}
		s.shared.Store(shared)
	}
	return &sendContext{Context: shared.Context, values: values}
}

// secondFrom is how many single jobs must wait for a second round trip to go off beside the first.
const secondFrom = 32

// line names an outbox. Jobs that come one a call, whose callers wait for each, have no order among them and share two round trips; those
// of a call of many keep theirs.
type line struct {
	queue   string
	ordered bool
}

// outbox gathers the jobs that this process stores in one queue.
type outbox struct {
	batcher[*parcel]
	client   *Client
	line     line
	requests [2]int64 // of each writer, touched by it alone
}

func (c *Client) outbox(to line) *outbox {
	if o, ok := c.outboxes.Load(to); ok {
		return o.(*outbox)
	}
	o := &outbox{client: c, line: to}
	o.batcher = batcher[*parcel]{
		maxItems: pipelined * maxCallJobs,
		maxBytes: pipelined * maxCallBytes,
		bytes:    func(p *parcel) int { return len(p.msg) },
		write:    o.send,
	}
	if !to.ordered {
		o.second = secondFrom
	}
	first, _ := c.outboxes.LoadOrStore(to, o)
	return first.(*outbox)
}

// sender names whose requests follow each other by number: those of one place in the round trips of one writer.
func (o *outbox) sender(writer, place int) string {
	if o.line.ordered {
		writer = 2
	}
	return o.client.session + ":" + strconv.Itoa(writer*pipelined+place)
}

// more is what enqueue.lua reads of a job that is not plain.
func (e Entry) more() []any {
	var ttl, firedAt int64
	var unique, fired string
	start, wait := e.start()
	if e.UniqueFor > 0 {
		unique, ttl = e.Message.UniqueKey, max(min(e.UniqueFor, LongestTime).Milliseconds(), 1)
		ttl += ceilDelay(wait) // as in asynq, the lock's time counts from the start of the job
	}
	if e.Fired != nil {
		fired, firedAt = e.Fired.member(), e.Fired.At.UnixMilli()
	}
	return []any{"+", start, unique, ttl, e.Message.GroupKey, fired, firedAt}
}

// plain tells that the job is to be pending at once, and has nothing to be compared with.
func (e Entry) plain() bool {
	return e.In <= 0 && e.At.IsZero() && e.UniqueFor <= 0 && e.Fired == nil && e.Message.GroupKey == ""
}

// start is when the job may start, as enqueue.lua reads it, and about how long that is from now.
func (e Entry) start() (start string, wait time.Duration) {
	switch {
	case e.In > 0:
		return "+" + strconv.FormatInt(ceilDelay(e.In), 10), e.In
	case !e.At.IsZero():
		return strconv.FormatInt(ceilMilli(e.At), 10), time.Until(e.At)
	}
	return "0", 0
}

// send stores a batch in one round trip.
func (o *outbox) send(writer int, batch []*parcel) {
	ctx := o.client.sending.context(batch[0].delivery.ctx)
	var calls []*call
	var loads [][]*parcel
	if len(batch) == 1 && batch[0].more == nil {
		if batch, _ = o.load(batch); len(batch) == 0 || o.sendOne(ctx, writer, batch[0]) {
			return
		}
		// Whoever has gone meanwhile, the request has its number: it must not be another one's.
		calls, loads, batch = append(calls, o.call(writer, 0, batch)), append(loads, batch), nil
	}
	for len(batch) > 0 {
		var load []*parcel
		load, batch = o.load(batch)
		if len(load) > 0 {
			calls = append(calls, o.call(writer, len(calls), load))
			loads = append(loads, load)
		}
	}
	o.ask(ctx, calls)
	for i, call := range calls {
		o.answer(call, loads[i])
		clear(call.args)
		list := call.args[:0]
		argLists.Put(&list)
	}
}

// sendOne stores a plain job that goes alone. False means that the request is to be made in full, and keeps its number: nothing was done, or
// the answer was lost.
func (o *outbox) sendOne(ctx context.Context, writer int, p *parcel) bool {
	queue, request := o.line.queue, o.requests[writer]+1
	push := &call{
		script: pushScript,
		keys:   []string{wire.PendingKey(queue), wire.JobKey(queue, p.id), wire.SentKey(queue, o.sender(writer, 0))},
		args:   []any{request, &p.id, &p.msg},
	}
	o.client.run(ctx, push)
	stored, err := push.reply.Int()
	if err == nil && stored == 0 || err != nil && unanswered(err) || push.unheard() {
		return false
	}
	o.requests[writer] = request
	answer := o.confirmed(push, Stored{State: Pending})
	if err != nil {
		answer = o.failed(err)
	}
	p.settle(&answer)
	return true
}

// sendTries is how often a round trip is tried whose answer was lost, on top of go-redis' own tries.
const sendTries = 3

// ask sends calls until each has an answer. Those whose answer was lost are sent again as they were and get the first one; what came
// after them in line may stand before them by then.
func (o *outbox) ask(ctx context.Context, calls []*call) {
	for try := 1; len(calls) > 0; try++ {
		o.client.run(ctx, calls...)
		calls = slices.DeleteFunc(slices.Clone(calls), func(c *call) bool { return !c.unheard() && (c.reply.Err() == nil || !unanswered(c.reply.Err())) })
		if try == sendTries || ctx.Err() != nil {
			return
		}
	}
}

// unanswered tells a lost answer from a refusal.
func unanswered(err error) bool {
	_, refused := errors.AsType[redis.Error](err)
	return !refused
}

// load takes what fits into one call, in the place of the batch, and answers those who have gone.
func (o *outbox) load(batch []*parcel) (load, rest []*parcel) {
	taken, n, size := 0, 0, 0
	for ; taken < len(batch) && n < maxCallJobs && size < maxCallBytes; taken++ {
		p := batch[taken]
		if err := p.delivery.ctx.Err(); err != nil {
			p.settle(&Stored{Err: fmt.Errorf("enqueue: not sent: %w", err)})
			continue
		}
		batch[n] = p
		n, size = n+1, size+len(p.msg)
	}
	return batch[:n], batch[taken:]
}

// argLists are empty. go-redis copies what it is given.
var argLists = sync.Pool{New: func() any { return new([]any) }}

func (o *outbox) call(writer, place int, load []*parcel) *call {
	o.requests[writer]++
	queue := o.line.queue
	plain, kind := !slices.ContainsFunc(load, func(p *parcel) bool { return p.more != nil }), "mixed"
	if plain {
		kind = "plain"
	}
	args := append(*argLists.Get().(*[]any), wire.JobPrefix(queue), wire.GroupKey(queue, ""), o.requests[writer], kind)
	for _, p := range load {
		args = p.args(args, plain)
	}
	return &call{
		script: enqueueScript,
		keys: []string{
			wire.PendingKey(queue), wire.ScheduledKey(queue), wire.AllGroups(queue), wire.FiredKey(queue),
			wire.DueKey(queue), wire.AlarmKey(queue), wire.SentKey(queue, o.sender(writer, place)),
		},
		args: args,
	}
}

func (o *outbox) answer(call *call, load []*parcel) {
	reply, err := call.reply.StringSlice()
	plain := err == nil && len(reply) == 0 // all of them are pending
	if err == nil && !plain && len(reply) != 2*len(load) {
		err = fmt.Errorf("%w: %d values for %d jobs", errUnexpected, len(reply), len(load))
	}
	same := o.confirmed(call, Stored{State: Pending})
	if err != nil {
		same = o.failed(err)
	}
	for n, p := range load {
		if err != nil || plain {
			p.settle(&same)
			continue
		}
		own := o.confirmed(call, stored(reply[2*n], reply[2*n+1]))
		p.settle(&own)
	}
}

func (o *outbox) failed(err error) Stored {
	return Stored{Err: fmt.Errorf("enqueue to %q: %w", o.line.queue, err)}
}

// confirmed adds that the replicas were not heard of.
func (o *outbox) confirmed(call *call, answer Stored) Stored {
	switch {
	case call.unconfirmed == nil:
	case answer.Err == nil:
		answer.Err = fmt.Errorf("enqueue to %q: %w", o.line.queue, call.unconfirmed)
	case answer.Holder != "":
		answer.Err = fmt.Errorf("%w; %w", answer.Err, call.unconfirmed) // of the job that stands there
	}
	return answer
}
