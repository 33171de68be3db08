package mpio

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/session"
)

// lostWrite sends a write over path 0, which loses its session under it, and
// lets path 1 carry it to its end. The target may still execute the first copy.
func lostWrite(t *testing.T, change func(*Config)) (*rig, *result) {
	r := newRig(t, 2, change).up()
	r.only(0)
	r.s[0].hold = true
	w := r.write(10, 4, 1)
	r.l.run(msec)
	r.s[0].cut(1000 * sec)
	r.s[0].hold = false
	r.l.run(msec)
	return r, w
}

func TestFenceHoldsBackNewerWrites(t *testing.T) {
	r, w := lostWrite(t, nil)
	require.True(t, w.done, "the write itself is answered over the other path at once")
	require.NoError(t, w.Err)
	require.Len(t, r.d.ghosts, 1)

	over := r.write(12, 1, 2)
	touching := r.write(14, 1, 3)
	across := r.write(0, 11, 4)
	trim := r.submit(block.Request{Op: block.OpWriteZeroes, Offset: 13 * 512, Length: 512})
	behind := r.write(5, 1, 5)
	rd := r.read(12, 1)
	r.l.run(sec)
	assert.False(t, over.done)
	assert.True(t, touching.done, "what does not overlap flows")
	assert.False(t, across.done)
	assert.False(t, trim.done)
	assert.False(t, behind.done, "not past an older write to the same block that waits")
	assert.True(t, rd.done, "reads flow")
	snap := r.d.Snapshot()
	require.Len(t, snap.Fenced, 1)
	assert.Equal(t, uint64(10*512), snap.Fenced[0].Offset)
	assert.Equal(t, uint64(4*512), snap.Fenced[0].Length)
	assert.Equal(t, uint64(3), snap.FencedWaits)
	assert.InDelta(t, 58.9, snap.Fenced[0].Left, 0.3)

	r.s[0].wake(0) // the target comes back to life and executes the first copy
	assert.Equal(t, uint64(1), r.at(12))
	r.s[0].login()
	r.l.run(100 * msec)
	for _, q := range []*result{over, across, trim, behind} {
		require.True(t, q.done)
		require.NoError(t, q.Err)
	}
	assert.Equal(t, []uint64{4, 5, 4, 4, 2, 0, 3}, []uint64{r.at(0), r.at(5), r.at(6), r.at(10), r.at(12), r.at(13), r.at(14)})
	r.requireIdle()
}

// TestStaleWrite is the accident the fence is for; without it the older data wins.
func TestStaleWrite(t *testing.T) {
	for _, unsafe := range []bool{false, true} {
		r, w := lostWrite(t, func(c *Config) { c.UnsafeNoFence = unsafe })
		require.True(t, w.done)
		newer := r.write(10, 4, 2)
		r.l.run(sec)
		acked := newer.done
		r.s[0].wake(0)
		r.s[0].login()
		r.l.run(sec)
		require.True(t, newer.done)
		if unsafe {
			assert.True(t, acked)
			assert.Equal(t, uint64(1), r.at(10), "the test of the test: without the fence a stale write must be seen")
		} else {
			assert.False(t, acked)
			assert.Equal(t, uint64(2), r.at(10))
		}
	}
}

func TestLoginWithoutProofSettlesNothing(t *testing.T) {
	r, _ := lostWrite(t, nil)
	r.s[0].honest = false
	over := r.write(10, 1, 2)
	r.s[0].login()
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0))
	require.Len(t, r.d.ghosts, 1)
	assert.False(t, over.done)

	// Even a later proof reaches back no further than the login before it.
	r.s[0].cut(msec)
	r.s[0].honest = true
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0))
	assert.Len(t, r.d.ghosts, 1)
	r.s[0].wake(0)
	r.l.run(60 * sec)
	assert.True(t, over.done, "then time is all there is")
	assert.Equal(t, uint64(1), r.d.Snapshot().FencesTimedOut)
	assert.Equal(t, uint64(2), r.at(10))
	assert.Contains(t, r.event(FenceSettled).Text, "nothing proved it")
}

func TestChainOfReinstatementsSettles(t *testing.T) {
	r, _ := lostWrite(t, nil)
	over := r.write(10, 1, 2)
	r.s[0].hold = true // the check gets no answer before the session is lost again
	r.s[0].login()
	r.l.run(10 * msec)
	require.Len(t, r.d.ghosts, 1, "not settled before the unit behind the path was checked")
	r.s[0].cut(msec)
	r.s[0].hold = false
	r.l.run(sec)
	assert.Empty(t, r.d.ghosts)
	assert.True(t, over.done)
}

func TestReinstatementElsewhereSettlesNothing(t *testing.T) {
	r, _ := lostWrite(t, nil)
	other := newFakeUnit(4096)
	other.designators[0].ID = append([]byte{0x60, 0x99}, other.designators[0].ID[2:]...)
	r.s[0].unit = other // the address has moved to another device
	r.s[0].login()
	r.l.run(sec)
	require.Equal(t, StateQuarantined, r.state(0))
	assert.Len(t, r.d.ghosts, 1)
}

// TestAnotherCheckSettlesNothing: a write that was moved away from a silent path is
// still with the session there, which no later login has ended.
func TestAnotherCheckSettlesNothing(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold = true
	w := r.write(10, 1, 1)
	r.l.run(msec)
	r.s[0].silence()
	r.l.run(msec)
	require.True(t, w.done)
	require.Len(t, r.d.ghosts, 1)
	r.s[0].hold = false // for what comes now
	r.d.paths[0].doubt("test")
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0))
	require.Len(t, r.d.ghosts, 1)
	r.s[0].release()
	require.Empty(t, r.d.ghosts)
}

func TestPreemptAndAbortSettles(t *testing.T) {
	r, _ := lostWrite(t, nil)
	over := r.write(10, 1, 2)
	a, b := r.d.paths[0], r.d.paths[1]
	require.Zero(t, r.d.settlePreempted(b, 9), "another path's")
	require.Zero(t, r.d.settlePreempted(a, 0), "an earlier login's")
	require.Equal(t, 1, r.d.settlePreempted(a, a.gen))
	r.l.run(msec)
	assert.True(t, over.done)
	assert.Contains(t, r.event(FenceSettled).Text, "preempted")
}

func TestReinstatementOfAnotherPathSettlesNothing(t *testing.T) {
	r, _ := lostWrite(t, nil)
	r.s[1].cut(msec)
	r.l.run(sec)
	assert.Len(t, r.d.ghosts, 1)
}

func TestFenceTimeout(t *testing.T) {
	r, _ := lostWrite(t, func(c *Config) { c.FenceTimeout = 5 * time.Second })
	r.d.paths[1].detour.group = 2 // no way round
	over := r.write(10, 1, 2)
	r.l.run(4900 * msec)
	assert.False(t, over.done)
	r.l.run(200 * msec)
	assert.True(t, over.done)
	e := r.event(FenceSettled)
	assert.Contains(t, e.Text, "may still execute")
	assert.Equal(t, uint64(1), r.d.Snapshot().FencesTimedOut)
}

func TestEachFenceHasItsOwnTime(t *testing.T) {
	r := newRig(t, 3, func(c *Config) { c.FenceTimeout = 5 * time.Second }).up()
	for i := range 2 {
		r.only(i)
		r.s[i].hold = true
		r.write(i, 1, 1)
		r.l.run(msec)
		r.s[i].cut(1000 * sec)
		r.l.run(3 * sec)
	}
	first, second := r.write(0, 1, 2), r.write(1, 1, 2)
	assert.False(t, first.done || second.done)
	r.l.run(sec)
	assert.True(t, first.done)
	assert.False(t, second.done)
	r.l.run(2 * sec)
	assert.True(t, second.done)
	r.requireIdle()
}

// A is lost, the write is sent over B, B is lost too: both copies have to be settled.
func TestTwoGenerations(t *testing.T) {
	r := newRig(t, 3, nil).up()
	r.only(0)
	r.s[0].hold, r.s[1].hold = true, true
	w := r.write(0, 1, 1)
	r.l.run(msec)
	r.only(1)
	r.s[0].cut(1000 * sec)
	r.s[0].hold = false
	r.l.run(msec)
	require.Len(t, r.s[1].flights, 1)
	r.s[1].cut(1000 * sec)
	r.s[1].hold = false
	r.l.run(msec)
	require.True(t, w.done, "over the third path")
	require.Len(t, r.d.ghosts, 2)
	over := r.write(0, 1, 2)
	r.s[0].login()
	r.l.run(sec)
	require.Len(t, r.d.ghosts, 1)
	assert.False(t, over.done, "one copy is still about")
	r.s[1].wake(0)
	r.s[1].login()
	r.l.run(sec)
	assert.True(t, over.done)
	assert.Equal(t, uint64(2), r.at(0))
	r.requireIdle()
}

func TestErrorDoesNotLiftTheFence(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.NoPathTimeout = 3 * time.Second }).up()
	r.s[0].hold = true
	w := r.write(0, 1, 1)
	r.l.run(msec)
	r.s[0].cut(10 * sec)
	r.s[0].hold = false
	r.l.run(5 * sec)
	require.True(t, w.done)
	require.ErrorIs(t, w.Err, block.ErrIO)
	require.Len(t, r.d.ghosts, 1)
	r.s[0].honest = false
	r.l.run(6 * sec)
	require.Equal(t, StateUp, r.state(0))
	over := r.write(0, 1, 2)
	r.l.run(sec)
	assert.False(t, over.done)
	r.s[0].wake(0)
	r.l.run(60 * sec)
	assert.True(t, over.done)
	assert.Equal(t, uint64(2), r.at(0))
}

func TestOnlyPathResendsAfterItsReturn(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.s[0].hold = true
	w := r.write(0, 1, 1)
	r.l.run(msec)
	r.s[0].cut(10 * sec)
	r.s[0].hold = false
	r.l.run(9 * sec)
	assert.False(t, w.done)
	r.l.run(2 * sec)
	assert.True(t, w.done)
	assert.NoError(t, w.Err)
	assert.Equal(t, uint64(1), r.at(0))
	r.requireIdle()
}

func TestSharedWaitsForSettlement(t *testing.T) {
	r, w := lostWrite(t, func(c *Config) { c.Shared = true })
	r.l.run(sec)
	assert.False(t, w.done, "another host might have written meanwhile")
	assert.Zero(t, r.at(10))
	r.s[0].login()
	r.l.run(sec)
	assert.True(t, w.done)
	assert.Equal(t, uint64(1), r.at(10))
	r.requireIdle()
}

func TestOverlappingWritesKeepTheirOrder(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[0].room, r.s[1].room = 1000, 1000
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 2 {
		r.s[i].delay = func() int64 { return rnd.Int64N(msec) }
	}
	model := map[int]uint64{}
	var all []*result
	for id := range uint64(500) {
		lba, n := rnd.IntN(20), 1+rnd.IntN(4)
		all = append(all, r.write(lba, n, id+1))
		for i := range n {
			model[lba+i] = id + 1
		}
	}
	r.l.run(sec)
	for _, q := range all {
		require.True(t, q.done)
	}
	for lba, id := range model {
		assert.Equal(t, id, r.at(lba))
	}
	r.requireIdle()
}

// A response that does not say whether the command was executed (RFC 7143 §11.4.3).
func TestTargetFailureResponse(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold = true
	w := r.write(0, 1, 1)
	f := r.s[0].flights[0]
	r.s[0].flights = nil
	f.done.dead = true
	f.c.Err = &session.Error{Kind: session.KindResponse, Sent: true, Msg: "target failure"}
	r.s[0].zombies = append(r.s[0].zombies, f)
	r.s[0].hold = false
	f.c.Owner.CommandDone(f.c)
	assert.Equal(t, 1, r.s[0].drops, "only a new session settles it")
	require.Len(t, r.d.ghosts, 1)
	over := r.write(0, 1, 2)
	r.l.run(10 * msec)
	assert.True(t, w.done)
	assert.False(t, over.done)
	r.l.run(sec)
	assert.True(t, over.done)
	assert.Empty(t, r.d.ghosts)
}

// TestFenceSet compares the set with a slow one.
func TestFenceSet(t *testing.T) {
	var f fence
	f.init(512)
	rnd := rand.New(rand.NewPCG(3, 4))
	var held []*extent
	for i := range 20000 {
		lo := rnd.Uint64N(4000)
		n := 1 + rnd.Uint64N(64)
		if rnd.IntN(50) == 0 {
			n = 1 + rnd.Uint64N(100000)
		}
		seq := uint64(i + 1)
		want := false
		before := rnd.Uint64N(seq) + 1
		for _, e := range held {
			want = want || e.lo < lo+n && lo < e.hi && e.seq < before
		}
		b := f.blocker(lo, lo+n, before)
		require.Equal(t, want, b != nil)
		if b != nil {
			require.True(t, b.lo < lo+n && lo < b.hi && b.seq < before)
		}
		if len(held) > 0 && rnd.IntN(100) < 50 {
			k := rnd.IntN(len(held))
			f.release(held[k])
			held[k] = held[len(held)-1]
			held = held[:len(held)-1]
		} else if len(held) < 200 {
			e := &extent{lo: lo, hi: lo + n, seq: seq}
			f.hold(e)
			held = append(held, e)
		}
	}
	for _, e := range held {
		f.release(e)
	}
	assert.Zero(t, f.wide)
	assert.Equal(t, [fenceCells]uint32{}, f.cells)
	assert.Empty(t, f.spans)
}
