package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// answers makes a session answer reads and writes with a, n times; checks go through.
func answers(s *fakeSession, n int, a answer) *int {
	count := new(int)
	s.intercept = func(cdb scsi.CDB) (answer, bool) {
		if op := cdb.Opcode(); op != scsi.OpRead10 && op != scsi.OpWrite10 {
			return answer{}, false
		}
		if *count++; *count > n {
			return answer{}, false
		}
		return a, true
	}
	return count
}

func TestRemedies(t *testing.T) {
	const always = 1 << 30
	for _, c := range []struct {
		name   string
		times  int
		answer answer
		within int64 // the request is done
		after  int64 // ... but not before
		err    error
		other  bool // it ended on the other path
	}{
		{"busy for a while", 5, answer{status: scsi.Busy}, sec, 20 * msec, nil, false},
		{"busy for ever", always, answer{status: scsi.Busy}, 31 * sec, 30 * sec, block.ErrIO, false},
		{"queue full for a while", 3, answer{status: scsi.TaskSetFull}, sec, 20 * msec, nil, false},
		{"task aborted", 1, answer{status: scsi.TaskAborted}, sec, 5 * msec, nil, false},
		{"unit attention", 1, sense(scsi.KeyUnitAttention, scsi.ASCModeParametersChanged), msec, 0, nil, false},
		{"unit attention without end", always, sense(scsi.KeyUnitAttention, scsi.ASCModeParametersChanged), 10 * msec, 0, block.ErrIO, false},
		{"becoming ready", 4, sense(scsi.KeyNotReady, scsi.ASCBecomingReady), 2 * sec, 5 * msec, nil, true},
		{"aborted command", 2, sense(scsi.KeyAbortedCommand, scsi.ASCNone), msec, 0, nil, false},
		{"standby", always, sense(scsi.KeyNotReady, scsi.ASCALUAStandby), 10 * msec, 0, nil, true},
		{"hardware of this path", always, sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure), 10 * msec, 0, nil, true},
		{"medium error", always, sense(scsi.KeyMediumError, scsi.ASCUnrecoveredReadError), msec, 0, block.ErrIO, false},
		{"no space", always, sense(scsi.KeyDataProtect, scsi.ASCSpaceAllocationFailed), msec, 0, block.ErrNoSpace, false},
		{"write protected", always, sense(scsi.KeyDataProtect, scsi.ASCWriteProtected), msec, 0, block.ErrReadOnly, false},
		{"reserved by another host", always, answer{status: scsi.ReservationConflict}, msec, 0, block.ErrIO, false},
		{"recovered error", always, sense(scsi.KeyRecoveredError, scsi.ASCNone), msec, 0, nil, false},
		{"check condition without sense", 1, answer{status: scsi.CheckCondition}, msec, 0, nil, false},
		{"short", always, answer{under: true, residual: 512}, 10 * msec, 0, nil, true},
		{"too long", always, answer{over: true, residual: 512}, 10 * msec, 0, nil, true},
		{"unknown status", always, answer{status: 0x77}, msec, 0, block.ErrIO, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 2, nil).up()
			answers(r.s[0], c.times, c.answer)
			if !c.other {
				r.s[1].cut(100000 * sec)
			}
			r.only(0)
			w := r.write(0, 1, 1)
			if c.other {
				require.NoError(t, r.d.SetPath("b", PathOp{Kind: OpPriority, Value: 1}))
			}
			r.l.run(c.after)
			assert.False(t, w.done && c.after > 0, "too early")
			r.l.run(c.within - c.after)
			require.True(t, w.done)
			if c.err == nil {
				assert.NoError(t, w.Err)
			} else {
				assert.ErrorIs(t, w.Err, c.err)
				assert.NotEmpty(t, r.d.Snapshot().Paths[0].LastError)
			}
			if c.err == nil && c.name != "recovered error" {
				assert.Equal(t, uint64(1), r.at(0))
				assert.Equal(t, c.other, r.d.paths[1].stat.ios > 0)
			}
			r.requireIdle()
		})
	}
}

func TestShortReadIsNoSuccess(t *testing.T) {
	r := newRig(t, 1, nil).up()
	answers(r.s[0], 1<<30, answer{received: 100})
	q := r.read(0, 1)
	r.l.run(sec)
	require.True(t, q.done)
	require.ErrorIs(t, q.Err, block.ErrIO)
	assert.Contains(t, q.Err.Error(), "answered GOOD but moved 100")
	assert.Equal(t, uint64(2), r.d.paths[0].stat.retries)
	r.requireIdle()
}

func TestLongReadIsNoSuccess(t *testing.T) {
	r := newRig(t, 1, nil).up()
	answers(r.s[0], 1<<30, answer{received: 512, over: true, residual: 512})
	q := r.read(0, 1)
	r.l.run(sec)
	require.True(t, q.done)
	require.ErrorIs(t, q.Err, block.ErrIO, "the target's idea of a block is another one")
}

func TestTaskSetFullLowersTheQueue(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.d.paths[0].ramp = 0
	n := 0
	r.s[0].intercept = func(scsi.CDB) (answer, bool) {
		if n++; n == 1 {
			return answer{status: scsi.TaskSetFull}, true
		}
		return answer{}, false
	}
	for i := range 17 {
		r.read(i, 1)
	}
	r.l.run(100 * usec)
	assert.Equal(t, 12, r.d.Snapshot().Paths[0].Cost.Limit)
	for i := range 2000 {
		r.read(i, 1)
	}
	r.l.run(sec)
	assert.Greater(t, r.d.paths[0].limit, 12, "and success raises it again")
	r.requireIdle()
}

// A command that kills every session it is sent over must not do so for ever.
func TestPoisonCommandIsGivenUp(t *testing.T) {
	r := newRig(t, 2, nil).up()
	for _, s := range r.s {
		s.poison = func(cdb scsi.CDB) bool { return cdb.Opcode() == scsi.OpRead10 }
	}
	q := r.read(0, 1)
	r.l.run(10 * sec)
	assert.False(t, q.done, "a few losses are bad luck")
	r.l.run(90 * sec)
	require.True(t, q.done)
	assert.ErrorIs(t, q.Err, block.ErrIO)
	assert.Contains(t, q.Err.Error(), "sessions were lost under it")
	w := r.write(0, 1, 1)
	r.l.run(10 * sec)
	assert.True(t, w.done)
	assert.NoError(t, w.Err)
	r.requireIdle()
}

func TestRepeatedErrorsDoNotFloodTheLog(t *testing.T) {
	r := newRig(t, 1, nil).up()
	answers(r.s[0], 1<<30, sense(scsi.KeyMediumError, scsi.ASCUnrecoveredReadError))
	for range 1000 {
		r.read(0, 1)
		r.l.run(msec)
	}
	assert.LessOrEqual(t, len(r.kinds(RequestFailed)), 3)
	assert.Equal(t, uint64(1000), r.d.Snapshot().Failed)
}

// A path that turns commands away is left even where the policy or a priority
// would have it carry everything.
func TestElsewhereLeavesTheGroup(t *testing.T) {
	for _, policy := range []string{PolicyFailover, PolicyLatency} {
		r := newRig(t, 3, func(c *Config) { c.Policy = policy }).up()
		answers(r.s[0], 1<<30, sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure))
		answers(r.s[1], 1<<30, sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure))
		r.only(0)
		q := r.write(0, 1, 1)
		r.s[2].room = 0
		r.l.run(msec)
		assert.False(t, q.done, "the one that is left has no room")
		r.s[2].room = 8
		r.l.run(100 * msec)
		require.True(t, q.done)
		assert.NoError(t, q.Err)
		assert.Equal(t, uint64(1), r.d.paths[2].stat.ios)
		assert.LessOrEqual(t, r.d.paths[0].stat.errors+r.d.paths[1].stat.errors, uint64(2), "each is asked once")
		r.requireIdle()
	}
}

func TestStandbyControllerIsLeft(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.Policy = PolicyFailover }).up()
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		return sense(scsi.KeyNotReady, scsi.ASCALUAStandby), cdb.Opcode() != scsi.OpInquiry
	}
	q := r.write(0, 1, 1)
	r.l.run(10 * msec)
	require.True(t, q.done)
	assert.NoError(t, q.Err)
	assert.Equal(t, StateDown, r.state(0))
	assert.Contains(t, r.d.paths[0].reason, "standby")
	errors := r.d.paths[0].stat.errors
	for i := range 10 {
		r.write(i, 1, 1)
	}
	r.l.run(sec)
	assert.Equal(t, errors, r.d.paths[0].stat.errors, "not asked again and again")
	r.s[0].intercept = nil
	r.l.run(20 * sec)
	assert.Equal(t, StateUp, r.state(0))
}

// A command that only one path is left for must not hold up the others while
// that path has no room.
func TestChoosyCommandBlocksNobody(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	answers(r.s[0], 1, sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure))
	r.s[1].room = 0
	choosy := r.read(0, 1)
	r.l.run(msec)
	require.False(t, choosy.done)
	for i := range 10 {
		q := r.read(i, 1)
		r.l.run(msec)
		assert.True(t, q.done)
	}
	r.s[0].room = 1
	a, b := r.read(0, 1), r.read(1, 1)
	r.l.run(msec)
	assert.True(t, a.done)
	assert.True(t, b.done, "nor those that wait behind it")
	r.s[1].room = 1
	r.l.run(100 * msec)
	assert.True(t, choosy.done)
	assert.NoError(t, choosy.Err)
	r.requireIdle()
}
