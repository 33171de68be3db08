package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// waitFor lets time pass until q is done and gives its outcome.
func (r *rig) waitFor(q *result) error {
	r.t.Helper()
	for range 3000 {
		if q.done {
			return q.Err
		}
		r.l.run(100 * msec)
	}
	require.Fail(r.t, "not answered")
	return nil
}

func (r *rig) flush() *result { return r.submit(block.Request{Op: block.OpFlush}) }

// caching makes the unit say whether its write cache is on.
func caching(on bool) func(*fakeUnit) {
	return func(u *fakeUnit) { u.mode.Pages = scsi.CachingPage{WCE: on}.AppendTo(nil) }
}

// What the unit reports after writes that were answered and not flushed, and
// whether the next flush must fail.
func TestCacheLoss(t *testing.T) {
	for name, c := range map[string]struct {
		unit    func(*fakeUnit)
		happens func(*rig)
		fails   bool
	}{
		"nothing":                 {nil, func(*rig) {}, false},
		"power on":                {nil, func(r *rig) { r.attend(0, scsi.ASCPowerOn) }, true},
		"internal reset":          {nil, func(r *rig) { r.attend(0, scsi.ASCDeviceInternalReset) }, true},
		"power on or reset":       {nil, func(r *rig) { r.attend(0, scsi.ASCPowerOnOrReset) }, true},
		"LUN reset by another":    {nil, func(r *rig) { r.attend(0, scsi.ASCDeviceReset) }, false},
		"bus reset":               {nil, func(r *rig) { r.attend(0, scsi.ASCBusReset) }, false},
		"nexus loss":              {nil, func(r *rig) { r.attend(0, scsi.ASCNexusLoss) }, false},
		"cache on":                {caching(true), func(r *rig) { r.attend(0, scsi.ASCPowerOn) }, true},
		"cache off":               {caching(false), func(r *rig) { r.attend(0, scsi.ASCPowerOn) }, false},
		"flushed before":          {nil, func(r *rig) { r.waitFor(r.flush()); r.attend(0, scsi.ASCPowerOn) }, false},
		"greeting":                {nil, func(r *rig) { r.attend(0, scsi.ASCPowerOnOrReset); r.s[0].cut(msec); r.l.run(sec) }, false},
		"power on during outage":  {nil, func(r *rig) { r.attend(0, scsi.ASCPowerOn); r.s[0].cut(msec); r.l.run(sec) }, true},
		"deferred write error":    {nil, func(r *rig) { r.deferred() }, true},
		"own reset":               {nil, func(r *rig) { r.d.paths[0].expectReset = true; r.attend(0, scsi.ASCPowerOnOrReset) }, false},
		"own reset, and power on": {nil, func(r *rig) { r.d.paths[0].expectReset = true; r.attend(0, scsi.ASCPowerOn) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, nil)
			if c.unit != nil {
				c.unit(r.unit)
			}
			r.up()
			require.NoError(t, r.waitFor(r.write(0, 1, 1)))
			c.happens(r)
			err := r.waitFor(r.flush())
			if !c.fails {
				require.NoError(t, err)
				assert.Empty(t, r.kinds(CacheLost))
				return
			}
			require.ErrorIs(t, err, block.ErrIO)
			assert.ErrorContains(t, err, "1 write answered since the last flush")
			assert.Len(t, r.kinds(CacheLost), 1)
			require.NoError(t, r.waitFor(r.flush()), "once")
			r.requireIdle()
		})
	}
}

// deferred has the next read bring the news that a write was lost.
func (r *rig) deferred() {
	s := scsi.Sense{Key: scsi.KeyMediumError, Code: scsi.ASCWriteError, Deferred: true}
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		return answer{status: scsi.CheckCondition, sense: s.AppendFixed(nil)}, cdb.Opcode() == scsi.OpRead10
	}
	assert.Error(r.t, r.waitFor(r.read(9, 1)))
	r.s[0].intercept = nil
}

// Every path reports the same event, some of them much later.
func TestCacheLossIsToldOnce(t *testing.T) {
	r := newRig(t, 3, nil).up()
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	for i := range r.s {
		r.attend(i, scsi.ASCPowerOn)
	}
	r.only(0)
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	require.NoError(t, r.waitFor(r.write(0, 1, 2)))
	for i := range r.s {
		r.only(i)
		require.NoError(t, r.waitFor(r.read(0, 1)))
	}
	require.NoError(t, r.waitFor(r.flush()))
	require.NoError(t, r.waitFor(r.write(0, 1, 3)))
	r.attend(2, scsi.ASCPowerOn)
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO, "and again")
	assert.Len(t, r.kinds(CacheLost), 2)
}

// A write that wants FUA of a unit without it is flushed. Its data is in question
// only if the loss came after it was written.
func TestCacheLossUnderAFlushedWrite(t *testing.T) {
	r := newRig(t, 1, nil)
	r.unit.mode.DPOFUA = false
	r.up()
	fua := func() *result {
		return r.submit(block.Request{Op: block.OpWrite, FUA: true, Length: testBlock, Data: stamp(4, 1)})
	}
	q := fua()
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() == scsi.OpSyncCache10 {
			r.s[0].intercept = nil
			return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
		}
		return answer{}, false
	}
	require.ErrorIs(t, r.waitFor(q), block.ErrIO)
	require.NoError(t, r.waitFor(fua()))
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO, "the flush tells, too")
	require.NoError(t, r.waitFor(r.flush()))
}

// All sessions are lost, and the target greets the new ones: nobody knows whether
// it lost power. That is said, but fails nothing.
func TestRestartIsSuspected(t *testing.T) {
	r := newRig(t, 2, nil).up()
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	for i := range r.s {
		r.attend(i, scsi.ASCPowerOnOrReset)
		r.s[i].cut(msec)
	}
	r.l.run(sec)
	assert.Len(t, r.kinds(CacheDoubted), 1)
	assert.Empty(t, r.kinds(AttentionSeen), "a greeting is no news")
	require.NoError(t, r.waitFor(r.flush()))

	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	r.attend(0, scsi.ASCPowerOnOrReset)
	r.s[0].cut(msec)
	r.l.run(sec)
	assert.Len(t, r.kinds(CacheDoubted), 1, "the other session was there all the time")
}

// A write that is answered while a flush is under way is not covered by it.
func TestFlushCoversWhatWasAnsweredBefore(t *testing.T) {
	r := newRig(t, 1, nil).up()
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	took := r.s[0].delay
	r.s[0].delay = func() int64 { return sec }
	flush := r.flush()
	r.s[0].delay = took
	require.NoError(t, r.waitFor(r.write(1, 1, 2)))
	require.False(t, flush.done)
	require.NoError(t, r.waitFor(flush))
	r.attend(0, scsi.ASCPowerOn)
	assert.ErrorContains(t, r.waitFor(r.flush()), "1 write answered since the last flush")
}
