package handlers

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/events"
)

// DefaultWebhookTimeout bounds one delivery.
const DefaultWebhookTimeout = 15 * time.Second

// maxWebhookTimeout leaves a job's two minutes room for the rest.
const maxWebhookTimeout = 90 * time.Second

// What is sent of an event.
const (
	sendEvent = "event"
	sendData  = "data"
)

// WebhookConfig says where webhook:deliver delivers to. The zero value knows no endpoint.
type WebhookConfig struct {
	// Endpoints that jobs may name.
	Endpoints []WebhookEndpoint `mapstructure:"endpoints"`

	// Signers sign deliveries to addresses that a job brings along. Default: none, and then jobs may only name endpoints.
	Signers []WebhookSigner `mapstructure:"signers"`

	// Allow lists what may be called although its address is not of the public internet, as HTTPConfig.Allow does for http:request.
	Allow []string `mapstructure:"allow"`

	// Timeout bounds one call, from dialling to the answer's end, where the endpoint has none. At most 90s; default 15s.
	Timeout time.Duration `mapstructure:"timeout"`

	// UserAgent is sent with each delivery. Default "bellhop/" and the version.
	UserAgent string `mapstructure:"user_agent"`

	// When an endpoint is given a rest, and what is kept of its attempts.
	endpoints.Config `mapstructure:",squash"`
}

// WebhookEndpoint is an address that wants events.
type WebhookEndpoint struct {
	// Name in jobs: small letters, digits and . _ - , 64 bytes at most.
	Name string `mapstructure:"name"`

	// URL to post to. Redirects are not followed.
	URL string `mapstructure:"url"`

	// Secrets sign each delivery, each of them on its own: while one replaces another, list both. They begin with whsec_ and are the
	// base64 of 24 to 64 bytes, as Standard Webhooks has it.
	Secrets []string `mapstructure:"secrets"`

	// SecretsFiles hold more of them, one a line. They are read with each delivery, so that they can be rotated without a restart.
	SecretsFiles []string `mapstructure:"secrets_files"`

	// Events are patterns of the types that webhook:fanout delivers when a job names no endpoints. Default: none.
	Events []string `mapstructure:"events"`

	// Send is "event" for the whole event as CloudEvents JSON, or "data" for its data, with its attributes as ce- headers.
	// Default: event.
	Send string `mapstructure:"send"`

	// Headers are sent with each delivery.
	Headers map[string]string `mapstructure:"headers"`

	// Timeout instead of the common one.
	Timeout time.Duration `mapstructure:"timeout"`

	// Rate is how many deliveries a second the endpoint wants at most, of the whole fleet. Default 0: no limit.
	Rate float64 `mapstructure:"rate"`

	// Disabled endpoints get nothing: jobs that name them end at once. Default: false.
	Disabled bool `mapstructure:"disabled"`
}

// WebhookSigner holds secrets for addresses that jobs bring along.
type WebhookSigner struct {
	// Name in jobs.
	Name string `mapstructure:"name"`

	// Hosts it signs for, such as hooks.example.com, *.example.com or 10.0.0.7:8080: whoever enqueues a job for an address of his own must not get
	// signatures that are good elsewhere.
	Hosts []string `mapstructure:"hosts"`

	// Secrets and SecretsFiles as those of an endpoint.
	Secrets      []string `mapstructure:"secrets"`
	SecretsFiles []string `mapstructure:"secrets_files"`
}

// WithDefaults fills what is not set.
func (c WebhookConfig) WithDefaults() WebhookConfig {
	c.Config = c.Config.WithDefaults()
	c.Timeout = cmp.Or(c.Timeout, DefaultWebhookTimeout)
	if c.UserAgent == "" {
		c.UserAgent = "bellhop/" + version()
	}
	c.Endpoints = slices.Clone(c.Endpoints)
	for i := range c.Endpoints {
		c.Endpoints[i].Send = cmp.Or(c.Endpoints[i].Send, sendEvent)
	}
	return c
}

// Validate reports every fault at once. It tells no secret.
func (c WebhookConfig) Validate() error { return errors.Join(c.faults()...) }

func (c WebhookConfig) faults() []error {
	c = c.WithDefaults()
	_, faults := parseAllow(c.Allow)
	names := make(map[string]int)
	for i, e := range c.Endpoints {
		faults = append(faults, prefixed(fmt.Sprintf("endpoints[%d]", i), e.faults())...)
		faults = append(faults, nameFault("endpoints", i, e.Name, names)...)
	}
	clear(names)
	for i, s := range c.Signers {
		faults = append(faults, prefixed(fmt.Sprintf("signers[%d]", i), s.faults())...)
		faults = append(faults, nameFault("signers", i, s.Name, names)...)
	}
	if c.Timeout < time.Millisecond || c.Timeout > maxWebhookTimeout {
		faults = append(faults, fmt.Errorf("timeout: is %v, 1ms to %v are allowed", c.Timeout, maxWebhookTimeout))
	}
	if !validHeaderValue(c.UserAgent) {
		faults = append(faults, errors.New("user_agent: has control characters, which no header may have"))
	}
	if joined, ok := c.Config.Validate().(interface{ Unwrap() []error }); ok {
		faults = append(faults, joined.Unwrap()...)
	}
	return faults
}

func prefixed(at string, faults []error) []error {
	for i, fault := range faults {
		faults[i] = fmt.Errorf("%s.%w", at, fault)
	}
	return faults
}

var endpointName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

func nameFault(list string, i int, name string, seen map[string]int) []error {
	first, twice := seen[name]
	switch {
	case !endpointName.MatchString(name):
		return []error{fmt.Errorf("%s[%d].name: %.40q is no name: write small letters, digits and . _ - , 64 at most", list, i, name)}
	case twice:
		return []error{fmt.Errorf("%s[%d].name: %q is the name of %s[%d] too, give each its own", list, i, name, list, first)}
	}
	seen[name] = i
	return nil
}

func (e WebhookEndpoint) faults() (faults []error) {
	if _, err := parseTarget(e.URL); err != nil {
		faults = append(faults, fmt.Errorf("url: %w", err))
	}
	faults = append(faults, webhookSecrets{e.Secrets, e.SecretsFiles}.faults()...)
	for i, pattern := range e.Events {
		if err := events.ValidatePattern(pattern); err != nil {
			faults = append(faults, fmt.Errorf("events[%d]: %w", i, err))
		}
	}
	if e.Send != sendEvent && e.Send != sendData {
		faults = append(faults, fmt.Errorf("send: %.20q is neither event nor data", e.Send))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		switch {
		case !isToken(name) || !validHeaderValue(e.Headers[name]):
			faults = append(faults, fmt.Errorf("headers: %.40q has a name or value that no header may have, such as a space in the name or a line break", name))
		case reservedHeader(name):
			faults = append(faults, fmt.Errorf("headers: %s is set with each delivery, leave it out", http.CanonicalHeaderKey(name)))
		}
	}
	if e.Timeout != 0 && (e.Timeout < time.Millisecond || e.Timeout > maxWebhookTimeout) {
		faults = append(faults, fmt.Errorf("timeout: is %v, 1ms to %v are allowed", e.Timeout, maxWebhookTimeout))
	}
	if e.Rate != 0 && (e.Rate < 1.0/3600 || e.Rate > 1e5) {
		faults = append(faults, fmt.Errorf("rate: is %v a second, 1/3600 to 100000 are allowed, or 0 for no limit", e.Rate))
	}
	return faults
}

// reservedHeader names what a delivery itself sets: the signature's headers, the content's and those of the connection.
func reservedHeader(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "host", "connection", "content-length", "content-type", "transfer-encoding", "trailer", "upgrade", "te", "expect", "user-agent":
		return true
	}
	return strings.HasPrefix(name, "webhook-") || strings.HasPrefix(name, "ce-")
}

func (s WebhookSigner) faults() (faults []error) {
	if len(s.Hosts) == 0 {
		faults = append(faults, errors.New("hosts: is empty, name the hosts that it signs for"))
	}
	for i, host := range s.Hosts {
		if _, err := parseAllowed(strings.TrimSpace(host)); err != nil {
			faults = append(faults, fmt.Errorf("hosts[%d]: %q %w", i, host, err))
		}
	}
	return append(faults, webhookSecrets{s.Secrets, s.SecretsFiles}.faults()...)
}

// webhookTarget is an endpoint made ready.
type webhookTarget struct {
	id       string // under which its state is kept
	name     string // for people
	url      *url.URL
	secrets  webhookSecrets
	patterns []events.Pattern
	send     string
	headers  map[string]string
	timeout  time.Duration
	rate     float64
	disabled bool
}

// targets makes ready what has been validated.
func (c WebhookConfig) targets() map[string]*webhookTarget {
	targets := make(map[string]*webhookTarget, len(c.Endpoints))
	for _, e := range c.Endpoints {
		t := &webhookTarget{
			id: e.Name, name: "endpoint " + e.Name, secrets: webhookSecrets{e.Secrets, e.SecretsFiles}, send: e.Send, headers: e.Headers,
			timeout: cmp.Or(e.Timeout, c.Timeout), rate: e.Rate, disabled: e.Disabled,
		}
		t.url, _ = parseTarget(e.URL)
		for _, text := range e.Events {
			pattern, _ := events.CompilePattern(text)
			t.patterns = append(t.patterns, pattern)
		}
		targets[e.Name] = t
	}
	return targets
}

// webhookSigner is a signer made ready.
type webhookSigner struct {
	hosts   allowList
	secrets webhookSecrets
}

func (c WebhookConfig) signers() map[string]*webhookSigner {
	signers := make(map[string]*webhookSigner, len(c.Signers))
	for _, s := range c.Signers {
		hosts, _ := parseAllow(s.Hosts)
		signers[s.Name] = &webhookSigner{hosts: hosts, secrets: webhookSecrets{s.Secrets, s.SecretsFiles}}
	}
	return signers
}
