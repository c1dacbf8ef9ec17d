package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// compose makes the job that a task of asynq's asks for. A task shows its options to asynq's own client alone: that one composes the job,
// on a connection that leads nowhere. So the queue's client can store it, once, however often the request has to be sent.
func compose(ctx context.Context, task *asynq.Task, opts ...asynq.Option) (queue.Entry, error) {
	var sent sentCommand
	nowhere := redis.NewClient(&redis.Options{Dialer: func(context.Context, string, string) (net.Conn, error) { return nil, errNowhere }})
	defer func() { _ = nowhere.Close() }()
	nowhere.AddHook(&sent)
	if _, err := asynq.NewClientFromRedisClient(nowhere).EnqueueContext(ctx, task, opts...); err != nil {
		return queue.Entry{}, fmt.Errorf("compose the job: %w", err)
	}
	return sent.entry()
}

var errNowhere = errors.New("this client has no server")

// sentCommand keeps the script call of asynq's client and answers that the job is stored.
type sentCommand struct{ args []any }

func (s *sentCommand) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *sentCommand) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s *sentCommand) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		if script, ok := cmd.(*redis.Cmd); ok {
			s.args = script.Args()
			script.SetVal(int64(1))
		}
		return nil
	}
}

var errComposed = errors.New("asynq's client composed something unknown")

// entry reads the call: EVALSHA, hash, the number of keys, the keys; then, in an order that differs with the state that the job
// starts in, the message in bytes, the lock's seconds as int, a Unix time as int64, and names.
func (s *sentCommand) entry() (queue.Entry, error) {
	if len(s.args) < 3 {
		return queue.Entry{}, errComposed
	}
	keys, ok := s.args[2].(int)
	if !ok || len(s.args) < 3+keys {
		return queue.Entry{}, errComposed
	}
	var e queue.Entry
	var stamp int64
	for _, arg := range s.args[3+keys:] {
		switch v := arg.(type) {
		case []byte:
			message, err := wire.Decode(v)
			if err != nil {
				return e, fmt.Errorf("%w: %w", errComposed, err)
			}
			e.Message = message
		case int:
			e.UniqueFor = time.Duration(v) * time.Second
		case int64:
			stamp = v
		}
	}
	if e.Message == nil {
		return e, errComposed
	}
	if slices.Contains(s.args[3:3+keys], any(wire.ScheduledKey(e.Message.Queue))) {
		e.At = time.Unix(stamp, 0)
		if e.UniqueFor > 0 { // asynq has added the wait already; queue adds it itself
			e.UniqueFor = max(e.UniqueFor-time.Until(e.At), time.Second)
		}
	}
	return e, nil
}
