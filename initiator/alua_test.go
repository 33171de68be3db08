package initiator_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/scsi"
)

// twoGroups is a target with a portal in each of two target port groups.
func twoGroups(t *testing.T, tpgs uint8, a, b scsi.AccessState) *iscsitest.Target {
	return target(t, iscsitest.Config{Portals: portals(2), LUNs: []iscsitest.LUN{{ALUA: &iscsitest.ALUA{TPGS: tpgs, Groups: []iscsitest.PortGroup{
		{ID: 1, Portals: []int{0}, State: a}, {ID: 2, Portals: []int{1}, State: b},
	}}}}})
}

// A path that its target keeps in standby is not waited for, even by WaitAll.
func TestOpenWithAPathInStandby(t *testing.T) {
	leak.Check(t)
	tgt := twoGroups(t, 0, scsi.AccessOptimized, scsi.AccessStandby)
	cfg := config(tgt)
	cfg.Wait = initiator.WaitAll
	dev := open(t, cfg)
	s := snapshotUntil(t, dev, "one path up, one in standby", func(s initiator.Snapshot) bool {
		return s.PathsUp == 1 && s.Paths[1].ALUAState == "standby"
	})
	assert.Equal(t, "active/optimized", s.Paths[0].ALUAState)
	assert.Equal(t, 2, s.Paths[1].ALUAGroup)
	assert.Equal(t, "up", s.State, "a path in standby is as it should be")
	_, err := dev.WriteAt(make([]byte, 512), 0)
	require.NoError(t, err)
}

// A target that leaves access states to its initiators is asked for one group.
func TestOpenWithAllPathsInStandby(t *testing.T) {
	leak.Check(t)
	tgt := twoGroups(t, scsi.TPGSExplicit, scsi.AccessStandby, scsi.AccessStandby)
	dev := open(t, config(tgt))
	_, err := dev.WriteAt(make([]byte, 512), 0)
	require.NoError(t, err)
	assert.Equal(t, 1, tgt.PortGroupSets(0))
}
