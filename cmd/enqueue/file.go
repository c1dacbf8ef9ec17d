package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/bellhop-dev/bellhop/internal/cli"
)

const (
	batchLines   = 500      // lines that go to Redis together
	batchBytes   = 4 << 20  // or fewer, when they are long
	maxLineBytes = 16 << 20 // a longer line is refused
)

// tally is what became of a file's lines.
type tally struct {
	Lines      int    `json:"lines"`
	Stored     int    `json:"stored"`
	Duplicates int    `json:"duplicates"`
	Rejected   int    `json:"rejected"`
	RejectedIn string `json:"rejected_in,omitempty"`
}

// enqueueFile streams the file: it holds one batch of lines, however many there are.
func (e *enqueuer) enqueueFile(ctx context.Context, task string) error {
	in, size, err := e.openFrom()
	if err != nil {
		return err
	}
	defer in.Close()
	reader, err := e.newLineReader(ctx, task)
	if err != nil {
		return err
	}
	rejects := &rejects{path: e.rejectedPath(), stderr: e.stderr}
	if err := e.refuseOwnRejects(in, rejects.path); err != nil {
		return err
	}
	bar := e.progress(size)

	failed := e.eachBatch(ctx, in, bar, rejects, func(batch []line) error {
		return e.storeBatch(ctx, reader, batch, rejects)
	})
	_ = bar.Exit()
	e.total.Rejected, e.total.RejectedIn = rejects.count, rejects.name()
	told := e.printTally(failed)
	e.tellUnserved(ctx)
	return errors.Join(failed, rejects.close(), told)
}

func (e *enqueuer) openFrom() (io.ReadCloser, int64, error) {
	if e.from == "-" {
		return io.NopCloser(e.stdin), -1, nil
	}
	f, err := os.Open(e.from)
	if err != nil {
		return nil, 0, cli.Usagef("read the file of jobs: %w", err)
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return f, -1, nil //nolint:nilerr // a pipe, say: its size is not known
	}
	return f, info.Size(), nil
}

func (e *enqueuer) rejectedPath() string {
	switch {
	case e.rejected != "":
		return e.rejected
	case e.from == "-":
		return "stdin.rejected"
	}
	m := rejectedName.FindStringSubmatch(e.from)
	if m == nil {
		return e.from + ".rejected"
	}
	round, _ := strconv.Atoi(m[2]) // "" is the first
	return fmt.Sprintf("%s.rejected.%d", m[1], max(round, 1)+1)
}

// rejectedName is the name of a file that an earlier call has left behind.
var rejectedName = regexp.MustCompile(`^(.+)\.rejected(?:\.(\d{1,6}))?$`)

// refuseOwnRejects keeps the file from being emptied while it is read.
func (e *enqueuer) refuseOwnRejects(in io.Reader, path string) error {
	f, ok := in.(*os.File)
	if !ok {
		return nil
	}
	from, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at the file of jobs: %w", err)
	}
	if into, err := os.Stat(path); err == nil && os.SameFile(from, into) {
		return cli.Usagef("--rejected %s is the file that is read: name another one", path)
	}
	return nil
}

// progress is seen by a person only.
func (e *enqueuer) progress(size int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(e.stderr),
		progressbar.OptionSetVisibility(!e.json && cli.IsTerminal(e.stderr)),
		progressbar.OptionSetDescription("enqueueing"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
	)
}

// line is one line of the file, without the newline.
type line struct {
	number int
	text   []byte
}

// eachBatch reads on until the end, the first failure that would repeat for every line, or the end of ctx.
func (e *enqueuer) eachBatch(ctx context.Context, in io.Reader, bar *progressbar.ProgressBar, rejects *rejects, store func([]line) error) error {
	r := bufio.NewReaderSize(in, 1<<20)
	var batch []line
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := store(batch)
		_ = bar.Add(size + len(batch))
		batch, size = batch[:0], 0
		return err
	}
	for number := 1; ; number++ {
		text, err := readLine(r)
		if errors.Is(err, errLongLine) {
			e.total.Lines++
			if err := errors.Join(flush(), rejects.addLong(number, text, r)); err != nil {
				return err
			}
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(flush(), fmt.Errorf("read line %d: %w", number, err))
		}
		if len(bytes.TrimSpace(text)) > 0 {
			e.total.Lines++
			batch = append(batch, line{number, text})
			size += len(text)
		}
		if err != nil {
			return flush()
		}
		if len(batch) >= batchLines || size >= batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return errors.Join(flush(), fmt.Errorf("stopped after line %d", number))
		}
	}
}

// errLongLine tells that a line is longer than what one may be, and that its rest is not read yet.
var errLongLine = fmt.Errorf("the line is longer than %d MiB", maxLineBytes>>20)

// readLine returns the next line without its end.
func readLine(r *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > maxLineBytes+1 && errors.Is(err, bufio.ErrBufferFull):
			return text, errLongLine
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		}
		return bytes.TrimSuffix(text, []byte("\n")), err
	}
}

func (e *enqueuer) printTally(failed error) error {
	if e.json {
		if err := e.printJSON(e.total); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(e.stdout, "%s: %d stored, %s, %d rejected\n",
			count(e.total.Lines, "line"), e.total.Stored, count(e.total.Duplicates, "duplicate"), e.total.Rejected)
	}
	if e.total.Rejected > 0 {
		fmt.Fprintf(e.stderr, "the rejected lines are in %s: mend them and enqueue that file\n", e.total.RejectedIn)
		if failed == nil {
			return cli.SilentError
		}
	}
	return nil
}

// count says how many, in English.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// rejects keeps the lines that could not be taken, as they were.
type rejects struct {
	path   string
	stderr io.Writer
	count  int

	file *os.File
}

func (r *rejects) add(l line, reason error) error {
	return r.keep(l.number, reason, func() error {
		_, err := r.file.Write(append(l.text, '\n'))
		return err
	})
}

// addLong keeps a line of which only the head was read: the rest goes from the file to the file.
func (r *rejects) addLong(number int, head []byte, rest *bufio.Reader) error {
	return r.keep(number, errLongLine, func() error {
		_, err := r.file.Write(head)
		for more := true; more && err == nil; {
			var part []byte
			part, err = rest.ReadSlice('\n')
			more = errors.Is(err, bufio.ErrBufferFull)
			if more || errors.Is(err, io.EOF) {
				err = nil
			}
			if _, failed := r.file.Write(part); failed != nil {
				return failed
			}
		}
		return err
	})
}

func (r *rejects) keep(number int, reason error, write func() error) error {
	r.count++
	fmt.Fprintf(r.stderr, "line %d: %v\n", number, reason)
	if r.file == nil {
		f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("keep the rejected lines: %w; name another file with --rejected", err)
		}
		r.file = f
	}
	if err := write(); err != nil {
		return fmt.Errorf("keep the rejected lines: %w", err)
	}
	return nil
}

func (r *rejects) name() string {
	if r.file == nil {
		return ""
	}
	return r.path
}

func (r *rejects) close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
