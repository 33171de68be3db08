package peer

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// maxOutput bounds what is kept of a program's output: the newest bytes.
const maxOutput = 256 << 10

// tail keeps the newest bytes written to it; safe for concurrent use.
type tail struct {
	mu    sync.Mutex
	bytes []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bytes = append(t.bytes, p...)
	if extra := len(t.bytes) - maxOutput; extra > 0 {
		t.bytes = append(t.bytes[:0], t.bytes[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.bytes))
}

// process is a child that ends with this process at the latest.
type process struct {
	cmd    *exec.Cmd
	output *tail // standard error, and standard output unless it is read elsewhere
	done   chan struct{}
	err    error // valid after done
}

// start runs cmd in a session of its own, so that a Ctrl-C at the terminal does not reach it before its orderly end. The kernel kills it when this process
// dies.
func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, output: &tail{}, done: make(chan struct{})}
	cmd.Stderr = p.output
	if cmd.Stdout == nil {
		cmd.Stdout = p.output
	}
	cmd.WaitDelay = 2 * time.Second // a grandchild that holds the pipes must not hold us
	cmd.SysProcAttr = childAttributes()
	if err := startWithParent(cmd); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process id.
func (p *process) Pid() int { return p.cmd.Process.Pid }

// Output is the newest part of what the process printed.
func (p *process) Output() string { return p.output.String() }

// Exited says whether the process has ended.
func (p *process) Exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// ending says how the process ended, which it must have: "exit status 0", "signal: killed".
func (p *process) ending() string { return p.cmd.ProcessState.String() }

// Kill ends the process with SIGKILL and waits for it.
func (p *process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Pause stops the process as it stands (SIGSTOP): its connections stay open and silent.
func (p *process) Pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *process) Resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// terminate asks with SIGTERM, waits up to limit, then kills. A process that had to be killed or that ended with a status other than 0 is an error.
func (p *process) terminate(limit time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM and was killed; its output:\n%s", p.cmd.Path, limit, p.Output())
	}
	if exit, ok := errors.AsType[*exec.ExitError](p.err); ok && exit.ExitCode() != 0 {
		return fmt.Errorf("%s ended with %w; its output:\n%s", p.cmd.Path, p.err, p.Output())
	}
	return nil
}
