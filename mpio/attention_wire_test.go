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

// events counts those of a kind; on the loop only.
type events map[mpio.EventKind]int

func (e events) note(x mpio.Event) { e[x.Kind]++ }

// TestNewsWithACommandThatWasTakenBack: a read on a silent path was moved to
// another one; its answer, much later, is a UNIT ATTENTION, which comes once.
func TestNewsWithACommandThatWasTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := events{}
		w := newWire(t, 2, iscsitest.Quirks{}, func(c *mpio.Config) { c.OnEvent = seen.note })
		defer w.close()
		w.onlyA()
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Reads(), iscsitest.First(1)),
			iscsitest.Delay(500*time.Millisecond), iscsitest.FailSense(scsi.KeyUnitAttention, scsi.ASCReportedLUNsChanged))
		pings := w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Op(pdu.OpNOPOut)), iscsitest.Drop())
		start := time.Now()
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		require.Less(t, time.Since(start), 400*time.Millisecond, "it was moved")
		pings.Remove()
		time.Sleep(time.Second)
		w.on(func() { assert.Equal(t, 1, seen[mpio.AttentionSeen]) })
		w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
	})
}

// TestNewsByMessage: the target tells by an Asynchronous Message that a unit was
// resized; that of another LUN is no concern of the device.
func TestNewsByMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := events{}
		w := newWire(t, 2, iscsitest.Quirks{}, func(c *mpio.Config) { c.OnEvent = seen.note })
		defer w.close()
		resizer := w.tgt.Medium(0).(iscsitest.Resizer)
		require.NoError(t, resizer.Resize(128<<20))
		data := iscsitest.AsyncSense(scsi.KeyUnitAttention, scsi.ASCCapacityChanged)
		other := scsi.MakeLUN(3)
		w.tgt.SendAsync(nil, pdu.Async{LUN: uint64(other), AsyncEvent: pdu.AsyncSCSIEvent}, data)
		time.Sleep(time.Second)
		assert.EqualValues(t, 64<<20, w.d.Geometry().Size)
		w.tgt.SendAsync(nil, pdu.Async{AsyncEvent: pdu.AsyncSCSIEvent}, data)
		time.Sleep(time.Second)
		assert.EqualValues(t, 128<<20, w.d.Geometry().Size)
		w.on(func() { assert.Equal(t, 1, seen[mpio.AttentionSeen]) })
	})
}

// TestEachChangeIsToldOnce: every session reports it, the log tells it once.
func TestEachChangeIsToldOnce(t *testing.T) {
	for _, asc := range []scsi.ASC{
		scsi.ASCModeParametersChanged, scsi.ASCReportedLUNsChanged, scsi.ASCInquiryDataChanged,
		scsi.ASCNexusLoss, scsi.ASCDeviceReset, scsi.ASCCapacityChanged, scsi.ASCPowerOn,
		scsi.ASCParametersChanged, scsi.ASCMediumMayHaveChanged, scsi.ASCThinSoftThreshold,
	} {
		t.Run(asc.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := events{}
				w := newWire(t, 4, iscsitest.Quirks{}, func(c *mpio.Config) { c.OnEvent = seen.note })
				defer w.close()
				for n := range 3 {
					require.NoError(t, w.tgt.UnitAttention(0, asc))
					for i := range 40 {
						require.NoError(t, <-w.submit(block.OpRead, i, make([]byte, 512)))
					}
					time.Sleep(time.Minute) // idle paths are polled, too
					w.on(func() {
						assert.Equal(t, n+1, seen[mpio.AttentionSeen])
						assert.Zero(t, seen[mpio.PathDown]+seen[mpio.PathQuarantined]+seen[mpio.CacheLost]+seen[mpio.RequestFailed])
					})
				}
				w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 4 })
			})
		})
	}
}

// TestManyAttentionsAtOnce: one change brings several unit attentions over each session, one with
// each command. All of them are heard, and no request fails.
func TestManyAttentionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := events{}
		target := asymmetric(0, optimized, optimized, nonOptimized)
		w := newALUAWire(t, target, func(c *mpio.Config) { c.OnEvent = seen.note })
		defer w.close()
		stop := w.load(4)
		for n := range 5 {
			size := int64(64+32*n) << 20
			for _, asc := range []scsi.ASC{
				scsi.ASCNexusLoss, scsi.ASCReportedLUNsChanged, scsi.ASCModeParametersChanged, scsi.ASCALUAStateChanged,
				scsi.ASCInquiryDataChanged, scsi.ASCThinSoftThreshold, scsi.ASCMediumMayHaveChanged, scsi.ASCCommandsCleared,
			} {
				require.NoError(t, w.tgt.UnitAttention(0, asc))
			}
			require.NoError(t, w.tgt.SetSize(0, size))
			w.access(1, []scsi.AccessState{nonOptimized, optimized}[n%2], 0)
			w.until(func(s mpio.Snapshot) bool {
				return s.PathsUp == 3 && w.d.Geometry().Size == uint64(size) && w.carriers() == []string{"b", "ab"}[n%2]
			})
		}
		stop()
		w.on(func() { assert.Zero(t, seen[mpio.PathDown]+seen[mpio.PathQuarantined]+seen[mpio.RequestFailed]) })
	})
}
