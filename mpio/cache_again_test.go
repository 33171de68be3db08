package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// Power is lost twice in a short time. The path that reports it first the second time was
// away the first time: it must not be taken for late.
func TestSecondPowerLossIsNotTakenForTheFirst(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[1].cut(20 * sec)
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	r.attend(0, scsi.ASCPowerOn)
	r.s[0].cut(msec)
	r.l.run(sec)
	require.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	require.NoError(t, r.waitFor(r.write(0, 1, 2)))

	r.s[0].cut(100 * sec)
	r.attend(1, scsi.ASCPowerOn)
	r.l.run(20 * sec)
	require.Equal(t, StateUp, r.state(1))
	assert.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	r.requireIdle()
}

// The same where nothing but a command that went well in between tells the two apart.
func TestSecondResetIsNotTakenForTheFirst(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.attend(0, scsi.ASCDeviceInternalReset)
	r.only(0)
	require.NoError(t, r.waitFor(r.write(0, 1, 1)))
	r.l.run(sec)
	r.only(1) // which was not told: this target counts resets for each of its ports
	require.NoError(t, r.waitFor(r.write(0, 1, 2)))
	r.attend(1, scsi.ASCDeviceInternalReset)
	require.NoError(t, r.waitFor(r.read(0, 1)))
	assert.ErrorIs(t, r.waitFor(r.flush()), block.ErrIO)
	r.requireIdle()
}

// One that logs in later, after a single loss of power, is late.
func TestLatePathReportsTheSamePowerLoss(t *testing.T) {
	r := newRig(t, 3, nil).up()
	for i := range r.s {
		r.attend(i, scsi.ASCPowerOn)
		r.s[i].cut(sec * int64(1+10*i))
	}
	r.l.run(2 * sec)
	require.NoError(t, r.waitFor(r.write(0, 1, 1)), "after the loss")
	r.l.run(30 * sec)
	for i := range r.s {
		require.Equal(t, StateUp, r.state(i))
	}
	assert.NoError(t, r.waitFor(r.flush()))
	r.requireIdle()
}
