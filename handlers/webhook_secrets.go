package handlers

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

const (
	secretPrefix = "whsec_"
	maxSecrets   = 8
)

// webhookSecrets are what deliveries are signed with, as they are configured.
type webhookSecrets struct {
	texts []string
	files []string
}

// signingKey is a secret, and its text to be masked.
type signingKey struct {
	text string
	key  []byte
}

// faults tell nothing of the secrets, and don't look into the files.
func (s webhookSecrets) faults() (faults []error) {
	if len(s.texts)+len(s.files) == 0 {
		return []error{errors.New("secrets: is empty, one is needed, here or in secrets_files: whsec_ and the base64 of 32 random bytes, such as `openssl rand -base64 32` gives")}
	}
	if len(s.texts) > maxSecrets {
		return []error{tooManySecrets(len(s.texts))}
	}
	for i, text := range s.texts {
		if _, err := parseSecret(text); err != nil {
			faults = append(faults, fmt.Errorf("secrets[%d]: %w", i, err))
		}
	}
	for i, file := range s.files {
		if strings.TrimSpace(file) == "" {
			faults = append(faults, fmt.Errorf("secrets_files[%d]: is empty, name a file or remove it", i))
		}
	}
	return faults
}

func tooManySecrets(n int) error {
	return fmt.Errorf("secrets: are %d, at most %d sign a delivery: remove those that nobody knows any more", n, maxSecrets)
}

// keys are the secrets of this moment.
func (s webhookSecrets) keys() (keys []signingKey, err error) {
	for _, text := range s.texts {
		key, err := parseSecret(text)
		if err != nil {
			return nil, fmt.Errorf("secrets: %w", err)
		}
		keys = append(keys, key)
	}
	for _, file := range s.files {
		text, err := os.ReadFile(file)
		if err != nil {
			if of, ok := errors.AsType[*fs.PathError](err); ok {
				err = of.Err
			}
			return nil, fmt.Errorf("secrets_files: %s can't be read: %w", file, err)
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for n := 1; lines.Scan(); n++ {
			if strings.TrimSpace(lines.Text()) == "" {
				continue
			}
			key, err := parseSecret(lines.Text())
			if err != nil {
				return nil, fmt.Errorf("secrets_files: %s:%d %w", file, n, err)
			}
			keys = append(keys, key)
		}
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("secrets_files: hold no secret")
	case len(keys) > maxSecrets:
		return nil, tooManySecrets(len(keys))
	}
	return keys, nil
}

func parseSecret(text string) (signingKey, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case !ok || err != nil:
		return signingKey{}, errors.New("is not whsec_ and base64")
	case len(key) < 24 || len(key) > 64:
		return signingKey{}, fmt.Errorf("is of %d bytes, 24 to 64 are needed", len(key))
	}
	return signingKey{text: text, key: key}, nil
}
