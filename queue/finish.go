package queue

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

var (
	//go:embed done.lua
	doneSource string
	//go:embed finish.lua
	finishSource string

	doneScript   = newScript(doneSource, marksSource, activeSource, countSource, awaitedSource)
	finishScript = newScript(finishSource, sharedSource, countSource, marksSource, leasesSource, activeSource, awaitedSource)
)

// The ends of an attempt, as finish.lua names them.
const (
	endDone     = "done"
	endTold     = "told"
	endComplete = "complete"
	endRetry    = "retry"
	endAgain    = "again"
	endSnooze   = "snooze"
	endArchive  = "archive"
	endCancel   = "cancel"
	endBack     = "back"
	endAside    = "aside"
	endResult   = "result"
)

// End is how one attempt ends. Make it with Done, Complete, Retry, Again, Snooze, Archive, Cancel or HandBack.
type End struct {
	job    *Job
	what   string
	text   string // of the error
	delay  time.Duration
	result []byte // nil leaves what is there
}

// Dead tells that the job ends with a failure, by Archive.
func (e End) Dead() bool { return e.what == endArchive }

// Job is the job that ends.
func (e End) Job() *Job { return e.job }

// Done ends the attempt well and deletes the job.
func Done(job *Job) End { return End{job: job, what: endDone} }

// Complete ends the attempt well and keeps the job, with its result, for the message's Retention. Without one the job is deleted, as by
// Done, and the result is told to those who await it.
func Complete(job *Job, result []byte) End {
	if job.Message.Retention <= 0 {
		if result == nil {
			return Done(job)
		}
		return End{job: job, what: endTold, result: result}
	}
	return End{job: job, what: endComplete, result: result}
}

// Retry ends the attempt with a failure, counted in the message and the queue; the next attempt starts after delay.
func Retry(job *Job, delay time.Duration, reason string) End {
	return End{job: job, what: endRetry, delay: delay, text: reason}
}

// Again is Retry for what asynq's IsFailure does not call a failure: the reason is noted, nothing is counted.
func Again(job *Job, delay time.Duration, reason string) End {
	return End{job: job, what: endAgain, delay: delay, text: reason}
}

// Snooze ends the attempt without a verdict; the next one starts after delay. The message stays as it is.
func Snooze(job *Job, delay time.Duration) End {
	return End{job: job, what: endSnooze, delay: delay}
}

// Archive ends the job with a failure: it is dead, kept for people.
func Archive(job *Job, reason string) End { return End{job: job, what: endArchive, text: reason} }

// Cancel ends a job that somebody has cancelled: it is kept among the dead, its field bellhop_end tells it from the failed ones.
func Cancel(job *Job) End { return End{job: job, what: endCancel, text: "cancelled"} }

// HandBack ends an attempt that did not run: the job goes to the head of the queue, unspent.
func HandBack(job *Job) End { return End{job: job, what: endBack} }

// WithResult writes data as the job's result with the same call: for Complete, Retry, Again, Archive and Cancel.
func (e End) WithResult(data []byte) End {
	e.result = data
	return e
}

// encode appends the end as finish.lua reads it.
func (e End) encode(args []any) ([]any, error) {
	if e.what == endAside {
		return append(args, e.what, e.job.ID, int64(e.job.mark), ""), nil
	}
	args = append(args, e.what, e.job.ID, int64(e.job.mark), e.job.uniqueKey())
	switch e.what {
	case endTold:
		if len(e.result) > LongestTold {
			return append(args, fmt.Sprintf("#%d", len(e.result))), nil
		}
		return append(args, e.resultArg()), nil
	case endComplete:
		msg := *e.job.Message
		msg.CompletedAt = 0
		data, err := msg.Encode()
		return append(args, data, msg.Retention, e.resultArg()), err
	case endRetry, endAgain:
		data, err := e.failedMessage()
		return append(args, data, ceilDelay(e.delay), e.resultArg()), err
	case endSnooze:
		return append(args, ceilDelay(e.delay)), nil
	case endArchive, endCancel:
		data, err := e.failedMessage()
		return append(args, data, e.resultArg()), err
	case endResult:
		return append(args, e.resultArg()), nil
	}
	return args, nil
}

// failedMessage has no LastFailedAt: the script adds Redis' time.
func (e End) failedMessage() ([]byte, error) {
	msg := *e.job.Message
	if e.what == endRetry {
		msg.Retried++
	}
	msg.ErrorMsg = strings.ToValidUTF8(e.text, "\uFFFD")
	msg.LastFailedAt = 0
	return msg.Encode()
}

func (e End) resultArg() []byte {
	if e.result == nil {
		return []byte{}
	}
	return append([]byte("="), e.result...)
}

// bytes is about what the end weighs on its way.
func (e End) bytes() int {
	n := 64 + len(e.result) + len(e.text)
	if e.what != endDone && e.what != endTold && e.job.Message != nil {
		n += len(e.job.Message.Payload)
	}
	return n
}

// uniqueKey is the lock to release. A key of another queue, which only a broken producer writes, is left alone: in a Cluster
// it would fail the whole call.
func (j *Job) uniqueKey() string {
	if strings.HasPrefix(j.Message.UniqueKey, wire.QueuePrefix(j.Queue)) {
		return j.Message.UniqueKey
	}
	return ""
}

// LongestTime is the longest delay, timeout, retention or lock that is stored: a century. What is longer is cut, so that adding it to a
// clock, here, in a script or in a stock server, never overflows.
const LongestTime = 100 * 365 * 24 * time.Hour

// ceilDelay is a delay in whole milliseconds, so that no job starts early.
func ceilDelay(d time.Duration) int64 {
	d = min(max(d, 0), LongestTime)
	ms := d.Milliseconds()
	if d%time.Millisecond > 0 {
		ms++
	}
	return ms
}

// finish runs the scripts and gives each end its answer. It fails as a whole if Redis can't be asked: the
// ends may be written or not, and the same request asked again tells.
func (w *Worker) finish(ctx context.Context, l *lane, request int64, ends []*ending) error {
	written := w.finishCalls(l, request, ends)
	if len(written) == 0 {
		return nil
	}
	w.client.run(ctx, callsOf(written)...)
	return finished(written)
}

// written is a call and the ends that it writes.
type written struct {
	call *call
	ends []*ending
}

func callsOf(all []written) []*call {
	calls := make([]*call, len(all), len(all)+1)
	for i, some := range all {
		calls[i] = some.call
	}
	return calls
}

// finishCalls are the calls for those ends that can be encoded: one for the plain ones, one for the others.
func (w *Worker) finishCalls(l *lane, request int64, ends []*ending) []written {
	newestFirst(ends)
	plain, others := split(ends)
	var all []written
	if len(plain) > 0 {
		args := make([]any, 0, 6+len(plain))
		args = append(args, wire.JobPrefix(l.queue), w.id, l.session, request)
		all = append(all, written{&call{script: doneScript, keys: doneKeys(l.queue), args: appendByFetch(args, plain)}, plain})
	}
	args := make([]any, 0, 3+6*len(others))
	args = append(args, wire.JobPrefix(l.queue), w.id, l.name("e", request))
	var sent []*ending
	for _, e := range others {
		more, err := e.end.encode(args)
		if err != nil {
			e.err = fmt.Errorf("end job %s: %w", e.end.job.ID, err)
			continue
		}
		args = more
		sent = append(sent, e)
	}
	if len(sent) > 0 {
		all = append(all, written{&call{script: finishScript, keys: finishKeys(l.queue), args: args}, sent})
	}
	return all
}

// finished reads the answers of the calls. It fails if any has none: those of the others hold.
func finished(all []written) error {
	var fault error
	for _, some := range all {
		answers, err := some.answers()
		if err != nil {
			fault = err
			continue
		}
		for i, e := range some.ends {
			e.known = true
			if answers != "" && answers[i] != '1' { // "" is that all are written
				e.err = fmt.Errorf("end job %s: %w", e.end.job.ID, ErrNotOwner)
			}
		}
	}
	return fault
}

func (some written) answers() (string, error) {
	answers, err := some.call.reply.Text()
	if err == nil && answers != "" && len(answers) != len(some.ends) {
		err = fmt.Errorf("%w: %d answers for %d jobs", errUnexpected, len(answers), len(some.ends))
	}
	return answers, err
}

// split takes the jobs that are simply done and hold no lock from the others. Not before the result of one is written that comes
// in the same call.
func split(ends []*ending) (plain, others []*ending) {
	if slices.ContainsFunc(ends, func(e *ending) bool { return e.end.what == endResult }) {
		return nil, ends
	}
	plain = make([]*ending, 0, len(ends))
	for _, e := range ends {
		if e.end.what == endDone && e.end.job.uniqueKey() == "" {
			plain = append(plain, e)
		} else {
			others = append(others, e)
		}
	}
	return plain, others
}

// appendByFetch appends the jobs of each fetch in a row: its mark, how many they are, their ids.
func appendByFetch(args []any, ends []*ending) []any {
	slices.SortStableFunc(ends, func(a, b *ending) int { return cmp.Compare(a.end.job.mark, b.end.job.mark) })
	count := 0 // the place of the number of ids
	for i, e := range ends {
		job := e.end.job
		if i == 0 || job.mark != ends[i-1].end.job.mark {
			args = append(args, int64(job.mark), 0)
			count = len(args) - 1
		}
		args = append(args, job.ID)
		args[count] = len(args) - 1 - count
	}
	return args
}

// newestFirst sorts by attempt if something is handed back: what is handed back last comes to stand at the very head of pending,
// where it came from. Nothing else depends on the order.
func newestFirst(ends []*ending) {
	if slices.ContainsFunc(ends, func(e *ending) bool { return e.end.what == endBack }) {
		slices.SortStableFunc(ends, func(a, b *ending) int { return cmp.Compare(b.end.job.Attempt, a.end.job.Attempt) })
	}
}

func doneKeys(queue string) []string {
	return []string{
		wire.ActiveKey(queue), wire.LeaseKey(queue), wire.ProcessedTotalKey(queue),
		wire.MarksKey(queue), wire.CallsKey(queue), wire.AwaitedKey(queue),
	}
}

func finishKeys(queue string) []string {
	return []string{
		wire.PendingKey(queue), wire.ActiveKey(queue), wire.LeaseKey(queue), wire.RetryKey(queue), wire.ArchivedKey(queue),
		wire.CompletedKey(queue), wire.ProcessedTotalKey(queue), wire.FailedTotalKey(queue),
		wire.MarksKey(queue), wire.CallsKey(queue), wire.DueKey(queue), wire.AlarmKey(queue), wire.UndecodableKey(queue),
		wire.AwaitedKey(queue),
	}
}

// WriteResult writes a running job's result, if the worker still owns it.
func (w *Worker) WriteResult(ctx context.Context, job *Job, data []byte) error {
	errs := w.Finish(ctx, End{job: job, what: endResult, result: bytes.Clone(nonNil(data))})
	return errors.Join(errs...)
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
