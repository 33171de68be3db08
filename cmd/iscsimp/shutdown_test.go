package main

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/scsi"
)

// A client that stopped reading (a suspended virtual machine, say) uses up the
// time to drain. What others were told is written becomes durable all the same.
func TestAClientThatDoesNotReadCostsNobodyTheFlush(t *testing.T) {
	t.Parallel()
	memory := iscsitest.NewMemory(64 << 20)
	tgt := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Medium: memory}}})
	p := login(t, tgt, "--drain-timeout", "4")
	socket := filepath.Join(p.dir, "disk-0.nbd")
	stuck := dialExport(t, socket)
	stuck.send(uint32(0x25609513), uint16(0), uint16(0), uint64(1), uint64(0), uint32(32<<20))
	stuck.take(16) // the rest of the answer is never read
	c := dialExport(t, socket)
	c.write(7, 1)
	c.answered()
	before := memory.Syncs()
	p.signal(syscall.SIGTERM)
	assert.Equal(t, exitError, p.wait())
	assert.Contains(t, p.stderr.String(), "clients were cut off")
	assert.Greater(t, memory.Syncs(), before, "the last flush")
	assert.NotContains(t, p.stderr.String(), "the last flush was not done")
	p.hasEnded(tgt)
}

// The same with a client whose request hangs at the target.
func TestARequestThatHangsCostsNobodyTheFlush(t *testing.T) {
	t.Parallel()
	memory := iscsitest.NewMemory(1 << 20)
	tgt := startTarget(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Medium: memory}}})
	p := login(t, tgt, "--drain-timeout", "4")
	c := dialExport(t, filepath.Join(p.dir, "disk-0.nbd"))
	c.write(7, 1)
	c.answered()
	before := memory.Syncs()
	hold := iscsitest.NewHold(iscsitest.HoldStrict)
	tgt.Inject(iscsitest.SCSI(scsi.OpRead10, scsi.OpRead16), iscsitest.Hang(hold))
	c.send(uint32(0x25609513), uint16(0), uint16(0), uint64(1), uint64(0), uint32(512))
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	p.signal(syscall.SIGTERM)
	assert.Equal(t, exitError, p.wait())
	assert.Greater(t, memory.Syncs(), before, "the last flush")
	assert.NotContains(t, p.stderr.String(), "the last flush was not done")
}
