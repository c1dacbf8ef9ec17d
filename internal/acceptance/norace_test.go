//go:build !race

package acceptance_test

// watched are the flags that build a program as the tests are built.
var watched []string
