package chap

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGenerateSecret: 26 characters of an alphabet of 32 are 130 bits, of which 128
// have to be random, and all of them are such as every target's tools take without
// quotes.
func TestGenerateSecret(t *testing.T) {
	seen := map[string]bool{}
	count := map[rune]int{}
	for range 1000 {
		s := GenerateSecret()
		require.Regexp(t, regexp.MustCompile(`^[A-Z2-7]{26}$`), s)
		require.False(t, seen[s])
		seen[s] = true
		for _, r := range s {
			count[r]++
		}
	}
	require.Len(t, count, 32)
	for r, n := range count { // 812 on average, with a deviation of 28
		assert.InDelta(t, 26000/32, n, 300, "%c", r)
	}
}

func TestCreateSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, CreateSecretFile(path))
	s, err := LoadSecretFile(path)
	require.NoError(t, err)
	require.Equal(t, 26, s.Len())
	if runtime.GOOS != "windows" {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}

	err = CreateSecretFile(path)
	requireReason(t, ReasonSecret, err)
	require.ErrorIs(t, err, os.ErrExist)
	require.ErrorContains(t, err, path)
	again, err := LoadSecretFile(path)
	require.NoError(t, err)
	require.True(t, s.Equal(again), "overwritten")

	link := filepath.Join(t.TempDir(), "link")
	if os.Symlink(path+"2", link) == nil {
		require.Error(t, CreateSecretFile(link))
		require.NoFileExists(t, path+"2", "a link was followed")
	}
	requireReason(t, ReasonSecret, CreateSecretFile(filepath.Join(path, "below")))
}
