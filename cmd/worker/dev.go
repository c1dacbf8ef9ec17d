package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/cmd/internal/gatewayd"
	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
	"github.com/bellhop-dev/bellhop/internal/redisembed"
	"github.com/bellhop-dev/bellhop/triggers"
)

// runDev brings everything in one process: a Redis of its own, and a trigger that logs every event, if no other is there.
func (p *process) runDev(ctx context.Context, loaded *config.Loaded) error {
	if from := loaded.Origin("redis.url"); from != "default" {
		return cli.Usagef("--dev brings its own Redis, but redis.url is set (%s): leave one of them out", from)
	}
	server, err := redisembed.Start(ctx, redisembed.Options{Logger: p.log})
	if err != nil {
		return err
	}
	defer server.Close() //nolint:errcheck // nothing in it is kept

	p.alone.Store(true)
	p.cfg.Redis.URL = server.URL()
	p.cfg.Handlers.HTTP.Allow = append(p.cfg.Handlers.HTTP.Allow, "127.0.0.0/8", "::1")
	if loaded.Origin("worker.retry.first") == "default" {
		p.cfg.Worker.Retry.First = time.Second
	}
	if p.cfg.HTTP.Addr == "" {
		p.cfg.HTTP.Addr = freeAddr(ctx, devAddr)
	}
	var rules []triggers.Trigger
	if len(p.cfg.Triggers.Files) == 0 {
		rules = devTriggers()
	}
	for addr, wanted := range map[*string]string{&p.cfg.Gateway.Addr: gateway.DefaultAddr, &p.cfg.Gateway.PrivateAddr: gateway.DefaultPrivateAddr} {
		if *addr == wanted {
			*addr = freeAddr(ctx, wanted)
		}
	}
	return p.serve(ctx, rules, func(now wired) { p.banner(server, now) })
}

// devGateway makes a gateway part of the process, and a key for it.
func (p *process) devGateway(ctx context.Context, rdb redis.UniversalClient, catalog *fleet.Catalog, group *lifecycle.Group, now *wired) error {
	var err error
	now.gateway, err = gatewayd.New(ctx, p.cfg, rdb, catalog, p.log)
	if errors.Is(err, syscall.EADDRINUSE) { // somebody was faster: another --dev
		p.cfg.Gateway.Addr, p.cfg.Gateway.PrivateAddr = anyAddr, anyAddr
		now.gateway, err = gatewayd.New(ctx, p.cfg, rdb, catalog, p.log)
	}
	if err != nil {
		return err
	}
	now.gateway.Join(group)
	now.key, _, err = keys.NewStore(rdb, p.cfg.Gateway.Keys).Create(ctx, keys.Key{Name: "dev", Scopes: []keys.Scope{keys.Admin}})
	return err
}

// devAddr is where the probes of --dev are, if the address is free.
const devAddr = "127.0.0.1:8300"

// anyAddr has a port that is free.
const anyAddr = "127.0.0.1:0"

func freeAddr(ctx context.Context, wanted string) string {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", wanted)
	if err != nil {
		return anyAddr
	}
	defer l.Close() //nolint:errcheck // it was only tried
	return wanted
}

func devTriggers() []triggers.Trigger {
	return []triggers.Trigger{{
		Name: "log-every-event",
		On:   "**",
		Run:  "log:write",
		With: map[string]any{"message": "event ${event.type} from ${event.source}", "fields": map[string]any{"data": "${event.data}"}},
	}}
}

func (p *process) banner(server *redisembed.Instance, now wired) {
	probes, names := now.probes, now.triggers
	enqueue := enqueueCommand()
	kind := server.Kind()
	if server.Addr() != redisembed.DefaultAddr {
		enqueue += " --redis " + server.URL()
		kind += "; " + redisembed.DefaultAddr + " was taken"
	}
	if len(p.cfg.Worker.Queues) > 0 && p.cfg.Worker.Queues[0].Name != "default" {
		enqueue += " --queue " + p.cfg.Worker.Queues[0].Name
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nbellhop, for development: all in this process, nothing is kept when it ends.\n\n")
	fmt.Fprintf(&b, "  Redis   %s  (%s)\n", server.URL(), kind)
	fmt.Fprintf(&b, "  Gateway http://%s  (its API: /openapi.json)\n", now.gateway.Addr())
	fmt.Fprintf(&b, "  Key     %s\n", now.key)
	fmt.Fprintf(&b, "  Probes  http://%s/readyz, the gateway's http://%s/readyz\n", probes, now.gateway.PrivateAddr())
	switch {
	case len(p.cfg.Triggers.Files) == 0:
		fmt.Fprintf(&b, "  Trigger %s: every event is logged; bring your own with --triggers FILE\n", strings.Join(names, ", "))
	case len(names) == 0:
		fmt.Fprintf(&b, "  Trigger none is active in %s\n", strings.Join(p.cfg.Triggers.Files, ", "))
	default:
		fmt.Fprintf(&b, "  Trigger %s; an event that none of them matches leads to no job\n", strings.Join(names, ", "))
	}
	fmt.Fprintf(&b, "\nTry, in a second shell here:\n\n")
	fmt.Fprintf(&b, "  %s log:write '{\"message\":\"hello\"}' --wait 10s\n", enqueue)
	fmt.Fprintf(&b, "  %s http:request '{\"url\":\"http://%s/readyz\"}' --wait 10s\n", enqueue, probes)
	fmt.Fprintf(&b, "  %s --event com.acme.email.received '{\"folder\":\"INBOX\",\"from\":\"ada@example.com\"}'\n", strings.Split(enqueue, " --queue")[0])
	fmt.Fprintf(&b, "  curl http://%s/v1/events -H 'Authorization: Bearer %s' -H 'Content-Type: application/cloudevents+json' ", now.gateway.Addr(), now.key)
	fmt.Fprintf(&b, "-d '{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/shell\",\"type\":\"com.acme.order.paid\",\"data\":{\"total\":42}}'\n")
	fmt.Fprintf(&b, "  %s --list\n\nCtrl-C stops.\n\n", strings.Split(enqueue, " --queue")[0])
	_, _ = io.WriteString(p.stdout, b.String())
}

// enqueueCommand is how enqueue is called from where we are: beside this program, out of the module, as a tool of it, or from PATH.
func enqueueCommand() string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "enqueue")
		if _, err := os.Stat(beside); err == nil {
			if wd, err := os.Getwd(); err == nil {
				if rel, err := filepath.Rel(wd, beside); err == nil && !strings.HasPrefix(rel, "..") {
					return "./" + rel
				}
			}
			return beside
		}
	}
	if _, err := os.Stat("cmd/enqueue"); err == nil {
		return "go run ./cmd/enqueue"
	}
	if mod, err := os.ReadFile("go.mod"); err == nil && strings.Contains(string(mod), "github.com/bellhop-dev/bellhop/cmd/enqueue") {
		return "go tool enqueue"
	}
	return "enqueue"
}
