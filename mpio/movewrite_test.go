package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// movedWrite is a device whose write of 1 to block 1 was taken from path 0, which
// fell silent, and answered over path 1.
func movedWrite(t *testing.T, change func(*Config)) (*rig, *result) {
	r := newRig(t, 2, change).up()
	r.only(0)
	r.s[0].hold = true
	w := r.write(1, 1, 1)
	r.l.run(150 * msec)
	r.s[0].silence()
	r.l.run(msec)
	return r, w
}

func TestWriteLeavesASilentPath(t *testing.T) {
	r, w := movedWrite(t, nil)
	require.True(t, w.done)
	require.NoError(t, w.Err)
	assert.Equal(t, 1, r.event(FenceRaised).Count)
	assert.Equal(t, uint64(1), r.at(1))

	newer, beside := r.write(1, 1, 2), r.write(2, 1, 3)
	r.l.run(msec)
	assert.False(t, newer.done, "the first copy may still land")
	assert.True(t, beside.done, "other blocks are not its business")
	r.s[0].release()
	r.l.run(msec)
	assert.True(t, newer.done, "the late answer settles it")
	assert.Equal(t, uint64(2), r.at(1))
	assert.Equal(t, 1, r.event(FenceSettled).Count)
	assert.Equal(t, StateUp, r.state(0))
	r.requireIdle()
}

// TestMovedWriteIsSettledByReinstatement: the silent path is lost after all.
func TestMovedWriteIsSettledByReinstatement(t *testing.T) {
	r, w := movedWrite(t, nil)
	require.True(t, w.done)
	newer := r.write(1, 1, 2)
	r.s[0].hold = false
	r.s[0].honest = true
	r.s[0].cut(sec)
	r.l.run(500 * msec)
	assert.False(t, newer.done)
	assert.Len(t, r.kinds(FenceRaised), 1, "told of once, not again when the session is lost")
	r.l.run(sec)
	assert.True(t, newer.done)
	assert.Equal(t, uint64(2), r.at(1))
	assert.Empty(t, r.s[0].zombies)
	r.requireIdle()
}

// TestMovedWriteOutlivesALoginThatProvesNothing: only time settles it then.
func TestMovedWriteOutlivesALoginThatProvesNothing(t *testing.T) {
	r, w := movedWrite(t, nil)
	require.True(t, w.done)
	newer := r.write(1, 1, 2)
	r.s[0].hold, r.s[0].honest = false, false
	r.s[0].cut(sec)
	r.l.run(50 * sec)
	assert.False(t, newer.done)
	r.s[0].wake(0)
	assert.Equal(t, uint64(1), r.at(1))
	r.l.run(20 * sec)
	assert.True(t, newer.done)
	assert.Equal(t, uint64(2), r.at(1))
	r.requireIdle()
}

func TestSharedWriteStaysOnASilentPath(t *testing.T) {
	r, w := movedWrite(t, func(c *Config) { c.Shared = true })
	assert.False(t, w.done, "its answer would have to wait for the first copy anyway")
	assert.Empty(t, r.d.ghosts)
	r.s[0].release()
	r.l.run(msec)
	assert.True(t, w.done)
	r.requireIdle()
}

// TestMovedWriteFencesItsWholeRange, not only its first block.
func TestMovedWriteFencesItsWholeRange(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold = true
	w := r.write(0, 4, 8)
	r.l.run(150 * msec)
	r.s[0].silence()
	r.l.run(msec)
	require.True(t, w.done)
	newer := r.write(3, 2, 9)
	r.l.run(msec)
	assert.False(t, newer.done)
	r.s[0].release()
	r.l.run(msec)
	assert.True(t, newer.done)
	assert.Equal(t, uint64(9), r.at(3))
	r.requireIdle()
}
