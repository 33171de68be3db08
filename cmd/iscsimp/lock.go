package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
)

// claim says who runs a device. It is what a lock file holds.
type claim struct {
	PID     int     `json:"pid"`
	Name    string  `json:"name"`
	Target  string  `json:"target"`
	LUN     lunJSON `json:"lun"`
	Started string  `json:"started"` // RFC 3339
}

// deviceLock keeps a second process from running the same name, or the same
// target and LUN: two processes that log in with one set of ISIDs would throw
// each other out for ever (RFC 7143 §6.3.5).
type deviceLock struct {
	files []*os.File
}

// lockDevice takes both locks of a device, or says who has them. The locks end
// with the process; a dead process leaves none behind.
func lockDevice(dir, name, target string, lun scsi.LUN) (*deviceLock, error) {
	c := claim{PID: os.Getpid(), Name: name, Target: target, LUN: lunJSON(lun), Started: formatTime(time.Now())}
	l := &deviceLock{}
	for _, file := range []string{name + lockSuffix, ".device-" + shortHash(target, lun.String()) + lockSuffix} {
		f, holder, err := lockPatiently(filepath.Join(dir, file), c)
		if err != nil {
			l.release()
			return nil, fmt.Errorf("cannot lock the device: %w", err)
		}
		if f == nil {
			l.release()
			return nil, alreadyRunning(name, target, lun, holder)
		}
		l.files = append(l.files, f)
	}
	return l, nil
}

func alreadyRunning(name, target string, lun scsi.LUN, holder claim) error {
	if holder.Target == target && scsi.LUN(holder.LUN) == lun {
		return failf(exitExists, "already logged in to %s LUN %v: process %d runs it as %q; `iscsimp logout %s` ends it",
			target, lun, holder.PID, holder.Name, holder.Name)
	}
	return failf(exitExists, "the name %q is taken by process %d for %s LUN %v; choose another with --name",
		name, holder.PID, holder.Target, holder.LUN)
}

// lockPatience is for commands that hold a lock for a moment, to see whether
// anybody else does.
const lockPatience = 300 * time.Millisecond

// lockPatiently is lockFile, but takes a held lock for held only after a while.
func lockPatiently(path string, c claim) (f *os.File, holder claim, err error) {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		f, holder, err = lockFile(path, c)
		if f != nil || err != nil || time.Now().After(deadline) {
			return f, holder, err
		}
	}
}

// lockFile locks the file at path and writes c into it. If another process
// holds it, f is nil and holder is that process's claim.
func lockFile(path string, c claim) (f *os.File, holder claim, err error) {
	for {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, holder, err
		}
		taken, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, holder, err
		}
		if !taken {
			holder = readClaim(f)
			f.Close()
			return nil, holder, nil
		}
		if !stillAt(f, path) { // the former holder removed it between open and lock
			f.Close()
			continue
		}
		b, err := json.Marshal(c)
		if err == nil {
			err = f.Truncate(0)
		}
		if err == nil {
			_, err = f.WriteAt(append(b, '\n'), 0)
		}
		if err != nil {
			f.Close()
			return nil, holder, err
		}
		return f, c, nil
	}
}

// stillAt reports whether path names the open file f.
func stillAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

func readClaim(f *os.File) (c claim) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err == nil {
		_ = json.Unmarshal(b, &c) // half-written: the zero claim will do
	}
	return c
}

// release removes the files and gives the locks back.
func (l *deviceLock) release() {
	for _, f := range l.files {
		os.Remove(f.Name()) // while it is still locked: see stillAt
		f.Close()
	}
	l.files = nil
}

// holderOf tells who runs the device called name, if anybody does.
func holderOf(dir, name string) (c claim, running bool) {
	f, err := os.OpenFile(filepath.Join(dir, name+lockSuffix), os.O_RDWR, 0)
	if err != nil {
		return c, false
	}
	defer f.Close()
	taken, err := tryLock(f)
	if err != nil {
		return c, false
	}
	return readClaim(f), !taken
}

// removeStale removes the sockets a dead process left under name. A running
// process, or one that is just starting, keeps its own.
func removeStale(dir, name string) {
	f, _, err := lockFile(filepath.Join(dir, name+lockSuffix), claim{PID: os.Getpid(), Name: name})
	if err != nil || f == nil {
		return
	}
	os.Remove(filepath.Join(dir, name+controlSuffix))
	os.Remove(filepath.Join(dir, name+exportSuffix))
	os.Remove(f.Name())
	f.Close()
}
