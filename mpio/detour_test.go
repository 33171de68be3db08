package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A path stays lost; the fence is lifted by a login through the other portal.
func TestDetourSettles(t *testing.T) {
	r, w := lostWrite(t, nil)
	require.True(t, w.done)
	over := r.write(10, 1, 2)
	r.l.run(1900 * msec)
	require.Empty(t, r.s[0].detours, "its own portal has the first chance")
	require.False(t, over.done)
	r.l.run(200 * msec)
	require.Equal(t, []string{"127.0.0.2:3260"}, r.s[0].detours)
	assert.True(t, over.done)
	assert.Empty(t, r.d.ghosts)
	assert.Empty(t, r.s[0].zombies, "the held write is dead")
	assert.Contains(t, r.event(FenceSettled).Text, "through 127.0.0.2:3260")
	assert.Equal(t, 1, r.s[1].logins, "the other path's session is left alone")
	assert.Zero(t, r.d.stat.fencesTimedOut)
	r.l.run(sec)
	require.Equal(t, StateUp, r.state(0), "back on its own portal")
	r.requireIdle()
	require.Len(t, r.s[0].detours, 1)
}

// A path on a detour takes no I/O, not even if it is the only one with priority.
func TestDetourCarriesNothing(t *testing.T) {
	r, _ := lostWrite(t, nil)
	served := r.d.paths[0].stat.ios
	r.s[0].loginFails = true
	for range 3000 {
		r.l.run(msec)
		r.write(100, 1, 3)
		r.read(200, 1)
		require.False(t, r.d.paths[0].usable())
		require.NotEqual(t, StateUp, r.state(0))
	}
	require.Len(t, r.s[0].detours, 1)
	assert.Equal(t, served, r.d.paths[0].stat.ios)
	r.s[0].loginFails = false
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(0))
}

func TestDetourAfterFailedLogins(t *testing.T) {
	r, _ := lostWrite(t, nil)
	r.s[0].loginFails = true
	r.s[0].planLogin(100 * msec) // refused at once, again and again
	over := r.write(10, 1, 2)
	r.l.run(400 * msec)
	require.Len(t, r.s[0].detours, 1)
	assert.True(t, over.done)
}

func TestNoDetour(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(r *rig)
		after   func(r *rig)
	}{
		"the target told another group":        {prepare: func(r *rig) { r.s[1].group = 2 }},
		"the target told no group":             {prepare: func(r *rig) { r.s[0].group, r.s[1].group = -1, -1 }},
		"the target never named them together": {prepare: func(r *rig) { r.d.related = nil }},
		"logins prove nothing":                 {prepare: func(r *rig) { r.s[0].honest, r.s[1].honest = false, false }},
		"the other path is not up":             {after: func(r *rig) { r.s[1].cut(1000 * sec) }},
		"the other path is out of use":         {after: func(r *rig) { _ = r.d.SetPath("b", PathOp{Kind: OpDown}) }},
		"the other path is to be checked":      {after: func(r *rig) { r.s[1].hold = true; r.d.paths[1].doubt("test") }},
		"the own portal is back":               {after: func(r *rig) { r.s[0].login() }},
		"the other logs in to another target": {prepare: func(r *rig) {
			r.d.paths[1].cfg.Target = "iqn.2026-01.test:other"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil)
			if c.prepare != nil {
				c.prepare(r)
			}
			r.up().only(0)
			r.s[0].hold = true
			r.write(10, 4, 1)
			r.l.run(msec)
			r.s[0].cut(1000 * sec)
			r.s[0].hold = false
			r.l.run(msec)
			require.Len(t, r.d.ghosts, 1)
			if c.after != nil {
				c.after(r)
			}
			r.l.run(30 * sec)
			require.Empty(t, r.s[0].detours)
		})
	}
}

// A login that reaches another unit through the neighbor's portal proves nothing,
// and does not quarantine the path either.
func TestDetourToAnotherUnit(t *testing.T) {
	r, _ := lostWrite(t, nil)
	other := newFakeUnit(4096)
	other.designators[0].ID = append([]byte{0x60, 0x99}, other.designators[0].ID[2:]...)
	r.s[0].unit = other
	r.s[0].loginFails = true
	r.l.run(3 * sec)
	require.Len(t, r.s[0].detours, 1)
	require.Len(t, r.d.ghosts, 1)
	require.Equal(t, StateDown, r.state(0))
	r.l.run(20 * sec)
	require.Greater(t, len(r.s[0].detours), 2, "tried again, but not without end")
	require.Less(t, len(r.s[0].detours), 6)
	require.Len(t, r.d.ghosts, 1)
}

func TestDetourThatFailsIsRepeated(t *testing.T) {
	r, _ := lostWrite(t, nil)
	r.s[0].loginFails, r.s[0].viaFails = true, true
	over := r.write(10, 1, 2)
	r.l.run(9 * sec)
	require.Len(t, r.s[0].detours, 2)
	r.s[0].viaFails = false
	r.l.run(5 * sec)
	assert.True(t, over.done)
	r.l.run(60 * sec)
	assert.Len(t, r.s[0].detours, 3, "nothing is left to settle")
}

// A detour whose check is cut short settles nothing yet; the next one does.
func TestDetourIsLost(t *testing.T) {
	r, _ := lostWrite(t, nil)
	r.s[0].loginFails = true
	r.s[0].delay = func() int64 { return sec }
	r.l.run(2500 * msec)
	require.Equal(t, StateChecking, r.state(0))
	require.Len(t, r.d.ghosts, 1)
	r.s[0].delay = func() int64 { return msec }
	r.s[0].cut(sec)
	require.Equal(t, StateDown, r.state(0))
	r.l.run(6 * sec)
	assert.Len(t, r.s[0].detours, 2)
	assert.Empty(t, r.d.ghosts)
}

func TestCloseDuringADetour(t *testing.T) {
	for _, force := range []bool{false, true} {
		r, _ := lostWrite(t, nil)
		r.s[0].delay = func() int64 { return sec }
		over := r.write(10, 1, 2)
		r.l.run(2500 * msec)
		closed := false
		r.d.Close(force, func(error) { closed = true })
		r.l.run(90 * sec)
		assert.True(t, closed)
		assert.True(t, over.done)
		assert.Equal(t, force, over.Err != nil)
	}
}
