package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
)

// TestDoctorTriesTheLogin: that discovery works says nothing about the target.
func TestDoctorTriesTheLogin(t *testing.T) {
	cleanState(t)
	me := []string{"--initiator-name", "iqn.2026-01.test.iscsimp:host"}
	open := startTarget(t, iscsitest.Config{})
	r := runCLI(t, append(me, "doctor", "-p", open.Addr(0), open.Name())...)
	assert.Zero(t, r.code, r.stdout)
	assert.Contains(t, r.stdout, "lets iqn.2026-01.test.iscsimp:host in, without CHAP")
	locked := chapTarget(t)
	r = runCLI(t, append(me, "doctor", "-p", locked.Addr(0), locked.Name())...)
	assert.Equal(t, exitAuth, r.code, r.stdout)
	assert.Contains(t, r.stdout, "give --chap-user and --chap-secret-file")
	assert.NotContains(t, r.stdout, "iscsimp doctor", "it is what runs")
}

func TestDoctorLooksAtRunningDevices(t *testing.T) {
	down := sample()
	down.State, down.PathsUp, down.PathsTotal = "no-path", 0, 2
	for _, c := range []struct {
		device deviceStatus
		status verdict
		says   string
	}{
		{deviceStatus{Name: "a", State: "up", PathsUp: 1, PathsTotal: 1}, verdictOK, "up, 1 of 1 path up"},
		{down, verdictWarn, "no-path, 0 of 2 paths up"},
		{notAnswering("b", claim{PID: 7}), verdictWarn, "process 7 runs it but does not answer"},
	} {
		f := checkDevice(c.device)
		assert.Equal(t, c.status, f.Status)
		assert.Equal(t, c.says, f.Detail)
		assert.Equal(t, c.status == verdictOK, f.Remedy == "")
	}
	assert.Contains(t, checkDevice(down).Remedy, "iscsimp explain disk1-0")
}

func TestDoctorLooksAtTheStateFolder(t *testing.T) {
	assert.Equal(t, verdictOK, checkState(t.TempDir()).Status)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	f := checkState(filepath.Join(file, "state"))
	assert.Equal(t, verdictWarn, f.Status)
	assert.Contains(t, f.Remedy, "--state-dir")
}
