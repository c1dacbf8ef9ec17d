package events

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// ErrReplay is in every error about a replay that can't be done as it is asked for.
var ErrReplay = errors.New("invalid replay")

// ReplayRequest says which events are to be published again, as copies, and for whom.
type ReplayRequest struct {
	ID       string    `json:"id,omitempty" jsonschema:"names the replay: the same id again goes on where it was, and stores nothing twice; made up if left out"`
	From     time.Time `json:"from,omitzero" jsonschema:"first time of storing, included; the oldest kept event if left out"`
	Until    time.Time `json:"until,omitzero" jsonschema:"last time of storing, not included; the newest event at the start if left out"`
	StreamID string    `json:"stream_id,omitempty" jsonschema:"replay the one event at this place on the stream, instead of a range"`
	Type     string    `json:"type,omitempty" jsonschema:"pattern of event types, such as com.acme.*.received; all if left out"`
	Source   string    `json:"source,omitempty" jsonschema:"only events of this source"`
	Subject  string    `json:"subject,omitempty" jsonschema:"only events of this subject"`
	Trigger  string    `json:"trigger,omitempty" jsonschema:"the only trigger that shall see the copies; all if left out"`
	Rate     float64   `json:"rate,omitempty" jsonschema:"events a second at most; as fast as it goes if left out or 0"`
	Copies   bool      `json:"copies,omitempty" jsonschema:"replay also what are copies of other replays; they are passed over if left out"`
}

// ReplayProgress is how far a replay has come.
type ReplayProgress struct {
	ID   string `json:"id"`
	Done bool   `json:"done"`
	// At is the last place on the stream that was looked at, Until the last one that will be.
	At    string `json:"at"`
	Until string `json:"until"`

	LookedAt   int64 `json:"looked_at"`
	Published  int64 `json:"published"`
	Duplicates int64 `json:"duplicates"` // published before, by a run that was cut
	Refused    int64 `json:"refused"`    // not published, for the reason in Refusal, such as a copy that is too large
	// Refusal is the reason of the last one refused.
	Refusal string `json:"refusal,omitempty"`
	// Trimmed tells that events of the range may have been trimmed while the replay ran.
	Trimmed bool `json:"trimmed,omitempty"`
}

// replayKept is how long the progress of a replay is remembered after its last step.
const replayKept = 7 * 24 * time.Hour

// Replay publishes copies of past events: with an id derived from the replay's and the event's own, the extensions replayof, replayid and,
// for one trigger, replaytrigger, and all else as it was. It ends with the newest event there was when the replay began first.
//
// Progress is kept in Redis, and told to the function, if there is one, after each step. When Replay ends early, by an error or a crash,
// the same request again goes on where it was; what it has published already is stored once, within Config.DedupeWindow. The error is an
// [ErrReplay], [ErrNotFound], ErrFull, ctx's, or a fault of Redis.
func (c *Client) Replay(ctx context.Context, r ReplayRequest, progress func(ReplayProgress)) (ReplayProgress, error) {
	run, err := c.beginReplay(ctx, r)
	if err != nil {
		return ReplayProgress{}, fmt.Errorf("replay events: %w", err)
	}
	run.tell = progress
	for !run.Done && err == nil {
		err = run.step(ctx)
	}
	if err != nil {
		return run.ReplayProgress, fmt.Errorf("replay events: %w", err)
	}
	return run.ReplayProgress, nil
}

// ReplayProgress returns how far a replay has come; [ErrNotFound] if there was none of that id within a week.
func (c *Client) ReplayProgress(ctx context.Context, id string) (ReplayProgress, error) {
	kept, err := c.readReplay(ctx, id)
	if err != nil {
		return ReplayProgress{}, fmt.Errorf("read progress of replay %q: %w", id, err)
	}
	return kept.ReplayProgress, nil
}

// replayRun is a replay under way.
type replayRun struct {
	keptReplay
	client  *Client
	request ReplayRequest
	filter  filter
	scan    *scanner
	next    time.Time // when the rate allows the next event
	tell    func(ReplayProgress)
}

// keptReplay is what Redis remembers of a replay.
type keptReplay struct {
	ReplayProgress
	Request ReplayRequest `json:"request"`
}

// Validate reports every fault at once; the error is an [ErrReplay].
func (r ReplayRequest) Validate() error {
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	for _, limit := range []struct {
		name, value string
		most        int
	}{{"id", r.ID, 128}, {"source", r.Source, maxSource}, {"subject", r.Subject, maxSubject}, {"trigger", r.Trigger, 256}} {
		faults = text(faults, limit.name, limit.value, limit.most)
	}
	if r.Type != "" {
		if err := ValidatePattern(r.Type); err != nil {
			faults = append(faults, fmt.Errorf("type: %w", err))
		}
	}
	if r.StreamID != "" {
		_, err := parsePlace(r.StreamID)
		check(err == nil, "stream_id: %w", err)
		check(r.From.IsZero() && r.Until.IsZero(), "stream_id: names one event, from and until a range: give one of the two")
	}
	check(r.From.IsZero() || r.Until.IsZero() || r.From.Before(r.Until), "until: is not after from")
	check(r.Rate >= 0 && r.Rate <= 1e6, "rate: is %v, 0 to 1000000 events a second are allowed", r.Rate)
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrReplay, errors.Join(faults...))
}

// beginReplay fixes the end of the range, or takes up an earlier run.
func (c *Client) beginReplay(ctx context.Context, r ReplayRequest) (*replayRun, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	if r.ID == "" {
		return nil, fmt.Errorf("%w: id: is missing", ErrReplay)
	}
	first, last, err := c.replayRange(ctx, r)
	if err != nil {
		return nil, err
	}
	kept := keptReplay{Request: r, ReplayProgress: ReplayProgress{ID: r.ID, Until: last.String()}}
	if first != (place{}) {
		kept.At = first.previous().String()
	} else {
		kept.At = Beginning
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return nil, err
	}
	isNew, err := c.rdb.SetNX(ctx, c.keys.replay+r.ID, b, replayKept).Result()
	if err != nil {
		return nil, err
	}
	if !isNew {
		if kept, err = c.readReplay(ctx, r.ID); err != nil {
			return nil, err
		}
		if !kept.Request.same(r) {
			return nil, fmt.Errorf("%w: id: %q was used for a replay of something else: choose another one", ErrReplay, r.ID)
		}
	}
	f, err := newFilter(r.Type, r.Source, r.Subject)
	if err != nil {
		return nil, err
	}
	run := &replayRun{keptReplay: kept, client: c, request: r, filter: f, next: time.Now()}
	at, errAt := parsePlace(kept.At)
	until, errUntil := parsePlace(kept.Until)
	if err := cmp.Or(errAt, errUntil); err != nil {
		return nil, err
	}
	run.scan = &scanner{client: c, first: at.next(), last: until}
	return run, nil
}

// replayRange is the range asked for, up to the newest event that there is now.
func (c *Client) replayRange(ctx context.Context, r ReplayRequest) (first, last place, err error) {
	if r.StreamID != "" {
		if _, err := c.Get(ctx, r.StreamID); err != nil {
			return place{}, place{}, err
		}
		first, err = parsePlace(r.StreamID)
		return first, first, err
	}
	if last, err = c.newest(ctx); err != nil {
		return place{}, place{}, err
	}
	if !r.From.IsZero() {
		first = firstAt(r.From)
	}
	if !r.Until.IsZero() {
		if end := lastBefore(r.Until); end.before(last) {
			last = end
		}
	}
	return first, last, nil
}

// same tells whether two requests ask for the same copies. Their rates may differ.
func (r ReplayRequest) same(other ReplayRequest) bool {
	same := r.From.Equal(other.From) && r.Until.Equal(other.Until)
	r.From, r.Until, r.Rate = other.From, other.Until, other.Rate
	return same && r == other
}

func (c *Client) readReplay(ctx context.Context, id string) (keptReplay, error) {
	var kept keptReplay
	b, err := c.rdb.Get(ctx, c.keys.replay+id).Bytes()
	if errors.Is(err, redis.Nil) {
		return kept, ErrNotFound
	}
	if err != nil {
		return kept, err
	}
	return kept, json.Unmarshal(b, &kept)
}

// step replays what one read brings.
func (run *replayRun) step(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	found, err := run.scan.read(ctx, paceCounts)
	if err != nil {
		return err
	}
	if err := run.noteTrimming(ctx); err != nil {
		return err
	}
	for len(found) > 0 {
		copies, n := run.copies(found)
		if len(copies) > 0 {
			if err := run.publish(ctx, copies); err != nil {
				return err
			}
		}
		run.LookedAt += int64(n)
		run.At = found[n-1].ID
		if found = found[n:]; len(found) > 0 {
			if err := run.save(ctx); err != nil {
				return err
			}
		}
	}
	run.Done = run.scan.ended()
	return run.save(ctx)
}

// copies makes those of the first n entries, no more than the rate lets go at once.
func (run *replayRun) copies(found []redis.XMessage) (copies []*Event, n int) {
	most := 100
	if run.request.Rate > 0 {
		most = min(most, max(1, int(run.request.Rate/10)))
	}
	for n < len(found) && len(copies) < most {
		e := Entry{StreamID: found[n].ID}
		e.Event, e.Err = decodeEntry(found[n].Values)
		n++
		if e.Event != nil && run.filter.match(e) && run.wants(e.Event) {
			copies = append(copies, run.request.copyOf(e.Event))
		}
	}
	return copies, n
}

// wants passes over copies: a replay of a range that holds an earlier replay's copies would double each event.
func (run *replayRun) wants(e *Event) bool {
	id, _ := e.Extensions[ExtensionReplayID].(string)
	return id == "" || run.request.Copies && id != run.ID
}

// replays is the namespace of replays' ids.
var replays = uuid.MustParse("5f1b6a52-2f0e-4c8f-9d5c-6c1e0b1f3a77")

// copyOf returns the copy of an event. Its id is the same in every run of the replay.
func (r ReplayRequest) copyOf(e *Event) *Event {
	c := *e
	space := uuid.NewSHA1(replays, []byte(r.ID))
	c.ID = uuid.NewSHA1(space, []byte(strconv.Itoa(len(e.Source))+":"+e.Source+e.ID)).String()
	c.Extensions = make(map[string]any, len(e.Extensions)+3)
	maps.Copy(c.Extensions, e.Extensions)
	c.Extensions[ExtensionReplayOf] = e.ID
	c.Extensions[ExtensionReplayID] = r.ID
	delete(c.Extensions, ExtensionReplayTrigger)
	if r.Trigger != "" {
		c.Extensions[ExtensionReplayTrigger] = r.Trigger
	}
	return &c
}

func (run *replayRun) publish(ctx context.Context, copies []*Event) error {
	if err := run.waitForRate(ctx, len(copies)); err != nil {
		return err
	}
	outcomes, _ := run.client.Publish(ctx, copies...)
	// One that can't be stored now ends the step, and all of it comes again: nothing is counted twice.
	for _, o := range outcomes {
		if o.Err != nil && !refusedForGood(o.Err) {
			return o.Err
		}
	}
	for _, o := range outcomes {
		switch {
		case o.Err != nil:
			run.Refused++
			run.Refusal = o.Err.Error()
		case o.Duplicate:
			run.Duplicates++
		default:
			run.Published++
		}
	}
	return nil
}

func refusedForGood(err error) bool { return errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge) }

// waitForRate waits for the turn of n events. After a pause it doesn't catch up.
func (run *replayRun) waitForRate(ctx context.Context, n int) error {
	if run.request.Rate == 0 {
		return nil
	}
	if wait := time.Until(run.next); wait > 0 {
		if !sleep(ctx.Done(), wait) {
			return ctx.Err()
		}
	} else {
		run.next = time.Now()
	}
	run.next = run.next.Add(time.Duration(math.Min(float64(n)/run.request.Rate*float64(time.Second), float64(24*time.Hour))))
	return nil
}

// noteTrimming tells when the stream begins after the place that the replay had come to.
func (run *replayRun) noteTrimming(ctx context.Context) error {
	if run.Trimmed || run.LookedAt == 0 {
		return nil
	}
	oldest, err := run.client.rdb.XRangeN(ctx, run.client.keys.stream, "-", "+", 1).Result()
	if err != nil {
		return err
	}
	run.Trimmed = len(oldest) == 0 && run.At != run.Until || len(oldest) > 0 && before(run.At, oldest[0].ID)
	return nil
}

func (run *replayRun) save(ctx context.Context) error {
	b, err := json.Marshal(run.keptReplay)
	if err == nil {
		err = run.client.rdb.Set(ctx, run.client.keys.replay+run.ID, b, replayKept).Err()
	}
	if err != nil {
		return fmt.Errorf("keep the progress: %w", err)
	}
	if run.tell != nil {
		run.tell(run.ReplayProgress)
	}
	return nil
}
