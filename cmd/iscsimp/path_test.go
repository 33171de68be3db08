package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/shortdir"
	"github.com/iscsimp/iscsimp/iscsitest"
)

// TestSteeringThatMayNotBeMeant: it is done, and what it does is said.
func TestSteeringThatMayNotBeMeant(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{Portals: make([]iscsitest.Portal, 2)})
	p := login(t, tgt, "--wait", "all")
	path := func(args ...string) result {
		r := runCLI(t, append([]string{"path", "disk-0", "--runtime-dir", p.dir}, args...)...)
		assert.Zero(t, r.code, r.stderr)
		assert.Empty(t, r.stdout)
		return r
	}
	assert.Contains(t, path("1", "weight", "3").stderr, "latency does not go by weights")
	assert.Empty(t, path("policy", "round-robin").stderr)
	assert.Empty(t, path("1", "weight", "3").stderr)
	assert.Contains(t, path("1", "priority", "2").stderr, "whatever their priority")
	assert.Empty(t, path("1", "down").stderr)
	assert.Contains(t, path("2", "down").stderr, "last path of disk-0: I/O waits for one; `iscsimp path disk-0 2 up`")
	assert.Empty(t, path("2", "up").stderr)
	p.signal(syscall.SIGTERM)
	assert.Zero(t, p.wait())
}

// TestADeviceOfAnotherUser: that it may not be seen does not mean that there is none.
func TestADeviceOfAnotherUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do everything")
	}
	dir := shortdir.New(t)
	defer runFake(t, dir, "theirs", &fakeDevice{})()
	for _, file := range []string{"theirs.lock", "theirs.sock"} {
		require.NoError(t, os.Chmod(filepath.Join(dir, file), 0))
	}
	for _, args := range []string{"paths theirs", "logout theirs", "path theirs 1 down", "reserve theirs read"} {
		r := runCLI(t, append(strings.Fields(args), "--runtime-dir", dir)...)
		assert.Equal(t, exitError, r.code, args)
		assert.Contains(t, r.stderr, "ask as the user who runs it", args)
		assert.Equal(t, 1, strings.Count(r.stderr, "permission denied"), r.stderr)
	}
}

// TestNoStateFolder: a file that happens to lie here is none of ours.
func TestNoStateFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, os.WriteFile("initiatorname.iscsi", []byte("InitiatorName=iqn.2026-01.test:stray\n"), 0o600))
	_, _, err := nameFinder{systemFile: "/nonexistent"}.find("")
	assert.ErrorContains(t, err, "--initiator-name")
}
