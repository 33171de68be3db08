package mpio_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestExplicitOnly: no group carries I/O, and the target leaves it to its
// initiators to change that.
func TestExplicitOnly(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*iscsitest.ALUA)
		want   string
		within time.Duration
	}{
		"all standby":          {nil, "a", 2 * time.Second},
		"preferred":            {func(a *iscsitest.ALUA) { a.Groups[1].Preferred = true }, "b", 2 * time.Second},
		"all unavailable":      {func(a *iscsitest.ALUA) { a.Groups[0].State, a.Groups[1].State = unavailable, unavailable }, "a", 2 * time.Second},
		"no capacity":          {func(a *iscsitest.ALUA) { a.NoCapacity = true }, "a", 2 * time.Second},
		"takes a while":        {func(a *iscsitest.ALUA) { a.Transition = 3 * time.Second }, "a", 5 * time.Second},
		"old header, no words": {func(a *iscsitest.ALUA) { a.NoExtendedHeader, a.NoAttention = true, true }, "a", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				target := asymmetric(scsi.TPGSExplicit, standby, standby)
				if c.change != nil {
					c.change(target.LUNs[0].ALUA)
				}
				w := newWireTo(t, 2, target, nil)
				defer w.close()
				took := w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 1 })
				assert.Less(t, took, c.within)
				require.NoError(t, <-w.submit(block.OpWrite, 1, make([]byte, 512)))
				assert.Equal(t, c.want, w.carriers())
				time.Sleep(10 * time.Minute)
				assert.Equal(t, 1, w.tgt.PortGroupSets(0), "once is enough")
			})
		})
	}
}

// TestExplicitFailover: the path to the group in use is lost for good.
func TestExplicitFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(scsi.TPGSExplicit, optimized, standby), nil)
		defer w.close()
		stop := w.load(4)
		time.Sleep(time.Second)
		w.tgt.StopPortal(0)
		time.Sleep(20 * time.Second)
		_, longest := stop()
		assert.Equal(t, "b", w.carriers())
		assert.Less(t, longest, 8*time.Second, "5 s of grace")
		assert.Equal(t, 1, w.tgt.PortGroupSets(0))
		require.NoError(t, w.tgt.StartPortal(0))
		time.Sleep(time.Minute)
		assert.Equal(t, "b", w.carriers(), "it is not fetched back: another host may use that group")
		assert.Equal(t, 1, w.tgt.PortGroupSets(0))
	})
}

// TestImplicitIsLeftAlone: a target that moves by itself is never told to.
func TestImplicitIsLeftAlone(t *testing.T) {
	for _, tpgs := range []uint8{scsi.TPGSImplicit, scsi.TPGSImplicit | scsi.TPGSExplicit} {
		synctest.Test(t, func(t *testing.T) {
			w := newALUAWire(t, asymmetric(tpgs, optimized, standby), nil)
			defer w.close()
			sets := w.tgt.Inject(iscsitest.SCSI(scsi.OpMaintenanceOut))
			read := w.submit(block.OpRead, 1, make([]byte, 512))
			w.access(1, standby, 0)
			for range 3 {
				read = w.submit(block.OpRead, 1, make([]byte, 512))
				time.Sleep(30 * time.Second)
			}
			assert.Zero(t, sets.Hits())
			w.access(2, optimized, 0)
			require.NoError(t, <-read)
		})
	}
}

// TestTwoHostsDoNotPlayPingPong: another host takes the group away each time it
// is ours. Each time the device waits for longer before it asks again.
func TestTwoHostsDoNotPlayPingPong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(scsi.TPGSExplicit, optimized), func(c *mpio.Config) { c.NoPathTimeout = -1 })
		defer w.close()
		for range 1800 / 5 {
			w.access(1, standby, 0)
			read := w.submit(block.OpRead, 1, make([]byte, 512))
			time.Sleep(5 * time.Second)
			w.access(1, optimized, 0)
			require.NoError(t, <-read)
		}
		assert.InDelta(t, 8, w.tgt.PortGroupSets(0), 2, "10, 20, 40 … 600 s apart")
	})
}

// TestTheOtherGroupIsTried: the first group cannot be had.
func TestTheOtherGroupIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(scsi.TPGSExplicit, optimized, standby), nil)
		defer w.close()
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.SCSI(scsi.OpMaintenanceOut)),
			iscsitest.FailSense(scsi.KeyHardwareError, scsi.ASCInternalTargetFailure))
		w.access(1, standby, 0)
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		assert.Equal(t, "b", w.carriers())
	})
}

// TestSetTargetPortGroupsHangs: the command is given up, and the next attempt
// goes elsewhere, even where it cannot be aborted.
func TestSetTargetPortGroupsHangs(t *testing.T) {
	for name, aborts := range map[string]bool{"aborted": true, "not aborted": false} {
		t.Run(name, func(t *testing.T) { testSetTargetPortGroupsHangs(t, aborts) })
	}
}

func testSetTargetPortGroupsHangs(t *testing.T, aborts bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(scsi.TPGSExplicit, optimized, standby), func(c *mpio.Config) { c.NoPathTimeout = 10 * time.Minute })
		defer w.close()
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Op(pdu.OpSCSICommand), iscsitest.SCSI(scsi.OpMaintenanceOut)), iscsitest.Drop())
		if !aborts {
			w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Op(pdu.OpTaskMgmt)), iscsitest.Drop())
		}
		w.access(1, standby, 0)
		start := time.Now()
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		assert.Equal(t, "b", w.carriers())
		assert.Less(t, time.Since(start), 2*time.Minute)
	})
}
