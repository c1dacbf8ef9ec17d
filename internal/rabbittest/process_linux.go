package rabbittest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the child when we are gone.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// ownGroup keeps a Ctrl-C at the terminal from the child.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
