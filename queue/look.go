package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

var (
	//go:embed look.lua
	lookSource string
	//go:embed forgo.lua
	forgoSource string
	//go:embed awaited.lua
	awaitedSource string

	lookScript  = newScript(lookSource)
	forgoScript = newScript(forgoSource)
)

// MarkTime is how long the end of a marked job is told, without another Look.
const MarkTime = time.Minute

// LongestTold is the longest result, in bytes, of a job that is not kept, that those who await it are told.
const LongestTold = 64 << 10

// Ref names a job.
type Ref struct{ Queue, ID string }

// Standing is where a job stands.
type Standing struct {
	State   string        // in asynq's words, or "undecodable"; "" if there is no such job
	Message *wire.Message // nil if it can't be decoded
	Result  []byte
	Next    time.Time // of a scheduled or retrying job
}

// Look tells where jobs stand, in their order. With a channel it marks those that have not ended: see Ending.
func (c *Client) Look(ctx context.Context, channel string, refs ...Ref) ([]Standing, error) {
	out := make([]Standing, len(refs))
	calls, places := batches(refs, func(queue string, ids []any) *call {
		keys := []string{wire.AwaitedKey(queue), wire.CallsKey(queue), wire.ScheduledKey(queue), wire.RetryKey(queue), wire.DueKey(queue)}
		return &call{script: lookScript, keys: keys, args: append([]any{wire.JobPrefix(queue), channel, int(MarkTime / time.Second)}, ids...)}
	})
	if len(calls) == 0 {
		return out, nil
	}
	c.run(ctx, calls...)
	var faults []error
	for i, call := range calls {
		reply, err := call.reply.StringSlice()
		if err == nil && len(reply) != 4*len(places[i]) {
			err = fmt.Errorf("%w: %d values for %d jobs", errUnexpected, len(reply), len(places[i]))
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for n, at := range places[i] {
			out[at] = standing(reply[4*n : 4*n+4])
		}
	}
	return out, errors.Join(faults...)
}

func standing(reply []string) Standing {
	s := Standing{State: reply[0]}
	if s.State == "" {
		return s
	}
	if msg, err := wire.Decode([]byte(reply[1])); err == nil {
		s.Message = msg
	}
	if reply[2] != "" {
		s.Result = []byte(reply[2])
	}
	if ms, err := strconv.ParseInt(reply[3], 10, 64); err == nil && ms > 0 {
		s.Next = time.UnixMilli(ms)
	}
	return s
}

// Forgo takes the marks of a channel off jobs.
func (c *Client) Forgo(ctx context.Context, channel string, refs ...Ref) error {
	calls, _ := batches(refs, func(queue string, ids []any) *call {
		return &call{script: forgoScript, keys: []string{wire.AwaitedKey(queue)}, args: append([]any{channel}, ids...)}
	})
	if len(calls) == 0 {
		return nil
	}
	c.run(ctx, calls...)
	var faults []error
	for _, call := range calls {
		faults = append(faults, call.reply.Err())
	}
	return errors.Join(faults...)
}

// batches makes the calls for jobs of any queues, and tells which jobs each is for.
func batches(refs []Ref, newCall func(queue string, ids []any) *call) (calls []*call, places [][]int) {
	byQueue := map[string][]int{}
	for i, ref := range refs {
		byQueue[ref.Queue] = append(byQueue[ref.Queue], i)
	}
	for queue, all := range byQueue {
		for some := range slices.Chunk(all, maxCallJobs) {
			var ids []any
			for _, i := range some {
				ids = append(ids, refs[i].ID)
			}
			calls = append(calls, newCall(queue, ids))
			places = append(places, some)
		}
	}
	return calls, places
}

// Ending is what is told on the channel of a Look once a job that it marked has ended by one of our scripts. Stock servers and
// tools tell nothing.
type Ending struct {
	JobKey  string        // wire.JobKey
	Outcome Outcome       //
	Message *wire.Message // nil if it is too long, or can't be decoded
	Result  []byte

	// Cut tells that the result is too long to be told; it is in the job's hash if that is kept.
	Cut bool
}

// Outcome is how a job ended.
type Outcome string

// Outcomes, as awaited.lua's callers name them.
const (
	OutcomeCompleted Outcome = "completed"
	OutcomeDead      Outcome = "dead"
	OutcomeGone      Outcome = "gone" // it became part of a group's job
)

// ParseEnding reads what was told on a channel.
func ParseEnding(text string) (Ending, error) {
	head := strings.SplitN(text, " ", 4)
	if len(head) != 4 {
		return Ending{}, fmt.Errorf("read the end of a job: %w", errUnexpected)
	}
	keyLen, err1 := strconv.Atoi(head[1])
	msgLen, err2 := strconv.Atoi(head[2])
	body := head[3]
	if err1 != nil || err2 != nil || keyLen < 0 || msgLen < 0 || keyLen > len(body) || msgLen > len(body)-keyLen {
		return Ending{}, fmt.Errorf("read the end of a job: %w", errUnexpected)
	}
	e := Ending{Outcome: Outcome(head[0]), JobKey: body[:keyLen]}
	if msg, ok := strings.CutPrefix(body[keyLen:keyLen+msgLen], "="); ok {
		if m, err := wire.Decode([]byte(msg)); err == nil {
			e.Message = m
		}
	}
	rest := body[keyLen+msgLen:]
	if result, ok := strings.CutPrefix(rest, "="); ok {
		e.Result = []byte(result)
	}
	e.Cut = strings.HasPrefix(rest, "#")
	return e, nil
}
