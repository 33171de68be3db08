package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// attend has a path's next command of any kind but INQUIRY answered with a UNIT
// ATTENTION, once.
func (r *rig) attend(i int, code scsi.ASC) {
	s := r.s[i]
	before := s.intercept
	s.intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() == scsi.OpInquiry {
			return answer{}, false
		}
		s.intercept = before
		return sense(scsi.KeyUnitAttention, code), true
	}
}

// views gives each path a view of the same medium with a size of its own.
func (r *rig) views(blocks ...int) {
	for i, n := range blocks {
		u := *r.unit
		u.capacity.LastLBA = uint64(n - 1)
		r.s[i].unit = &u
	}
}

func (r *rig) blocks() uint64 { return r.d.Geometry().Size / testBlock }

// weaken leaves the unit nothing that is unique by rule.
func (r *rig) weaken() { r.unit.designators = nil }

func TestGrowth(t *testing.T) {
	for name, weak := range map[string]bool{"strong": false, "weak": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil)
			if weak {
				r.weaken()
			}
			r.up()
			r.unit.data = append(r.unit.data, make([]byte, 4096*testBlock)...)
			r.views(8192, 8192)
			r.attend(0, scsi.ASCCapacityChanged)
			r.attend(1, scsi.ASCCapacityChanged)
			require.NoError(t, r.waitFor(r.read(0, 1)))
			r.l.run(sec)
			assert.Equal(t, uint64(8192), r.blocks())
			assert.Equal(t, []EventKind{CapacityChanged}, r.kinds(CapacityChanged))
			assert.Contains(t, r.event(CapacityChanged).Text, "grew")
			assert.Len(t, r.kinds(AttentionSeen), 1, "two paths reported one event")
			require.NoError(t, r.waitFor(r.write(8190, 2, 7)))
			for i := range 2 {
				assert.Equal(t, StateUp, r.state(i))
			}
			r.requireIdle()
		})
	}
}

// A path that was away finds a unit that is larger. It is the same beyond doubt.
func TestGrowthDuringAnOutage(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.unit.capacity.LastLBA = 8191
	r.s[0].cut(msec)
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(0))
	assert.Equal(t, uint64(8192), r.blocks())
}

// ... or not beyond doubt, for the session was not there to be told.
func TestWeakGrowthDuringAnOutage(t *testing.T) {
	r := newRig(t, 1, nil)
	r.weaken()
	r.up()
	r.unit.capacity.LastLBA = 8191
	r.s[0].cut(msec)
	r.l.run(sec)
	assert.Equal(t, StateQuarantined, r.state(0))
}

// The controllers learn of the growth at different times: the device grows with
// the last one, and nothing is sent past what a path has shown.
func TestGrowthPathByPath(t *testing.T) {
	r := newRig(t, 3, nil).up()
	r.views(8192, 4096, 6000)
	r.attend(0, scsi.ASCCapacityChanged)
	r.only(0)
	require.NoError(t, r.waitFor(r.read(0, 1)))
	r.l.run(sec)
	assert.Equal(t, uint64(4096), r.blocks())
	assert.Contains(t, r.event(CapacityChanged).Text, "keeps")
	assert.ErrorIs(t, r.waitFor(r.read(4096, 1)), block.ErrRange)

	r.views(8192, 8192, 6000)
	r.s[1].cut(msec)
	r.l.run(sec)
	assert.Equal(t, uint64(6000), r.blocks())
	r.views(8192, 8192, 8192)
	r.s[2].cut(msec)
	r.l.run(sec)
	assert.Equal(t, uint64(8192), r.blocks())
	for i := range 3 {
		assert.Equal(t, StateUp, r.state(i))
	}
}

func TestShrink(t *testing.T) {
	for name, weak := range map[string]bool{"strong": false, "weak": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil)
			if weak {
				r.weaken()
			}
			r.up()
			r.views(1000, 1000)
			r.attend(0, scsi.ASCCapacityChanged)
			r.attend(1, scsi.ASCCapacityChanged)
			inside, across, past := r.write(998, 2, 5), r.write(999, 2, 6), r.read(2000, 1)
			r.l.run(2 * sec)
			require.True(t, inside.done && across.done && past.done)
			require.NoError(t, inside.Err)
			require.ErrorIs(t, across.Err, block.ErrRange)
			require.ErrorIs(t, past.Err, block.ErrRange)
			assert.Equal(t, uint64(1000), r.blocks())
			assert.Equal(t, uint64(5), r.at(999), "nothing of the write across the end")
			assert.Contains(t, r.event(CapacityChanged).Text, "shrank")
			assert.ErrorIs(t, r.waitFor(r.read(1000, 1)), block.ErrRange)
			for i := range 2 {
				assert.Equal(t, StateUp, r.state(i))
			}
			r.requireIdle()
		})
	}
}

// One path says that the unit shrank, the other one does not agree: it alone is
// used, at the old size, until both say the same.
func TestShrinkIsDisputed(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.views(1000, 4096)
	r.attend(0, scsi.ASCCapacityChanged)
	r.only(0)
	require.NoError(t, r.waitFor(r.read(0, 1)))
	r.l.run(30 * sec)
	assert.Equal(t, []State{StateDown, StateUp}, []State{r.state(0), r.state(1)})
	assert.Equal(t, uint64(4096), r.blocks())
	require.NoError(t, r.waitFor(r.read(4095, 1)))
	r.views(4096, 4096)
	r.l.run(30 * sec)
	assert.Equal(t, StateUp, r.state(0), "it was a passing fancy")
}

// Less than before, without a word that it was resized: that may be a copy of an
// older state of the unit, and is never used.
func TestShrinkWithoutAWord(t *testing.T) {
	for name, happens := range map[string]func(*rig){
		"outage":       func(r *rig) { r.s[0].cut(msec) },
		"inquiry data": func(r *rig) { r.attend(0, scsi.ASCInquiryDataChanged); r.read(0, 1) },
		"silently":     func(r *rig) { r.read(2000, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, nil).up()
			r.views(1000)
			happens(r)
			r.l.run(sec)
			assert.Equal(t, StateQuarantined, r.state(0))
			assert.Equal(t, uint64(4096), r.blocks())
		})
	}
}

// A resize comes with another identity: another unit was put in its place.
func TestResizeToAnotherUnit(t *testing.T) {
	for _, blocks := range []uint64{1000, 8192} {
		r := newRig(t, 2, nil).up()
		other := otherUnit()
		other.capacity.LastLBA = blocks - 1
		r.s[0].unit = other
		r.attend(0, scsi.ASCCapacityChanged)
		r.only(0)
		require.NoError(t, r.waitFor(r.read(0, 1)))
		r.l.run(sec)
		assert.Equal(t, StateQuarantined, r.state(0))
		assert.Equal(t, uint64(4096), r.blocks())
		assert.Zero(t, other.counts[scsi.OpRead10]+other.counts[scsi.OpWrite10])
	}
}

// A path says "out of range" of a block inside the device.
func TestPathThatIsBehind(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.views(4096, 4096)
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		return sense(scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange), cdb.Opcode() == scsi.OpRead10
	}
	require.NoError(t, r.waitFor(r.read(4000, 1)), "the other path can")
	r.s[1].intercept = r.s[0].intercept
	require.ErrorIs(t, r.waitFor(r.read(4000, 1)), block.ErrIO)
	r.requireIdle()
}

func TestWriteProtectionFollowsTheUnit(t *testing.T) {
	r := newRig(t, 2, nil).up()
	protect := func(on bool) {
		r.unit.mode.WriteProtected = on
		for i := range r.s {
			r.attend(i, scsi.ASCModeParametersChanged)
			r.only(i)
			require.NoError(t, r.waitFor(r.read(0, 1)))
		}
		r.l.run(sec)
	}
	protect(true)
	assert.True(t, r.d.Geometry().ReadOnly)
	assert.ErrorIs(t, r.waitFor(r.write(0, 1, 1)), block.ErrReadOnly)
	protect(false)
	assert.False(t, r.d.Geometry().ReadOnly)
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	assert.Len(t, r.kinds(ProtectionChanged), 2)
	assert.Len(t, r.kinds(AttentionSeen), 2, "each change told once")
	assert.Empty(t, r.kinds(PathDown))
}

// The unit grows while it is looked at: what was read of it before does not count.
func TestGrowthDuringACheck(t *testing.T) {
	r := newRig(t, 1, nil).up()
	s := r.s[0]
	for step, op := range []scsi.Opcode{scsi.OpTestUnitReady, scsi.OpServiceActionIn16, scsi.OpModeSense6} {
		want, doubted := uint64(5000+step), false
		s.intercept = func(cdb scsi.CDB) (answer, bool) {
			switch {
			case cdb.Opcode() == scsi.OpRead10 && !doubted:
				doubted = true
				return sense(scsi.KeyUnitAttention, scsi.ASCReportedLUNsChanged), true
			case cdb.Opcode() == op:
				s.intercept = nil
				r.unit.capacity.LastLBA = want - 1
				return sense(scsi.KeyUnitAttention, scsi.ASCCapacityChanged), true
			}
			return answer{}, false
		}
		require.NoError(t, r.waitFor(r.read(0, 1)))
		r.l.run(sec)
		assert.Equal(t, want, r.blocks(), op)
	}
}

// A path that showed another size without a word, as its session was lost before the word came,
// is looked at again once the device has that size.
func TestResizeAndOutage(t *testing.T) {
	for name, blocks := range map[string]int{"shrink": 1000, "growth": 8192} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil)
			if blocks > 4096 {
				r.weaken()
			}
			r.up()
			r.unit.data = append(r.unit.data, make([]byte, 4096*testBlock)...)
			r.views(4096, blocks)
			r.s[1].cut(msec)
			r.l.run(sec)
			require.Equal(t, StateQuarantined, r.state(1))
			r.views(blocks, blocks)
			r.attend(0, scsi.ASCCapacityChanged)
			require.NoError(t, r.waitFor(r.read(0, 1)))
			r.l.run(sec)
			assert.Equal(t, uint64(blocks), r.blocks())
			assert.Equal(t, []State{StateUp, StateUp}, []State{r.state(0), r.state(1)})
		})
	}
}
