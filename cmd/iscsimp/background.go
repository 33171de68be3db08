package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/urfave/cli/v2"
)

const (
	flagBackground = "background"
	// handoffVariable tells a process that it was started by --background, and
	// the file descriptor on which to say how it went.
	handoffVariable = "ISCSIMP_HANDOFF_FD"
	logSuffix       = ".log" // NAME.log: what a process in the background logs
)

// handoffMessage is what the process in the background says, once.
type handoffMessage struct {
	Ready *readyReport `json:"ready,omitempty"`
	Error string       `json:"error,omitempty"`
	Code  int          `json:"code,omitempty"`
}

// handoff is the way from the process in the background to the one that
// started it. All methods do nothing on nil.
type handoff struct{ pipe *os.File }

// takeHandoff returns nil unless this process was started by --background.
func takeHandoff() *handoff {
	fd, err := strconv.Atoi(os.Getenv(handoffVariable))
	os.Unsetenv(handoffVariable)
	if err != nil {
		return nil
	}
	return &handoff{os.NewFile(uintptr(fd), "handoff")}
}

// send says m. Whoever started us may be gone already, which is no harm.
func (h *handoff) send(m handoffMessage) {
	if h == nil || h.pipe == nil {
		return
	}
	_ = json.NewEncoder(h.pipe).Encode(m)
	h.pipe.Close()
	h.pipe = nil
}

func (h *handoff) failed(err error) {
	if err != nil {
		h.send(handoffMessage{Error: err.Error(), Code: exitCode(err)})
	}
}

// startBackground runs the same command line in a process of its own, without a
// terminal, and waits until it is ready or has failed.
func startBackground(c *cli.Context, dir, name string) error {
	if detached() == nil {
		return usagef("--%s does not work on this system; use its service manager", flagBackground)
	}
	args, ok := c.App.Metadata[metadataArgs].([]string)
	if !ok {
		return errors.New("the command line is not known")
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	logPath := filepath.Join(dir, name+logSuffix)
	logFile, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("log of the background process: %w", err)
	}
	defer logFile.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{w} // becomes descriptor 3; the secrets come after it
	cmd.Env = append(os.Environ(), handoffVariable+"=3")
	cmd.SysProcAttr = detached()
	done, err := handOverSecrets(cmd)
	if err != nil {
		w.Close()
		return err
	}
	err = cmd.Start()
	done()
	w.Close()
	if err != nil {
		return fmt.Errorf("cannot start the background process: %w", err)
	}
	return awaitHandoff(c, cmd, r, logPath)
}

// awaitHandoff waits for the word of the process in the background. A signal
// meanwhile ends both.
func awaitHandoff(c *cli.Context, cmd *exec.Cmd, r io.Reader, logPath string) error {
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	said := make(chan handoffMessage, 1)
	go func() {
		var m handoffMessage
		if json.NewDecoder(r).Decode(&m) != nil {
			m = handoffMessage{Error: "the background process ended without a word; see " + logPath, Code: exitError}
		}
		said <- m
	}()
	var m handoffMessage
	select {
	case m = <-said:
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		m = <-said
		if m.Ready == nil {
			_ = cmd.Wait()
			return failf(exitError, "interrupted before the device was ready")
		}
	}
	if m.Ready == nil {
		_ = cmd.Wait()
		return failf(max(m.Code, exitError), "%s", m.Error)
	}
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	return printReady(c, *m.Ready)
}
