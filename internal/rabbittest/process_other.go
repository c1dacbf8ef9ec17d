//go:build !linux

package rabbittest

import "os/exec"

// dieWithParent and ownGroup need what other systems don't have, or not alike; the guard ends the children there.
func dieWithParent(*exec.Cmd) {}

func ownGroup(*exec.Cmd) {}
