package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// once has the next command of a path that is not INQUIRY answered in some way.
func (r *rig) once(i int, a answer) {
	s := r.s[i]
	s.intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() == scsi.OpInquiry {
			return answer{}, false
		}
		s.intercept = nil
		return a, true
	}
}

// Every one of many paths has news to tell, one command after the other: what one
// request meets on its way from path to path is not held against it.
func TestNewsOnEveryPath(t *testing.T) {
	for name, a := range map[string]answer{
		"reset":                sense(scsi.KeyUnitAttention, scsi.ASCPowerOnOrReset),
		"inventory":            sense(scsi.KeyUnitAttention, scsi.ASCReportedLUNsChanged),
		"parameters":           sense(scsi.KeyUnitAttention, scsi.ASCModeParametersChanged),
		"not offered":          sense(scsi.KeyIllegalRequest, scsi.ASCLUNNotSupported),
		"manual intervention":  sense(scsi.KeyNotReady, 0x0403),
		"hardware of the port": sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure),
	} {
		for _, paths := range []int{1, 2, 3, 24} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, paths, nil).up()
				for i := range paths {
					r.once(i, a)
				}
				read, write := r.read(0, 1), r.write(8, 1, 7)
				r.l.run(sec)
				require.True(t, read.done && write.done)
				assert.NoError(t, read.Err, "%d paths", paths)
				assert.NoError(t, write.Err, "%d paths", paths)
				r.requireIdle()
			})
		}
	}
}

// A path whose unit is looked at while it carries I/O, as after a change of mode
// parameters, and that leads elsewhere by now: what is under way is not trusted, the
// path is out of use, and looked at again when told so by hand.
func TestOtherUnitBehindAPathInUse(t *testing.T) {
	for name, other := range map[string]struct {
		change func(*fakeUnit)
		state  State
	}{
		"another disk": {func(u *fakeUnit) { *u = *otherUnit() }, StateQuarantined},
		"no disk":      {func(u *fakeUnit) { u.inquiry.DeviceType = scsi.TypeEnclosure }, StateDown},
		"no LUN":       {func(u *fakeUnit) { u.inquiry.PeripheralQualifier, u.inquiry.DeviceType = 3, 0x1f }, StateDown},
		"no blocks":    {func(u *fakeUnit) { u.capacity.BlockSize = 0 }, StateDown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil).up()
			r.only(0)
			unit := newFakeUnit(4096)
			other.change(unit)
			copy(unit.data, stamp(99, 10))
			r.s[0].unit = unit
			slow := false
			r.s[0].delay = func() int64 { // the read takes longer than the whole check
				if slow {
					slow = false
					return 50 * msec
				}
				return 100 * usec
			}
			slow = true
			read := r.read(0, 1)
			r.d.paths[0].startCheck("mode parameters changed")
			r.l.run(20 * msec)
			assert.Equal(t, other.state, r.state(0))
			second := r.read(1, 1)
			r.l.run(200 * msec)
			for _, q := range []*result{read, second} {
				require.True(t, q.done)
				require.NoError(t, q.Err)
				assert.Zero(t, q.Data[0], "never another unit's data")
			}
			assert.Equal(t, other.state, r.state(0))
			r.s[0].unit = r.unit
			require.NoError(t, r.d.SetPath("a", PathOp{Kind: OpUp}))
			r.l.run(sec)
			assert.Equal(t, StateUp, r.state(0))
			r.requireIdle()
		})
	}
}

// A path passed its check and waits until its session is noted. Meanwhile it is looked at
// again, and leads elsewhere. The note comes too late to let it in.
func TestLateNoteAfterAnotherCheck(t *testing.T) {
	for name, change := range map[string]func(*fakeUnit){
		"another disk": func(u *fakeUnit) { *u = *otherUnit() },
		"no disk":      func(u *fakeUnit) { u.inquiry.DeviceType = scsi.TypeEnclosure },
	} {
		t.Run(name, func(t *testing.T) {
			r, book := newNoted(t, 2, nil)
			r.s[1].loginTakes = 20 * msec
			book.takes = 500 * msec
			r.d.Start()
			r.l.run(100 * msec)
			unit := newFakeUnit(4096)
			change(unit)
			r.s[1].unit = unit
			r.d.paths[1].doubt("reported LUNs data changed")
			r.l.run(2 * sec)
			assert.Equal(t, StateUp, r.state(0))
			assert.NotEqual(t, StateUp, r.state(1))
			r.only(1)
			require.NoError(t, r.waitFor(r.write(0, 1, 1)))
			assert.Zero(t, unit.counts[scsi.OpWrite10])
		})
	}
}

// What was in flight when the target cast doubt on a path is not trusted, though the check
// finds nothing wrong before it is answered: it may be from another unit all the same.
func TestAnswerFromBeforeTheDoubt(t *testing.T) {
	r := newRig(t, 1, nil).up()
	right, other := r.unit, otherUnit()
	copy(other.data, stamp(99, 10))
	slow := true
	r.s[0].delay = func() int64 {
		if slow {
			slow = false
			return 50 * msec
		}
		return 100 * usec
	}
	read := r.read(0, 1)
	r.attend(0, scsi.ASCReportedLUNsChanged)
	second := r.read(1, 1)
	r.l.run(20 * msec)
	require.True(t, second.done)
	require.Equal(t, StateUp, r.state(0))
	require.False(t, read.done)
	r.l.run(20 * msec)
	r.s[0].unit = other // the slow read is executed by it
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		r.l.after(0, func() { r.s[0].unit = right })
		r.s[0].intercept = nil
		return answer{}, false
	}
	r.l.run(100 * msec)
	require.True(t, read.done)
	require.NoError(t, read.Err)
	assert.Zero(t, read.Data[0], "another unit's data")
	assert.Equal(t, 1, other.counts[scsi.OpRead10])
}

// INQUIRY says that the unit is not connected here, as that of an unavailable port group is, but the
// target does not say that the group is. That is asked about a few times, and from time to time.
func TestNotConnectedThoughAccessible(t *testing.T) {
	r := newRig(t, 2, nil)
	r.unit.inquiry.TPGS = scsi.TPGSImplicit
	r.up()
	u := r.nameless(1, func(u *fakeUnit) { u.inquiry.PeripheralQualifier = scsi.QualifierNotConnected })
	r.s[1].cut(msec)
	r.l.run(5 * sec)
	assert.Equal(t, StateDown, r.state(1))
	assert.ErrorIs(t, r.event(PathDown).Err, ErrNoSuchLUN)
	assert.LessOrEqual(t, u.counts[scsi.OpInquiry], 6*(maxAttentions+1), "six each time")
	r.only(1)
	require.NoError(t, r.waitFor(r.write(1, 1, 1)))
	assert.Zero(t, u.counts[scsi.OpWrite10])
	r.s[1].unit = r.unit
	r.l.run(2 * recheckAfter.Nanoseconds())
	assert.Equal(t, StateUp, r.state(1))
}
