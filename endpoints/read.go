package endpoints

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Attempt is one call as it is kept. It holds nothing of the payload, of secrets or of headers.
type Attempt struct {
	Job     string    `json:"job"`     // id
	Queue   string    `json:"queue"`   // of the job
	Message string    `json:"message"` // webhook-id: the same in all attempts of a job
	Number  int       `json:"attempt"` // from 1
	At      time.Time `json:"at"`

	// DurationMS is how long the call took, in milliseconds.
	DurationMS int64 `json:"duration_ms"`

	// Status of the answer; 0 if there was none.
	Status int `json:"status,omitempty"`

	// Error is why it failed, or why there was no answer.
	Error string `json:"error,omitempty"`

	// Answer is the beginning of the answer's body, without what the call itself had sent.
	Answer string `json:"answer,omitempty"`
}

// The states of an endpoint.
const (
	StatusOpen     = "open"     // the circuit is: it is not called until NextProbe
	StatusProbing  = "probing"  // the circuit is open, and the next call, or one that runs, finds out
	StatusClosed   = "closed"   // it is called
	StatusDisabled = "disabled" // switched off, see Reason
)

// State is what is known of an endpoint.
type State struct {
	Endpoint string `json:"endpoint"`
	Label    string `json:"label,omitempty"`
	Status   string `json:"status"`

	// Reason and Since tell why and when it was switched off.
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`

	// Failures in a row.
	Failures int `json:"failures"`

	// NextProbe is when an open circuit lets a call through; PausedUntil when the endpoint asked to be called again.
	NextProbe   time.Time `json:"next_probe,omitzero"`
	PausedUntil time.Time `json:"paused_until,omitzero"`

	// Running calls, and how many ended well and badly since it is known.
	Running   int64     `json:"running"`
	Delivered int64     `json:"delivered"`
	Failed    int64     `json:"failed"`
	LastAt    time.Time `json:"last_at,omitzero"` // a call ended, or it was switched on

	// DeliveredAt and FailedAt are when a call last ended well, and badly.
	DeliveredAt time.Time `json:"delivered_at,omitzero"`
	FailedAt    time.Time `json:"failed_at,omitzero"`

	// Known tells that anything is: it was called within KeepFor, or is switched off.
	Known bool `json:"-"`
}

// State returns what is known of an endpoint; of one that was never called that is little, and no error.
func (c *Client) State(ctx context.Context, endpoint string) (State, error) {
	if err := checkName(endpoint); err != nil {
		return State{}, err
	}
	states, err := c.states(ctx, endpoint)
	if err != nil {
		return State{}, err
	}
	return states[0], nil
}

// Page returns what is known of endpoints, by name: of those after the one named, of one status if it is not empty, so many at most.
// more tells that others follow.
func (c *Client) Page(ctx context.Context, after, status string, most int) (page []State, more bool, err error) {
	names, err := c.rdb.ZRange(ctx, indexKey, 0, -1).Result()
	if err != nil {
		return nil, false, fmt.Errorf("list the endpoints: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name <= after })
	slices.Sort(names)
	for some := range slices.Chunk(names, readAtOnce) {
		states, err := c.states(ctx, some...)
		if err != nil {
			return nil, false, err
		}
		for _, s := range states {
			switch {
			case !s.Known || status != "" && s.Status != status: // forgotten, or not asked for
			case len(page) == most:
				return page, true, nil
			default:
				page = append(page, s)
			}
		}
	}
	return page, false, nil
}

// readAtOnce endpoints are read in one round trip of Page.
const readAtOnce = 200

// List returns what is known of all endpoints that were called lately, and of those that are switched off, the latter last.
func (c *Client) List(ctx context.Context) ([]State, error) {
	names, err := c.rdb.ZRange(ctx, indexKey, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list the endpoints: %w", err)
	}
	return c.states(ctx, names...)
}

func (c *Client) states(ctx context.Context, names ...string) ([]State, error) {
	now := c.rdb.Time(ctx)
	if err := now.Err(); err != nil {
		return nil, fmt.Errorf("look up endpoints: %w", err)
	}
	hashes, running := make([]*redis.MapStringStringCmd, len(names)), make([]*redis.IntCmd, len(names))
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, name := range names {
			hashes[i] = p.HGetAll(ctx, statePrefix+name)
			running[i] = p.ZCount(ctx, callsPrefix+name, "("+strconv.FormatInt(now.Val().UnixMilli(), 10), "+inf")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up endpoints: %w", err)
	}
	states := make([]State, len(names))
	for i, name := range names {
		states[i] = stateOf(name, hashes[i].Val(), now.Val())
		states[i].Running = running[i].Val()
	}
	return states, nil
}

func stateOf(endpoint string, fields map[string]string, now time.Time) State {
	number := func(name string) int64 {
		f, _ := strconv.ParseFloat(fields[name], 64)
		return int64(f)
	}
	moment := func(name string) time.Time {
		if ms := number(name); ms > 0 {
			return time.UnixMilli(ms).UTC()
		}
		return time.Time{}
	}
	s := State{
		Endpoint: endpoint, Label: fields["label"], Status: StatusClosed, Failures: int(number("failures")),
		Delivered: number("delivered"), Failed: number("failed"), LastAt: moment("last_at"),
		DeliveredAt: moment("delivered_at"), FailedAt: moment("failed_at"), Known: len(fields) > 0,
	}
	if paused := moment("paused"); paused.After(now) {
		s.PausedUntil = paused
	}
	if number("opened") > 0 {
		s.Status, s.NextProbe = StatusOpen, moment("until")
		if !s.NextProbe.After(now) {
			s.Status = StatusProbing
		}
	}
	if reason, off := fields["disabled"]; off {
		s.Status, s.Reason, s.Since = StatusDisabled, reason, moment("disabled_at")
	}
	return s
}

// Attempts returns an endpoint's last attempts, the newest first, so many at most; 0 is all that are kept.
func (c *Client) Attempts(ctx context.Context, endpoint string, most int) ([]Attempt, error) {
	if err := checkName(endpoint); err != nil {
		return nil, err
	}
	list, err := c.rdb.LRange(ctx, attemptsPrefix+endpoint, 0, int64(most)-1).Result()
	if err != nil {
		return nil, fmt.Errorf("read the attempts of endpoint %s: %w", endpoint, err)
	}
	attempts := make([]Attempt, len(list))
	for i, text := range list {
		if err := json.Unmarshal([]byte(text), &attempts[i]); err != nil {
			return nil, fmt.Errorf("read the attempts of endpoint %s: number %d: %w", endpoint, i, err)
		}
	}
	return attempts, nil
}
