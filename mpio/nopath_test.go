package mpio

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestNoPathQueue(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[0].cut(1000 * sec)
	assert.Empty(t, r.kinds(NoPath))
	r.s[1].cut(1000 * sec)
	assert.Len(t, r.kinds(NoPath), 1)
	rd, w, over := r.read(0, 1), r.write(1, 1, 1), r.write(1, 1, 2)
	r.l.run(20 * sec)
	snap := r.d.Snapshot()
	assert.Equal(t, "no-path", snap.State)
	assert.InDelta(t, 100, snap.NoPathLeft, 0.01)
	assert.InDelta(t, 20, snap.NoPathFor, 0.01)
	assert.Equal(t, 3, snap.Queued)
	assert.False(t, rd.done)

	r.s[0].login()
	r.l.run(sec)
	for _, q := range []*result{rd, w, over} {
		require.True(t, q.done)
		require.NoError(t, q.Err)
	}
	assert.Equal(t, uint64(2), r.at(1))
	assert.Contains(t, r.event(PathsBack).Text, "20")
	assert.Zero(t, r.d.Snapshot().NoPathFor)
	r.requireIdle()
}

func TestNoPathExpires(t *testing.T) {
	r := newRig(t, 1, nil).up()
	r.s[0].hold = true
	inFlight := r.write(5, 1, 1)
	r.l.run(msec)
	r.s[0].cut(1000 * sec)
	r.s[0].hold = false
	rd, w, over := r.read(0, 1), r.write(1, 1, 1), r.write(1, 1, 2)
	r.l.run(119 * sec)
	assert.False(t, rd.done)
	r.l.run(2 * sec)
	for _, q := range []*result{rd, w, over, inFlight} {
		require.True(t, q.done)
		require.ErrorIs(t, q.Err, block.ErrIO)
	}
	assert.Contains(t, rd.Err.Error(), "connection reset", "the error names each path's trouble")
	assert.Equal(t, 4, r.event(NoPathExpired).Count)
	now := r.read(0, 1)
	assert.True(t, now.done, "later ones fail at once")
	assert.ErrorIs(t, now.Err, block.ErrIO)
	assert.True(t, r.d.Snapshot().Failing)
	r.l.run(100 * sec)
	r.s[0].login()
	r.l.run(sec)
	again := r.read(0, 1)
	r.l.run(msec)
	assert.True(t, again.done)
	assert.NoError(t, again.Err, "until a path is back")
	r.requireIdle()
}

func TestNoPathForEver(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.NoPathTimeout = -1 }).up()
	r.s[0].cut(100000 * sec)
	q := r.read(0, 1)
	r.l.run(50000 * sec)
	assert.False(t, q.done)
	assert.Equal(t, -1.0, r.d.Snapshot().NoPathLeft)
	r.s[0].login()
	r.l.run(sec)
	assert.True(t, q.done)
	assert.NoError(t, q.Err)
}

func TestFailFast(t *testing.T) {
	r := newRig(t, 2, func(c *Config) { c.FailFast = true }).up()
	r.s[0].hold = true
	r.only(0)
	q := r.read(0, 1)
	r.s[0].cut(1000 * sec)
	r.l.run(msec)
	require.True(t, q.done)
	assert.NoError(t, q.Err, "another path is no reason to fail")

	// A check of the last path is not its loss.
	n := 0
	r.s[1].intercept = func(cdb scsi.CDB) (answer, bool) {
		if n++; n == 1 {
			return sense(scsi.KeyUnitAttention, scsi.ASCReportedLUNsChanged), true
		}
		return answer{}, false
	}
	q = r.read(0, 1)
	r.l.run(100 * msec)
	require.True(t, q.done)
	assert.NoError(t, q.Err)
	assert.Empty(t, r.kinds(NoPath))

	r.s[1].intercept, r.s[1].hold = nil, true
	q = r.read(0, 1)
	r.s[1].cut(1000 * sec)
	r.l.run(msec)
	require.True(t, q.done)
	assert.ErrorIs(t, q.Err, block.ErrIO)
}

func TestConfigIsChecked(t *testing.T) {
	ok := Config{NewSession: newRig(t, 0, nil).d.cfg.NewSession}
	for name, change := range map[string]func(*Config){
		"no factory":         func(c *Config) { c.NewSession = nil },
		"negative":           func(c *Config) { c.FenceTimeout = -time.Second },
		"transfer too small": func(c *Config) { c.MaxTransfer = 512 },
		"transfer too large": func(c *Config) { c.MaxTransfer = 8 << 20 },
		"policy":             func(c *Config) { c.Policy = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ok
			change(&cfg)
			_, err := New(cfg, newFakeLoop())
			assert.Error(t, err)
		})
	}
	_, err := New(ok, nil)
	assert.Error(t, err)
}
