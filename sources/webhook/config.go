package webhook

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// The kinds of hooks.
const (
	GitHub   = "github"
	Slack    = "slack"
	Stripe   = "stripe"
	Standard = "standard" // Standard Webhooks, of which Svix is one
	HMAC     = "hmac"     // any other HMAC over the body
	Token    = "token"    // no signature, a secret in a header
	None     = "none"     // nothing at all: whoever knows the address is believed
)

var kinds = []string{GitHub, Slack, Stripe, Standard, HMAC, Token, None}

// The defaults of Hook.
const (
	DefaultTolerance    = 5 * time.Minute
	DefaultMaxBodyBytes = 1 << 20
)

// What an event of a hook is told apart by.
const (
	byID   = "id"
	byBody = "body"
)

// Limits of what may be configured.
const (
	maxTolerance  = 24 * time.Hour
	maxBodyBytes  = 64 << 20
	maxSecrets    = 10
	minSecretSize = 16
)

// Hooks are all that is taken in, each at POST /hooks/NAME.
type Hooks []Hook

// Hook is one address to which a provider posts.
type Hook struct {
	// Name is the last part of its address: small letters, digits, '-' and '_', 64 at most.
	Name string `mapstructure:"name"`
	// Kind is github, slack, stripe, standard (Standard Webhooks), hmac, token or none.
	Kind string `mapstructure:"kind"`

	// Secrets are those that the provider signs with; each is good, so that one can be rotated: add the new one, tell the
	// provider, remove the old one. Those of kind standard begin with whsec_ (or whpk_, a public key of Ed25519), as the
	// provider shows them. At least 16 bytes each.
	Secrets []string `mapstructure:"secrets"`
	// SecretsFiles hold more of them, one a line. They are read anew when they change.
	SecretsFiles []string `mapstructure:"secrets_files"`

	// Source is that of its events, a URI reference. Default: what the delivery is about, such as the URL of a GitHub
	// repository; where nothing tells, /hooks/NAME.
	Source string `mapstructure:"source"`
	// TypePrefix begins the type of its events. Default com.github, com.slack or com.stripe; of other kinds webhook.NAME.
	TypePrefix string `mapstructure:"type_prefix"`
	// Tolerance is how far a signed time may be from now, in both directions. Default 5m, at most 24h.
	Tolerance time.Duration `mapstructure:"tolerance"`
	// MaxBodyBytes is the largest body taken. An event is larger than its body by its attributes, and has a limit of its own
	// (events.max_event_bytes). Default 1 MiB, at most 64 MiB.
	MaxBodyBytes int64 `mapstructure:"max_body_bytes"`
	// DedupeBy says what makes two deliveries the same event: "id", the provider's id of it, or "body", for kinds that do not sign
	// the id: a delivery that was overheard cannot be sent again under another one, but two equal bodies within
	// events.dedupe_window are one event. Default id.
	DedupeBy string `mapstructure:"dedupe_by"`

	// Signature says where kind hmac has its signature, and kind token its secret.
	Signature Signature `mapstructure:"signature"`
	// Event says where the kinds standard, hmac, token and none have what the event should tell.
	Event Mapping `mapstructure:"event"`

	// InsecureUnsigned is what kind none asks for: anyone on the network can make events there.
	InsecureUnsigned bool `mapstructure:"insecure_unsigned"`
}

// Signature describes the scheme of a provider that bellhop has no name for.
type Signature struct {
	// Header holds the signature, or the token. It must be set.
	Header string `mapstructure:"header"`
	// Prefix stands before it in the header: "sha256=", "Bearer ". Default: none.
	Prefix string `mapstructure:"prefix"`
	// Algorithm is sha256 or sha512; sha1 wants allow_sha1. Default sha256.
	Algorithm string `mapstructure:"algorithm"`
	// Encoding of the signature: hex or base64. Default hex.
	Encoding string `mapstructure:"encoding"`
	// SecretEncoding of the secrets: text, hex or base64. Default text.
	SecretEncoding string `mapstructure:"secret_encoding"`
	// Signed is the text that is signed, with {body} once, {timestamp} and {id}: "{timestamp}.{body}". Default "{body}".
	Signed string `mapstructure:"signed"`
	// TimestampHeader holds when it was signed: seconds or milliseconds since 1970, or RFC 3339. It belongs into Signed. Default: none,
	// and no delivery is too old.
	TimestampHeader string `mapstructure:"timestamp_header"`
	// AllowSHA1 accepts an algorithm that is no longer held to be safe, for providers that have no other.
	AllowSHA1 bool `mapstructure:"allow_sha1"`
}

// Mapping says where a delivery tells what. A path is that of a member of the JSON body: "data.object.id".
type Mapping struct {
	// IDHeader or IDPath is the delivery's id, the same when it is sent again. Default: none; then a delivery of kind hmac is known
	// by the text that was signed, and each one of kinds token and none is an event of its own.
	IDHeader string `mapstructure:"id_header"`
	IDPath   string `mapstructure:"id_path"`
	// TypeHeader or TypePath is what happened, put behind the prefix; where it is missing, "received". Default of kind standard: the
	// path "type".
	TypeHeader string `mapstructure:"type_header"`
	TypePath   string `mapstructure:"type_path"`
	// SubjectPath is what it happened to.
	SubjectPath string `mapstructure:"subject_path"`
	// TimePath is when it happened: RFC 3339, or seconds or milliseconds since 1970. Default: the signed time, else now; of kind
	// standard, the path "timestamp".
	TimePath string `mapstructure:"time_path"`
}

// WithDefaults fills what is not set.
func (hs Hooks) WithDefaults() Hooks {
	if hs == nil {
		return nil
	}
	filled := make(Hooks, len(hs))
	for i, h := range hs {
		filled[i] = h.WithDefaults()
	}
	return filled
}

// WithDefaults fills what is not set.
func (h Hook) WithDefaults() Hook {
	if h.signsTime() {
		h.Tolerance = cmp.Or(h.Tolerance, DefaultTolerance)
	}
	h.MaxBodyBytes = cmp.Or(h.MaxBodyBytes, DefaultMaxBodyBytes)
	h.DedupeBy = cmp.Or(h.DedupeBy, byID)
	switch h.Kind {
	case GitHub, Slack, Stripe:
		h.TypePrefix = cmp.Or(h.TypePrefix, "com."+h.Kind)
	default:
		h.TypePrefix = cmp.Or(h.TypePrefix, "webhook."+h.Name)
	}
	switch h.Kind {
	case HMAC:
		h.Signature.Algorithm = cmp.Or(h.Signature.Algorithm, "sha256")
		h.Signature.Encoding = cmp.Or(h.Signature.Encoding, "hex")
		h.Signature.SecretEncoding = cmp.Or(h.Signature.SecretEncoding, "text")
		h.Signature.Signed = cmp.Or(h.Signature.Signed, "{body}")
	case Standard:
		if h.Event.TypeHeader == "" {
			h.Event.TypePath = cmp.Or(h.Event.TypePath, "type")
		}
		h.Event.TimePath = cmp.Or(h.Event.TimePath, "timestamp")
	}
	return h
}

func (h Hook) signsTime() bool {
	return slices.Contains([]string{Slack, Stripe, Standard}, h.Kind) || h.Kind == HMAC && h.Signature.TimestampHeader != ""
}

// Validate reports every fault of every hook at once.
func (hs Hooks) Validate() error {
	var faults []error
	seen := make(map[string]int)
	for i, h := range hs {
		for _, fault := range h.faults() {
			faults = append(faults, fmt.Errorf("hooks[%d]%s: %w", i, h.label(), fault))
		}
		if first, twice := seen[h.Name]; twice && h.Name != "" {
			faults = append(faults, fmt.Errorf("hooks[%d]%s: name: hooks[%d] has it too; give each its own", i, h.label(), first))
		} else {
			seen[h.Name] = i
		}
	}
	return errors.Join(faults...)
}

// Validate reports every fault at once.
func (h Hook) Validate() error { return errors.Join(h.faults()...) }

var hookName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,63}$`)

// label names the hook in a message, if its name can be shown.
func (h Hook) label() string {
	if !hookName.MatchString(h.Name) {
		return ""
	}
	return " (" + h.Name + ")"
}

func (h Hook) faults() []error {
	h = h.WithDefaults()
	v := new(faults)
	v.want(hookName.MatchString(h.Name), "name: %.80q: begin with a small letter or digit and go on with those, '-' and '_', 64 at most", h.Name)
	if !slices.Contains(kinds, h.Kind) {
		v.add("kind: %.80q is unknown%s; the kinds are %s", h.Kind, suggest.DidYouMean(cut(h.Kind, 80), kinds), strings.Join(kinds, ", "))
		return v.all
	}
	h.secretFaults(v)
	h.eventFaults(v)
	v.want(h.MaxBodyBytes > 0 && h.MaxBodyBytes <= maxBodyBytes, "max_body_bytes: is %d, 1 byte to 64 MiB are allowed", h.MaxBodyBytes)
	if h.signsTime() {
		v.want(h.Tolerance >= time.Second && h.Tolerance <= maxTolerance, "tolerance: is %v, 1s to 24h are allowed", h.Tolerance)
	} else {
		v.want(h.Tolerance == 0, "tolerance: no time is signed here, leave it out%s", hmacOnly(h.Kind, " or give a signature.timestamp_header"))
	}
	switch h.Kind {
	case HMAC:
		h.Signature.faults(v)
		v.want(!strings.Contains(h.Signature.Signed, "{id}") || h.Event.IDHeader != "", "event.id_header: is missing, though {id} is signed")
	case Token:
		v.header("signature.header", h.Signature.Header, true)
		v.want(h.Signature == Signature{Header: h.Signature.Header, Prefix: h.Signature.Prefix}, "signature: kind token has a header and a prefix and no more; remove the rest")
	default:
		v.want(h.Signature == Signature{}, "signature: is for kinds hmac and token; kind %s knows its own, remove it", h.Kind)
	}
	return v.all
}

func (h Hook) secretFaults(v *faults) {
	if h.Kind == None {
		v.want(h.InsecureUnsigned, "insecure_unsigned: kind none takes events from anyone who finds the address; set it to true if that is meant, or choose another kind")
		v.want(len(h.Secrets)+len(h.SecretsFiles) == 0, "secrets: kind none uses none; remove them, or choose another kind")
		return
	}
	v.want(!h.InsecureUnsigned, "insecure_unsigned: is for kind none alone; remove it")
	v.want(len(h.Secrets)+len(h.SecretsFiles) > 0, "secrets: are missing: give the one that the provider signs with, here or in secrets_files")
	v.want(len(h.Secrets) <= maxSecrets, "secrets: are %d, at most %d are allowed; remove those that were rotated out", len(h.Secrets), maxSecrets)
	for i, s := range h.Secrets {
		if _, err := h.key(s); err != nil {
			v.add("secrets[%d]: %w", i, err)
		}
	}
	for i, f := range h.SecretsFiles {
		v.want(f != "", "secrets_files[%d]: is empty, name a file or remove it", i)
	}
}

func (h Hook) eventFaults(v *faults) {
	if _, err := url.Parse(h.Source); err != nil || len(h.Source) > 1024 {
		v.add("source: %.80q is no URI reference of at most 1024 bytes", h.Source)
	}
	v.want(len(h.TypePrefix) <= 200 && h.TypePrefix == typeOf(h.TypePrefix), "type_prefix: %.80q: name segments of letters, digits, '-' and '_' with dots between, such as com.acme.shop", h.TypePrefix)
	v.want(h.DedupeBy == byID || h.DedupeBy == byBody, "dedupe_by: is %.80q, id or body are allowed", h.DedupeBy)
	m := h.Event
	switch h.Kind {
	case GitHub, Slack, Stripe:
		v.want(m == Mapping{}, "event: kind %s knows where its deliveries tell what; remove it", h.Kind)
	default:
		v.header("event.id_header", m.IDHeader, false)
		v.header("event.type_header", m.TypeHeader, false)
		v.want(m.IDHeader == "" || m.IDPath == "", "event.id_path: id_header is set too; keep one of them")
		v.want(m.TypeHeader == "" || m.TypePath == "", "event.type_path: type_header is set too; keep one of them")
		v.want(h.Kind != Standard || m.IDHeader+m.IDPath == "", "event.id_header: kind standard signs its own id; remove id_header and id_path")
	}
	if h.Kind == Slack || h.Kind == Stripe || h.Kind == Standard {
		v.want(h.DedupeBy != byBody, "dedupe_by: kind %s signs its ids, body brings nothing there; remove it", h.Kind)
	}
}

func (s Signature) faults(v *faults) {
	v.header("signature.header", s.Header, true)
	v.header("signature.timestamp_header", s.TimestampHeader, false)
	switch s.Algorithm {
	case "sha256", "sha512":
		v.want(!s.AllowSHA1, "signature.allow_sha1: the algorithm is %s; remove it", s.Algorithm)
	case "sha1":
		v.want(s.AllowSHA1, "signature.algorithm: sha1 is no longer held to be safe; take sha256 if the provider has it, or set allow_sha1")
	default:
		v.add("signature.algorithm: %.80q is unknown; sha256 and sha512 are known", s.Algorithm)
	}
	v.want(s.Encoding == "hex" || s.Encoding == "base64", "signature.encoding: is %.80q, hex or base64 are allowed", s.Encoding)
	v.want(slices.Contains([]string{"text", "hex", "base64"}, s.SecretEncoding), "signature.secret_encoding: is %.80q, text, hex or base64 are allowed", s.SecretEncoding)
	v.want(strings.Count(s.Signed, "{body}") == 1, "signature.signed: %.80q must have {body} in it once", s.Signed)
	rest := strings.NewReplacer("{body}", "", "{timestamp}", "", "{id}", "").Replace(s.Signed)
	v.want(!strings.ContainsAny(rest, "{}"), "signature.signed: %.80q: {body}, {timestamp} and {id} are all that is known in braces", s.Signed)
	inText, inHeader := strings.Contains(s.Signed, "{timestamp}"), s.TimestampHeader != ""
	v.want(!inText || inHeader, "signature.timestamp_header: is missing, though {timestamp} is signed")
	v.want(inText || !inHeader, `signature.signed: has no {timestamp}: a time that is not signed protects nothing; write for instance "{timestamp}.{body}"`)
}

// faults collects.
type faults struct{ all []error }

func (f *faults) add(format string, args ...any) { f.all = append(f.all, fmt.Errorf(format, args...)) }

func (f *faults) want(ok bool, format string, args ...any) {
	if !ok {
		f.add(format, args...)
	}
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,100}$`)

func (f *faults) header(key, name string, required bool) {
	switch {
	case name == "" && required:
		f.add("%s: is missing: name the header that holds it", key)
	case name != "" && !headerName.MatchString(name):
		f.add("%s: %.80q is no name of a header", key, name)
	}
}

func hmacOnly(kind, advice string) string {
	if kind == HMAC {
		return advice
	}
	return ""
}

// canonical is the name as http.Header has it.
func canonical(name string) string { return http.CanonicalHeaderKey(name) }

func cut(s string, most int) string { return s[:min(len(s), most)] }
