package webhook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// publishTimeout bounds the wait for Redis: Slack gives up after 3 s, and then sends again anyway.
const publishTimeout = 2500 * time.Millisecond

// Receiver is the http.Handler of POST /hooks/{name}. It is safe for concurrent use.
type Receiver struct {
	hooks     map[string]*hook
	publisher events.Publisher
	log       *slog.Logger
	observer  Observer
	now       func() time.Time // the clock, for signed times
	unknown   whisper
	room      room
}

// hook is one address, ready.
type hook struct {
	Hook
	scheme  scheme
	keyring *keyring
	refused whisper
}

// scheme is how one kind of provider signs and what its deliveries mean.
type scheme interface {
	// claim reads what the headers say, before a byte of the body is read.
	claim(h http.Header, now time.Time) (*claim, error)
	// event says what happened, of a delivery that is proven; or what the provider awaits instead of a stored event.
	event(d *delivery) (*events.Event, *reply, error)
	// stored is what the provider awaits once the event is.
	stored(e *events.Event, duplicate bool) *reply
}

// delivery is a request whose claim is proven.
type delivery struct {
	hook   *hook
	header http.Header
	claim  *claim
	body   []byte
	now    time.Time
}

// New returns the receiver of the hooks. A nil log is slog.Default(), a nil observer none. The error reports every fault at once.
func New(hooks Hooks, publisher events.Publisher, log *slog.Logger, observer Observer) (*Receiver, error) {
	if log == nil {
		log = slog.Default()
	}
	if err := hooks.Validate(); err != nil {
		return nil, err
	}
	r := &Receiver{hooks: make(map[string]*hook, len(hooks)), publisher: publisher, log: log, observer: observer, now: time.Now, room: make(room, maxInWork)}
	var faults []error
	for i, cfg := range hooks.WithDefaults() {
		ring, err := newKeyring(cfg, log)
		if err != nil {
			faults = append(faults, fmt.Errorf("hooks[%d]%s: %w", i, cfg.label(), err))
			continue
		}
		if cfg.Kind == None {
			ring.fixed = []key{openDoor{}}
			log.Warn("hook takes events from anyone, nothing is signed there", "hook", cfg.Name)
		}
		r.hooks[cfg.Name] = &hook{Hook: cfg, scheme: newScheme(cfg), keyring: ring}
	}
	return r, errors.Join(faults...)
}

func newScheme(h Hook) scheme {
	switch h.Kind {
	case GitHub:
		return githubScheme{}
	case Slack:
		return slackScheme{tolerance: h.Tolerance}
	case Stripe:
		return stripeScheme{tolerance: h.Tolerance}
	case Standard:
		return standardScheme{tolerance: h.Tolerance, mapping: h.Event}
	default:
		return newGenericScheme(h)
	}
}

// Names are the hooks there are.
func (r *Receiver) Names() []string {
	names := make([]string, 0, len(r.hooks))
	for name := range r.hooks {
		names = append(names, name)
	}
	return names
}

// ServeHTTP takes the name from the pattern's {name}, else from a path /hooks/NAME.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	begin := time.Now()
	h := r.hooks[nameOf(req)]
	a := Answer{}
	if h != nil {
		a.Hook, a.Kind = h.Name, h.Kind
	}
	answer, err := r.receive(w, req, h, &a)
	if err != nil {
		var why *refusal
		if !errors.As(err, &why) {
			why = &refusal{outcome: Unavailable, reason: "the delivery could not be handled", cause: err}
		}
		p := problemOf(why.outcome)
		if why.outcome == BadMethod {
			w.Header().Set("Allow", http.MethodPost)
		}
		a.Outcome, a.Status = why.outcome, p.Status
		r.tell(req.Context(), h, a, why)
		problem.Write(w, p)
	} else {
		a.Status = answer.status
		answer.write(w)
	}
	if r.observer != nil {
		a.Took = time.Since(begin)
		r.observer.HookAnswered(a)
	}
}

func nameOf(req *http.Request) string {
	if name := req.PathValue("name"); name != "" {
		return name
	}
	name, _ := strings.CutPrefix(req.URL.Path, "/hooks/")
	return name
}

// receive goes from the cheap to the dear: a stranger costs a look at the headers, one that has no key a body and a hash, and only
// who is proven costs Redis.
func (r *Receiver) receive(w http.ResponseWriter, req *http.Request, h *hook, a *Answer) (*reply, error) {
	if h == nil {
		return nil, refuse(UnknownHook, "no hook has this name")
	}
	if req.Method != http.MethodPost {
		return nil, refuse(BadMethod, "a "+req.Method+" is no delivery")
	}
	now := r.now()
	c, err := h.scheme.claim(req.Header, now)
	if err != nil {
		return nil, err
	}
	body, err := h.read(w, req)
	a.Bytes = len(body)
	if err != nil {
		return nil, err
	}
	// With the body at hand: who sends it slowly takes nobody's room.
	if !r.room.enter() {
		return nil, refuse(Overloaded, "more deliveries are in work than the receiver takes at once")
	}
	defer r.room.leave()
	if !c.proven(h.keyring.keys(now), body) {
		return nil, refuse(BadSignature, "no secret of the hook makes this signature: another secret, or another body than the one signed")
	}
	d := &delivery{hook: h, header: req.Header, claim: c, body: body, now: now}
	event, direct, err := h.scheme.event(d)
	if err != nil {
		return nil, err
	}
	if direct != nil {
		a.Outcome = Answered
		return direct, nil
	}
	d.complete(event)
	published, err := r.publish(req.Context(), event)
	switch {
	case req.Context().Err() != nil && err != nil:
		return nil, refuse(Incomplete, "the sender went away before the event was stored")
	case err != nil:
		return nil, publishRefusal(err)
	}
	a.Outcome = Stored
	if published.Duplicate {
		a.Outcome = Duplicate
	}
	return h.scheme.stored(event, published.Duplicate), nil
}

// read returns the body as it came: that is what was signed.
func (h *hook) read(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	if e := req.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return nil, refuse(BadEncoding, "the body is compressed")
	}
	if req.ContentLength > h.MaxBodyBytes {
		return nil, refuse(TooLarge, "the body is larger than max_body_bytes")
	}
	body, err := readAll(http.MaxBytesReader(w, req.Body, h.MaxBodyBytes), req.ContentLength, h.MaxBodyBytes)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return body, refuse(TooLarge, "the body is larger than max_body_bytes, or than the server's own limit")
	case err != nil:
		return body, &refusal{outcome: Incomplete, reason: "the body broke off", cause: withoutEOF(err)}
	}
	return body, nil
}

// firstBuffer is what a sender gets on his word: a large Content-Length alone costs nothing more.
const firstBuffer = 64 << 10

// readAll takes up twice the limit at most, while it moves to its last buffer. Of the size that the sender has told, it believes eight
// times what has come.
func readAll(r io.Reader, told, limit int64) ([]byte, error) {
	body := make([]byte, 0, min(max(told, 511), firstBuffer)+1)
	for {
		if len(body) == cap(body) {
			size := min(2*int64(cap(body)), limit+1)
			if told > int64(len(body)) {
				size = min(told+1, 8*int64(cap(body)))
			}
			body = append(make([]byte, 0, max(size, int64(len(body))+1)), body...)
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return body, err
		}
	}
}

func withoutEOF(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // the reason says it
	}
	return err
}

// complete adds what is the same for all schemes.
func (d *delivery) complete(e *events.Event) {
	h := d.hook
	if h.Source != "" {
		e.Source = h.Source
	} else if e.Source == "" {
		e.Source = "/hooks/" + h.Name
	}
	e.Type = h.TypePrefix + "." + e.Type
	d.extend(e, "hook", h.Name)
	if h.DedupeBy == byBody {
		d.extend(e, "deliveryid", e.ID)
		e.ID = bodyDigest(d.body)
	}
	if e.ID == "" {
		e.ID = uuid.NewString()
	}
	if e.Time.IsZero() {
		e.Time = d.claim.at
	}
	if e.Time.IsZero() {
		e.Time = d.now.UTC()
	}
}

// extend adds an extension attribute, if there is something to tell.
func (d *delivery) extend(e *events.Event, name, value string) {
	if value = clean(value, 256); value == "" {
		return
	}
	if e.Extensions == nil {
		e.Extensions = make(map[string]any)
	}
	e.Extensions[name] = value
}

// publish does not outlive the request: a provider that went away sends again, and an event that was stored meanwhile is stored once.
func (r *Receiver) publish(ctx context.Context, event *events.Event) (events.Published, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	outcomes, err := r.publisher.Publish(ctx, event)
	if err != nil {
		return events.Published{}, err
	}
	if len(outcomes) != 1 {
		return events.Published{}, fmt.Errorf("%d answers to one event", len(outcomes))
	}
	return outcomes[0], outcomes[0].Err
}

// tell writes into the log why a request was refused. A flood of them writes one line in a while: who is at the door must not fill
// the disk.
func (r *Receiver) tell(ctx context.Context, h *hook, a Answer, why *refusal) {
	voice := &r.unknown
	if h != nil {
		voice = &h.refused
	}
	hushed, speak := voice.speaks(r.now())
	if !speak {
		return
	}
	level := slog.LevelWarn
	if a.Status >= http.StatusInternalServerError {
		level = slog.LevelError
	} else if h == nil {
		level = slog.LevelDebug
	}
	r.log.Log(ctx, level, "hook refused", "hook", a.Hook, "outcome", string(a.Outcome), "status", a.Status, "reason", why.Error(), "unlogged", hushed)
}
