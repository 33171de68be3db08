package peer

import (
	"os/exec"
	"runtime"
	"syscall"
)

// childAttributes puts the child in a session of its own and has the kernel kill it when the thread that started it dies.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

// starts carries commands to the one thread that starts them all: Pdeathsig is bound to the life of the starting thread, not of the process, and Go ends
// threads when it likes.
var starts = func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
}()

func startWithParent(cmd *exec.Cmd) error {
	result := make(chan error)
	starts <- func() { result <- cmd.Start() }
	return <-result
}
