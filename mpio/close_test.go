package mpio

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// closing notes the outcome of a Close.
type closing struct {
	n   int
	err error
}

func (c *closing) done(err error) { c.n++; c.err = err }

func TestCloseDrainsAndFlushes(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[0].room, r.s[1].room = 1, 1
	var all []*result
	for i := range 10 {
		all = append(all, r.write(i, 1, 1))
	}
	var c closing
	r.d.Close(false, c.done)
	assert.ErrorIs(t, r.read(0, 1).Err, block.ErrClosed)
	assert.ErrorIs(t, r.d.AddPath(PathConfig{ID: "z"}), block.ErrClosed)
	assert.ErrorIs(t, r.d.SetPath("a", PathOp{Kind: OpUp}), block.ErrClosed)
	assert.Equal(t, "closing", r.d.Snapshot().State)
	r.l.run(sec)
	require.Equal(t, 1, c.n)
	assert.NoError(t, c.err)
	for _, q := range all {
		assert.True(t, q.done)
		assert.NoError(t, q.Err)
	}
	assert.Equal(t, 1, r.unit.counts[scsi.OpSyncCache10])
	assert.Equal(t, "closed", r.d.Snapshot().State)
	assert.Empty(t, r.l.timers, "no timer is left")
	r.d.Close(true, c.done)
	assert.Equal(t, 2, c.n, "closing again is told at once")
	r.requireIdle()
}

func TestCloseByForce(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].hold, r.s[0].room = true, 2
	a, b, behind, queued := r.write(0, 1, 1), r.read(5, 1), r.write(0, 1, 2), r.read(1, 1)
	var c, c2 closing
	r.d.Close(false, c.done)
	r.l.run(sec)
	assert.Zero(t, c.n)
	r.d.Close(true, c2.done)
	r.l.run(sec)
	assert.Equal(t, 1, c.n)
	assert.Equal(t, 1, c2.n)
	for _, q := range []*result{a, b, behind, queued} {
		require.True(t, q.done)
		assert.ErrorIs(t, q.Err, block.ErrClosed)
	}
	assert.Contains(t, r.event(DeviceClosed).Text, "may still execute")
	assert.Zero(t, r.unit.counts[scsi.OpSyncCache10])
	r.requireIdle()
}

func TestCloseWithoutPaths(t *testing.T) {
	var c closing
	r := newRig(t, 0, nil)
	r.d.Close(false, c.done)
	assert.Equal(t, 1, c.n)

	r = newRig(t, 2, nil)
	r.d.Close(false, c.done) // never started
	r.l.run(sec)
	assert.Equal(t, 2, c.n)

	r = newRig(t, 2, nil)
	r.s[0].loginFails, r.s[1].loginTakes = true, 100*sec
	r.d.Start()
	r.l.run(sec)
	r.d.Close(false, c.done)
	r.l.run(sec)
	assert.Equal(t, 3, c.n, "in the middle of a login")
}

func TestCloseWithNoPathLeft(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.write(9, 1, 1)
	r.l.run(sec)
	w := r.write(0, 1, 1)
	r.s[0].cut(1000 * sec)
	var c closing
	r.d.Close(false, c.done)
	r.l.run(119 * sec)
	assert.Zero(t, c.n, "what was accepted has its full time")
	r.l.run(60 * sec)
	assert.Equal(t, 1, c.n)
	assert.True(t, w.done)
	assert.ErrorIs(t, c.err, block.ErrIO, "the flush was not possible")
}

// TestCloseWithNoPathAndNothingToFlush: what was never written needs no flush, so
// that a device without a path does not hold up whoever wants it gone.
func TestCloseWithNoPathAndNothingToFlush(t *testing.T) {
	for name, before := range map[string]func(*rig){
		"nothing was written": func(r *rig) { r.read(0, 1) },
		"all of it was flushed": func(r *rig) {
			r.write(0, 1, 1)
			r.l.run(sec)
			r.flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, nil).up()
			before(r)
			r.l.run(sec)
			r.s[0].cut(1000 * sec)
			r.l.run(sec)
			var c closing
			r.d.Close(false, c.done)
			r.l.run(sec)
			require.Equal(t, 1, c.n, "there is nothing to wait for")
			assert.NoError(t, c.err)
			r.requireIdle()
		})
	}
	r := newRig(t, 1, nil).up()
	r.write(0, 1, 1)
	r.l.run(sec)
	r.s[0].cut(1000 * sec)
	r.l.run(sec)
	var c closing
	r.d.Close(false, c.done)
	r.l.run(29 * sec)
	assert.Zero(t, c.n, "an answered write may be in the unit's cache only")
	r.l.run(2 * sec)
	assert.ErrorIs(t, c.err, block.ErrIO)
}

func TestSnapshotIsJSON(t *testing.T) {
	r := newRig(t, 2, nil).up()
	for i := range 100 {
		r.read(i, 8)
		r.write(i, 8, 1)
		r.l.run(msec)
	}
	b, err := json.Marshal(r.d.Snapshot())
	require.NoError(t, err)
	var s struct {
		Name, Target, LUN, Unit, State, Policy string
		Size                                   uint64
		Paths                                  []struct {
			ID, State, Reason     string
			Share, P50, P99, IOPS float64
			IOs                   uint64
			Cost                  struct{ Total, Latency float64 }
		}
	}
	require.NoError(t, json.Unmarshal(b, &s))
	assert.Equal(t, "disk", s.Name)
	assert.Equal(t, "1", s.LUN)
	assert.Equal(t, "naa.60014051020304050607080910111213"[:12], s.Unit[:12])
	assert.Equal(t, "up", s.State)
	require.Len(t, s.Paths, 2)
	assert.InDelta(t, 1, s.Paths[0].Share+s.Paths[1].Share, 1e-9)
	assert.Equal(t, uint64(200), s.Paths[0].IOs+s.Paths[1].IOs)
	assert.InDelta(t, 100e-6, s.Paths[0].P50, 13e-6)
	assert.InDelta(t, 100e-6, s.Paths[0].Cost.Latency, 1e-6)
	assert.Equal(t, "up", s.Paths[0].State)
}

func TestHistogram(t *testing.T) {
	last := -1
	for ns := int64(1); ns < 1<<38; ns += ns/16 + 1 {
		i := bucket(ns)
		require.GreaterOrEqual(t, i, last)
		last = i
		if ns >= 1<<histLow && ns < 1<<histHigh {
			require.GreaterOrEqual(t, bucketTop(i), float64(ns))
			require.LessOrEqual(t, bucketTop(i), float64(ns)*1.13)
		}
	}
	assert.Equal(t, histLength-1, last)
	var a histogram
	assert.Zero(t, a.quantile(0.5))
	for i := range int64(1000) {
		a[bucket(i*1000)]++
	}
	assert.InDelta(t, 500e3, a.quantile(0.5), 70e3)
	assert.InDelta(t, 990e3, a.quantile(0.99), 70e3)
}

func TestRecentWindow(t *testing.T) {
	r := newRig(t, 1, nil).up()
	for i := range 100 {
		r.read(i, 1)
	}
	r.l.run(1200 * msec)
	assert.NotZero(t, r.d.Snapshot().Paths[0].IOPS)
	r.l.run(2 * sec)
	assert.Zero(t, r.d.Snapshot().Paths[0].IOPS, "old figures are forgotten")
	assert.Equal(t, uint64(100), r.d.Snapshot().Paths[0].IOs)
}
