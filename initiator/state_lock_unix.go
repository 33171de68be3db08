//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package initiator

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// takeLock takes the lock of the file at path, which it makes; the system gives it back
// when the process ends, however it ends. A file system without locks, or a folder that
// cannot be written to, is gone without: file is nil then.
func takeLock(path string) (file *os.File, taken bool) {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(10 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, true
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(f, path) {
			return f, true
		}
		_ = f.Close()
		switch {
		case err == nil, errors.Is(err, unix.EINTR): // removed by the holder before, meanwhile
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, true
		case time.Now().After(deadline):
			return nil, false
		}
	}
}

// isAt reports whether path names the open file f.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
