package redisconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	tryLimit   = 3 * time.Second // of one try: a frozen server must not eat the whole wait
	minBackOff = 50 * time.Millisecond
	maxBackOff = 2 * time.Second
)

// waitReachable tries until Redis serves, ctx ends, or cfg.WaitFor has passed.
// What no waiting mends is returned at once.
func waitReachable(ctx context.Context, rdb redis.UniversalClient, cfg Config, log *slog.Logger) error {
	limit := cfg.waitFor()
	start := time.Now()
	backOff := minBackOff
	for try := 1; ; try++ {
		err := serves(ctx, rdb)
		if err == nil {
			if try > 1 {
				log.InfoContext(ctx, "Redis is there", "redis", cfg, "after", time.Since(start).Round(time.Millisecond))
			}
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("wait for Redis at %s: %w", cfg, context.Cause(ctx))
		}
		if advice := hopeless(err); advice != "" {
			return fmt.Errorf("connect to Redis at %s: %w; %s", cfg, err, advice)
		}
		left := limit - time.Since(start)
		if left <= 0 {
			return unreachable(cfg, limit, err)
		}
		if try == 1 {
			log.WarnContext(ctx, "Redis cannot be reached yet; waiting for it", "redis", cfg, "at_most", limit, "err", err)
		}
		// Half of it is chance: a fleet must not knock in step.
		pause := min(left, backOff/2+rand.N(backOff/2))
		backOff = min(backOff*2, maxBackOff)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func unreachable(cfg Config, limit time.Duration, err error) error {
	waited := ""
	if limit > 0 {
		waited = fmt.Sprintf(" within %s", limit)
	}
	scheme := "rediss:// if it expects TLS"
	if t, err := parse(cfg.url()); err == nil && t.tls {
		scheme = "redis:// if it speaks no TLS"
	}
	return fmt.Errorf("redis at %s cannot be reached%s: %w; start it, or correct the address "+
		"(--redis or BELLHOP_REDIS_URL; with %s)", cfg, waited, err, scheme)
}

// serves reports whether commands on keys would be taken, by every master.
func serves(ctx context.Context, rdb redis.UniversalClient) error {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return allowed(rdb.Ping(ctx).Err())
	}
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		return allowed(master.Ping(ctx).Err())
	})
	if err != nil {
		return err
	}
	// PING is answered while slots are not served; this is not.
	return allowed(cluster.Exists(ctx, "bellhop:{ready}").Err())
}

// allowed: a server that forbids the question is there.
func allowed(err error) error {
	if redis.IsPermissionError(err) {
		return nil
	}
	return err
}

// Advice returns what to do about an error of a server that is there, or of TLS: one that waiting does not mend. It is "" for others.
func Advice(err error) string { return hopeless(err) }

// hopeless returns what to do about an error that waiting does not mend, or "".
func hopeless(err error) string {
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		invalid      x509.CertificateInvalidError
	)
	text := err.Error()
	switch {
	case errors.As(err, &hostname):
		return "use a name that the certificate holds, or set server_name"
	case errors.As(err, &authority):
		return "name the authority that signed its certificate in ca_file"
	case errors.As(err, &verification), errors.As(err, &invalid):
		return "renew or replace its certificate"
	case errors.As(err, &record):
		return "it speaks no TLS there: use its TLS port, or redis:// if the network is trusted"
	case strings.Contains(text, "remote error: tls:"): // crypto/tls does not export its alerts
		return "it refuses our side of TLS: set cert_file and key_file if it asks for client certificates"
	case strings.Contains(text, "NOAUTH"):
		return "it asks for a password: add it to the address, or set password or password_file"
	case redis.IsAuthError(err), strings.Contains(text, "WRONGPASS"):
		return "correct user name and password"
	case strings.Contains(text, "without any password configured"):
		return "it has no password: remove it from the address, or set requirepass on the server"
	case strings.Contains(text, "DB index is out of range"):
		return "choose a database it has, mostly 0 to 15"
	case strings.Contains(text, "cluster support disabled"):
		return "it is not a Cluster: write redis:// instead of redis-cluster://"
	case strings.Contains(text, "SELECT is not allowed in cluster mode"):
		return "it is a Cluster node: write redis-cluster://"
	case strings.Contains(text, "redis: can't parse"), strings.Contains(text, "redis: invalid reply"): // to the very first command
		return "what listens there is no Redis: correct the address (--redis or BELLHOP_REDIS_URL)"
	case strings.Contains(text, "unreachable") && errors.Is(err, redis.Nil):
		return "the sentinels know no master of that name: correct it in the address"
	}
	return ""
}
