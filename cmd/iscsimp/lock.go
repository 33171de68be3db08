package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/iscsimp/iscsimp/internal/filelock"
	"github.com/iscsimp/iscsimp/scsi"
)

// claim says who runs a device. It is what a lock file holds.
type claim struct {
	PID     int     `json:"pid"`
	Name    string  `json:"name"`
	Target  string  `json:"target"`
	LUN     lunJSON `json:"lun"`
	Started string  `json:"started"` // RFC 3339
	// RuntimeDir is where its control socket is.
	RuntimeDir string `json:"runtime_dir,omitempty"`

	// Ended is written last, so that whoever waits for the end can tell an orderly
	// one from that of a process that was killed. Failed says what did not go well.
	Ended  bool   `json:"ended,omitempty"`
	Failed string `json:"failed,omitempty"`
}

// deviceLock keeps a second process from running the same name, or the same
// target and LUN: two processes that log in with one set of ISIDs would throw
// each other out for ever (RFC 7143 §6.3.5).
type deviceLock struct {
	files []*os.File
	claim claim // what stands in them
}

// lockDevice takes both locks of a device, or says who has them. The locks end
// with the process; a dead process leaves none behind.
func lockDevice(dir, name, target string, lun scsi.LUN) (*deviceLock, error) {
	c := claim{PID: os.Getpid(), Name: name, Target: target, LUN: lunJSON(lun), Started: formatTime(time.Now()), RuntimeDir: dir}
	l := &deviceLock{claim: c}
	for _, file := range []string{name + lockSuffix, deviceLockFile(target, lun)} {
		if err := l.take(filepath.Join(dir, file)); err != nil {
			l.release()
			var busy *exitErr
			if errors.As(err, &busy) {
				return nil, err
			}
			return nil, fmt.Errorf("cannot lock the device: %w; make room in the runtime folder, or choose another with --%s", err, flagRuntimeDir)
		}
	}
	return l, nil
}

// deviceLockFile is the name of the file that stands for target and LUN.
func deviceLockFile(target string, lun scsi.LUN) string {
	return ".device-" + shortHash(target, lun.String()) + lockSuffix
}

// take adds one file to the lock, or says who has it.
func (l *deviceLock) take(path string) error {
	f, holder, err := lockFile(path, l.claim, lockPatience)
	if err != nil {
		return err
	}
	if f == nil {
		return alreadyRunning(l.claim, holder)
	}
	l.files = append(l.files, f)
	return nil
}

// lockState takes the device in the state folder, too: a process with another
// runtime folder would throw this one out as well, and the two would write over
// each other's notes of what a crash leaves behind. Where the folder cannot be
// used at all, a device that notes nothing there does without.
func (l *deviceLock) lockState(stateDir string, readOnly bool, logger *slog.Logger) error {
	if stateDir == "" {
		return nil
	}
	path := filepath.Join(stateDir, deviceLockFile(l.claim.Target, scsi.LUN(l.claim.LUN)))
	if slices.ContainsFunc(l.files, func(f *os.File) bool { return filelock.Names(f, path) }) {
		return nil // it is the runtime folder
	}
	err := os.MkdirAll(stateDir, 0o755)
	if err == nil {
		err = l.take(path)
	}
	var busy *exitErr
	var system *os.SyscallError
	switch {
	case err == nil || errors.As(err, &busy):
		return err
	case readOnly || errors.As(err, &system) && system.Syscall == "flock": // not every file system has locks
		logger.Warn("cannot lock the device in the state folder: see that no process with another runtime folder runs it", "err", err)
		return nil
	}
	return fmt.Errorf("the state folder: %w; make it writable and see that it has room, or choose another with --%s", err, flagStateDir)
}

// alreadyRunning says that holder has what mine would take.
func alreadyRunning(mine, holder claim) error {
	if holder.Target != mine.Target || holder.LUN != mine.LUN {
		return failf(exitExists, "the name %q is taken by process %d for %s LUN %v; choose another with --name",
			mine.Name, holder.PID, holder.Target, holder.LUN)
	}
	where := ""
	if holder.RuntimeDir != "" && holder.RuntimeDir != mine.RuntimeDir {
		where = fmt.Sprintf(" --%s %s", flagRuntimeDir, holder.RuntimeDir)
	}
	return failf(exitExists, "already logged in to %s LUN %v: process %d runs it as %q; `iscsimp logout %s%s` ends it",
		mine.Target, mine.LUN, holder.PID, holder.Name, holder.Name, where)
}

// lockPatience is for commands that hold a lock for a moment, to see whether
// anybody else does.
const lockPatience = 300 * time.Millisecond

// lockFile locks the file at path and writes c into it. If another process
// holds it, and goes on to as long as patience says, f is nil and holder is that process's claim.
func lockFile(path string, c claim, patience time.Duration) (f *os.File, holder claim, err error) {
	f, err = filelock.Take(path, patience)
	switch {
	case err != nil:
		return nil, holder, err
	case f == nil:
		return nil, claimAt(path), nil
	}
	if err := writeClaim(f, c); err != nil {
		f.Close()
		return nil, holder, err
	}
	return f, c, nil
}

// writeClaim replaces what stands in a lock file.
func writeClaim(f *os.File, c claim) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(b, '\n'), 0)
	return err
}

// claimAt is readClaim of the file at path.
func claimAt(path string) (c claim) {
	f, err := os.Open(path)
	if err != nil {
		return c // its holder has just ended
	}
	defer f.Close()
	return readClaim(f)
}

func readClaim(f *os.File) (c claim) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err == nil {
		_ = json.Unmarshal(b, &c) // half-written: the zero claim will do
	}
	return c
}

// end is release at the end of the process's work, and tells those who wait for it how
// that went.
func (l *deviceLock) end(failure error) {
	l.claim.Ended = true
	if failure != nil {
		l.claim.Failed = strings.ReplaceAll(failure.Error(), "\n", "; ") // errors that were joined
	}
	for _, f := range l.files {
		_ = writeClaim(f, l.claim) // on a full disk they learn of an end only
	}
	l.release()
}

// release removes the files and gives the locks back.
func (l *deviceLock) release() {
	for _, f := range l.files {
		os.Remove(f.Name()) // while it is still locked: see filelock.Names
		f.Close()
	}
	l.files = nil
}

// holderOf tells who runs the device called name, if anybody does.
func holderOf(dir, name string) (c claim, running bool) {
	w := watchEnd(dir, name)
	defer w.close()
	return w.holder()
}

// removeStale removes the sockets a dead process left under name. A running
// process, or one that is just starting, keeps its own.
func removeStale(dir, name string) {
	f, _, err := lockFile(filepath.Join(dir, name+lockSuffix), claim{PID: os.Getpid(), Name: name}, 0)
	if err != nil || f == nil {
		return
	}
	os.Remove(filepath.Join(dir, name+controlSuffix))
	os.Remove(filepath.Join(dir, name+exportSuffix))
	os.Remove(f.Name())
	f.Close()
}
