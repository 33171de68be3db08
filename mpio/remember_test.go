package mpio

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// notebook stands for the state folder.
type notebook struct {
	lists [][]SessionRecord
	takes int64
	err   error
	l     func() *fakeLoop
	busy  bool
	t     *testing.T
}

func (n *notebook) remember(list []SessionRecord, done func(error)) {
	require.False(n.t, n.busy, "one list at a time")
	n.busy = true
	n.l().after(n.takes, func() {
		n.busy = false
		if n.err == nil {
			n.lists = append(n.lists, list)
		}
		done(n.err)
	})
}

func (n *notebook) last() []SessionRecord {
	if len(n.lists) == 0 {
		return nil
	}
	return n.lists[len(n.lists)-1]
}

// newNoted makes a rig with n paths whose sessions are noted.
func newNoted(t *testing.T, n int, change func(*Config)) (*rig, *notebook) {
	var r *rig
	book := &notebook{t: t, takes: 3 * msec, l: func() *fakeLoop { return r.l }}
	r = newRig(t, n, func(c *Config) {
		c.Remember = book.remember
		if change != nil {
			change(c)
		}
	})
	return r, book
}

func earlier(i int) SessionRecord {
	return SessionRecord{
		Portal: "127.0.0." + string(rune('1'+i)) + ":3260", Target: "iqn.2026-01.test:disk",
		ISID: [6]byte{0x80, byte(i + 1)}, TPGT: 0, Provable: true,
	}
}

func TestSessionsAreNotedBeforeTheyCarryIO(t *testing.T) {
	r, book := newNoted(t, 2, nil)
	book.takes = 50 * msec
	r.d.Start()
	r.l.run(40 * msec)
	require.True(t, r.d.ready)
	for i := range 2 {
		require.Equal(t, StateChecking, r.state(i), "not before it is durable")
	}
	w := r.write(0, 1, 1)
	require.Zero(t, r.at(0))
	r.l.run(100 * msec)
	require.True(t, w.done)
	require.ElementsMatch(t, []SessionRecord{earlier(0), earlier(1)}, book.last())

	n := len(book.lists)
	r.s[0].cut(msec)
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0))
	require.Len(t, book.lists, n, "nothing new to note")

	closed := false
	r.d.Close(false, func(error) { closed = true })
	r.l.run(10 * msec)
	require.False(t, closed, "not before that is noted, too")
	r.l.run(100 * msec)
	require.True(t, closed)
	require.Empty(t, book.last(), "nothing can land any more")
}

// A login that proves nothing is noted as such before anything is written over it.
func TestLostProofIsNoted(t *testing.T) {
	r, book := newNoted(t, 2, nil)
	r.up()
	r.s[0].honest = false
	r.s[0].cut(msec)
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0))
	i := slices.IndexFunc(book.last(), func(x SessionRecord) bool { return x.ISID == earlier(0).ISID })
	require.False(t, book.last()[i].Provable)
	r.s[0].honest = true
	r.s[0].cut(msec)
	r.l.run(sec)
	require.False(t, slices.Contains(book.last(), earlier(0)), "what may be alive is not the session before this one")
}

func TestSessionThatCannotBeNotedIsNotUsed(t *testing.T) {
	r, book := newNoted(t, 1, nil)
	book.err = errors.New("no space left on device")
	r.d.Start()
	r.l.run(sec)
	require.Equal(t, StateDown, r.state(0))
	require.ErrorIs(t, r.event(PathDown).Err, errNotNoted)
	require.Contains(t, r.event(PathDown).Text, "no space left")
	book.err = nil
	r.l.run(11 * sec)
	require.Equal(t, StateUp, r.state(0), "tried again")
}

func TestUnsettledWritesAreNotedAtTheEnd(t *testing.T) {
	r, book := newNoted(t, 2, nil)
	r.up().only(0)
	r.d.paths[1].detour.group = 7 // no way round
	r.s[0].hold = true
	r.write(10, 4, 1)
	r.l.run(msec)
	r.s[0].cut(1000 * sec)
	r.l.run(msec)
	closed := false
	r.d.Close(false, func(error) { closed = true })
	r.l.run(sec)
	require.True(t, closed)
	require.Equal(t, []SessionRecord{earlier(0)}, book.last())
}

func TestReadOnlyUnitsNoteNothing(t *testing.T) {
	r, book := newNoted(t, 1, func(c *Config) { c.ReadOnly = true })
	r.up()
	r.d.Close(false, nil)
	r.l.run(sec)
	require.Empty(t, book.lists)
}

// newHeir is a device that starts after an unclean end. The target still holds a
// write of block 10 of the session that path 0 had then.
func newHeir(t *testing.T, n int, change func(*Config), records ...SessionRecord) (*rig, *notebook) {
	r, book := newNoted(t, n, func(c *Config) {
		c.Inherited = records
		if change != nil {
			change(c)
		}
	})
	if n > 0 {
		old := &flight{gen: 0, cdb: scsi.Write(10, 1, 0), data: stamp(1, 1)}
		r.s[0].zombies = append(r.s[0].zombies, old)
	}
	return r, book
}

func TestInheritedFence(t *testing.T) {
	r, book := newHeir(t, 2, nil, earlier(0), earlier(1))
	r.s[0].loginTakes, r.s[1].loginTakes = 500*msec, msec
	r.d.Start()
	r.l.run(100 * msec)
	require.Equal(t, StateUp, r.state(1))
	require.Empty(t, book.lists, "what is noted stands for this process as well")
	require.Contains(t, r.event(FenceRaised).Text, "2 sessions")
	rd, w := r.read(10, 1), r.write(10, 1, 2)
	elsewhere := r.write(4000, 1, 2)
	r.l.run(100 * msec)
	assert.True(t, rd.done, "reads flow at once")
	assert.False(t, w.done || elsewhere.done, "one of the old sessions may be alive")
	snap := r.d.Snapshot()
	require.Len(t, snap.Fenced, 1)
	assert.Equal(t, "of an earlier run", snap.Fenced[0].Op)
	assert.Equal(t, uint64(4096*512), snap.Fenced[0].Length)
	r.l.run(400 * msec)
	assert.True(t, w.done && elsewhere.done)
	assert.Empty(t, r.s[0].zombies)
	assert.Contains(t, r.event(FenceSettled).Text, "earlier process")
	r.d.Close(false, nil)
	r.l.run(sec)
	require.Empty(t, book.last())
	r.requireIdle()
}

// TestStaleWriteOfAnEarlierRun is the accident; without the fence it happens.
func TestStaleWriteOfAnEarlierRun(t *testing.T) {
	for _, unsafe := range []bool{false, true} {
		r, _ := newHeir(t, 2, func(c *Config) { c.UnsafeNoFence = unsafe }, earlier(0), earlier(1))
		r.s[0].loginTakes = sec
		r.d.Start()
		r.l.run(100 * msec)
		w := r.write(10, 1, 2)
		r.l.run(100 * msec)
		require.Equal(t, unsafe, w.done)
		if len(r.s[0].zombies) > 0 {
			r.s[0].wake(0)
		}
		r.l.run(3 * sec)
		require.True(t, w.done)
		want := uint64(2)
		if unsafe {
			want = 1 // the test of the test
		}
		assert.Equal(t, want, r.at(10))
	}
}

func TestInheritedFenceByDetour(t *testing.T) {
	r, _ := newHeir(t, 2, nil, earlier(0), earlier(1))
	r.s[0].loginTakes = 100 * sec
	r.d.Start()
	w := r.write(10, 1, 2)
	require.Error(t, w.Err, "not ready yet")
	r.l.run(100 * msec)
	r.s[0].loginTakes = msec // through the other portal
	w = r.write(10, 1, 2)
	r.l.run(1800 * msec)
	require.False(t, w.done)
	r.l.run(400 * msec)
	require.True(t, w.done)
	require.Len(t, r.s[0].detours, 1)
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0))
}

func TestInheritedFenceWithoutProof(t *testing.T) {
	unprovable, other := earlier(0), earlier(0)
	unprovable.Provable, other.TPGT = false, 3
	for name, c := range map[string]struct {
		records []SessionRecord
		change  func(r *rig)
	}{
		"the record says so":                   {records: []SessionRecord{unprovable}},
		"another group now":                    {records: []SessionRecord{other}},
		"the target gives none":                {records: []SessionRecord{earlier(0)}, change: func(r *rig) { r.s[0].honest = false }},
		"one of two, the other in the way":     {records: []SessionRecord{earlier(0), other}},
		"one of two, an unprovable in the way": {records: []SessionRecord{earlier(0), unprovable}},
		"a path that is gone":                  {records: []SessionRecord{{Portal: "x", Target: "iqn.2026-01.test:disk", ISID: [6]byte{9}}}},
	} {
		t.Run(name, func(t *testing.T) {
			r, book := newHeir(t, 2, func(c *Config) { c.FenceTimeout = 30 * time.Second }, c.records...)
			if c.change != nil {
				c.change(r)
			}
			r.d.Start()
			r.l.run(100 * msec)
			w := r.write(10, 1, 2)
			r.l.run(29 * sec)
			require.False(t, w.done)
			r.l.run(sec)
			require.True(t, w.done)
			assert.NotZero(t, r.d.stat.fencesTimedOut)
			r.d.Close(false, nil)
			r.l.run(sec)
			require.Empty(t, book.last())
		})
	}
}

// A process that is killed again before the fences were settled leaves them to the next.
func TestInheritedFencesArePassedOn(t *testing.T) {
	gone := SessionRecord{Portal: "127.0.0.9:3260", Target: "iqn.2026-01.test:disk", ISID: [6]byte{9}, TPGT: -1}
	r, book := newHeir(t, 1, nil, gone)
	r.d.Start()
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0))
	require.ElementsMatch(t, []SessionRecord{gone, earlier(0)}, book.last())
	r.l.run(60 * sec)
	require.Equal(t, []SessionRecord{earlier(0)}, book.last(), "time has settled it")
}

// A portal that is no longer used: its old session is ended through another one.
func TestRelicIsEndedThroughAnotherPortal(t *testing.T) {
	gone := earlier(6)
	r, book := newHeir(t, 1, nil, gone)
	r.d.Start()
	r.l.run(100 * msec)
	w := r.write(10, 1, 2)
	r.l.run(2 * sec)
	require.False(t, w.done)
	require.Len(t, r.s, 1, "a path may still be added for it")
	r.l.run(1500 * msec)
	require.Len(t, r.s, 2)
	require.Empty(t, r.s[1].detours, "its own portal answers")
	assert.Equal(t, gone.ISID, r.s[1].cfg.ISID)
	assert.Equal(t, gone.Portal, r.s[1].cfg.Portal)
	assert.True(t, w.done)
	assert.True(t, r.s[1].closed, "and logged out")
	assert.Equal(t, []SessionRecord{earlier(0)}, book.last())
	assert.Len(t, r.d.Snapshot().Paths, 1)
	closed := false
	r.d.Close(false, func(error) { closed = true })
	r.l.run(sec)
	assert.True(t, closed)
}

func TestRelicTakesADetour(t *testing.T) {
	r, _ := newHeir(t, 1, nil, earlier(6))
	dead := r.d.cfg.NewSession
	r.d.cfg.NewSession = func(pc PathConfig, o session.Observer) (Session, error) {
		s, err := dead(pc, o)
		s.(*fakeSession).loginFails = true
		return s, err
	}
	r.d.Start()
	r.l.run(100 * msec)
	w := r.write(10, 1, 2)
	r.l.run(3500 * msec)
	require.Equal(t, []string{"127.0.0.1:3260"}, r.s[1].detours)
	require.True(t, w.done)
	require.True(t, r.s[1].closed)
}

// A path whose record is being taken off the list, since it comes back by a
// detour, may not carry I/O until it is on the list again.
func TestPathOnADetourIsListedAgain(t *testing.T) {
	r, book := newHeir(t, 2, nil, earlier(0), earlier(1))
	book.takes = 300 * msec
	r.s[0].loginTakes = 100 * sec
	r.d.Start()
	r.l.run(100 * msec)
	r.s[0].loginTakes = msec
	for range 4000 {
		r.l.run(msec)
		if r.state(0) == StateUp {
			require.False(t, book.busy)
			require.Contains(t, book.last(), earlier(0))
			return
		}
	}
	t.Fatal("never up")
}

// The path of an old session is added late, found by discovery.
func TestRelicGivesWayToItsPath(t *testing.T) {
	for _, after := range []int64{sec, 3*sec + 1500*usec, 4 * sec} {
		r, _ := newHeir(t, 1, nil, earlier(1))
		r.d.Start()
		r.l.run(after)
		w := r.write(10, 1, 2)
		if after > 3*sec && after < 4*sec {
			require.Len(t, r.s, 2)
			require.True(t, r.s[1].logged)
		}
		require.NoError(t, r.d.AddPath(PathConfig{ID: "b", Portal: "127.0.0.2:3260", TPGT: 1, ISID: earlier(1).ISID}))
		r.l.run(sec)
		assert.True(t, w.done)
		assert.Equal(t, StateUp, r.state(1))
		closed := false
		r.d.Close(false, func(error) { closed = true })
		r.l.run(sec)
		assert.True(t, closed)
	}
}

func TestCloseBeforeTheFencesAreSettled(t *testing.T) {
	gone := SessionRecord{Portal: "127.0.0.9:3260", Target: "iqn.2026-01.test:disk", ISID: [6]byte{9}, TPGT: 0, Provable: true}
	for _, at := range []int64{100 * msec, 3001 * msec} {
		r, book := newHeir(t, 1, nil, gone)
		r.s[0].group = 4 // no way to the relic's group
		r.d.Start()
		r.l.run(at)
		w := r.write(1, 1, 1)
		for _, s := range r.s[1:] {
			s.loginFails = true
		}
		closed := 0
		r.d.Close(true, func(error) { closed++ })
		r.d.Close(true, func(error) { closed++ })
		r.l.run(sec)
		require.Equal(t, 2, closed)
		require.Error(t, w.Err)
		require.Contains(t, book.last(), gone)
	}
}
