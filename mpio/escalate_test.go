package mpio

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session"
)

// TestEscalation: ABORT TASK, LUN reset where allowed, drop, and what each leaves.
func TestEscalation(t *testing.T) {
	for name, c := range map[string]struct {
		aborts, resets   string
		lunReset, shared bool
		functions        []pdu.TMFunction
		drops            int
		events           []EventKind
		within           int64
	}{
		"aborted": {
			aborts: "ok", functions: []pdu.TMFunction{pdu.TMAbortTask},
			events: []EventKind{CommandTimedOut, CommandAborted}, within: sec,
		},
		"refused": {
			aborts: "no", resets: "ok", functions: []pdu.TMFunction{pdu.TMAbortTask}, drops: 1,
			events: []EventKind{CommandTimedOut, AbortFailed}, within: sec,
		},
		"not answered": {
			aborts: "never", functions: []pdu.TMFunction{pdu.TMAbortTask}, drops: 1,
			events: []EventKind{CommandTimedOut, AbortFailed}, within: 16 * sec,
		},
		"reset": {
			aborts: "no", resets: "ok", lunReset: true, functions: []pdu.TMFunction{pdu.TMAbortTask, pdu.TMLUNReset},
			events: []EventKind{CommandTimedOut, AbortFailed, UnitReset, CommandAborted}, within: sec,
		},
		"cannot be asked": {
			resets: "ok", lunReset: true, functions: []pdu.TMFunction{pdu.TMLUNReset},
			events: []EventKind{CommandTimedOut, UnitReset, CommandAborted}, within: sec,
		},
		"reset refused": {
			aborts: "no", resets: "no", lunReset: true, functions: []pdu.TMFunction{pdu.TMAbortTask, pdu.TMLUNReset}, drops: 1,
			events: []EventKind{CommandTimedOut, AbortFailed, UnitReset, AbortFailed}, within: sec,
		},
		"no reset of a shared unit": {
			aborts: "no", resets: "ok", lunReset: true, shared: true, functions: []pdu.TMFunction{pdu.TMAbortTask}, drops: 1,
			events: []EventKind{CommandTimedOut, AbortFailed}, within: sec,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, func(cfg *Config) {
				cfg.CommandTimeout, cfg.LUNReset, cfg.Shared = 2*time.Second, c.lunReset, c.shared
			}).up()
			r.only(0)
			s := r.s[0]
			s.hold, s.aborts, s.resets = true, c.aborts, c.resets
			w := r.write(0, 1, 3)
			r.l.run(2*sec + c.within)
			assert.Equal(t, c.functions, s.functions)
			assert.Equal(t, c.drops, s.drops)
			assert.Equal(t, c.events, r.kinds(CommandTimedOut, CommandAborted, AbortFailed, UnitReset))
			require.NotEqual(t, c.shared, w.done, "with Shared it waits for its first copy to be settled")
			p := r.d.Snapshot().Paths[0]
			assert.Equal(t, uint64(1), p.Timeouts)
			assert.Equal(t, len(c.functions), int(p.Aborts+p.Resets))
			if c.drops == 0 {
				assert.Empty(t, r.kinds(FenceRaised), "what was aborted leaves no ghost")
				assert.Equal(t, StateUp, r.state(0))
				assert.Equal(t, 1, s.logins)
			} else {
				assert.Equal(t, []EventKind{FenceRaised}, r.kinds(FenceRaised))
			}
			s.hold = false
			s.release()
			r.l.run(5 * sec)
			require.True(t, w.done)
			require.NoError(t, w.Err)
			r.requireIdle()
		})
	}
}

// TestManyHungCommandsAreAborted: one after the other, without waiting for the tick.
func TestManyHungCommandsAreAborted(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.CommandTimeout = 2 * time.Second }).up()
	r.only(0)
	r.s[0].hold, r.s[0].aborts = true, "ok"
	var all []*result
	for i := range 20 {
		all = append(all, r.write(i, 1, uint64(i+1)))
	}
	r.l.run(2500 * msec)
	for i, w := range all {
		require.True(t, w.done)
		assert.Equal(t, uint64(i+1), r.at(i))
	}
	assert.Zero(t, r.s[0].drops)
	assert.Equal(t, uint64(20), r.d.Snapshot().Paths[0].Aborts)
	r.requireIdle()
}

// TestAnswerDuringTheAbort: a command that is answered while its abort is not
// needs no further step.
func TestAnswerDuringTheAbort(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.CommandTimeout = 2 * time.Second }).up()
	r.only(0)
	r.s[0].hold, r.s[0].aborts = true, "never"
	w := r.write(0, 1, 3)
	r.l.run(3 * sec)
	r.s[0].release()
	require.True(t, w.done)
	r.l.run(20 * sec)
	assert.Zero(t, r.s[0].drops)
	assert.Empty(t, r.kinds(AbortFailed))
	r.requireIdle()
}

// TestSettledErrorsLeaveThePathUp: what a session cleaned up by itself, after
// the loss of one of its connections, is sent again, without a ghost.
func TestSettledErrorsLeaveThePathUp(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.s[0].hold = true
	w := r.write(0, 1, 3)
	r.l.run(msec)
	f := r.s[0].flights[0]
	r.s[0].flights = nil
	f.done = nil
	r.s[0].hold = false
	f.c.Err = &session.Error{Kind: session.KindTransport, Sent: true, Settled: true}
	f.c.Owner.CommandDone(f.c)
	assert.Equal(t, StateUp, r.state(0))
	r.l.run(10 * msec)
	assert.True(t, w.done)
	assert.NoError(t, w.Err)
	assert.Empty(t, r.kinds(FenceRaised))
	assert.Equal(t, 1, r.s[0].logins)
	r.requireIdle()
}

// TestClosedIsNotDown: an orderly close is no alarm.
func TestClosedIsNotDown(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.d.Close(false, nil)
	r.l.run(sec)
	assert.Empty(t, r.kinds(PathDown))
	assert.Len(t, r.kinds(PathClosed), 2)
}

// TestMovesDoNotPutOffTheAbort: where the storage behind all paths hangs and the
// paths fall silent in turn, a command moves twice at most. So it is asked to be
// aborted after three times CommandTimeout at the latest, not never.
func TestMovesDoNotPutOffTheAbort(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.CommandTimeout = 2 * time.Second }).up()
	r.only(0)
	for _, s := range r.s {
		s.hold, s.aborts = true, "never"
	}
	w, reads := r.write(1, 1, 1), r.read(9, 1)
	r.only(-1)
	for i := range 3 {
		r.l.run(1900 * msec)
		assert.Zero(t, aborts(r), "each copy has its own time")
		from, to := r.s[i%2], r.s[(i+1)%2]
		if to.isSilent {
			to.isSilent = false
			to.obs.SessionAlive(nil)
		}
		from.silence()
	}
	r.l.run(400 * msec)
	assert.Positive(t, aborts(r))
	require.False(t, w.done || reads.done)
	for _, s := range r.s {
		s.hold = false
		s.isSilent = false
		s.obs.SessionAlive(nil)
		s.release()
	}
	r.l.run(sec)
	require.True(t, w.done && reads.done)
	require.NoError(t, w.Err)
	assert.Equal(t, uint64(1), r.at(1))
	r.requireIdle()
}

func aborts(r *rig) (n uint64) {
	for _, p := range r.d.Snapshot().Paths {
		n += p.Aborts
	}
	return n
}
