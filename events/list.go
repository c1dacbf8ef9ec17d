package events

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrQuery is in every error about a query that can't be answered as it is.
var ErrQuery = errors.New("invalid query")

// DefaultLimit is the page size of a [Query] that names none.
const DefaultLimit = 100

// Query chooses events. The zero Query is all of them, oldest first.
type Query struct {
	Type    string // pattern, see [Pattern]; "" is every type
	Source  string // "" is every source
	Subject string // "" is every subject, and none

	// Since and Until bound when the events were stored, by the clock of Redis: Since included, Until not. Zero: no bound.
	Since, Until time.Time

	NewestFirst bool
	// Cursor is where an earlier answer ended; "" is the beginning. All but Limit must be as it was then.
	Cursor string
	// Limit is the most entries wanted: 1 to 1000, 0 is DefaultLimit.
	Limit int
}

// List returns entries in the order in which they were stored, and the cursor of what follows them, "" after the last.
//
// A call looks at some thousand entries at most: if few of them fit, the page is shorter than the limit, even empty, and the cursor
// goes on from there. Cursors stay good: what is stored or trimmed meanwhile changes nothing of what is left. Entries that don't decode
// are listed, with their fault, unless type, source or subject is asked for. An error is an [ErrQuery], or a fault of Redis.
func (c *Client) List(ctx context.Context, q Query) (entries []Entry, next string, err error) {
	filter, err := q.filter()
	if err != nil {
		return nil, "", err
	}
	s, err := q.scanner(c)
	if err != nil {
		return nil, "", err
	}
	limit := min(cmp.Or(q.Limit, DefaultLimit), maxPage)
	for scanned, bytes := 0, 0; scanned < maxScanned; {
		atMost := maxScanned - scanned
		if filter.all() {
			atMost = min(atMost, limit-len(entries)+1) // one more tells whether that was the last
		}
		found, err := s.read(ctx, atMost)
		if err != nil {
			return nil, "", err
		}
		scanned += len(found)
		for i, m := range found {
			e := Entry{StreamID: m.ID}
			e.Event, e.Err = decodeEntry(m.Values)
			if !filter.match(e) {
				continue
			}
			entries = append(entries, e)
			bytes += size(m)
			if len(entries) < limit && bytes < maxPageBytes {
				continue
			}
			if i+1 == len(found) && s.ended() {
				return entries, "", nil
			}
			return entries, q.cursor(m.ID), nil
		}
		if s.ended() {
			return entries, "", nil
		}
		if scanned >= maxScanned {
			return entries, q.cursor(found[len(found)-1].ID), nil
		}
	}
	return entries, "", nil
}

// filter is what of a query is asked of each event.
type filter struct {
	pattern         Pattern
	typed           bool
	source, subject string
}

func newFilter(typ, source, subject string) (filter, error) {
	f := filter{typed: typ != "", source: source, subject: subject}
	if !f.typed {
		return f, nil
	}
	var err error
	if f.pattern, err = CompilePattern(typ); err != nil {
		return f, fmt.Errorf("%w: type: %w", ErrQuery, err)
	}
	return f, nil
}

// all tells that everything matches.
func (f filter) all() bool { return !f.typed && f.source == "" && f.subject == "" }

func (f filter) match(e Entry) bool {
	if e.Event == nil {
		return f.all()
	}
	return (!f.typed || f.pattern.Match(e.Event.Type)) &&
		(f.source == "" || f.source == e.Event.Source) && (f.subject == "" || f.subject == e.Event.Subject)
}

func (q Query) filter() (filter, error) {
	if q.Limit < 0 || q.Limit > maxPage {
		return filter{}, fmt.Errorf("%w: limit: is %d, 1 to %d are allowed", ErrQuery, q.Limit, maxPage)
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return filter{}, fmt.Errorf("%w: until: %s is not after since, %s", ErrQuery, q.Until.Format(time.RFC3339), q.Since.Format(time.RFC3339))
	}
	return newFilter(q.Type, q.Source, q.Subject)
}

func (q Query) scanner(c *Client) (*scanner, error) {
	s := &scanner{client: c, last: lastPlace, newestFirst: q.NewestFirst}
	if !q.Since.IsZero() {
		s.first = firstAt(q.Since)
	}
	if !q.Until.IsZero() {
		s.last = lastBefore(q.Until)
	}
	if q.Cursor == "" {
		return s, nil
	}
	at, err := q.place()
	if err != nil {
		return nil, err
	}
	s.passed(at)
	return s, nil
}

// cursor names the entry after which to go on, and the query that it belongs to.
func (q Query) cursor(streamID string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(streamID + "." + q.fingerprint()))
}

func (q Query) place() (place, error) {
	b, err := base64.RawURLEncoding.DecodeString(q.Cursor)
	if err != nil {
		return place{}, fmt.Errorf("%w: cursor: it is none that was given out", ErrQuery)
	}
	id, of, _ := strings.Cut(string(b), ".")
	at, err := parsePlace(id)
	switch {
	case err != nil:
		return place{}, fmt.Errorf("%w: cursor: it is none that was given out", ErrQuery)
	case of != q.fingerprint():
		return place{}, fmt.Errorf("%w: cursor: it belongs to another query: keep type, source, subject, times and order as they were, or begin anew", ErrQuery)
	}
	return at, nil
}

func (q Query) fingerprint() string {
	parts := []string{q.Type, q.Source, q.Subject, stamp(q.Since), stamp(q.Until), strconv.FormatBool(q.NewestFirst)}
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixNano(), 10)
}
