//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchedByTop are the signals that concern a live view.
var watchedByTop = []os.Signal{
	os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT,
}

// What puts a terminal into use and out of it: the alternate screen, no cursor, no
// line wrapping (xterm's control sequences, which all terminals of today know).
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// terminal is the screen and keyboard of a live view.
type terminal struct {
	out, in *os.File
	keyed   bool          // in is a terminal too
	before  *unix.Termios // of in, before enter
	active  bool
}

// openTerminal gives the terminal that out is, or nil if it is none.
func openTerminal(out io.Writer, in *os.File) *terminal {
	f, ok := out.(*os.File)
	if !ok || !isTerminal(f) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	return &terminal{out: f, in: in, keyed: isTerminal(in)}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), ioctlGetTermios)
	return err == nil
}

// size is that of the screen; 80 by 24 if it does not say.
func (t *terminal) size() (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(t.out.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return 80, 24
	}
	return int(ws.Col), int(ws.Row)
}

// enter takes the terminal into use; leave must follow. Keys come one by one and
// are not shown; those that make signals still do.
func (t *terminal) enter() error {
	if t.active {
		return nil
	}
	if t.keyed {
		before, err := unix.IoctlGetTermios(int(t.in.Fd()), ioctlGetTermios)
		if err != nil {
			return err
		}
		raw := *before
		raw.Lflag &^= unix.ICANON | unix.ECHO
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 0, 1 // reads return after 0.1 s, with or without a key
		if err := setTermios(t.in, &raw); err != nil {
			return err
		}
		t.before = before
	}
	t.active = true
	_, err := t.out.WriteString(enterScreen)
	return err
}

// leave gives the terminal back as it was.
func (t *terminal) leave() {
	if !t.active {
		return
	}
	t.active = false
	_, _ = t.out.WriteString(leaveScreen)
	if t.before != nil {
		_ = setTermios(t.in, t.before) // a terminal that is gone needs nothing
		t.before = nil
	}
}

// setTermios sets the modes of a terminal, however many signals come meanwhile.
func setTermios(f *os.File, m *unix.Termios) error {
	for {
		err := unix.IoctlSetTermios(int(f.Fd()), ioctlSetTermios, m)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// draw shows the view, each line over the one that was there.
func (t *terminal) draw(v *topView) error {
	if !t.active { // about to be stopped
		return nil
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	lines := v.frame(t.size())
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l)
		b.WriteString("\x1b[K")
	}
	b.WriteString("\x1b[J")
	_, err := t.out.WriteString(b.String())
	return err
}

// signal reacts to a signal, and reports whether it ends the view.
func (t *terminal) signal(s os.Signal) (quit bool) {
	switch s {
	case syscall.SIGWINCH: // drawing comes anyway
	case syscall.SIGTSTP:
		t.leave()
		// It may take a moment until all threads stop; SIGCONT tells when it goes on.
		return unix.Kill(unix.Getpid(), unix.SIGSTOP) != nil
	case syscall.SIGCONT: // somebody else may have used the terminal, too
		t.leave()
		return t.enter() != nil
	default:
		return true
	}
	return false
}

// keys gives the keys that are pressed until ctx ends.
func (t *terminal) keys(ctx context.Context) <-chan string {
	keys := make(chan string)
	if !t.keyed {
		return keys
	}
	go func() {
		b := make([]byte, 32)
		for ctx.Err() == nil {
			n, err := unix.Read(int(t.in.Fd()), b)
			if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
				return // signals still end the view
			}
			for _, k := range splitKeys(string(b[:max(n, 0)])) {
				select {
				case keys <- k:
				case <-ctx.Done():
				}
			}
		}
	}()
	return keys
}
