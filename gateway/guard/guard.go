package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
)

// Deps is what a Guard works with.
type Deps struct {
	Redis    redis.UniversalClient // holds the rate limits of the fleet
	Keys     *keys.Store
	Observer Observer     // counts; nil: nobody does
	Log      *slog.Logger // access log and faults; nil: slog.Default()
}

// Observer is told what happens, to count it. Its methods are called by many requests at once and must not block.
type Observer interface {
	// RequestStarted is called before, RequestDone after each request. The route is the pattern it matched, "none" where none
	// did; the method is "OTHER" if it is not a usual one: both are few.
	RequestStarted()
	RequestDone(route, method string, status int, took time.Duration)
	// Rejected is called for each request or connection that the guard itself refuses.
	Rejected(Reason)
}

// Reason is why the guard refused a request.
type Reason string

// The reasons there are.
const (
	RejectedLimit       Reason = "limit"       // 429: too many requests of an address or a key, or wrong keys
	RejectedAuth        Reason = "auth"        // 401, 403: no key, a wrong one, or one without the scope
	RejectedSize        Reason = "size"        // 413: the body is too large
	RejectedBusy        Reason = "busy"        // 503: keys cannot be checked, Redis is away; or large bodies take up too much
	RejectedOther       Reason = "other"       // 415: the body's encoding is not known
	RejectedConnections Reason = "connections" // closed without an answer: too many connections
)

// Reasons returns all of them.
func Reasons() []Reason {
	return []Reason{RejectedLimit, RejectedAuth, RejectedSize, RejectedBusy, RejectedOther, RejectedConnections}
}

// Guard protects handlers. One is enough for a process.
type Guard struct {
	cfg      Config
	keys     *keys.Store
	observer Observer
	log      *slog.Logger
	proxies  proxies
	limits   *limiter
	conns    *connections
	bodies   bodies

	keyQuota, addressQuota, failureQuota quota
}

// failuresAtOnce is how many wrong keys an address may show before Config.FailureRate counts.
const failuresAtOnce = 20

// New returns a Guard. The error tells every fault of cfg.
func New(cfg Config, deps Deps) (*Guard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if deps.Redis == nil || deps.Keys == nil {
		return nil, errors.New("guard: needs Redis and Keys")
	}
	if deps.Observer == nil {
		deps.Observer = nobody{}
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	cfg = cfg.WithDefaults()
	g := &Guard{
		cfg: cfg, keys: deps.Keys, observer: deps.Observer, log: deps.Log,
		proxies:      parseProxies(cfg.TrustedProxies),
		limits:       newLimiter(deps.Redis, deps.Log),
		keyQuota:     newQuota(cfg.Rate, cfg.Burst),
		addressQuota: newQuota(cfg.AddressRate, cfg.AddressBurst),
		failureQuota: quota{rate: cfg.FailureRate, size: failuresAtOnce},
	}
	g.bodies.most = cfg.MaxBodiesBytes
	g.conns = newConnections(cfg, g.proxies, deps.Observer)
	return g, nil
}

type nobody struct{}

func (nobody) RequestStarted()                                {}
func (nobody) RequestDone(string, string, int, time.Duration) {}
func (nobody) Rejected(Reason)                                {}
