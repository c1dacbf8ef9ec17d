package keys

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// Scope is a thing that a key's holder may do.
type Scope string

// The scopes there are.
const (
	Publish Scope = "publish" // publish events
	Enqueue Scope = "enqueue" // enqueue and cancel jobs
	Read    Scope = "read"    // look at events, jobs and tasks
	Admin   Scope = "admin"   // all of the others; replay events, change triggers
)

// Scopes returns all of them.
func Scopes() []Scope { return []Scope{Publish, Enqueue, Read, Admin} }

// ParseScopes reads "publish,enqueue". Spaces and repetitions do no harm, an unknown scope does.
func ParseScopes(text string) ([]Scope, error) {
	var scopes []Scope
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			scopes = append(scopes, Scope(name))
		}
	}
	return cleanScopes(scopes)
}

func cleanScopes(scopes []Scope) ([]Scope, error) {
	if len(scopes) == 0 {
		return nil, errors.New("a key needs a scope: name publish, enqueue, read or admin")
	}
	var clean []Scope
	for _, known := range Scopes() {
		if slices.Contains(scopes, known) {
			clean = append(clean, known)
		}
	}
	for _, s := range scopes {
		if !slices.Contains(clean, s) {
			return nil, fmt.Errorf("there are the scopes publish, enqueue, read and admin, but no %q%s", s, suggest.DidYouMean(string(s), names()))
		}
	}
	return clean, nil
}

func names() []string {
	var names []string
	for _, s := range Scopes() {
		names = append(names, string(s))
	}
	return names
}

// Key is what is known of an API key. Its token is not.
type Key struct {
	ID      string    `json:"id"`   // 12 letters and digits; no secret: it stands in logs
	Name    string    `json:"name"` // whose it is, for people; up to 100 characters
	Scopes  []Scope   `json:"scopes"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
	// LastUsed is exact to a minute; zero: never used. Verify leaves it out, List has it.
	LastUsed time.Time `json:"last_used,omitzero"`
	// Rate is how many requests a second the key may make in the whole fleet; 0: the gateway's default.
	Rate float64 `json:"rate,omitzero"`
}

// Allows tells whether the key has the scope. Admin has all.
func (k Key) Allows(s Scope) bool {
	return slices.Contains(k.Scopes, s) || slices.Contains(k.Scopes, Admin)
}

// Expired tells whether the key has ended.
func (k Key) Expired(now time.Time) bool { return !k.Expires.IsZero() && !now.Before(k.Expires) }

const maxNameLength = 100

// validate checks what somebody asks for.
func (k Key) validate(now time.Time) error {
	var faults []error
	switch {
	case strings.TrimSpace(k.Name) == "":
		faults = append(faults, errors.New("a key needs a name: say whose it is"))
	case len(k.Name) > maxNameLength:
		faults = append(faults, fmt.Errorf("the name has %d bytes, at most %d are allowed", len(k.Name), maxNameLength))
	case strings.ContainsFunc(k.Name, func(r rune) bool { return !unicode.IsPrint(r) }):
		faults = append(faults, fmt.Errorf("the name %q has characters that cannot be printed", k.Name))
	}
	if _, err := cleanScopes(k.Scopes); err != nil {
		faults = append(faults, err)
	}
	if k.Expired(now) {
		faults = append(faults, fmt.Errorf("the key would end at %s, which is past", k.Expires.Format(time.RFC3339)))
	}
	if k.Rate < 0 || math.IsNaN(k.Rate) || k.Rate > MaxRate {
		faults = append(faults, fmt.Errorf("the rate is %v, 0 to %d requests a second are allowed", k.Rate, MaxRate))
	}
	return errors.Join(faults...)
}

// MaxRate is the highest rate that can be given, in requests a second.
const MaxRate = 1_000_000

type contextKey struct{}

// NewContext notes who makes the request.
func NewContext(ctx context.Context, k Key) context.Context {
	return context.WithValue(ctx, contextKey{}, k)
}

// FromContext returns who makes the request; false where no key was asked for.
func FromContext(ctx context.Context) (Key, bool) {
	k, ok := ctx.Value(contextKey{}).(Key)
	return k, ok
}
