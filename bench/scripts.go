package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bellhop-dev/bellhop/queue"
	"github.com/redis/go-redis/v9"
)

// scriptBatch is how many jobs a call takes or ends.
const scriptBatch = 200

// scripts fetches and ends jobs in batches with nothing around: no pool, no handler, no waiting. It shows what Redis' one thread
// allows for this layout, which no engine on it can pass.
func scripts(ctx context.Context, p *parent, o order) error {
	rdb := redis.NewClient(&redis.Options{Addr: o.Addr})
	defer rdb.Close() //nolint:errcheck // nothing is lost with it
	client := queue.New(rdb)
	if err := p.ready(); err != nil {
		return err
	}
	errs := make([]error, o.Workers, o.Workers+1)
	ended := make([]int, o.Workers)
	begin := time.Now()
	var all sync.WaitGroup
	for i := range o.Workers {
		all.Go(func() { ended[i], errs[i] = drainByScripts(ctx, client, fmt.Sprintf("bare-%d", i)) })
	}
	all.Wait()
	took := time.Since(begin)
	total := 0
	for _, n := range ended {
		total += n
	}
	if total != o.Jobs {
		errs = append(errs, fmt.Errorf("%d of %d jobs ended", total, o.Jobs))
	}
	p.finish(errors.Join(errs...), Values{"per_second": float64(total) / took.Seconds()})
	return nil
}

func drainByScripts(ctx context.Context, client *queue.Client, name string) (ended int, err error) {
	w, err := client.NewWorker(name, defaultQueue)
	if err != nil {
		return 0, err
	}
	for {
		got, err := w.Fetch(ctx, defaultQueue, scriptBatch)
		if err != nil || len(got.Jobs) == 0 {
			return ended, err
		}
		ends := make([]queue.End, len(got.Jobs))
		for i, job := range got.Jobs {
			ends[i] = queue.Done(job)
		}
		if err := errors.Join(w.Finish(ctx, ends...)...); err != nil {
			return ended, err
		}
		ended += len(ends)
	}
}
