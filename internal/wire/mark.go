package wire

import (
	"math"
	"strconv"
	"strings"
)

// Mark tells who owns a running job: the worker's number in the queue, and which of its last fetches took the job. It stands in the
// job's lease, behind the second, in parts of 2^21, where stock tools don't look: a double holds both until the year 2106. Zero is the
// mark of what a stock server leases.
type Mark int64

const (
	marks      = 1 << 21
	fetchMarks = 1 << 9
)

// NewMark is the mark of a worker's fetch. Numbers begin at 1.
func NewMark(worker, fetch int64) Mark { return Mark(worker*fetchMarks + FetchMark(fetch)) }

// FetchMark is a fetch's part of its mark.
func FetchMark(fetch int64) int64 { return fetch % fetchMarks }

// LeaseMark is the mark in a lease, as Redis has it.
func LeaseMark(score float64) Mark {
	_, part := math.Modf(score)
	return Mark(part * marks)
}

// Worker is the number of the worker.
func (m Mark) Worker() int64 { return int64(m) / fetchMarks }

// Lease is the score of a lease that ends at a Unix second.
func (m Mark) Lease(second int64) float64 { return float64(second) + float64(m)/marks }

// Fraction is the mark as a lease ends with it: appended to a second, it is the score to the last bit.
func (m Mark) Fraction() string {
	return strings.TrimPrefix(strconv.FormatFloat(float64(m)/marks, 'f', -1, 64), "0")
}

// MarkNumber is the number in a worker's entry of MarksKey, 0 if there is none.
func MarkNumber(entry string) int64 {
	number, _, _ := strings.Cut(entry, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
