package acceptance_test

import (
	"os/exec"
	"syscall"
)

// dieWithParent leaves no child behind when the test binary itself is killed.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
