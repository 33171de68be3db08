package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/scsi"
)

// hangFlushes keeps the target of p from answering flushes.
func hangFlushes(tgt *iscsitest.Target) *iscsitest.Hold {
	hold := iscsitest.NewHold(iscsitest.HoldStrict)
	tgt.Inject(iscsitest.SCSI(scsi.OpSyncCache10, scsi.OpSyncCache16), iscsitest.Hang(hold))
	return hold
}

// TestLogoutTellsHowItEnded: "logged out" is for a device whose data is safe.
func TestLogoutTellsHowItEnded(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt, "--drain-timeout", "0.2")
	hangFlushes(tgt)
	r := runCLI(t, "logout", "disk-0", "--json", "--runtime-dir", p.dir)
	assert.Equal(t, exitError, r.code, r.stderr)
	assert.Contains(t, r.stderr, "the last flush")
	var report logoutReport
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	require.Len(t, report.Devices, 1)
	assert.True(t, report.Devices[0].Gone, "it is gone all the same")
	assert.Contains(t, report.Devices[0].Error, "the last flush")
	assert.Equal(t, exitError, p.wait())
	p.hasEnded(tgt)
}

// TestLogoutByForceIsWhatWasAskedFor: what it costs is said, but it is no failure.
func TestLogoutByForceIsWhatWasAskedFor(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt)
	hold := hangFlushes(tgt)
	p.signal(syscall.SIGTERM)
	require.NoError(t, hold.WaitHeld(t.Context(), 1), "it flushes first")
	r := runCLI(t, "logout", "disk-0", "--force", "--runtime-dir", p.dir)
	assert.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stdout, "disk-0: logged out")
	assert.Contains(t, r.stderr, "may be lost")
	assert.Equal(t, 1, strings.Count(r.stderr, "\n"), r.stderr)
	assert.Equal(t, exitError, p.wait())
}

// TestLogoutOfAProcessThatIsKilled: its end was none in order.
func TestLogoutOfAProcessThatIsKilled(t *testing.T) {
	tgt := startTarget(t, iscsitest.Config{})
	p := login(t, tgt)
	hold := hangFlushes(tgt)
	done := make(chan result, 1)
	go func() { done <- runCLI(t, "logout", "disk-0", "--runtime-dir", p.dir) }()
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	p.signal(os.Kill)
	r := <-done
	assert.Equal(t, exitError, r.code, r.stderr)
	assert.Contains(t, r.stderr, "did not log out")
	p.wait()
}
