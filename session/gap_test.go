package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestGapIsClosed: a command got lost with its connection before the target had
// it. It is sent again, over another one, as it was: tag, CmdSN, CDB. Those behind
// it wait at the target until then. One that was taken back meanwhile leaves its
// number to a NOP-Out.
func TestGapIsClosed(t *testing.T) {
	for _, detach := range []bool{false, true} {
		onDrivers(t, func(t *testing.T, at place) {
			rec := &iscsitest.Recorder{}
			tgt := mcsTarget(t, at, 2, rec)
			proxy, err := iscsitest.NewFaultProxy(iscsitest.ProxyConfig{Target: tgt.Addr(0)})
			require.NoError(t, err)
			t.Cleanup(proxy.Close)
			l := logIn(t, at, tgt, Config{
				Portal: proxy.Addr(), Connections: 2, ErrorRecoveryLevel: 2, NoopInterval: -1,
				ReconnectMin: time.Millisecond, ReconnectMax: 20 * time.Millisecond,
			})
			l.awaitConnections(2)
			marked := iscsitest.And(iscsitest.Blocks(77, 1), iscsitest.First(1))
			dropped := proxy.Inject(marked, iscsitest.FaultDrop())
			lost := newOp(DirRead, 77, make([]byte, 512))
			l.submit(lost)
			var sn uint32
			var itt uint32
			var on *conn
			l.do(func() {
				task := &l.s.tasks.slots[lost.slot-1]
				sn, itt, on = task.cmdSN, task.itt, task.conn
			})
			var behind []*op
			for i := range 6 {
				behind = append(behind, newOp(DirRead, uint64(i), make([]byte, 512)))
			}
			l.submit(behind...)
			require.Eventually(t, func() bool { return dropped.Hits() == 1 }, time.Minute, time.Millisecond)
			if detach {
				l.do(func() { require.True(t, l.s.Detach(&lost.Command)) })
			}
			l.do(func() { on.abort(l.s.err(KindTransport, "cut by the test")) })
			if !detach {
				lost.wait(t)
				require.Nil(t, lost.Err)
				require.Equal(t, scsi.Good, lost.Status)
			}
			for _, o := range behind {
				o.wait(t)
				require.True(t, o.Err == nil || o.Err.Settled, "%v", o.Err)
			}
			found := 0
			for _, r := range rec.Records() {
				bhs := r.BHS()
				if r.Dir != iscsitest.FromInitiator || bhs.Immediate() || bhs.CmdSN() != sn || bhs.Opcode() == pdu.OpLogin {
					continue
				}
				found++
				assert.Equal(t, itt, bhs.ITT())
				assert.NotEqual(t, on.cid, r.CID)
				if detach {
					assert.Equal(t, pdu.OpNOPOut, bhs.Opcode())
				} else {
					assert.Equal(t, lost.CDB, scsi.CDB(pdu.SCSICommandView(bhs).CDB()))
				}
			}
			assert.Equal(t, 1, found)
			require.NoError(t, rec.CheckCmdSNOrder())
			var st Stats
			l.do(func() { st = l.s.Stats() })
			require.Equal(t, uint64(1), st.Logins)
		})
	}
}
