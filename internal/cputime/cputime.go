//go:build unix

// Package cputime tells how much processor time this process has used. Tests that bound a cost measure it, not the clock on the
// wall: a loaded machine must not fail them.
package cputime

import (
	"syscall"
	"time"
)

// Used is the processor time of all threads so far, in user and system mode.
func Used() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0 // it fails for bad arguments only
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
