//go:build !race

package triggers

const raceFactor = 1
