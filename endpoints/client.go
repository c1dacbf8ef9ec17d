package endpoints

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/lua"
)

// Keys. They share a tag, so that one script may touch them in a Cluster.
const (
	indexKey       = "bellhop:{endpoints}:index"     // zset of endpoints
	statePrefix    = "bellhop:{endpoints}:state:"    // + endpoint: hash
	callsPrefix    = "bellhop:{endpoints}:calls:"    // + endpoint: zset of running calls
	attemptsPrefix = "bellhop:{endpoints}:attempts:" // + endpoint: list of JSON
)

// firstCalls is how many calls may run at once to an endpoint of which nothing is known, or nothing for a minute. Each success adds one,
// each failure takes half.
const firstCalls = 2

// Client is the fleet's knowledge of endpoints, in one Redis. It is safe for concurrent use.
type Client struct {
	rdb   redis.UniversalClient
	cfg   Config
	plain atomic.Bool // the server doesn't know the first line of the scripts
}

// New returns a client over rdb, which stays the caller's to close.
func New(rdb redis.UniversalClient, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure endpoints: %w", err)
	}
	return &Client{rdb: rdb, cfg: cfg.WithDefaults()}, nil
}

// Call is one that is about to be made.
type Call struct {
	// Endpoint is its name: letters, digits and . _ : - , 128 bytes at most.
	Endpoint string

	// Label is what people call it, such as the host; it is shown beside the name.
	Label string

	// Lease is after how long the call counts as over although nobody said so: longer than it may take.
	Lease time.Duration

	// Rate is how many calls a second, of the whole fleet, the endpoint wants at most; 0 is no limit.
	Rate float64
}

// Pass is the answer to a call: go, with a token; or not now, and when; or never.
type Pass struct {
	// Token is for Leave. It is empty if the call must not be made.
	Token string

	// Probe tells that the circuit is open, and this call the one that finds out whether the endpoint is back.
	Probe bool

	// Wait is when to ask again, with a random part, so that those who wait don't come together. Why is "open" (the circuit), "paused"
	// (by its own Retry-After), "busy" (enough calls are running) or "rate".
	Wait time.Duration
	Why  string

	// Disabled is the reason why the endpoint was switched off; empty if it was not.
	Disabled string
}

// Enter asks for leave to call. A call that has it must be ended by Leave.
func (c *Client) Enter(ctx context.Context, call Call) (Pass, error) {
	if err := checkName(call.Endpoint); err != nil {
		return Pass{}, err
	}
	token := uuid.NewString()
	reply, err := c.run(ctx, enterScript, []string{statePrefix + call.Endpoint, callsPrefix + call.Endpoint, indexKey},
		call.Endpoint, token, max(call.Lease.Milliseconds(), 1), strconv.FormatFloat(max(call.Rate, 0), 'f', -1, 64), firstCalls,
		c.cfg.KeepFor.Milliseconds(), call.Label, c.cfg.MaxCalls).Slice()
	if err != nil {
		return Pass{}, fmt.Errorf("ask for leave to call endpoint %s: %w", call.Endpoint, err)
	}
	return passOf(reply, token)
}

func passOf(reply []any, token string) (Pass, error) {
	var word, reason string
	var wait, spread int64
	if len(reply) > 0 {
		word, _ = reply[0].(string)
	}
	if len(reply) == 2 {
		reason, _ = reply[1].(string)
	}
	if len(reply) == 3 {
		wait, _ = reply[1].(int64)
		spread, _ = reply[2].(int64)
	}
	switch word {
	case "go", "probe":
		return Pass{Token: token, Probe: word == "probe"}, nil
	case "disabled":
		return Pass{Disabled: reason}, nil
	case "open", "paused", "busy", "rate":
		return Pass{Wait: time.Duration(wait+rand.Int64N(spread+1)) * time.Millisecond, Why: word}, nil
	}
	return Pass{}, fmt.Errorf("unexpected answer %v", reply)
}

// Outcome is how a call ended.
type Outcome string

// The outcomes of a call.
const (
	Delivered Outcome = "delivered" // the endpoint lives: its circuit closes
	Failed    Outcome = "failed"    // counts towards the opening of its circuit
	Gone      Outcome = "gone"      // it wants no more: it is switched off
	Abandoned Outcome = "abandoned" // it says nothing about the endpoint
)

// Report is how a call ended.
type Report struct {
	Outcome Outcome

	// Attempt is what is kept of it; nil for nothing.
	Attempt *Attempt

	// Pause is for how long the endpoint asked to be left alone, at most an hour of it counts for all its calls.
	Pause time.Duration

	// Reason to switch it off, of the outcome Gone.
	Reason string
}

const maxPause = time.Hour

// Change is what a report has changed: "opened" (and until a probe, For), "closed", "disabled", or nothing.
type Change struct {
	What string
	For  time.Duration
}

// Leave ends a call.
func (c *Client) Leave(ctx context.Context, endpoint, token string, r Report) (Change, error) {
	if err := checkName(endpoint); err != nil {
		return Change{}, err
	}
	var attempt []byte
	if r.Attempt != nil {
		var err error
		if attempt, err = json.Marshal(r.Attempt); err != nil {
			return Change{}, fmt.Errorf("encode an attempt at endpoint %s: %w", endpoint, err)
		}
	}
	reason := r.Reason
	if reason == "" {
		reason = "no reason told"
	}
	reply, err := c.run(ctx, leaveScript,
		[]string{statePrefix + endpoint, callsPrefix + endpoint, indexKey, attemptsPrefix + endpoint},
		endpoint, token, string(r.Outcome), c.cfg.Failures, c.cfg.Cooldown.Milliseconds(), c.cfg.MaxCooldown.Milliseconds(),
		min(max(r.Pause, 0), maxPause).Milliseconds(), firstCalls, attempt, c.cfg.KeepAttempts, c.cfg.KeepFor.Milliseconds(), reason).Slice()
	if err != nil {
		return Change{}, fmt.Errorf("tell how a call of endpoint %s ended: %w", endpoint, err)
	}
	var change Change
	if len(reply) > 0 {
		change.What, _ = reply[0].(string)
	}
	if len(reply) > 1 {
		ms, _ := reply[1].(int64)
		change.For = time.Duration(ms) * time.Millisecond
	}
	return change, nil
}

// Disable switches an endpoint off until Enable: jobs for it end at once, with the reason. It tells whether it was on.
func (c *Client) Disable(ctx context.Context, endpoint, reason string) (bool, error) {
	if strings.TrimSpace(reason) == "" {
		return false, errors.New("disable an endpoint: no reason given: say why, for those who find it so")
	}
	return c.set(ctx, endpoint, reason)
}

// Enable switches an endpoint on, with a closed circuit. It tells whether it was off. The jobs that ended meanwhile stay among the
// dead until they are run again.
func (c *Client) Enable(ctx context.Context, endpoint string) (bool, error) {
	return c.set(ctx, endpoint, "")
}

func (c *Client) set(ctx context.Context, endpoint, reason string) (bool, error) {
	if err := checkName(endpoint); err != nil {
		return false, err
	}
	changed, err := c.run(ctx, switchScript, []string{statePrefix + endpoint, indexKey}, endpoint, reason, c.cfg.KeepFor.Milliseconds()).Bool()
	if err != nil {
		return false, fmt.Errorf("switch endpoint %s: %w", endpoint, err)
	}
	return changed, nil
}

var name = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// checkName keeps what would break out of a key's {tag} away from it.
func checkName(endpoint string) error {
	if !name.MatchString(endpoint) {
		return fmt.Errorf("endpoint %.40q: a name has letters, digits and . _ : - alone, 1 to 128 of them", endpoint)
	}
	return nil
}

var (
	//go:embed enter.lua
	enterSource string
	//go:embed leave.lua
	leaveSource string
	//go:embed switch.lua
	switchSource string

	enterScript  = lua.New(enterSource)
	leaveScript  = lua.New(leaveSource)
	switchScript = lua.New(switchSource)
)

func (c *Client) run(ctx context.Context, s lua.Script, keys []string, args ...any) *redis.Cmd {
	return s.Run(ctx, c.rdb, &c.plain, keys, args...)
}
