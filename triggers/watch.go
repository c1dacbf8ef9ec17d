package triggers

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The times of following files. What is read must have been the same for settleFor, or be changing for longer than settleWithin:
// half a file may be good YAML, with half of the rules.
const (
	settleFor    = 100 * time.Millisecond
	settleWithin = 2 * time.Second
	// lookEvery is how often the files are read without a word from the system: a change of a directory on the way, or one on a
	// network's disk, brings none.
	lookEvery = 5 * time.Second
)

// signature tells one state of the files from another, by their content: editors write a new file and rename it, and Kubernetes swaps
// a link.
type signature [sha256.Size]byte

func signatureOf(files []fileText) signature {
	h := sha256.New()
	for _, f := range files {
		writeLengthy(h, f.name)
		if f.err != nil {
			writeLengthy(h, f.err.Error())
			continue
		}
		writeLengthy(h, string(f.data))
	}
	return signature(h.Sum(nil))
}

func writeLengthy(h hash.Hash, s string) {
	fmt.Fprintf(h, "%d ", len(s))
	_, _ = io.WriteString(h, s)
}

// followFiles reads the files when they change, until ctx ends. Their directories are watched, as the files themselves come and go.
func (r *Rules) followFiles(ctx context.Context) {
	w := newFileWatch(r)
	defer w.close()
	failures := w.failures() // of the watching itself
	poll := time.NewTicker(lookEvery)
	defer poll.Stop()
	settled := time.NewTimer(0) // what changed since the files were read
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.reread:
			r.takeFiles(readFiles(r.from.Files), true)
			w.watch()
		case e := <-w.events():
			if w.concerns(e) {
				settled.Reset(settleFor)
			}
		case err := <-failures: // changes may have been missed
			r.log.Debug("triggers: the watch of the files failed, they are read again", "err", err)
			settled.Reset(settleFor)
		case <-poll.C:
			w.watch()
			settled.Reset(0)
		case <-settled.C:
			if again := w.look(); again {
				settled.Reset(settleFor)
			}
		}
	}
}

// fileWatch is what is watched for the files of some rules.
type fileWatch struct {
	rules   *Rules
	watcher *fsnotify.Watcher // nil if the system gives none: then the files are only read every lookEvery
	dirs    map[string]bool
	bases   map[string]bool

	candidate signature // was read last, and differs from what is in use
	since     time.Time // of the first difference, zero if there is none
}

func newFileWatch(r *Rules) *fileWatch {
	w := &fileWatch{rules: r, dirs: make(map[string]bool), bases: make(map[string]bool)}
	if len(r.from.Files) == 0 {
		return w
	}
	var err error
	if w.watcher, err = fsnotify.NewWatcher(); err != nil {
		w.watcher = nil
		r.log.Warn("triggers: the system doesn't tell of changed files, they are looked at from time to time", "every", lookEvery, "err", err)
	}
	w.watch()
	return w
}

func (w *fileWatch) close() {
	if w.watcher != nil {
		_ = w.watcher.Close()
	}
}

func (w *fileWatch) events() chan fsnotify.Event {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Events
}

func (w *fileWatch) failures() chan error {
	if w.watcher == nil {
		return nil
	}
	return w.watcher.Errors
}

// watch adds the directories in which the files are, and those in which their links end. One that was removed and made again
// has lost its watch: adding it twice does no harm.
func (w *fileWatch) watch() {
	if w.watcher == nil {
		return
	}
	for _, file := range w.rules.from.Files {
		w.watchDirOf(file)
		if target, err := filepath.EvalSymlinks(file); err == nil {
			w.watchDirOf(target)
		}
	}
}

func (w *fileWatch) watchDirOf(file string) {
	file, err := filepath.Abs(file)
	if err != nil {
		return
	}
	dir := filepath.Dir(file)
	w.bases[filepath.Base(file)] = true
	w.dirs[dir] = true
	_ = w.watcher.Add(dir) // one that isn't there yet is seen by the next look
}

// concerns tells whether a change in a directory may be one of the files: of a file itself, of the directory, or of the link
// (..data) by which Kubernetes swaps all files of a volume.
func (w *fileWatch) concerns(e fsnotify.Event) bool {
	base := filepath.Base(e.Name)
	return w.bases[base] || w.dirs[e.Name] || strings.HasPrefix(base, "..")
}

// look takes the files if they have changed and settled; again says that they haven't settled yet.
func (w *fileWatch) look() (again bool) {
	r := w.rules
	texts := readFiles(r.from.Files)
	now := signatureOf(texts)
	r.mu.Lock()
	same := now == r.files.seen
	r.mu.Unlock()
	switch {
	case same && !r.fileFaultMayBeCured():
		w.since = time.Time{}
		return false
	case same:
	case w.since.IsZero():
		w.candidate, w.since = now, time.Now()
		return true
	case now != w.candidate && time.Since(w.since) < settleWithin:
		w.candidate = now
		return true
	}
	w.since = time.Time{}
	w.watch()
	r.takeFiles(texts, false)
	return false
}
