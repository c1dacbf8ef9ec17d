package webhook

import (
	"sync"
	"time"
)

// whisper lets a few lines through in every ten seconds, and counts the others. The zero value is ready.
type whisper struct {
	mu     sync.Mutex
	since  time.Time
	said   int
	hushed int
}

const (
	whisperEvery = 10 * time.Second
	whisperLines = 5
)

// speaks says whether the next line may be written, and how many were not since the last one.
func (w *whisper) speaks(now time.Time) (hushed int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.since).Abs() >= whisperEvery {
		w.since, w.said = now, 0
	}
	if w.said >= whisperLines {
		w.hushed++
		return 0, false
	}
	w.said++
	hushed, w.hushed = w.hushed, 0
	return hushed, true
}
