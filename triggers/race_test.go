//go:build race

package triggers

// raceFactor stretches limits of time: the race detector slows everything down.
const raceFactor = 10
