package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// syncFails has the next SYNCHRONIZE CACHE over any path answered with a, once.
func (r *rig) syncFails(a answer) {
	for _, s := range r.s {
		s.intercept = func(cdb scsi.CDB) (answer, bool) {
			if cdb.Opcode() != scsi.OpSyncCache10 {
				return answer{}, false
			}
			for _, s := range r.s {
				s.intercept = nil
			}
			return a, true
		}
	}
}

// A SYNCHRONIZE CACHE that failed at the target and succeeds when it is sent again
// proves nothing: what could not be written the first time may have been dropped, as
// Linux drops it.
func TestFailedSynchronizeIsNotHiddenByTheNext(t *testing.T) {
	for name, c := range map[string]struct {
		answer answer
		fails  bool
	}{
		"LIO, fsync fails":        {sense(scsi.KeyNotReady, scsi.ASCCommunicationFailure), true},
		"the same, older":         {sense(scsi.KeyAbortedCommand, scsi.ASCCommunicationFailure), true},
		"write error":             {sense(scsi.KeyMediumError, scsi.ASCWriteError), true},
		"hardware":                {sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure), true},
		"not tried: standby":      {sense(scsi.KeyNotReady, scsi.ASCALUAStandby), false},
		"not tried: starting":     {sense(scsi.KeyNotReady, scsi.ASCBecomingReady), false},
		"not tried: busy":         {answer{status: scsi.Busy}, false},
		"not tried: news":         {sense(scsi.KeyUnitAttention, scsi.ASCModeParametersChanged), false},
		"not tried: other reset":  {sense(scsi.KeyUnitAttention, scsi.ASCDeviceReset), false},
		"not tried: no such unit": {sense(scsi.KeyIllegalRequest, scsi.ASCLUNNotSupported), false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil)
			r.unit.mode.DPOFUA = false
			r.up()
			r.syncFails(c.answer)
			require.NoError(t, r.waitFor(r.write(0, 1, 1)))
			err := r.waitFor(r.flush())
			if c.fails {
				require.ErrorIs(t, err, block.ErrIO)
			} else {
				require.NoError(t, err)
			}
			require.NoError(t, r.waitFor(r.flush()), "once")

			r.syncFails(c.answer)
			err = r.waitFor(r.flush())
			if c.answer.status == scsi.CheckCondition && name != "write error" {
				require.NoError(t, err, "there was nothing to store")
			}

			// The flush after a write with FUA covers what was answered before, too.
			require.NoError(t, r.waitFor(r.write(0, 1, 1)))
			r.syncFails(c.answer)
			fua := r.submit(block.Request{Op: block.OpWrite, FUA: true, Length: testBlock, Data: stamp(4, 1)})
			err = r.waitFor(fua)
			if !c.fails {
				require.NoError(t, err)
				require.NoError(t, r.waitFor(r.flush()))
				return
			}
			require.ErrorIs(t, err, block.ErrIO)
			require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO, "that caller is not everybody")
			require.NoError(t, r.waitFor(r.flush()))
			r.requireIdle()
		})
	}
}

// Of flushes under way one hears that the store failed; the others hear it, too.
func TestFailedSynchronizeFailsAllUnderWay(t *testing.T) {
	r := newRig(t, 2, nil).up()
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	r.syncFails(sense(scsi.KeyMediumError, scsi.ASCWriteError))
	first, second := r.flush(), r.flush()
	require.ErrorIs(t, r.waitFor(first), block.ErrIO)
	require.ErrorIs(t, r.waitFor(second), block.ErrIO)
	require.NoError(t, r.waitFor(r.flush()))
}

// Linux's target syncs after a write with FUA, and may tell then that it could not store
// what others have written.
func TestFailedWriteThroughIsNotHiddenByTheNext(t *testing.T) {
	r := newRig(t, 2, nil).up()
	require.NoError(t, r.waitFor(r.write(7, 1, 1)))
	r.only(0)
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		return sense(scsi.KeyNotReady, scsi.ASCCommunicationFailure), cdb.Opcode() == scsi.OpWrite10
	}
	require.NoError(t, r.waitFor(r.submit(block.Request{Op: block.OpWrite, FUA: true, Length: testBlock, Data: stamp(4, 1)})), "it was written anew")
	assert.Len(t, r.kinds(CacheLost), 1)
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	require.NoError(t, r.waitFor(r.flush()))
}

// What was answered before has been flushed, but a write under way may have been dropped
// by the failure.
func TestFailedSynchronizeConcernsWritesUnderWay(t *testing.T) {
	r := newRig(t, 1, nil).up()
	took := r.s[0].delay
	r.s[0].delay = func() int64 { return sec }
	q := r.write(0, 1, 1)
	r.s[0].delay = took
	r.syncFails(sense(scsi.KeyMediumError, scsi.ASCWriteError))
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	require.Empty(t, r.kinds(CacheLost), "nothing that was answered")
	require.NoError(t, r.waitFor(q), "it may have been executed before")
	assert.Len(t, r.kinds(CacheLost), 1)
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	require.NoError(t, r.waitFor(r.flush()))
	r.requireIdle()
}
