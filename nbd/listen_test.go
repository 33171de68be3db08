//go:build unix

package nbd

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
)

func TestListenUnixIsPrivate(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "s")
	ln, err := ListenUnix(path)
	require.NoError(t, err)
	info, err := os.Lstat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.ModeSocket|0o600, info.Mode())
	assert.Equal(t, path, ln.Addr().String())
	require.NoError(t, ln.Close())
	_, err = os.Lstat(path)
	require.ErrorIs(t, err, fs.ErrNotExist, "closing removes the socket")
	require.ErrorIs(t, ln.Close(), net.ErrClosed)
}

func TestListenUnixReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "s")
	leaveStale(t, path)
	ln, err := ListenUnix(path)
	require.NoError(t, err)
	require.NoError(t, ln.Close())
}

// leaveStale leaves a socket behind as a killed process does.
func leaveStale(t *testing.T, path string) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	ln.SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
}

func TestListenUnixLeavesOthersAlone(t *testing.T) {
	dir := shortdir.New(t)
	alive := filepath.Join(dir, "alive")
	ln, err := ListenUnix(alive)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(file, link))

	for path, text := range map[string]string{
		alive:                              "another process serves",
		file:                               "is not a socket",
		link:                               "is not a socket",
		dir:                                "is not a socket",
		filepath.Join(dir, "no", "folder"): "cannot listen",
		filepath.Join(dir, strings.Repeat("x", maxSocketPath)): "choose a shorter one",
	} {
		_, err := ListenUnix(path)
		require.ErrorContains(t, err, text)
	}
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "precious", string(data))
	c, err := net.Dial("unix", alive)
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestListenUnixClosesOnlyItsOwn(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "s")
	first, err := ListenUnix(path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path)) // somebody tidied up
	second, err := ListenUnix(path)
	require.NoError(t, err)
	require.NoError(t, first.Close())
	_, err = os.Lstat(path)
	require.NoError(t, err, "the successor's socket stays")
	require.NoError(t, second.Close())
}

// Of many that find the same stale socket, one may listen, and its socket works.
func TestListenUnixRace(t *testing.T) {
	path := filepath.Join(shortdir.New(t), "s")
	for range 10 {
		leaveStale(t, path)
		var mu sync.Mutex
		var won []net.Listener
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				ln, err := ListenUnix(path)
				if err != nil {
					assert.ErrorContains(t, err, "another process serves")
					return
				}
				mu.Lock()
				won = append(won, ln)
				mu.Unlock()
			})
		}
		wg.Wait()
		require.Len(t, won, 1)
		c, err := net.Dial("unix", path)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, won[0].Close())
	}
}

func TestListenUnixWithoutRights(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may do anything")
	}
	dir := shortdir.New(t)
	require.NoError(t, os.Chmod(dir, 0o500))
	_, err := ListenUnix(filepath.Join(dir, "s"))
	require.True(t, errors.Is(err, fs.ErrPermission))
}
