package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// TestCHAPSecret: a secret that was printed, and one from a file, log in.
func TestCHAPSecret(t *testing.T) {
	r := runCLI(t, "chap-secret")
	require.Zero(t, r.code, r.stderr)
	require.Regexp(t, `^[A-Z2-7]{26}\n$`, r.stdout)
	require.NotEqual(t, r.stdout, runCLI(t, "chap-secret").stdout)

	var report struct {
		Version      int
		Secret, File string
	}
	r = runCLI(t, "chap-secret", "--json")
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	require.Equal(t, 1, report.Version)
	require.Len(t, report.Secret, 26)
	require.Empty(t, report.File)

	path := filepath.Join(t.TempDir(), "secret")
	r = runCLI(t, "chap-secret", path, "--json")
	require.Zero(t, r.code, r.stderr)
	own := fileText(t, path)
	require.Len(t, own, 27)
	assert.NotContains(t, r.stdout, own[:26], "printed besides")
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	require.Equal(t, path, report.File)

	secret, err := initiator.LoadSecretFile(path)
	require.NoError(t, err)
	tgt := startTarget(t, iscsitest.Config{CHAP: &iscsitest.CHAP{Users: map[string]initiator.Secret{"alice": secret}}})
	r = runCLI(t, "luns", "-p", tgt.Addr(0), tgt.Name(), "--chap-user", "alice", "--chap-secret-file", path)
	require.Zero(t, r.code, r.stderr)

	r = runCLI(t, "chap-secret", path)
	require.Equal(t, exitInvalid, r.code)
	assert.Contains(t, r.stderr, "never overwritten")
	require.Equal(t, own, fileText(t, path))
	r = runCLI(t, "chap-secret", "a", "b")
	require.Equal(t, exitInvalid, r.code)
	_, err = os.Stat("a")
	require.ErrorIs(t, err, os.ErrNotExist)
}
