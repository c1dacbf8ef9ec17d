package main

import (
	"context"
	"errors"

	"github.com/bellhop-dev/bellhop/cmd/internal/gatewayd"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/tasks"
)

// serve wires what a gateway process runs and runs it.
func (p *process) serve(ctx context.Context) error {
	rdb, err := redisconn.Open(p.cfg.Redis)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	defer rdb.Close() //nolint:errcheck // the process ends
	if _, err := redisconn.Check(ctx, rdb, p.cfg.Redis, p.log); err != nil {
		return stoppedOr(ctx, err)
	}
	catalog := fleet.NewCatalog(fleet.New(rdb), p.log, tasks.BuiltIn()...)
	if err := catalog.Refresh(ctx); err != nil {
		return stoppedOr(ctx, err)
	}
	gateway, err := gatewayd.New(ctx, p.cfg, rdb, catalog, p.log)
	if err != nil {
		return err
	}
	group := new(lifecycle.Group)
	group.Add("redis watch", redisconn.NewWatch(rdb, p.cfg.Redis, p.log).Run)
	group.Add("catalog", catalog.Run)
	gateway.Join(group)
	return group.Run(ctx)
}

// stoppedOr takes a failure for none if the process was told to stop meanwhile.
func stoppedOr(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
