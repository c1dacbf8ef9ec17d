package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/redis/go-redis/v9"
)

// store is the fresh server, or database, of one measurement.
type store struct {
	addr  string
	kind  string
	redis *redis.Client // nil if it is no Redis
	close func()

	// settled tells whether the store knows of every job that it has ended.
	settled func(ctx context.Context) (bool, error)
}

// startRedis starts a server of our own on a free port. It keeps nothing on disk.
func startRedis(ctx context.Context) (*store, error) {
	server, err := redisembed.Start(ctx, redisembed.Options{Addr: "127.0.0.1:0", ServerOnly: true})
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), PoolSize: 1})
	s := &store{addr: server.Addr(), kind: server.Kind(), redis: rdb, close: func() {
		_ = rdb.Close()
		_ = server.Close()
	}}
	s.settled = func(ctx context.Context) (bool, error) {
		n, err := rdb.Exists(ctx, wire.PendingKey(defaultQueue), wire.ActiveKey(defaultQueue)).Result()
		return n == 0, err
	}
	return s, nil
}

// pending is how many jobs wait in a queue.
func (s *store) pending(ctx context.Context, queue string) (int64, error) {
	return s.redis.LLen(ctx, wire.PendingKey(queue)).Result()
}

// command is what Redis has done with one of its commands.
type command struct {
	calls float64
	time  time.Duration // of a script, what it calls is in it
}

// commands are what Redis has run, those inside of scripts counted, the looks at it not.
func (s *store) commands(ctx context.Context) (map[string]command, error) {
	info, err := s.info(ctx, "commandstats")
	if err != nil {
		return nil, err
	}
	commands := make(map[string]command, len(info))
	for key, value := range info {
		name := strings.TrimPrefix(key, "cmdstat_")
		if name == "info" {
			continue
		}
		var c command
		var us int64
		if _, err := fmt.Sscanf(value, "calls=%g,usec=%d,", &c.calls, &us); err != nil {
			return nil, fmt.Errorf("INFO commandstats: %s: %w", key, err)
		}
		c.time = time.Duration(us) * time.Microsecond
		commands[name] = c
	}
	return commands, nil
}

// meter tells what a job costs Redis in CPU time, which other programs on the machine change little.
type meter struct {
	store    *store
	cpu      time.Duration
	commands map[string]command
}

// startMeter returns an idle meter if the store is no Redis.
func (s *store) startMeter(ctx context.Context) (m meter, err error) {
	m.store = s
	if s.redis == nil {
		return m, nil
	}
	if m.commands, err = s.commands(ctx); err == nil {
		m.cpu, err = s.cpu(ctx)
	}
	return m, err
}

func (m meter) read(ctx context.Context, into Values, jobs int) error {
	if m.store.redis == nil {
		return nil
	}
	cpu, err := m.store.cpu(ctx)
	if err != nil {
		return err
	}
	into["redis_cpu_us"] = microseconds(cpu-m.cpu) / float64(jobs)
	commands, err := m.store.commands(ctx)
	for name, c := range commands {
		if t := c.time - m.commands[name].time; t > 0 {
			into[detail+"us_of_"+name] = microseconds(t) / float64(jobs)
			into[detail+"drain_calls_of_"+name] = (c.calls - m.commands[name].calls) / float64(jobs)
		}
	}
	return err
}

// detail begins the names of values that are in the raw data alone.
const detail = "detail_"

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// memory is what Redis uses, in bytes.
func (s *store) memory(ctx context.Context) (float64, error) {
	info, err := s.info(ctx, "memory")
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(info["used_memory"], 64)
}

// cpu is the time that Redis has used.
func (s *store) cpu(ctx context.Context) (time.Duration, error) {
	info, err := s.info(ctx, "cpu")
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, key := range []string{"used_cpu_user", "used_cpu_sys"} {
		s, err := strconv.ParseFloat(info[key], 64)
		if err != nil {
			return 0, fmt.Errorf("INFO cpu: %s: %w", key, err)
		}
		total += s
	}
	return time.Duration(total * float64(time.Second)), nil
}

func (s *store) info(ctx context.Context, section string) (map[string]string, error) {
	text, err := s.redis.Info(ctx, section).Result()
	if err != nil {
		return nil, fmt.Errorf("INFO %s: %w", section, err)
	}
	info := make(map[string]string)
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok {
			info[key] = value
		}
	}
	return info, nil
}
