package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// shunned makes a rig whose second path is so slow that only scouts go there.
func shunned(t *testing.T, change func(*Config)) (*rig, *load) {
	r := newRig(t, 2, func(c *Config) {
		c.Marginal.Off, c.HedgeBudget = true, -1
		if change != nil {
			change(c)
		}
	}).up()
	r.s[0].delay = jitter(r, 200*usec)
	r.s[1].delay = jitter(r, 30*msec)
	l := newLoad(r, 4, 8, 4)
	r.l.run(3 * sec)
	require.Less(t, r.shares(sec)[1], 0.01)
	return r, l
}

func TestScoutsFindAHealedPath(t *testing.T) {
	r, l := shunned(t, nil)
	require.NotZero(t, r.d.paths[1].stat.probes)
	r.s[1].delay = jitter(r, 200*usec)
	r.l.run(300 * msec)
	assert.Greater(t, r.shares(sec)[1], 0.2, "for reads and for writes")
	assert.Zero(t, l.errors)
}

// A unit attention is told once, whoever asks: a scout must not swallow it.
func TestScoutHeedsAttentions(t *testing.T) {
	r, l := shunned(t, nil)
	told, checks := 0, r.unit.counts[scsi.OpInquiry]
	r.s[1].intercept = func(cdb scsi.CDB) (answer, bool) {
		if told++; told == 1 {
			return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
		}
		return answer{}, false
	}
	r.l.run(2 * sec)
	require.NotZero(t, told)
	assert.Greater(t, r.unit.counts[scsi.OpInquiry], checks, "the unit was looked at again")
	assert.Equal(t, StateUp, r.state(1))
	assert.Zero(t, l.errors)
}

func TestScoutIsLostWithItsSession(t *testing.T) {
	r, l := shunned(t, nil)
	r.s[1].hold = true
	r.l.run(100 * msec)
	require.True(t, r.d.paths[1].scout.busy)
	r.s[1].hold = false
	r.s[1].cut(10 * msec)
	assert.False(t, r.d.paths[1].scout.busy)
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(1))
	assert.Zero(t, l.errors)
}

func TestScoutIsGivenUp(t *testing.T) {
	r, _ := shunned(t, nil)
	r.s[1].hold = true
	r.l.run(100 * msec)
	require.True(t, r.d.paths[1].scout.busy)
	probes := r.d.paths[1].stat.probes
	r.l.run(scoutGiveUp)
	r.s[1].hold = false
	r.l.run(sec)
	assert.Greater(t, r.d.paths[1].stat.probes, probes, "others follow")
}

// A scout reads no further than the unit goes, and no block twice as large.
func TestScoutAtTheEnd(t *testing.T) {
	r, _ := shunned(t, nil)
	last := r.d.geo.size>>r.d.geo.shift - 1
	s := &r.d.paths[1].scout
	for s.busy {
		r.l.run(msec)
	}
	r.d.scouting.tokens = 1
	s.send(last, r.l.now)
	require.True(t, s.busy)
	assert.Len(t, s.cmd.Data, int(r.d.geo.blockSize))
	assert.Equal(t, last, s.cmd.CDB.LBA())
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(1))
}
