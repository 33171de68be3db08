package initiator

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Two devices with one state folder would end each other's sessions, and the first that
// closes would take the note away on which the other relies.
func TestStateFolderIsForOneAtATime(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no locks there")
	}
	c := stateConfig(t)
	c.Portals, c.OnlyGiven = []string{"127.0.0.1:1"}, true
	c, err := c.withDefaults()
	require.NoError(t, err)
	first, err := newDevice(c)
	require.NoError(t, err)
	require.NoError(t, first.state.save(1, records()))
	_, err = newDevice(c)
	require.ErrorContains(t, err, "in use")
	require.FileExists(t, first.state.path, "the other is not harmed")

	readOnly := c
	readOnly.ReadOnly = true
	d, err := newDevice(readOnly)
	require.NoError(t, err, "it notes nothing")
	d.Abort()

	first.Abort()
	d, err = newDevice(c)
	require.NoError(t, err)
	d.Abort()
	left, err := filepath.Glob(filepath.Join(c.StateDir, "*.lock"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

// A save that hangs when the device is closed does nothing to the next one's note.
func TestHungSaveKeepsTheStateFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no locks there")
	}
	c := stateConfig(t)
	f, next := newStateFile(c), newStateFile(c)
	require.NoError(t, f.claim())
	f.mu.Lock() // a save that hangs, and one behind it
	late := make(chan error, 1)
	go func() { late <- f.save(2, nil) }()
	f.release()
	require.Error(t, next.claim())
	f.mu.Unlock()
	require.Eventually(t, func() bool { return next.claim() == nil }, time.Minute, time.Millisecond)
	require.NoError(t, next.save(1, records()))
	require.NoError(t, <-late)
	list, err := next.load()
	require.NoError(t, err)
	assert.Len(t, list, 2)
	next.release()
	_, err = os.Stat(next.path)
	require.NoError(t, err)
}
