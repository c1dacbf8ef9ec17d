package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

var (
	//go:embed idempotency_claim.lua
	claimSource string
	//go:embed idempotency_settle.lua
	settleSource string

	claimScript  = redis.NewScript(claimSource)
	settleScript = redis.NewScript(settleSource)
)

const (
	idempotencyPrefix = "bellhop:idempotency:"
	maxIdempotencyKey = 255

	// lapseBeyond is how much longer a claim holds than a request may work with Redis.
	lapseBeyond = 2 * time.Second

	// settleWithin bounds the last word about a request, which outlives a client that has gone.
	settleWithin = time.Second
)

// IdempotencyHeader makes an operation's request take place once: embed it in its input.
type IdempotencyHeader struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" example:"order-4711-confirmation" doc:"Makes the request take place once, however often it is sent: a repetition within 24 hours gets the first one's answer, with Idempotent-Replayed: true. It belongs to the API key. Another request with it is refused with 422; while the first is at work, the answer is 409."`
}

// once runs a request, or answers with what it answered before. do is given a seed, to derive ids from: it is the same for each
// repetition, so that even one whose answer was never recorded makes nothing twice. Without an Idempotency-Key it is empty.
//
// What do answers is recorded, unless it is unfinished. Its problem is not: below 500 nothing was done, and the key is free for a better request; else the
// outcome is not known, and the same request may find out.
func once[T any](ctx context.Context, g *Gateway, operation, key string, do func(ctx context.Context, seed string) (T, error)) (answer T, replayed bool, err error) {
	if key == "" {
		answer, err = do(ctx, "")
		return answer, false, err
	}
	c, err := g.newClaim(ctx, operation, key)
	if err != nil {
		return answer, false, err
	}
	recorded, err := c.take(ctx)
	if err != nil {
		return answer, false, err
	}
	if recorded != "" {
		if err := json.Unmarshal([]byte(recorded), &answer); err != nil {
			return answer, false, fmt.Errorf("read the answer recorded for an Idempotency-Key: %w", err)
		}
		return answer, true, nil
	}
	answer, err = do(ctx, c.seed)
	c.settle(ctx, answer, err)
	return answer, false, err
}

// claim is one request's on an Idempotency-Key.
type claim struct {
	g           *Gateway
	seed        string
	fingerprint string
	token       string
}

func (g *Gateway) newClaim(ctx context.Context, operation, key string) (claim, error) {
	if len(key) > maxIdempotencyKey || strings.ContainsFunc(key, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsPrint(r) }) {
		return claim{}, refusal(http.StatusUnprocessableEntity, []problem.Fault{{
			Header: "Idempotency-Key", Detail: fmt.Sprintf("it must be up to %d printable ASCII characters", maxIdempotencyKey),
		}})
	}
	caller, _ := keys.FromContext(ctx)
	return claim{
		g:           g,
		seed:        digest(caller.ID, key),
		fingerprint: digest(operation, string(bodyOf(ctx))),
		token:       rand.Text(),
	}, nil
}

// digest is a short name for texts that nobody can find others for.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:20]))
}

// take returns the recorded answer, "" if the request is to be run.
func (c claim) take(ctx context.Context) (string, error) {
	ctx, cancel := c.g.bounded(ctx)
	defer cancel()
	lapse := c.g.cfg.RedisWithin + lapseBeyond
	reply, err := claimScript.Run(ctx, c.g.deps.Redis, []string{idempotencyPrefix + c.seed},
		c.fingerprint, c.token, lapse.Milliseconds(), c.g.cfg.IdempotencyTTL.Milliseconds()).StringSlice()
	if err != nil || len(reply) != 2 {
		return "", c.g.outage(ctx, fmt.Errorf("claim an Idempotency-Key: %w", err))
	}
	switch reply[0] {
	case "done":
		return reply[1], nil
	case "other":
		return "", problem.New(http.StatusUnprocessableEntity, "idempotency-key-reused", "Idempotency-Key was used for another request",
			"this Idempotency-Key came with another request before: use a new one for each request, and the same one only to send it again",
			problem.Fault{Header: "Idempotency-Key", Detail: "it belongs to another request"})
	case "running":
		p := problem.New(http.StatusConflict, "idempotency-key-running", "The first request is at work",
			"the first request with this Idempotency-Key has not been answered yet: send it again later")
		ms, _ := strconv.ParseInt(reply[1], 10, 64)
		p.RetryAfter = max(time.Duration(ms)*time.Millisecond, time.Second)
		return "", p
	}
	return "", nil
}

// settle records how the request ended. If that fails, the claim lapses, and the seed keeps a repetition from doing it twice.
func (c claim) settle(ctx context.Context, answer any, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleWithin)
	defer cancel()
	what, text := "done", []byte(nil)
	var p *problem.Problem
	switch {
	case errors.As(err, &p) && p.Status < http.StatusInternalServerError:
		what = "forget"
	case err != nil:
		what = "again"
	case unfinished(answer):
		what = "again"
	default:
		if text, err = json.Marshal(answer); err != nil {
			what = "again"
		}
	}
	ttl := c.g.cfg.IdempotencyTTL.Milliseconds()
	if err := settleScript.Run(ctx, c.g.deps.Redis, []string{idempotencyPrefix + c.seed}, c.token, what, text, ttl).Err(); err != nil {
		c.g.tellOutage(ctx, fmt.Errorf("record the answer to an Idempotency-Key: %w", err))
	}
}

// unfinished tells that a repetition may bring more.
func unfinished(answer any) bool {
	a, ok := answer.(interface{ unfinished() bool })
	return ok && a.unfinished()
}
