package redisembed

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel kill the child when we are gone, and keeps a
// Ctrl-C at the terminal from reaching it before we have shut down in order.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
