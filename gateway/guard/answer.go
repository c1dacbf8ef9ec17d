package guard

import (
	"compress/gzip"
	"net/http"
	"strings"
	"sync"

	"github.com/bellhop-dev/bellhop/internal/problem"
)

// answer is the handler's http.ResponseWriter. It notes what the access log tells, packs what is worth it, and puts the guard's own
// answer in place of the handler's where the body could not be read.
type answer struct {
	http.ResponseWriter
	accepts bool // the client takes gzip
	fault   bodyFault

	status int   // 0: the handler has not answered yet
	bytes  int64 // of the body, as it goes out
	mode   mode
	held   []byte
	zip    *gzip.Writer
}

type mode int

const (
	plain   mode = iota
	held         // the header and the first bytes wait: are there enough of them to pack?
	packed       // through gzip
	dropped      // the guard has answered already
)

// packFrom is how many bytes gzip is worth.
const packFrom = 1 << 10

// WriteHeader takes the first final status and holds it back where gzip may come.
func (a *answer) WriteHeader(status int) {
	switch {
	case a.status != 0:
		return
	case status >= 100 && status < 200 && status != http.StatusSwitchingProtocols:
		a.ResponseWriter.WriteHeader(status)
		return
	case a.fault.problem != nil && status >= http.StatusBadRequest:
		a.replace(a.fault.problem)
		return
	}
	a.status = status
	if packable(a.Header(), status) {
		a.Header().Add("Vary", "Accept-Encoding")
		if a.accepts {
			a.mode = held
			return
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

// replace answers with p; what the handler still writes goes nowhere.
func (a *answer) replace(p *problem.Problem) {
	a.Header().Del("Content-Length")
	a.Header().Set("Connection", "close") // the rest of the body is not read
	a.status = p.Status
	problem.Write(noted{a}, p)
	a.mode = dropped
}

// noted writes plainly, beside the handler.
type noted struct{ *answer }

func (n noted) WriteHeader(status int) { n.ResponseWriter.WriteHeader(status) }

func (n noted) Write(p []byte) (int, error) { return n.send(p) }

func (a *answer) send(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

func packable(h http.Header, status int) bool {
	if status == http.StatusNoContent || status == http.StatusNotModified || status == http.StatusPartialContent || h.Get("Content-Encoding") != "" {
		return false
	}
	media, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media != "text/event-stream" && (strings.HasPrefix(media, "text/") || strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json") || media == "application/x-ndjson")
}

// Write writes a part of the body.
func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		if a.Header().Get("Content-Type") == "" {
			a.Header().Set("Content-Type", http.DetectContentType(p))
		}
		a.WriteHeader(http.StatusOK)
	}
	switch a.mode {
	case held:
		if len(a.held)+len(p) < packFrom {
			a.held = append(a.held, p...)
			return len(p), nil
		}
		if err := a.pack(); err != nil {
			return 0, err
		}
		return a.zip.Write(p)
	case packed:
		return a.zip.Write(p)
	case dropped:
		return len(p), nil
	}
	return a.send(p)
}

var gzipWriters = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is valid
	return w
}}

func (a *answer) pack() error {
	a.mode = packed
	a.Header().Del("Content-Length")
	a.Header().Set("Content-Encoding", "gzip")
	a.ResponseWriter.WriteHeader(a.status)
	a.zip = gzipWriters.Get().(*gzip.Writer) //nolint:forcetypeassert // nothing else is put in
	a.zip.Reset(sender{a})
	_, err := a.zip.Write(a.held)
	a.held = nil
	return err
}

type sender struct{ *answer }

func (s sender) Write(p []byte) (int, error) { return s.send(p) }

// release sends what was held back, as it is.
func (a *answer) release() error {
	a.mode = plain
	a.ResponseWriter.WriteHeader(a.status)
	if len(a.held) == 0 {
		return nil
	}
	_, err := a.send(a.held)
	a.held = nil
	return err
}

// FlushError sends what there is: http.ResponseController calls it.
func (a *answer) FlushError() error {
	var err error
	switch {
	case a.status == 0:
		a.WriteHeader(http.StatusOK)
		return a.FlushError()
	case a.mode == held:
		err = a.release()
	case a.mode == packed:
		err = a.zip.Flush()
	}
	if err != nil {
		return err
	}
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// Flush is FlushError for those who ask for an http.Flusher.
func (a *answer) Flush() { _ = a.FlushError() }

// Unwrap lets http.ResponseController set deadlines.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// finish sends what is left once the handler has returned.
func (a *answer) finish() {
	switch {
	case a.status == 0 && a.fault.problem != nil:
		a.replace(a.fault.problem)
	case a.status == 0:
		a.WriteHeader(http.StatusOK)
		a.finish()
	case a.mode == held:
		_ = a.release()
	case a.mode == packed:
		_ = a.zip.Close()
		a.zip.Reset(nil)
		gzipWriters.Put(a.zip)
		a.zip = nil
	}
}
