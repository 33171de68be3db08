package mpio

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMovedWriteIsNotGivenUpWhileItsSessionLives: as long as the target has the
// command in a session that it keeps, it may execute it however late. FenceTimeout is
// about what a target does after a session was lost.
func TestMovedWriteIsNotGivenUpWhileItsSessionLives(t *testing.T) {
	r, w := movedWrite(t, func(c *Config) { c.FenceTimeout = 5 * time.Second })
	require.True(t, w.done)
	newer := r.write(1, 1, 2)
	r.l.run(20 * sec)
	assert.False(t, newer.done, "the session was never lost")
	require.Len(t, r.d.Snapshot().Fenced, 1)
	assert.True(t, r.d.Snapshot().Fenced[0].Moved)
	assert.InDelta(t, 5, r.d.Snapshot().Fenced[0].Left, 0.01, "that time has not begun")
	r.s[0].release() // now the target executes the first copy
	r.l.run(sec)
	require.True(t, newer.done)
	assert.Equal(t, uint64(2), r.at(1), "the newer of the two was acknowledged last")
	assert.Zero(t, r.d.stat.fencesTimedOut)
	r.requireIdle()
}

// TestMovedWriteIsTimedFromTheLossOfItsSession, and one that was lost later has its
// time before it.
func TestMovedWriteIsTimedFromTheLossOfItsSession(t *testing.T) {
	r := newRig(t, 3, func(c *Config) { c.FenceTimeout = 5 * time.Second })
	r.s[1].group, r.s[2].group = 2, 3 // no way round
	r.up().only(0)
	r.s[0].hold = true
	moved := r.write(1, 1, 1)
	r.l.run(150 * msec)
	r.s[0].silence()
	r.l.run(msec)
	require.True(t, moved.done)
	first := r.write(1, 1, 2)
	r.l.run(8 * sec)

	r.only(1)
	r.s[1].hold, r.s[1].honest = true, false
	lost := r.write(2, 1, 3)
	r.l.run(msec)
	r.s[1].cut(msec)
	r.s[1].hold = false
	r.l.run(sec)
	require.True(t, lost.done)
	second := r.write(2, 1, 4)
	r.l.run(sec)
	r.s[0].cut(1000 * sec)
	r.l.run(2 * sec)
	assert.False(t, second.done)
	r.l.run(1500 * msec)
	assert.True(t, second.done, "raised later, but its session was lost first")
	assert.False(t, first.done)
	r.l.run(1400 * msec)
	assert.False(t, first.done)
	r.l.run(200 * msec)
	assert.True(t, first.done)
	assert.Equal(t, uint64(2), r.d.stat.fencesTimedOut)
	r.requireIdle()
}
