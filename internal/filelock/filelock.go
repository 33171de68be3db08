// Package filelock takes locks of files that keep other processes out. The system gives
// them back when the process ends, however it ends. What does not belong here: what
// stands in the files, and who may wait for whom.
package filelock

import (
	"os"
	"time"
)

// pause is the time between two tries of Take.
const pause = 10 * time.Millisecond

// Names reports whether path is the open file f: whoever took the lock of a file that its
// former holder removed between open and lock holds nothing.
func Names(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Take opens the file at path, which it makes (mode 0600) if it is not there, and takes its
// lock, for which it waits as long as patience says. If another has it until then, f is nil without an
// error. Whoever gives the lock back removes the file first, while it is still locked.
func Take(path string, patience time.Duration) (f *os.File, err error) {
	for deadline := time.Now().Add(patience); ; {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		taken, err := Try(f)
		if err == nil && taken && Names(f, path) {
			return f, nil
		}
		_ = f.Close()
		switch {
		case err != nil:
			return nil, err
		case taken: // removed meanwhile: at once again
		case time.Now().After(deadline):
			return nil, nil
		default:
			time.Sleep(pause)
		}
	}
}
