//go:build !linux

package redisembed

import "os/exec"

// dieWithParent needs a kernel that tells the child of its parent's death;
// elsewhere Close ends it.
func dieWithParent(*exec.Cmd) {}
