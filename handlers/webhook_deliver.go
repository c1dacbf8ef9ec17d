package handlers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// WebhookState is what the fleet knows of endpoints: *endpoints.Client.
type WebhookState interface {
	// Enter asks for leave to call an endpoint.
	Enter(ctx context.Context, call endpoints.Call) (endpoints.Pass, error)

	// Leave tells how the call ended.
	Leave(ctx context.Context, endpoint, token string, report endpoints.Report) (endpoints.Change, error)
}

// Webhooks runs webhook:deliver and webhook:fanout.
type Webhooks struct {
	cfg       WebhookConfig
	targets   map[string]*webhookTarget
	signers   map[string]*webhookSigner
	transport *http.Transport
	state     WebhookState
	jobs      *job.Client
	logger    *slog.Logger
}

// NewWebhooks returns a handler that keeps connections open between jobs; it fails if cfg does not validate. It uses Jobs, Endpoints and
// Logger of deps.
func NewWebhooks(cfg WebhookConfig, deps Deps) (*Webhooks, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("webhooks: %w", err)
	}
	cfg = cfg.WithDefaults()
	allow, _ := parseAllow(cfg.Allow)
	w := &Webhooks{
		cfg: cfg, targets: cfg.targets(), signers: cfg.signers(), transport: newGuard(allow, "handlers.webhooks.allow").transport(),
		state: deps.Endpoints, jobs: deps.Jobs, logger: deps.Logger,
	}
	if w.logger == nil {
		w.logger = slog.Default()
	}
	return w, w.checkSecrets()
}

// checkSecrets says at the start what would fail each delivery.
func (w *Webhooks) checkSecrets() error {
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(w.targets)) {
		if _, err := w.targets[name].secrets.keys(); err != nil {
			faults = append(faults, fmt.Errorf("webhooks: endpoint %s: %w", name, err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.signers)) {
		if _, err := w.signers[name].secrets.keys(); err != nil {
			faults = append(faults, fmt.Errorf("webhooks: signer %s: %w", name, err))
		}
	}
	return errors.Join(faults...)
}

// Close drops the idle connections.
func (w *Webhooks) Close() { w.transport.CloseIdleConnections() }

// Deliver makes one attempt, if the endpoint may be called now; else the job is put off, which spends none. What it returns as error, and
// so what is logged, holds neither paths, queries, secrets, headers nor anything else of the payload.
func (w *Webhooks) Deliver(ctx context.Context, p tasks.WebhookDelivery) error {
	if w.state == nil {
		return errors.New("webhook:deliver: nobody keeps the state of endpoints: set Endpoints in what handlers.Routes is given")
	}
	d, err := w.delivery(ctx, p)
	if err != nil {
		return err
	}
	pass, err := w.state.Enter(ctx, endpoints.Call{
		Endpoint: d.target.id, Label: origin(d.target.url), Lease: d.target.timeout + leaseBeyond, Rate: d.target.rate,
	})
	switch {
	case err != nil:
		w.logger.WarnContext(ctx, "webhook put off, the endpoint's state is unknown", "endpoint", d.target.id, "err", err)
		return fmt.Errorf("%s: %w: %w", d.told, err, job.Snooze(stateWait))
	case pass.Disabled != "":
		return job.Discard(fmt.Sprintf("%s is switched off: %s: enable it, then run its dead jobs again", d.told, pass.Disabled))
	case pass.Token == "":
		return fmt.Errorf("%s: not called now (%s): %w", d.told, pass.Why, job.Snooze(pass.Wait))
	}
	a := w.call(ctx, d)
	w.report(ctx, d, pass, a)
	return a.verdict(d)
}

const (
	// leaseBeyond is how much later than its timeout a call counts as over whose worker is gone.
	leaseBeyond = 30 * time.Second

	// stateWait is how long a job is put off while Redis does not answer.
	stateWait = 5 * time.Second
)

// delivery is one attempt of webhook:deliver.
type delivery struct {
	job     *job.Job
	target  *webhookTarget
	told    string // of the target, in errors
	message *webhookMessage
	keys    []signingKey
}

func (w *Webhooks) delivery(ctx context.Context, p tasks.WebhookDelivery) (*delivery, error) {
	j, ok := job.FromContext(ctx)
	if !ok {
		return nil, errors.New("webhook:deliver: no job in the context")
	}
	target, err := w.target(p)
	if err != nil {
		return nil, err
	}
	d := &delivery{job: j, target: target, told: fmt.Sprintf("%s (%s)", target.name, origin(target.url))}
	if target.disabled {
		return nil, job.Discard(d.told + " is disabled in handlers.webhooks.endpoints: enable it there, then run its dead jobs again")
	}
	send := target.send
	if p.Send != "" {
		send = p.Send
	}
	if d.message, err = newWebhookMessage(ctx, p.Event, p.JSON, send); err != nil {
		return nil, job.Discard(err.Error())
	}
	if d.keys, err = target.secrets.keys(); err != nil {
		return nil, fmt.Errorf("%s: %w", d.told, err)
	}
	return d, nil
}

// target is a configured endpoint or the address that the job brings along.
func (w *Webhooks) target(p tasks.WebhookDelivery) (*webhookTarget, error) {
	switch {
	case p.Endpoint != "" && (p.URL != "" || p.Signer != ""):
		return nil, job.Discard("endpoint and url are both given: an endpoint has its own url and secrets, leave one of them out")
	case p.Endpoint != "":
		if t := w.targets[p.Endpoint]; t != nil {
			return t, nil
		}
		// Not final: a worker that runs with the last configuration may have taken the job.
		return nil, fmt.Errorf("endpoint: %.40q is not in handlers.webhooks.endpoints of this worker%s", p.Endpoint, known(w.targets))
	case p.URL == "":
		return nil, job.Discard("neither endpoint nor url is given: name one of handlers.webhooks.endpoints, or give url and signer")
	}
	u, err := parseTarget(p.URL)
	if err != nil {
		return nil, job.Discard("url: " + err.Error())
	}
	if p.Signer == "" {
		return nil, job.Discard("signer: is not given: name one of handlers.webhooks.signers to sign the delivery with")
	}
	s := w.signers[p.Signer]
	if s == nil {
		return nil, fmt.Errorf("signer: %.40q is not in handlers.webhooks.signers of this worker%s", p.Signer, known(w.signers))
	}
	if !s.signsFor(u.Scheme, u.Hostname(), u.Port()) {
		return nil, job.Discard(fmt.Sprintf("signer: %s does not sign for %s: add it to the signer's hosts if it should", p.Signer, u.Host))
	}
	sum := sha256.Sum256([]byte(p.Signer + "\x00" + u.String()))
	return &webhookTarget{
		id: "url:" + hex.EncodeToString(sum[:12]), name: "url", url: u, secrets: s.secrets, send: sendEvent, timeout: w.cfg.Timeout,
	}, nil
}

const maxKnown = 10

func known[T any](all map[string]T) string {
	names := slices.Sorted(maps.Keys(all))
	switch n := len(names); {
	case n == 0:
		return ": there is none"
	case n > maxKnown:
		return fmt.Sprintf(": it has %s and %d more", strings.Join(names[:maxKnown], ", "), n-maxKnown)
	}
	return ": it has " + strings.Join(names, ", ")
}

func (s *webhookSigner) signsFor(scheme, host, service string) bool {
	port := uint16(80)
	if scheme == "https" {
		port = 443
	}
	if service != "" {
		n, err := strconv.ParseUint(service, 10, 16)
		if err != nil {
			return false
		}
		port = uint16(n)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return s.hosts.hasAddress(netip.AddrPortFrom(a.Unmap().WithZone(""), port))
	}
	return s.hosts.hasName(host, port)
}

// answer is how a call ended.
type answer struct {
	at      time.Time
	took    time.Duration
	status  int           // 0: there was none
	after   time.Duration // what Retry-After says; 0: nothing
	body    string        // its beginning, without secrets
	problem string        // instead of a status
	stopped error         // the job was, by its own worker
	refused bool          // the address is private
}

// told bytes of an answer are kept.
const toldOfAnswer = 512

func (w *Webhooks) call(ctx context.Context, d *delivery) answer {
	during, cancel := context.WithTimeout(ctx, d.target.timeout)
	defer cancel()
	a := answer{at: time.Now()}
	request, err := w.request(during, d, a.at)
	if err != nil {
		a.problem = "the request can't be made"
		return a
	}
	client := http.Client{
		Transport:     w.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the address is signed for as it is
	}
	resp, err := client.Do(request)
	a.took = time.Since(a.at)
	if err != nil {
		a.failed(ctx, during, d, request, err)
		return a
	}
	defer resp.Body.Close()
	body := bodyOfError(resp)
	a.took, a.status = time.Since(a.at), resp.StatusCode
	a.after, _ = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	a.body = d.secrets(request).mask(string(body), toldOfAnswer)
	return a
}

func (w *Webhooks) request(ctx context.Context, d *delivery, now time.Time) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.target.url.String(), bytes.NewReader(d.message.body))
	if err != nil {
		return nil, err
	}
	maps.Copy(r.Header, d.message.headers)
	for name, value := range d.target.headers {
		r.Header.Set(name, value)
	}
	r.Header.Set("User-Agent", w.cfg.UserAgent)
	if trace := d.job.Headers["traceparent"]; trace != "" {
		setDefault(r.Header, "Traceparent", headerSafe(trace))
		setDefault(r.Header, "Tracestate", d.job.Headers["tracestate"])
	}
	d.message.sign(r.Header, d.keys, now)
	return r, nil
}

// failed tells why there was no answer.
func (a *answer) failed(ctx, during context.Context, d *delivery, r *http.Request, err error) {
	var address *refusedError
	switch {
	case errors.As(err, &address):
		a.refused, a.problem = true, address.Error()
	case errors.Is(ctx.Err(), context.Canceled):
		a.stopped, a.problem = ctx.Err(), "the job was stopped"
	case during.Err() != nil:
		a.problem = fmt.Sprintf("no whole answer within %v", a.took.Round(time.Millisecond))
	default:
		a.problem = describe(err, d.secrets(r))
	}
}

// secrets are what must not come back in an error, or be kept.
func (d *delivery) secrets(r *http.Request) secrets {
	s := newSecrets()
	s.addURL(d.target.url)
	s.addHeaders(r.Header)
	s.addJSON(d.message.body)
	for _, secret := range d.keys {
		s.add(secret.text)
		s.add(strings.TrimPrefix(secret.text, secretPrefix))
	}
	return s
}

func (w *Webhooks) report(ctx context.Context, d *delivery, pass endpoints.Pass, a answer) {
	// The call has been made, whatever became of the job meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stateWait)
	defer cancel()
	change, err := w.state.Leave(ctx, d.target.id, pass.Token, a.report(d))
	log := w.logger.With("endpoint", d.target.id, "host", d.target.url.Host)
	switch {
	case err != nil:
		log.WarnContext(ctx, "webhook attempt not kept", "job", d.job.ID, "err", err)
	case change.What == "opened":
		log.WarnContext(ctx, "webhook endpoint fails, its circuit is open", "for", change.For, "err", a.tell())
	case change.What == "closed":
		log.InfoContext(ctx, "webhook endpoint is back, its circuit is closed")
	case change.What == "disabled":
		log.WarnContext(ctx, "webhook endpoint switched off, it wants no more", "err", a.tell())
	}
}
