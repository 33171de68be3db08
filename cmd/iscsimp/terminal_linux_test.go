package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/iscsimp/iscsimp/internal/shortdir"
)

// screen is a pseudo-terminal with a program on it.
type screen struct {
	t       *testing.T
	ours    *os.File // the user's side
	theirs  *os.File // the program's side
	cmd     *exec.Cmd
	ended   chan error
	mu      sync.Mutex // guards shown
	shown   strings.Builder
	changed chan struct{}
}

// openPTY makes a pseudo-terminal of 80 by 24, or skips.
func openPTY(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { ours.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { theirs.Close() })
	require.NoError(t, unix.IoctlSetWinsize(int(ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}))
	return ours, theirs
}

// onScreen starts `iscsimp top` on a terminal.
func onScreen(t *testing.T, args ...string) *screen {
	s := &screen{t: t, ended: make(chan error, 1), changed: make(chan struct{}, 1)}
	s.ours, s.theirs = openPTY(t)
	s.cmd = self(t.Context(), append([]string{"top", "--interval", "0.1", "--runtime-dir", shortdir.New(t)}, args...)...)
	s.cmd.Env = append(s.cmd.Env, "TERM=xterm")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.theirs, s.theirs, s.theirs
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, s.cmd.Start())
	go s.read()
	go func() { s.ended <- s.cmd.Wait() }()
	s.sees(enterScreen)
	return s
}

func (s *screen) read() {
	b := make([]byte, 4096)
	for {
		n, err := s.ours.Read(b)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.shown.Write(b[:n])
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
}

// text is what was shown since the last call of sees.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// sees waits for a text, and forgets what came up to it.
func (s *screen) sees(want string) {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		_, rest, found := strings.Cut(s.shown.String(), want)
		if found {
			s.shown.Reset()
			s.shown.WriteString(rest)
		}
		s.mu.Unlock()
		if found {
			return
		}
		select {
		case <-s.changed:
		case <-deadline:
			s.t.Fatalf("%q was not shown, but %q", want, s.text())
		}
	}
}

func (s *screen) mode() unix.Termios {
	m, err := unix.IoctlGetTermios(int(s.theirs.Fd()), ioctlGetTermios)
	require.NoError(s.t, err)
	return *m
}

// TestTheTerminalIsRestored: however the view ends.
func TestTheTerminalIsRestored(t *testing.T) {
	for name, end := range map[string]func(s *screen){
		"q":       func(s *screen) { _, _ = s.ours.WriteString("xq") },
		"Ctrl-C":  func(s *screen) { _, _ = s.ours.WriteString("\x03") },
		"SIGTERM": func(s *screen) { _ = s.cmd.Process.Signal(syscall.SIGTERM) },
		"SIGHUP":  func(s *screen) { _ = s.cmd.Process.Signal(syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := onScreen(t)
			s.sees("No device runs here")
			during := s.mode()
			assert.Zero(t, during.Lflag&(unix.ICANON|unix.ECHO), "keys come one by one")
			end(s)
			require.NoError(t, <-s.ended)
			s.sees(leaveScreen)
			after := s.mode()
			assert.Equal(t, uint32(unix.ICANON|unix.ECHO), after.Lflag&(unix.ICANON|unix.ECHO))
			assert.Equal(t, uint8(1), after.Cc[unix.VMIN])
			assert.Empty(t, s.text(), "nothing comes after it")
		})
	}
}

// TestTheTerminalWhileStopped: Ctrl-Z gives it back, and fg takes it again.
func TestTheTerminalWhileStopped(t *testing.T) {
	s := onScreen(t)
	s.sees("No device runs here")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTSTP))
	s.sees(leaveScreen)
	require.Eventually(t, func() bool { return stateOfProcess(t, s.cmd.Process.Pid) == "T" }, patience, time.Millisecond)
	assert.NotZero(t, s.mode().Lflag&unix.ICANON)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGCONT))
	s.sees(enterScreen)
	s.sees("No device runs here")
	require.Eventually(t, func() bool { return s.mode().Lflag&unix.ICANON == 0 }, patience, time.Millisecond)
	_, err := s.ours.WriteString("q")
	require.NoError(t, err)
	require.NoError(t, <-s.ended)
	assert.NotZero(t, s.mode().Lflag&unix.ICANON)
}

// stateOfProcess is the letter ps(1) shows.
func stateOfProcess(t *testing.T, pid int) string {
	text := fileText(t, fmt.Sprintf("/proc/%d/stat", pid))
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:])[0]
}

// TestTopFollowsTheSize: a resized terminal gets a frame that fits.
func TestTopFollowsTheSize(t *testing.T) {
	s := onScreen(t)
	s.sees("`iscsimp login` starts one.")
	require.NoError(t, unix.IoctlSetWinsize(int(s.ours.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 20}))
	s.sees("  0…") // a frame at the new size has a shortened first line
	_, err := s.ours.WriteString("q")
	require.NoError(t, err)
	require.NoError(t, <-s.ended)
}
