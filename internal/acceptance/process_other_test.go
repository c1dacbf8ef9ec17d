//go:build !linux

package acceptance_test

import "os/exec"

// dieWithParent needs Linux; elsewhere the end of the test ends its children.
func dieWithParent(*exec.Cmd) {}
