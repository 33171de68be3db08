package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// Flushes under way when the cache was lost cover what was in it, all of them; and if
// something was answered since they were asked for, so does the next one.
func TestCacheLossFailsEveryFlushUnderWay(t *testing.T) {
	for _, meanwhile := range []bool{false, true} {
		r := newRig(t, 2, nil).up()
		r.only(0)
		require.NoError(t, r.waitFor(r.write(0, 1, 1)))
		took := r.s[0].delay
		r.s[0].delay = func() int64 { return sec }
		first, second := r.flush(), r.flush()
		r.s[0].delay = took
		r.only(1)
		if meanwhile {
			require.NoError(t, r.waitFor(r.write(1, 1, 2)))
		}
		r.attend(1, scsi.ASCPowerOn)
		require.NoError(t, r.waitFor(r.read(0, 1)))
		require.False(t, first.done || second.done)
		require.Len(t, r.kinds(CacheLost), 1)
		require.ErrorIs(t, r.waitFor(first), block.ErrIO)
		require.ErrorIs(t, r.waitFor(second), block.ErrIO, "whoever asked for it relies on the same writes")
		if meanwhile {
			require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO, "those were not asked to cover the second write")
		}
		require.NoError(t, r.waitFor(r.flush()), "once")
		r.requireIdle()
	}
}

// zeroSteps is a unit that refuses WRITE SAME, whereupon one command becomes several
// writes; after n of them the cache is lost, and lose is called.
func zeroSteps(t *testing.T, n int, lose func(r *rig)) (*rig, *result) {
	r := newRig(t, 1, nil)
	r.unit.limits.MaxWriteSame = 64
	r.unit.refuse[scsi.OpWriteSame16] = true
	r.up()
	writes := 0
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() != scsi.OpWrite10 {
			return answer{}, false
		}
		if writes++; writes == n+1 {
			r.s[0].intercept = nil
			lose(r)
			return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
		}
		return answer{}, false
	}
	r.d.zeros = r.d.zeros[:16*testBlock]
	return r, r.submit(block.Request{Op: block.OpWriteZeroes, Length: 64 * testBlock})
}

// The first steps of a request are in the cache before the request is answered.
func TestCacheLossBetweenTheStepsOfZeroing(t *testing.T) {
	for n, fails := range map[int]bool{0: false, 1: true, 3: true} {
		r, q := zeroSteps(t, n, func(*rig) {})
		require.NoError(t, r.waitFor(q))
		if err := r.waitFor(r.flush()); fails {
			require.ErrorIs(t, err, block.ErrIO, n)
		} else {
			require.NoError(t, err, n)
		}
		require.NoError(t, r.waitFor(r.flush()))
		assert.Equal(t, 5, r.unit.counts[scsi.OpWrite10]+1)
		r.requireIdle()
	}
}

// A flush that fails while a request is half done says nothing of that request: it is
// answered later, and its first half is gone.
func TestCacheLossUnderARequestOutlivesAnEarlierFlush(t *testing.T) {
	var flush *result
	r, q := zeroSteps(t, 2, func(r *rig) {
		r.s[0].delay = func() int64 { return sec }
		flush = r.flush()
		r.s[0].delay = func() int64 { return 2 * sec }
	})
	require.NoError(t, r.waitFor(q))
	require.True(t, flush.done)
	require.ErrorIs(t, flush.Err, block.ErrIO)
	r.s[0].delay = func() int64 { return msec }
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO, "it covers the request, of which a part is lost")
	require.NoError(t, r.waitFor(r.flush()))
	r.requireIdle()
}

// The same where that flush is answered after the request.
func TestCacheLossUnderARequestOutlivesALaterAnswer(t *testing.T) {
	var flush *result
	r, q := zeroSteps(t, 2, func(r *rig) {
		r.s[0].delay = func() int64 { return 20 * sec }
		flush = r.flush()
		r.s[0].delay = func() int64 { return msec }
	})
	require.NoError(t, r.waitFor(q))
	require.False(t, flush.done)
	require.ErrorIs(t, r.waitFor(flush), block.ErrIO)
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	require.NoError(t, r.waitFor(r.flush()))
	r.requireIdle()
}

// The same for a write of many commands, and for one that was carried out as a whole
// after the loss, of which nothing is lost.
func TestCacheLossBetweenCommandsOfAWrite(t *testing.T) {
	for lost, name := range map[int]string{0: "before the first", 1: "after the first"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, func(c *Config) { c.MaxTransfer = 64 << 10 }).up()
			r.s[0].room = 1
			require.NoError(t, r.waitFor(r.write(1000, 1, 1)))
			writes, flush := 0, (*result)(nil)
			r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
				if cdb.Opcode() != scsi.OpWrite10 {
					return answer{}, false
				}
				if writes++; writes == lost+1 {
					r.s[0].intercept = nil
					return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
				}
				return answer{}, false
			}
			q := r.write(0, 4*128, 2)
			flush = r.flush()
			require.NoError(t, r.waitFor(q))
			require.ErrorIs(t, r.waitFor(flush), block.ErrIO)
			if lost == 0 {
				require.NoError(t, r.waitFor(r.flush()))
			} else {
				require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
			}
			require.NoError(t, r.waitFor(r.flush()))
			assert.Equal(t, uint64(2), r.at(511))
			r.requireIdle()
		})
	}
}

// A write whose answer is still on its way over another path when the loss is reported
// may have been in the cache before, and lost with it.
func TestCacheLossConcernsWritesUnderWay(t *testing.T) {
	for _, fua := range []bool{false, true} {
		r := newRig(t, 2, nil)
		r.unit.mode.DPOFUA = false
		r.up()
		require.NoError(t, r.waitFor(r.write(1, 1, 1)))
		r.only(0)
		took := r.s[0].delay
		r.s[0].delay = func() int64 { return 5 * sec }
		q := r.submit(block.Request{Op: block.OpWrite, FUA: fua, Length: testBlock, Data: stamp(2, 1)})
		r.s[0].delay = took
		r.only(1)
		r.attend(1, scsi.ASCDeviceInternalReset)
		require.NoError(t, r.waitFor(r.read(1, 1)))
		require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
		require.False(t, q.done)
		err := r.waitFor(q) // it may have been executed before
		if fua {
			require.ErrorIs(t, err, block.ErrIO)
		} else {
			require.NoError(t, err)
		}
		if !fua {
			require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO, "no flush before covers it")
		}
		require.NoError(t, r.waitFor(r.flush()))
		r.requireIdle()
	}
}
