package webhook

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// key makes of a secret as it is configured what proves a delivery. Its errors never show the secret.
func (h Hook) key(secret string) (key, error) {
	if strings.TrimSpace(secret) != secret {
		return nil, errors.New("has white space around it; remove that")
	}
	switch h.Kind {
	case Token:
		return tokenKey{secret: []byte(secret)}, longEnough([]byte(secret))
	case Standard:
		return standardKey(secret)
	case HMAC:
		raw, err := decodeSecret(h.Signature.SecretEncoding, secret)
		if err != nil {
			return nil, err
		}
		return macKey{algorithm: algorithms[h.Signature.Algorithm], secret: raw}, longEnough(raw)
	default:
		return macKey{algorithm: algorithms["sha256"], secret: []byte(secret)}, longEnough([]byte(secret))
	}
}

func standardKey(secret string) (key, error) {
	if text, ok := strings.CutPrefix(secret, "whpk_"); ok {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("is not whpk_ and the base64 of %d bytes, which a public key is", ed25519.PublicKeySize)
		}
		return publicKey(raw), nil
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return nil, errors.New("is not whsec_ and base64; copy it as the provider shows it")
	}
	return macKey{algorithm: algorithms["sha256"], secret: raw}, longEnough(raw)
}

func decodeSecret(encoding, secret string) ([]byte, error) {
	var raw []byte
	var err error
	switch encoding {
	case "hex":
		raw, err = hex.DecodeString(secret)
	case "base64":
		raw, err = base64.StdEncoding.DecodeString(secret)
	default:
		raw = []byte(secret)
	}
	if err != nil {
		return nil, fmt.Errorf("is not %s, as signature.secret_encoding says", encoding)
	}
	return raw, nil
}

func longEnough(secret []byte) error {
	if len(secret) < minSecretSize {
		return fmt.Errorf("has %d bytes, at least %d are needed: a shorter one can be guessed", len(secret), minSecretSize)
	}
	return nil
}

// keyring holds the keys of one hook: those of its configuration and those of its files.
type keyring struct {
	fixed []key
	files []*keyFile
}

func newKeyring(h Hook, log *slog.Logger) (*keyring, error) {
	ring := new(keyring)
	var faults []error
	for _, secret := range h.Secrets {
		k, err := h.key(secret)
		if err != nil {
			faults = append(faults, err) // Validate has said it already
			continue
		}
		ring.fixed = append(ring.fixed, k)
	}
	for i, name := range h.SecretsFiles {
		f := &keyFile{hook: h, name: name, log: log}
		if err := f.load(); err != nil {
			faults = append(faults, fmt.Errorf("secrets_files[%d]: %w", i, err))
		}
		ring.files = append(ring.files, f)
	}
	return ring, errors.Join(faults...)
}

// keys are those that are good now.
func (r *keyring) keys(now time.Time) []key {
	if len(r.files) == 0 {
		return r.fixed
	}
	all := slices.Clip(r.fixed)
	for _, f := range r.files {
		all = append(all, f.current(now)...)
	}
	return all
}

// keyFile is a file of secrets that may change under us: a rotation needs no restart.
type keyFile struct {
	hook Hook
	name string
	log  *slog.Logger

	mu     sync.Mutex
	keys   []key
	looked time.Time
	stamp  fileStamp
}

type fileStamp struct {
	modified time.Time
	size     int64
}

const (
	lookEvery   = time.Second
	maxFileSize = 64 << 10
)

// current looks at the file once a second at most. One that is broken or gone leaves the keys as they were: a rotation that
// went wrong must not shut the door.
func (f *keyFile) current(now time.Time) []key {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.looked).Abs() < lookEvery {
		return f.keys
	}
	f.looked = now
	info, err := os.Stat(f.name)
	if err == nil && stampOf(info) == f.stamp {
		return f.keys
	}
	if err == nil {
		err = f.load()
	}
	if err != nil {
		f.log.Error("secrets of a hook not read again, the old ones stay in use", "hook", f.hook.Name, "file", f.name, "err", err)
		return f.keys
	}
	f.log.Info("secrets of a hook read again", "hook", f.hook.Name, "file", f.name, "secrets", len(f.keys))
	return f.keys
}

func stampOf(info fs.FileInfo) fileStamp { return fileStamp{info.ModTime(), info.Size()} }

func (f *keyFile) load() error {
	file, err := os.Open(f.name)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was read
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	if len(content) > maxFileSize {
		return fmt.Errorf("read %s: it has more than %d bytes; one secret a line is expected", f.name, maxFileSize)
	}
	keys, err := f.parse(content)
	if err != nil {
		return err
	}
	f.keys, f.stamp = keys, stampOf(info)
	return nil
}

func (f *keyFile) parse(content []byte) ([]key, error) {
	var keys []key
	for i, line := range bytes.Split(content, []byte("\n")) {
		secret := strings.TrimSpace(string(line))
		if secret == "" {
			continue
		}
		k, err := f.hook.key(secret)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: the secret %w", f.name, i+1, err)
		}
		keys = append(keys, k)
	}
	switch n := len(keys); {
	case n == 0:
		return nil, fmt.Errorf("%s: holds no secret; write one a line", f.name)
	case n > maxSecrets:
		return nil, fmt.Errorf("%s: holds %d secrets, at most %d are allowed; remove those that were rotated out", f.name, n, maxSecrets)
	}
	return keys, nil
}
