package mpio

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

func TestPathsComeUpOneByOne(t *testing.T) {
	r := newRig(t, 3, nil)
	r.s[1].loginFails = true
	r.s[2].loginTakes = 10 * sec
	assert.Equal(t, StateConnecting, r.state(0))
	r.d.Start()
	r.l.run(msec)
	assert.Equal(t, StateChecking, r.state(0))
	assert.False(t, r.d.Ready())
	r.l.run(50 * msec)
	assert.True(t, r.d.Ready(), "one path is enough")
	assert.Equal(t, StateUp, r.state(0))
	assert.Equal(t, StateDown, r.state(1))
	assert.Contains(t, r.d.paths[1].reason, "cannot connect")
	assert.Equal(t, StateConnecting, r.state(2))
	assert.Equal(t, "degraded", r.d.Snapshot().State)
	assert.Len(t, r.kinds(PathDown), 1, "the same failure again is not told again")
	r.s[1].loginFails = false
	r.l.run(10 * sec)
	assert.Equal(t, "up", r.d.Snapshot().State)
	assert.Len(t, r.kinds(PathUp), 3)
}

func TestCutMovesEverything(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold = true
	var all []*result
	for i := range 8 {
		all = append(all, r.read(i, 1), r.write(100+i, 1, uint64(i+1)))
	}
	r.l.run(10 * msec)
	start := r.l.now
	r.s[0].hold = false
	r.s[0].cut(sec)
	assert.Equal(t, StateDown, r.state(0))
	r.l.run(50 * msec)
	for _, q := range all {
		require.True(t, q.done)
		require.NoError(t, q.Err)
		assert.Less(t, q.at-start, 50*msec)
	}
	assert.Equal(t, 8, r.event(FenceRaised).Count)
	assert.Len(t, r.d.ghosts, 8)
	r.l.run(2 * sec)
	assert.Equal(t, StateUp, r.state(0), "it comes back by itself")
	assert.Empty(t, r.d.ghosts)
	assert.Equal(t, 8, r.event(FenceSettled).Count)
	r.requireIdle()
}

func TestUnsentCommandsRaiseNoFence(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold, r.s[0].unsent = true, true
	w := r.write(0, 1, 1)
	r.l.run(msec)
	r.s[0].cut(sec)
	r.l.run(msec)
	assert.True(t, w.done)
	assert.Empty(t, r.d.ghosts)
	assert.Empty(t, r.kinds(FenceRaised))
}

func TestSilentPath(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold, r.s[0].dataWaits = true, true
	rd, w := r.read(0, 1), r.write(1, 1, 9)
	r.l.run(150 * msec)
	r.s[0].silence()
	assert.Equal(t, StateSuspect, r.state(0))
	r.l.run(msec)
	assert.True(t, rd.done, "reads move at once")
	assert.False(t, w.done, "writes do not while their data is needed there")
	assert.Equal(t, 1, r.s[0].detached)
	for i := range 20 {
		q := r.read(i, 1)
		r.l.run(msec)
		assert.True(t, q.done, "new commands avoid it although it has the better priority")
	}
	r.s[0].release()
	r.l.run(msec)
	assert.True(t, w.done)
	assert.Equal(t, StateUp, r.state(0))
	assert.Equal(t, uint64(1), r.d.Snapshot().Paths[0].Moved)
	r.requireIdle()
}

func TestLastPathIsUsedThoughSuspect(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[1].cut(1000 * sec)
	r.s[0].hold = true
	first := r.read(0, 1)
	r.s[0].silence()
	assert.Equal(t, StateSuspect, r.state(0))
	second := r.read(1, 1)
	r.l.run(msec)
	assert.Zero(t, r.s[0].detached, "there is nowhere to go")
	assert.Len(t, r.s[0].flights, 2, "new commands go there too")
	assert.Empty(t, r.kinds(NoPath))
	r.s[0].release()
	assert.True(t, first.done)
	assert.True(t, second.done)
}

func TestMovesAreBounded(t *testing.T) {
	r := newRig(t, 2, nil).up()
	for i := range 2 {
		r.s[i].hold = true
	}
	q := r.read(0, 1)
	for range 20 {
		for i := range 2 {
			if len(r.s[i].flights) > 0 && r.d.paths[i].inflight > 0 {
				r.s[i].silence()
				r.l.run(msec)
			}
		}
		for i := range 2 { // a byte comes in, but no answer
			if r.s[i].isSilent && r.d.paths[i].inflight == 0 {
				r.s[i].isSilent = false
				r.s[i].obs.SessionAlive(nil)
			}
		}
	}
	assert.LessOrEqual(t, r.s[0].detached+r.s[1].detached, maxMoves)
	for i := range 2 {
		r.s[i].release()
	}
	assert.True(t, q.done)
	r.requireIdle()
}

func TestMoveBudget(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[0].room, r.s[1].room = 1000, 1000
	r.d.paths[0].ramp = 0
	r.only(0)
	r.s[0].hold = true
	for i := range 600 {
		r.read(i, 1)
	}
	r.s[0].silence()
	assert.LessOrEqual(t, r.s[0].detached, moveBurst)
	assert.Greater(t, r.s[0].detached, moveBurst/2)
}

func TestReadsWaitingForAnyPathMoveWhenOneReturns(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[1].cut(sec)
	r.s[0].hold = true
	q := r.read(0, 1)
	r.s[0].silence()
	r.l.run(2 * sec)
	assert.True(t, q.done, "the second path came back and took it")
	assert.Equal(t, StateSuspect, r.state(0))
}

func TestCommandTimeout(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.CommandTimeout = 2 * time.Second }).up()
	r.only(0)
	r.s[0].hold = true
	w := r.write(0, 1, 3)
	flush := r.submit(block.Request{Op: block.OpFlush})
	r.l.run(1900 * msec)
	assert.Zero(t, r.s[0].drops)
	r.l.run(500 * msec)
	assert.Equal(t, 1, r.s[0].drops)
	e := r.event(CommandTimedOut)
	assert.Contains(t, e.Text, "peer is alive")
	r.l.run(msec)
	assert.True(t, w.done)
	assert.NoError(t, w.Err)
	assert.True(t, flush.done)
	assert.Equal(t, uint64(1), r.d.Snapshot().Paths[0].Timeouts)
}

func TestSlowCommandsGetMoreTime(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.CommandTimeout = time.Second }).up()
	r.s[0].hold = true
	r.submit(block.Request{Op: block.OpFlush})
	r.l.run(3900 * msec)
	assert.Zero(t, r.s[0].drops)
	r.l.run(500 * msec)
	assert.Equal(t, 1, r.s[0].drops)
}

func TestSetPath(t *testing.T) {
	r := newRig(t, 2, nil).up()
	require.ErrorIs(t, r.d.SetPath("z", PathOp{Kind: OpUp}), ErrNoSuchPath)
	require.Error(t, r.d.SetPath("a", PathOp{Kind: OpPriority}))
	require.Error(t, r.d.SetPath("a", PathOp{}))

	r.only(0)
	r.s[0].hold = true
	rd, w := r.read(0, 1), r.write(1, 1, 5)
	require.NoError(t, r.d.SetPath("a", PathOp{Kind: OpDown}))
	assert.Equal(t, StateOffline, r.state(0))
	r.l.run(msec)
	assert.True(t, rd.done, "reads move")
	assert.False(t, w.done, "writes finish where they are")
	r.s[0].release()
	assert.True(t, w.done)
	r.s[0].cut(10 * msec)
	r.l.run(sec)
	assert.Equal(t, StateOffline, r.state(0), "stays out whatever the link does")
	assert.Equal(t, "taken out by hand", r.d.paths[0].reason)
	require.NoError(t, r.d.SetPath("a", PathOp{Kind: OpUp}))
	assert.Equal(t, StateUp, r.state(0))

	r.s[0].cut(1000 * sec)
	require.NoError(t, r.d.SetPath("a", PathOp{Kind: OpUp}))
	r.l.run(100 * msec)
	assert.Equal(t, 1, r.s[0].retries, "dialed at once")
	assert.Equal(t, StateUp, r.state(0))
}

func TestPriorityGroups(t *testing.T) {
	r := newRig(t, 3, nil).up()
	require.NoError(t, r.d.SetPath("c", PathOp{Kind: OpPriority, Value: 2}))
	used := func() (n [3]uint64) {
		before := [3]uint64{}
		for i := range 3 {
			before[i] = r.d.paths[i].stat.ios
		}
		for i := range 60 {
			r.read(i, 1)
			r.l.run(100 * usec)
		}
		r.l.run(10 * msec)
		for i := range 3 {
			n[i] = r.d.paths[i].stat.ios - before[i]
		}
		return n
	}
	n := used()
	assert.NotZero(t, n[0])
	assert.NotZero(t, n[1])
	assert.Zero(t, n[2])
	r.s[0].cut(1000 * sec)
	r.s[1].cut(1000 * sec)
	assert.Equal(t, [3]uint64{0, 0, 60}, used())
	r.s[1].login()
	r.l.run(10 * msec)
	assert.Equal(t, [3]uint64{0, 60, 0}, used(), "back at once when the better one is")
}

func TestAddPathLater(t *testing.T) {
	r := newRig(t, 1, nil).up()
	require.Error(t, r.d.AddPath(PathConfig{}))
	require.Error(t, r.d.AddPath(PathConfig{ID: "a"}))
	require.NoError(t, r.d.AddPath(PathConfig{ID: "b"}))
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(1))
}

func TestNewPathRampsUp(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.Policy = PolicyQueueDepth }).up()
	for i := range 400 {
		r.read(i, 1)
		r.l.run(100 * usec)
	}
	r.l.run(sec)
	require.Zero(t, r.d.paths[0].ramp)
	r.s[1].cut(100 * msec)
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(1))
	r.s[0].hold, r.s[1].hold = true, true
	for i := range 40 {
		r.read(i, 1)
	}
	assert.Equal(t, rampStart, r.d.paths[1].inflight)
	assert.Equal(t, 38, r.d.paths[0].inflight)
}

func TestWindowIsBackPressure(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.s[0].room = 4
	var all []*result
	for i := range 40 {
		all = append(all, r.read(i, 1))
	}
	assert.Len(t, r.s[0].flights, 4)
	assert.Equal(t, 36, r.d.Snapshot().Queued)
	r.l.run(10 * msec)
	last := int64(0)
	for _, q := range all {
		require.True(t, q.done)
		assert.GreaterOrEqual(t, q.at, last, "in order")
		last = q.at
	}
	assert.Less(t, r.d.Snapshot().Paths[0].P99, 0.0005, "waiting for the window does not count as latency")

	r.s[0].room = 0
	q := r.read(0, 1)
	r.l.run(msec)
	r.s[0].room = 4 // the target opens the window without an answer to anything
	r.l.run(100 * msec)
	assert.True(t, q.done)
	r.requireIdle()
}

func TestPolicies(t *testing.T) {
	_, err := New(Config{NewSession: func(PathConfig, session.Observer) (Session, error) { return nil, nil }, Policy: "fastest"}, newFakeLoop())
	require.ErrorContains(t, err, "latency, round-robin, round-robin-subset, queue-depth, least-bytes, service-time, weighted, failover")

	r := newRig(t, 3, nil).up()
	require.Error(t, r.d.SetPolicy("x"))
	total := func() (n [3]int) {
		for i := range 3 {
			n[i] = len(r.s[i].flights)
		}
		return n
	}
	for i := range 3 {
		r.s[i].hold = true
		r.d.paths[i].ramp = 0
	}
	require.NoError(t, r.d.SetPolicy(PolicyRoundRobin))
	require.NoError(t, r.d.SetPath("a", PathOp{Kind: OpWeight, Value: 2}))
	for i := range 40 {
		r.read(i, 1)
	}
	assert.Equal(t, [3]int{20, 10, 10}, total())
	require.NoError(t, r.d.SetPolicy(PolicyQueueDepth))
	for i := range 20 {
		r.read(i, 1)
	}
	assert.Equal(t, [3]int{20, 20, 20}, total())
	require.NoError(t, r.d.SetPolicy(PolicyFailover))
	for i := range 4 {
		r.read(i, 1)
	}
	assert.Equal(t, [3]int{24, 20, 20}, total())
	r.s[0].cut(1000 * sec)
	assert.Equal(t, 44, total()[1], "all of it to the next one")
	assert.Equal(t, PolicyFailover, r.d.Snapshot().Policy)
}

func TestUnitAttentionsAreCleared(t *testing.T) {
	r := newRig(t, 1, nil)
	n := 0
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		if n++; n <= 5 {
			return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
		}
		return answer{}, false
	}
	r.up()
}
