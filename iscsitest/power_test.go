package iscsitest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// A power on is told once to each nexus, also to one whose session was not there then.
func TestPowerOnIsToldToEachNexus(t *testing.T) {
	tgt := startTarget(t, Config{})
	nexus := func(last byte) *client {
		c := connect(t, tgt, 0)
		c.isid[5] = last
		c.login()
		return c
	}
	told := func(c *client) scsi.ASC { return c.run(0, scsi.TestUnitReady(), 0).sense.Code }
	a := nexus(1)
	require.Zero(t, told(a))
	require.NoError(t, tgt.PowerOn(0))
	assert.Equal(t, scsi.ASCPowerOn, told(a))
	assert.Zero(t, told(a), "once")
	b := nexus(2)
	assert.Equal(t, scsi.ASCPowerOn, told(b))
	assert.Zero(t, told(b))
	assert.Zero(t, told(nexus(1)), "the nexus was told")
	require.NoError(t, tgt.PowerOn(0))
	assert.Equal(t, scsi.ASCPowerOn, told(nexus(1)))
	c := nexus(1)
	assert.Equal(t, scsi.ASCPowerOn, told(c), "its session may not have heard it")
	assert.Zero(t, told(c))
	require.Error(t, tgt.PowerOn(9))
}
