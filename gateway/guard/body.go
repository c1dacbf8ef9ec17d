package guard

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellhop-dev/bellhop/internal/problem"
)

// limitBody bounds what a handler can read, and unpacks it. A problem is the answer to what is refused before it is read.
// Once the request is answered, the body is to be released.
func (g *Guard) limitBody(r *http.Request, fault *bodyFault) *problem.Problem {
	limit := g.cfg.MaxBodyBytes
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	body := &body{raw: r.Body, from: r.Body, limit: limit, fault: fault, hold: hold{of: &g.bodies}}
	fault.hold = &body.hold
	switch encoding {
	case "", "identity":
		body.sized = r.ContentLength > 0 // net/http reads no more than that
	case "gzip", "x-gzip":
		body.packed = true
		r.ContentLength = -1
		r.Header.Del("Content-Encoding")
		r.Header.Del("Content-Length")
	default:
		return problem.Of(http.StatusUnsupportedMediaType, "the body's Content-Encoding is not known here; send it as gzip or as it is")
	}
	r.Body = body
	return nil
}

func tooLarge(limit int64) *problem.Problem {
	return problem.Of(http.StatusRequestEntityTooLarge,
		fmt.Sprintf("the body is larger than the %d bytes allowed (unpacked, if it came as gzip); send less at once", limit))
}

// bodyFault is why a body could not be read. The answer tells it in place of whatever the handler made of the read error.
type bodyFault struct {
	problem *problem.Problem
	hold    *hold // what was read takes up; nil: there is no body
}

// bodies is what those of all requests at work take up: the beginnings of all, and apart from them what is large. So whoever sends little is
// served, whatever the others send.
type bodies struct {
	most         int64 // of each of the two
	begun, large atomic.Int64
}

// beginning is how much of a body counts as its beginning.
const beginning = 64 << 10

var errNoRoom = errors.New("the bodies at work take up too much")

// retryBodyAfter is when those that are at work have been read, or were too slow.
const retryBodyAfter = 5 * time.Second

// hold is one body's share.
type hold struct {
	of                 *bodies
	read, begun, large int64
}

// take counts what was read, for as long as the request is at work: its handler keeps it.
func (h *hold) take(n int) error {
	h.read += int64(n)
	if !h.of.add(&h.of.begun, &h.begun, min(h.read, beginning)) || !h.of.add(&h.of.large, &h.large, h.read-beginning) {
		return errNoRoom
	}
	return nil
}

// add brings a share up to so much; false if there is no room.
func (b *bodies) add(all *atomic.Int64, share *int64, to int64) bool {
	more := to - *share
	if more <= 0 {
		return true
	}
	if all.Add(more) > b.most {
		all.Add(-more)
		return false
	}
	*share = to
	return true
}

func (h *hold) release() {
	if h != nil {
		h.of.begun.Add(-h.begun)
		h.of.large.Add(-h.large)
		h.begun, h.large = 0, 0
	}
}

// body is a request's body within its limit. One that does not tell its size is read whole before the handler sees its first byte:
// one that is too large never makes the handler's buffers grow, and a gzip bomb is unpacked to the limit and no further.
type body struct {
	raw    io.ReadCloser
	from   io.Reader
	limit  int64
	packed bool
	sized  bool
	fault  *bodyFault
	hold   hold

	read   bool
	err    error
	chunks [][]byte // what was read, not yet handed on
}

// Read fails with *http.MaxBytesError for one that is too large.
func (b *body) Read(p []byte) (int, error) {
	if b.sized {
		n, err := b.from.Read(p)
		if full := b.hold.take(n); full != nil {
			return 0, b.explain(full)
		}
		return n, b.explain(err)
	}
	if !b.read {
		b.read = true
		b.err = b.explain(b.readAll())
		if b.err != nil {
			b.chunks = nil
		}
	}
	if len(b.chunks) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		return 0, io.EOF
	}
	n := copy(p, b.chunks[0])
	if b.chunks[0] = b.chunks[0][n:]; len(b.chunks[0]) == 0 {
		b.chunks[0] = nil
		b.chunks = b.chunks[1:]
	}
	return n, nil
}

// Close closes what the client sends.
func (b *body) Close() error { return b.raw.Close() }

const (
	firstChunk = 4 << 10
	maxChunk   = 256 << 10
)

func (b *body) readAll() error {
	from := b.from
	if b.packed {
		unpack, err := newGzipReader(http.MaxBytesReader(nil, b.raw, b.limit))
		if err != nil {
			return err
		}
		defer gzipReaders.Put(unpack)
		from = unpack
	}
	size := int64(firstChunk)
	for left := b.limit; ; {
		// One byte more than allowed tells that there is more.
		chunk := make([]byte, min(size, left+1))
		n, err := fill(from, chunk)
		if int64(n) > left {
			return &http.MaxBytesError{Limit: b.limit}
		}
		if err := b.hold.take(n); err != nil {
			return err
		}
		left -= int64(n)
		if n > 0 {
			b.chunks = append(b.chunks, chunk[:n])
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		size = min(2*size, maxChunk)
	}
}

// fill is io.ReadFull, which says the same of a stream that ends within p and of one that broke off.
func fill(from io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = from.Read(p[n:])
		n += more
	}
	return n, err
}

// explain keeps the answer that a read error deserves.
func (b *body) explain(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	var large *http.MaxBytesError
	switch {
	case b.fault.problem != nil:
	case errors.As(err, &large):
		b.fault.problem = tooLarge(b.limit)
	case errors.Is(err, errNoRoom):
		b.fault.problem = problem.Unavailable("too many bodies are on their way at once; send it again later", retryBodyAfter)
	case errors.Is(err, os.ErrDeadlineExceeded):
		b.fault.problem = problem.Of(http.StatusRequestTimeout, "the body did not arrive in time; send it again, faster or in parts")
	case b.packed:
		b.fault.problem = problem.Of(http.StatusBadRequest, "the body is not valid gzip, though its Content-Encoding says so")
	default:
		b.fault.problem = problem.Of(http.StatusBadRequest, "the body ended early or is not well formed; send it again")
	}
	return err
}

var gzipReaders sync.Pool

func newGzipReader(from io.Reader) (*gzip.Reader, error) {
	if r, ok := gzipReaders.Get().(*gzip.Reader); ok {
		return r, r.Reset(from)
	}
	return gzip.NewReader(from)
}
