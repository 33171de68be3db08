package filelock

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTake(t *testing.T) {
	if !Supported {
		t.Skip("no locks here")
	}
	path := filepath.Join(t.TempDir(), "x.lock")
	first, err := Take(path, 0)
	require.NoError(t, err)
	require.NotNil(t, first)

	second, err := Take(path, 30*time.Millisecond)
	require.NoError(t, err)
	assert.Nil(t, second, "another has it")

	taken := make(chan *os.File)
	go func() {
		f, _ := Take(path, time.Minute)
		taken <- f
	}()
	require.NoError(t, os.Remove(path))
	require.NoError(t, first.Close())
	f := <-taken
	require.NotNil(t, f)
	assert.True(t, Names(f, path), "not the file that was removed")
	require.NoError(t, f.Close())

	_, err = Take(filepath.Join(path, "none"), 0)
	require.Error(t, err)
}

func TestNames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	f, err := os.Create(path)
	require.NoError(t, err)
	assert.True(t, Names(f, path))
	assert.False(t, Names(f, path+"2"))
	if Supported { // elsewhere an open file cannot be replaced
		require.NoError(t, os.Remove(path))
		g, err := os.Create(path)
		require.NoError(t, err)
		assert.False(t, Names(f, path), "another file of that name")
		require.NoError(t, g.Close())
	}
	require.NoError(t, f.Close())
	assert.False(t, Names(f, path), "closed")
}
