package nbd

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// maxSocketPath is the longest path of a Unix socket that all systems take.
const maxSocketPath = 103

// probeTimeout is how long a socket found in the way may take to show that
// somebody answers there.
const probeTimeout = time.Second

// ListenUnix listens on a Unix socket that only the own user may use (mode
// 0600, from its first moment on). A socket that a dead process left behind is
// replaced; one that somebody answers on, or that cannot be judged, and any
// other file in the way is left alone, and the error says what to do. Closing
// the listener removes the socket, unless another one has taken its place.
func ListenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("nbd: the socket path %q has %d bytes, the system allows %d: choose a shorter one", path, len(path), maxSocketPath)
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("nbd: cannot listen on %q: %w", path, err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := listenPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("nbd: cannot listen on %q: %w", path, err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("nbd: the socket %q vanished as soon as it was made: %w", path, err)
	}
	return &unixListener{UnixListener: ln, path: path, info: info}, nil
}

// removeStale removes a dead process's socket at path, if there is one.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("nbd: cannot look at %q: %w", path, err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("nbd: %q exists and is not a socket: remove it or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("nbd: another process serves %q already: stop it or choose another path", path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nbd: the socket %q is in the way, and whether it is still in use cannot be told: remove it if it is not, or choose another path: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nbd: the socket %q was left behind by a dead process and cannot be removed: %w", path, err)
	}
	return nil
}

// unixListener removes its socket when closed, but not a successor's.
type unixListener struct {
	*net.UnixListener
	path  string
	info  os.FileInfo
	close sync.Once
}

// Close implements net.Listener.
func (l *unixListener) Close() error {
	err := net.ErrClosed
	l.close.Do(func() {
		if now, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(now, l.info) {
			_ = os.Remove(l.path)
		}
		err = l.UnixListener.Close()
	})
	return err
}
