package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // for providers that have nothing else, and only where allow_sha1 asks for it
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// claim is what the headers say of a delivery: true once a key proves it over the body.
type claim struct {
	id string    // "" if the scheme has none
	at time.Time // when it was signed; zero if that isn't told

	before, after []byte // what is signed around the body

	signatures [][]byte // any of them will do
	ed25519    [][]byte // those made with a private key
	token      string
}

// A header may hold this many signatures: one for each secret of a rotation, and some versions that we don't know.
const maxSignatures = 16

// key is one secret of a hook.
type key interface {
	// proves compares in constant time.
	proves(c *claim, body []byte) bool
}

// proven reports whether one of the keys proves the claim. All are tried, whichever fits.
func (c *claim) proven(keys []key, body []byte) bool {
	ok := false
	for _, k := range keys {
		if k.proves(c, body) {
			ok = true
		}
	}
	return ok
}

// digest names what was signed.
func (c *claim) digest(body []byte) string {
	h := sha256.New()
	h.Write(c.before)
	h.Write(body)
	h.Write(c.after)
	return digestOf(h)
}

func bodyDigest(body []byte) string {
	h := sha256.New()
	h.Write(body)
	return digestOf(h)
}

func digestOf(h hash.Hash) string { return "sha256-" + hex.EncodeToString(h.Sum(nil)) }

var algorithms = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

type macKey struct {
	algorithm func() hash.Hash
	secret    []byte
}

func (k macKey) proves(c *claim, body []byte) bool {
	if len(c.signatures) == 0 {
		return false
	}
	mac := hmac.New(k.algorithm, k.secret)
	mac.Write(c.before)
	mac.Write(body)
	mac.Write(c.after)
	want := mac.Sum(nil)
	ok := false
	for _, got := range c.signatures {
		if hmac.Equal(got, want) {
			ok = true
		}
	}
	return ok
}

type publicKey ed25519.PublicKey

func (k publicKey) proves(c *claim, body []byte) bool {
	if len(c.ed25519) == 0 {
		return false
	}
	text := make([]byte, 0, len(c.before)+len(body)+len(c.after))
	text = append(append(append(text, c.before...), body...), c.after...)
	for _, signature := range c.ed25519 {
		if ed25519.Verify(ed25519.PublicKey(k), text, signature) {
			return true
		}
	}
	return false
}

type tokenKey struct{ secret []byte }

// proves compares digests, so that not even the length of the secret shows.
func (k tokenKey) proves(c *claim, _ []byte) bool {
	got, want := sha256.Sum256([]byte(c.token)), sha256.Sum256(k.secret)
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1 && c.token != ""
}

// openDoor is what a hook of kind none has instead of a key.
type openDoor struct{}

func (openDoor) proves(*claim, []byte) bool { return true }

// header returns the one value that the header has. Of two, nobody knows which one was meant, or checked by whom.
func header(h http.Header, name string) (string, error) {
	switch values := h[name]; len(values) {
	case 0:
		return "", refuse(BadSignature, "a header of the signature is missing: "+name)
	case 1:
		return values[0], nil
	default:
		return "", refuse(BadSignature, "a header of the signature is there more than once: "+name)
	}
}

// hexSignature reads what stands behind the prefix.
func hexSignature(value, prefix string) ([]byte, error) {
	text, ok := strings.CutPrefix(value, prefix)
	if !ok {
		return nil, refuse(BadSignature, "the signature does not begin with "+prefix)
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) == 0 {
		return nil, refuse(BadSignature, "the signature is not hexadecimal")
	}
	return raw, nil
}

func base64Signature(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) == 0 {
		return nil, refuse(BadSignature, "the signature is not base64")
	}
	return raw, nil
}

// fresh reads a time in seconds since 1970 that is not further than the tolerance from now.
func fresh(text string, now time.Time, tolerance time.Duration) (time.Time, error) {
	seconds, ok := wholeNumber(text)
	if !ok {
		return time.Time{}, refuse(BadSignature, "the signed time is no number of seconds")
	}
	at := time.Unix(seconds, 0).UTC()
	return at, near(at, now, tolerance)
}

func near(at, now time.Time, tolerance time.Duration) error {
	if now.Sub(at).Abs() > tolerance { // Sub stops at the end of its range, it does not wrap around
		return refuse(Stale, "the signed time is further from this clock than the tolerance: "+skew(now.Sub(at)))
	}
	return nil
}

func skew(d time.Duration) string {
	if d < 0 {
		return (-d).Round(time.Second).String() + " ahead"
	}
	return d.Round(time.Second).String() + " behind"
}

// wholeNumber takes digits only: what is signed is the text, and one text has one meaning.
func wholeNumber(text string) (int64, bool) {
	if text == "" || len(text) > 18 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}
