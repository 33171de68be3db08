package mpio

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// ready counts the TEST UNIT READYs a session was sent, and answers them.
func (r *rig) answerReady(i int, with *answer) *int {
	n := new(int)
	r.s[i].intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() != scsi.OpTestUnitReady {
			return answer{}, false
		}
		*n++
		if with == nil || with.status == scsi.Good {
			return answer{}, false
		}
		return *with, true
	}
	return n
}

func TestIdlePathsArePolled(t *testing.T) {
	r := newRig(t, 2, nil).up()
	a, b := r.answerReady(0, nil), r.answerReady(1, nil)
	r.l.run(100 * sec)
	assert.InDelta(t, 20, *a, 3)
	assert.InDelta(t, 20, *b, 3)
	assert.Equal(t, StateUp, r.state(0))
	s := r.d.Snapshot()
	assert.Equal(t, uint64(*a), s.Paths[0].Polls)
	assert.Zero(t, s.InFlight, "they are not the caller's")

	// What carries I/O needs no poll.
	for _, s := range r.s {
		s.delay = jitter(r, 2*msec)
	}
	newLoad(r, 4, 8, 0)
	r.l.run(sec)
	before := *a + *b
	r.l.run(12 * sec)
	assert.Equal(t, before, *a+*b)

	r = newRig(t, 1, func(c *Config) { c.PollingInterval = -1 }).up()
	n := r.answerReady(0, nil)
	r.l.run(100 * sec)
	assert.Zero(t, *n, "never")
	r = newRig(t, 1, func(c *Config) { c.PollingInterval = 30 * time.Second }).up()
	n = r.answerReady(0, nil)
	r.l.run(100 * sec)
	assert.InDelta(t, 3, *n, 1)
}

func TestPollsAreJittered(t *testing.T) {
	r := newRig(t, 1, nil).up()
	seen := map[int64]bool{}
	for range 200 {
		p := r.d.pollPause()
		assert.InDelta(t, 5e9, p, 0.5e9+1)
		seen[p] = true
	}
	assert.Greater(t, len(seen), 10)
}

// A unit that fails behind a path that is idle is noticed, and its return too.
func TestIdlePathWhoseUnitFailsIsNoticed(t *testing.T) {
	for name, bad := range map[string]answer{
		"not ready":       sense(scsi.KeyNotReady, scsi.ASCManualIntervention),
		"becoming ready":  sense(scsi.KeyNotReady, scsi.ASCBecomingReady),
		"no such LUN":     sense(scsi.KeyIllegalRequest, scsi.ASCLUNNotSupported),
		"hardware broken": sense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil).up()
			r.l.run(20 * sec)
			now := bad
			r.answerReady(1, &now)
			took := r.until(8*sec, func() bool { return r.state(1) != StateUp })
			assert.Less(t, took, int64(7*sec))
			r.l.run(10 * sec)
			assert.NotEqual(t, StateUp, r.state(1), r.d.paths[1].reason)
			assert.Equal(t, StateUp, r.state(0))
			assert.Equal(t, []*path{r.d.paths[0]}, r.d.active)
			now = good
			r.until(15*sec, r.is(1, StateUp))
			r.requireIdle()
		})
	}
}

// Answers that say nothing against the path.
func TestPollsThatChangeNothing(t *testing.T) {
	for name, a := range map[string]answer{
		"busy":           {status: scsi.Busy},
		"queue full":     {status: scsi.TaskSetFull},
		"reserved":       {status: scsi.ReservationConflict},
		"recovered":      sense(scsi.KeyRecoveredError, 0),
		"other news":     sense(scsi.KeyUnitAttention, scsi.ASCCommandsClearedByEvent),
		"aborted, again": sense(scsi.KeyAbortedCommand, scsi.ASCCommandsClearedByEvent),
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil).up()
			n := r.answerReady(1, &a)
			r.events = nil
			r.l.run(30 * sec)
			assert.NotZero(t, *n)
			assert.Empty(t, r.events)
		})
	}
}

// A unit attention that comes with a poll is not lost: the unit is looked at.
func TestPollThatBringsAnAttention(t *testing.T) {
	r := newRig(t, 2, nil).up()
	once := true
	r.s[1].intercept = func(cdb scsi.CDB) (answer, bool) {
		if once && cdb.Opcode() == scsi.OpTestUnitReady {
			once = false
			return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
		}
		return answer{}, false
	}
	inquiries := r.unit.counts[scsi.OpInquiry]
	r.l.run(8 * sec)
	assert.Equal(t, StateUp, r.state(1))
	assert.Greater(t, r.unit.counts[scsi.OpInquiry], inquiries)
}

func TestPollThatIsNotAnswered(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.l.run(10 * sec)
	r.s[1].hold = true
	r.until(20*sec, r.is(1, StateChecking))
	assert.Equal(t, "TEST UNIT READY was not answered for 10s", r.d.paths[1].reason)
	r.l.run(15 * sec)
	assert.NotZero(t, r.s[1].drops, "the check gives the session up")
	r.s[1].hold = false
	r.until(30*sec, r.is(1, StateUp))
	r.requireIdle()
}

func TestPollOnALostSession(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.s[0].delay = func() int64 { return sec }
	r.until(10*sec, func() bool { return len(r.s[0].flights) == 1 })
	r.s[0].lose(&session.Error{Kind: session.KindTransport, Msg: "gone"}, sec)
	assert.Equal(t, StateDown, r.state(0))
	assert.False(t, r.d.paths[0].probe.busy)
	r.l.run(30 * sec)
	assert.Equal(t, StateUp, r.state(0))
	require.NotPanics(t, func() { r.d.Close(false, nil); r.l.run(10 * sec) })
	assert.True(t, r.d.closeDone)
}
