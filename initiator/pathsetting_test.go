package initiator_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
)

// TestPathsSteeredBeforehand: a path that was taken out is there, but is not used
// nor waited for; priority and weight are as set. One that discovery finds counts too.
func TestPathsSteeredBeforehand(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(3)})
		cfg := config(tgt)
		cfg.Wait, cfg.Portable = initiator.WaitAll, portable
		cfg.Paths = []initiator.PathSetting{{Portal: tgt.Addr(0), Priority: 2, Weight: 3}, {Portal: tgt.Addr(2), Down: true}, {Portal: "192.0.2.1", Down: true}}
		dev := open(t, cfg)
		s, err := dev.Snapshot(t.Context())
		require.NoError(t, err)
		require.Len(t, s.Paths, 3)
		for _, p := range s.Paths {
			switch p.Portal {
			case tgt.Addr(0):
				assert.Equal(t, []int{2, 3}, []int{p.Priority, p.Weight})
				assert.False(t, p.Active, "the other one has the better priority")
			case tgt.Addr(1):
				assert.Equal(t, []int{1, 1}, []int{p.Priority, p.Weight})
				assert.True(t, p.Active)
			case tgt.Addr(2):
				assert.Equal(t, mpio.StateOffline, p.State)
			}
		}
		require.NoError(t, dev.SetPath(t.Context(), tgt.Addr(2), initiator.PathOp{Kind: initiator.PathUp}))
		require.NoError(t, dev.Close(t.Context()))
	})
}

// TestEveryPathTakenOut: the error says whose doing it is.
func TestEveryPathTakenOut(t *testing.T) {
	tgt := target(t, iscsitest.Config{})
	cfg := config(tgt)
	cfg.Paths = []initiator.PathSetting{{Portal: tgt.Addr(0), Down: true}}
	_, err := initiator.Open(t.Context(), cfg)
	require.ErrorContains(t, err, "taken out of use by hand")
	assert.ErrorContains(t, err, "iscsimp path NAME PORTAL up --save")
}

func TestPathSettingsThatCannotBe(t *testing.T) {
	tgt := target(t, iscsitest.Config{})
	for says, set := range map[string][]initiator.PathSetting{
		"host:port":   {{Portal: "a b"}},
		"priority -1": {{Portal: "a", Priority: -1}},
		"weight 1001": {{Portal: "a", Weight: 1001}},
		"two setting": {{Portal: "A"}, {Portal: "a:3260"}},
	} {
		cfg := config(tgt)
		cfg.Paths = set
		_, err := initiator.Open(t.Context(), cfg)
		require.ErrorContains(t, err, says)
		assert.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
	}
}
