package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	defaultFile  = "bellhop.yaml"
	maxFileBytes = 1 << 20
)

// readFile returns what the file sets, and the file's name, "" if there is none. One that is asked for by name must be
// there; bellhop.yaml in the directory need not.
func readFile(named, dir string) (layer, string, Faults) {
	name, shown := named, named
	if named == "" {
		name, shown = filepath.Join(dir, defaultFile), defaultFile
	} else if !filepath.IsAbs(named) {
		name = filepath.Join(dir, named)
	}
	text, err := readLimited(name, maxFileBytes)
	if named == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		advice := "name one that can be read with --config or BELLHOP_CONFIG"
		if errors.Is(err, errTooLarge) {
			advice = "a configuration is never that large"
		}
		return nil, shown, Faults{{Text: fmt.Sprintf("cannot read %s: %v; %s", shown, withoutPath(err), advice), Err: err}}
	}
	set, faults := readYAML(shown, text)
	return set, shown, faults
}

var errTooLarge = errors.New("it is too large")

func readLimited(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%w, at most %d bytes are read", errTooLarge, most)
	}
	return text, err
}

// withoutPath drops what an *fs.PathError repeats.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
