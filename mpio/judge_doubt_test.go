package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// underDoubt is a device of two paths, with a request in flight on path 0 when the
// target says there that its list of units has changed; what it answers to the request
// may be another unit's word.
func underDoubt(t *testing.T, submit func(*rig) *result, a answer) (*rig, *result) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold = true
	q := submit(r)
	r.l.run(msec)
	require.Len(t, r.s[0].flights, 1)
	op := r.s[0].flights[0].cdb.Opcode()
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) { return a, cdb.Opcode() == op }
	r.d.paths[0].doubt("test")
	r.s[0].release()
	require.NoError(t, r.waitFor(q), "the other path leads to the unit")
	return r, q
}

// TestErrorOfAnUnverifiedPathIsNotBelieved, no more than a success is.
func TestErrorOfAnUnverifiedPathIsNotBelieved(t *testing.T) {
	read := func(r *rig) *result { return r.read(10, 1) }
	write := func(r *rig) *result { return r.write(10, 1, 1) }
	for name, c := range map[string]struct {
		submit func(*rig) *result
		answer answer
	}{
		"medium error":     {read, sense(scsi.KeyMediumError, scsi.ASCUnrecoveredReadError)},
		"out of range":     {read, sense(scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange)},
		"unknown command":  {read, sense(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode)},
		"write protected":  {write, sense(scsi.KeyDataProtect, scsi.ASCWriteProtected)},
		"conflict":         {write, answer{status: scsi.ReservationConflict}},
		"busy for a while": {write, answer{status: scsi.Busy}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := underDoubt(t, c.submit, c.answer)
			assert.Empty(t, r.d.ghosts)
			assert.Empty(t, r.kinds(RequestFailed))
		})
	}
}

// Another unit that has no SYNCHRONIZE CACHE would end all flushes for good.
func TestUnverifiedPathDoesNotSwitchFlushesOff(t *testing.T) {
	flush := func(r *rig) *result { return r.flush() }
	r, _ := underDoubt(t, flush, sense(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode))
	assert.False(t, r.d.caps.sync16 || r.d.caps.noSync)
	assert.Equal(t, 1, r.unit.counts[scsi.OpSyncCache10])
	assert.Empty(t, r.kinds(FeatureLost))
}

// A unit that has flushed once can do it: a refusal is the path's trouble, or an error.
func TestFlushesAreNotSwitchedOffOnceOneWorked(t *testing.T) {
	r := newRig(t, 2, nil).up()
	require.NoError(t, r.waitFor(r.flush()))
	r.only(0)
	refuses := func(cdb scsi.CDB) (answer, bool) {
		op := cdb.Opcode()
		return sense(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode), op == scsi.OpSyncCache10 || op == scsi.OpSyncCache16
	}
	r.s[0].intercept = refuses
	for range 3 {
		require.NoError(t, r.waitFor(r.flush()))
	}
	assert.Equal(t, 4, r.unit.counts[scsi.OpSyncCache10]+r.unit.counts[scsi.OpSyncCache16], "over the other path")
	r.s[1].intercept = refuses
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	assert.False(t, r.d.caps.noSync)
	r.s[0].intercept, r.s[1].intercept = nil, nil
	require.NoError(t, r.waitFor(r.flush()))
	r.requireIdle()
}
