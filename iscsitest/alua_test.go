package iscsitest

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// twoGroups is a target with a portal in each of two target port groups.
func twoGroups(t *testing.T, change func(*ALUA)) *Target {
	a := &ALUA{
		TPGS: scsi.TPGSImplicit | scsi.TPGSExplicit, TransitionSeconds: 7,
		Groups: []PortGroup{{ID: 10, Portals: []int{0}}, {ID: 20, Portals: []int{1}, State: scsi.AccessStandby, Preferred: true}},
	}
	if change != nil {
		change(a)
	}
	return startTarget(t, Config{Portals: make([]Portal, 2), LUNs: []LUN{{ALUA: a}}})
}

func loggedInAt(t *testing.T, tgt *Target, portal int) *client {
	c := connect(t, tgt, portal)
	c.isid[5] = byte(portal + 1)
	c.login()
	return c
}

func (c *client) portGroups(extended bool) outcome {
	return c.run(0, scsi.ReportTargetPortGroups(extended, 512), 512)
}

func (c *client) setPortGroups(groups ...scsi.PortGroupState) outcome {
	list := scsi.AppendSetTargetPortGroups(nil, groups)
	c.send(c.command(0, scsi.SetTargetPortGroups(uint32(len(list))), uint32(len(list)), false, true), list)
	return c.await()
}

func TestTargetPortGroups(t *testing.T) {
	tgt := twoGroups(t, nil)
	c := loggedInAt(t, tgt, 1)
	q, err := scsi.ParseInquiry(c.run(0, scsi.Inquiry(96), 96).data)
	require.NoError(t, err)
	assert.EqualValues(t, 3, q.TPGS)
	ids, err := scsi.ParseDesignators(c.run(0, scsi.InquiryVPD(scsi.VPDDesignators, 255), 255).data)
	require.NoError(t, err)
	group, port, ok := scsi.PortGroup(ids)
	assert.Equal(t, []any{uint16(20), uint16(2), true}, []any{group, port, ok})

	for _, extended := range []bool{false, true} {
		list, err := scsi.ParseTargetPortGroups(c.portGroups(extended).data)
		require.NoError(t, err)
		want := scsi.PortGroups{Groups: []scsi.PortGroupState{
			{Group: 10, Supported: supportedStates, Ports: []uint16{1}},
			{Group: 20, Supported: supportedStates, Ports: []uint16{2}, State: scsi.AccessStandby, Preferred: true},
		}}
		if extended {
			want.TransitionSeconds = 7
		}
		assert.Equal(t, want, list)
	}
	assert.Equal(t, scsi.Good, loggedInAt(t, tgt, 0).run(0, scsi.ReportSupportedOpcodes(scsi.ReportOpcodeAction, scsi.OpMaintenanceIn, uint16(scsi.SAReportTargetPortGroups), 64), 64).status)
}

func TestWithoutALUA(t *testing.T) {
	c := loggedIn(t, startTarget(t, Config{}))
	assert.Equal(t, scsi.ASCInvalidFieldInCDB, c.portGroups(true).sense.Code)
	assert.Equal(t, scsi.ASCInvalidFieldInCDB, c.setPortGroups().sense.Code)
}

func TestNoExtendedHeader(t *testing.T) {
	tgt := twoGroups(t, func(a *ALUA) { a.NoExtendedHeader = true })
	c := loggedInAt(t, tgt, 0)
	assert.Equal(t, scsi.ASCInvalidFieldInCDB, c.portGroups(true).sense.Code)
	assert.Equal(t, scsi.Good, c.portGroups(false).status)
}

// What each access state lets through, and how it refuses the rest.
func TestAccessStatesRefuse(t *testing.T) {
	commands := []struct {
		name string
		cdb  scsi.CDB
		n    uint32
	}{
		{"INQUIRY", scsi.Inquiry(36), 36},
		{"REPORT TARGET PORT GROUPS", scsi.ReportTargetPortGroups(false, 64), 64},
		{"MODE SENSE", scsi.ModeSense6(0x3f, 0, true, 64), 64},
		{"READ CAPACITY", scsi.ReadCapacity16(32), 32},
		{"TEST UNIT READY", scsi.TestUnitReady(), 0},
		{"READ", scsi.Read(0, 1, 0), 512},
	}
	for _, tc := range []struct {
		state   scsi.AccessState
		code    scsi.ASC
		strict  bool
		allowed int // of commands, from the first
	}{
		{scsi.AccessOptimized, 0, false, 6},
		{scsi.AccessNonOptimized, 0, false, 6},
		{scsi.AccessStandby, scsi.ASCALUAStandby, false, 4},
		{scsi.AccessStandby, scsi.ASCALUAStandby, true, 3},
		{scsi.AccessUnavailable, scsi.ASCALUAUnavailable, false, 2},
		{scsi.AccessTransitioning, scsi.ASCALUATransition, false, 2},
	} {
		t.Run(tc.state.String(), func(t *testing.T) {
			tgt := twoGroups(t, func(a *ALUA) { a.Groups[0].State, a.NoCapacity = tc.state, tc.strict })
			c := loggedInAt(t, tgt, 0)
			for i, cmd := range commands {
				o := c.run(0, cmd.cdb, cmd.n)
				if i < tc.allowed {
					assert.Equal(t, scsi.Good, o.status, cmd.name)
					continue
				}
				assert.Equal(t, scsi.Sense{Key: scsi.KeyNotReady, Code: tc.code}, o.sense, cmd.name)
			}
		})
	}
}

func TestSetTargetPortGroups(t *testing.T) {
	tgt := twoGroups(t, nil)
	a, b := loggedInAt(t, tgt, 0), loggedInAt(t, tgt, 1)
	require.Equal(t, scsi.Good, b.setPortGroups(scsi.PortGroupState{Group: 20}).status)
	state := func(id uint16) scsi.AccessState {
		s, err := tgt.Access(0, id)
		require.NoError(t, err)
		return s
	}
	assert.Equal(t, scsi.AccessOptimized, state(20))
	assert.Equal(t, scsi.AccessStandby, state(10), "what is not named makes room")
	assert.Equal(t, 1, tgt.PortGroupSets(0))
	assert.Equal(t, scsi.Sense{Key: scsi.KeyUnitAttention, Code: scsi.ASCALUAStateChanged}, a.run(0, scsi.TestUnitReady(), 0).sense)
	assert.Equal(t, scsi.Good, b.run(0, scsi.TestUnitReady(), 0).status, "who asked for it is not told")

	bad := b.setPortGroups(scsi.PortGroupState{Group: 30})
	assert.Equal(t, scsi.ASCInvalidFieldInParameters, bad.sense.Code)
	bad = b.setPortGroups(scsi.PortGroupState{Group: 10, State: scsi.AccessTransitioning})
	assert.Equal(t, scsi.ASCInvalidFieldInParameters, bad.sense.Code)
	assert.Equal(t, scsi.AccessStandby, state(10))

	implicit := twoGroups(t, func(a *ALUA) { a.TPGS = scsi.TPGSImplicit })
	c := loggedInAt(t, implicit, 1)
	assert.Equal(t, scsi.ASCInvalidFieldInCDB, c.setPortGroups(scsi.PortGroupState{Group: 20}).sense.Code)
}

func TestTransitionTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := twoGroups(t, nil)
		state := func() scsi.AccessState {
			s, err := tgt.Access(0, 20)
			require.NoError(t, err)
			return s
		}
		require.NoError(t, tgt.SetAccess(0, 20, scsi.AccessOptimized, 3*time.Second))
		time.Sleep(2 * time.Second)
		assert.Equal(t, scsi.AccessTransitioning, state())
		time.Sleep(2 * time.Second)
		assert.Equal(t, scsi.AccessOptimized, state())

		require.NoError(t, tgt.SetAccess(0, 20, scsi.AccessStandby, 3*time.Second))
		require.NoError(t, tgt.SetAccess(0, 20, scsi.AccessUnavailable, 0))
		time.Sleep(4 * time.Second)
		assert.Equal(t, scsi.AccessUnavailable, state(), "the newer change counts")
		tgt.Close()
	})
}

func TestALUAIsValidated(t *testing.T) {
	for name, a := range map[string]*ALUA{
		"no groups":      {},
		"same number":    {Groups: []PortGroup{{ID: 1, Portals: []int{0}}, {ID: 1}}},
		"portal in two":  {Groups: []PortGroup{{ID: 1, Portals: []int{0}}, {ID: 2, Portals: []int{0}}}},
		"portal in none": {Groups: []PortGroup{{ID: 1}}},
		"no such TPGS":   {TPGS: 4, Groups: []PortGroup{{ID: 1, Portals: []int{0}}}},
	} {
		_, err := NewTarget(Config{LUNs: []LUN{{ALUA: a}}, Portals: []Portal{{Addr: "-"}}})
		assert.Error(t, err, name)
	}
	tgt := startTarget(t, Config{})
	assert.Error(t, tgt.SetAccess(0, 1, scsi.AccessOptimized, 0))
	assert.Error(t, tgt.SetPreferred(0, 1, true))
	_, err := twoGroups(t, nil).Access(0, 11)
	assert.Error(t, err)
}
