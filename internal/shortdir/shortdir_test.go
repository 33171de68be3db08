package shortdir_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
)

func TestSocketsFit(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 20))
	require.NoError(t, os.Mkdir(long, 0o700))
	t.Setenv("TMPDIR", long)
	var dir string
	t.Run("a test", func(t *testing.T) {
		dir = shortdir.New(t)
		l, err := net.Listen("unix", filepath.Join(dir, strings.Repeat("n", 60)))
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	})
	_, err := os.Stat(dir)
	assert.ErrorIs(t, err, os.ErrNotExist)
}
