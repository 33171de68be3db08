package mpio_test

import (
	"math/rand/v2"
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

// What arrays do that the standard does not want them to.

// asksForGroups picks REPORT TARGET PORT GROUPS.
func asksForGroups() iscsitest.Predicate {
	return iscsitest.And(iscsitest.Op(pdu.OpSCSICommand), iscsitest.SCSI(scsi.OpMaintenanceIn))
}

// TestRefusedAndNotTold: the target refuses I/O for the access state of a port once,
// and does not tell when that is over: it has no list of groups, or the path's is
// not in it. It is found out by trying.
func TestRefusedAndNotTold(t *testing.T) {
	for name, portals := range map[string]int{"one path": 1, "two paths": 2} {
		for _, code := range []scsi.ASC{scsi.ASCALUAStandby, scsi.ASCALUAUnavailable, scsi.ASCALUATransition} {
			t.Run(name+"/"+code.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					states := []scsi.AccessState{optimized, optimized}[:portals]
					w := newALUAWire(t, asymmetric(0, states...), nil)
					defer w.close()
					w.tgt.Inject(asksForGroups(), iscsitest.FailSense(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode))
					refused := w.tgt.Inject(iscsitest.And(iscsitest.Or(iscsitest.Reads(), iscsitest.Writes()), iscsitest.First(portals)),
						iscsitest.FailSense(scsi.KeyNotReady, code))
					for range 4 {
						start := time.Now()
						require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
						assert.Less(t, time.Since(start), 70*time.Second)
					}
					require.Positive(t, refused.Hits())
					took := w.until(func(s mpio.Snapshot) bool { return s.PathsUp == portals })
					assert.Less(t, took, 70*time.Second)
				})
			})
		}
	}
}

// TestSetTargetPortGroupsDoesNothing: it is answered GOOD, and the group stays as it was. The
// next attempt is for the other group.
func TestSetTargetPortGroupsDoesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newALUAWire(t, asymmetric(scsi.TPGSExplicit, optimized, standby), func(c *mpio.Config) { c.NoPathTimeout = 10 * time.Minute })
		defer w.close()
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Op(pdu.OpSCSICommand), iscsitest.SCSI(scsi.OpMaintenanceOut)),
			iscsitest.FailSense(scsi.KeyRecoveredError, 0))
		w.access(1, standby, 0)
		start := time.Now()
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		assert.Equal(t, "b", w.carriers())
		assert.Less(t, time.Since(start), 30*time.Second)
	})
}

// TestQuestionHangs: REPORT TARGET PORT GROUPS is not answered over one path, nor can it
// be aborted there. The path is not left with what it knew.
func TestQuestionHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := asymmetric(0, optimized, standby)
		target.LUNs[0].ALUA.NoAttention = true
		w := newALUAWire(t, target, nil)
		defer w.close()
		hung := w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(1), asksForGroups(), iscsitest.First(1)), iscsitest.Drop())
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(1), iscsitest.Op(pdu.OpTaskMgmt)), iscsitest.Drop())
		w.until(func(mpio.Snapshot) bool { return hung.Hits() == 1 })
		w.access(2, optimized, 0)
		time.Sleep(5 * time.Minute)
		assert.Equal(t, "ab", w.carriers())
	})
}

// TestTwoHostsWantDifferentGroups: each of two hosts reaches one group only, and only one of the
// groups can carry I/O at a time. They take it from each other, but ever more rarely, and neither
// starves.
func TestTwoHostsWantDifferentGroups(t *testing.T) {
	seedA, seedB := rand.Uint64()|1, rand.Uint64()|1
	synctest.Test(t, func(t *testing.T) {
		patient := func(seed uint64) func(*mpio.Config) {
			return func(c *mpio.Config) { c.NoPathTimeout, c.Seed = -1, seed }
		}
		a := newALUAWire(t, asymmetric(scsi.TPGSExplicit, optimized, standby), patient(seedA))
		b := startHost(t, a.tgt, "b", patient(seedB))
		b.until(func(s mpio.Snapshot) bool { return s.PathsUp == 1 })
		hosts, done := []*wire{a, b}, [2]int{}
		for i, w := range hosts {
			w.on(func() { require.NoError(t, w.d.SetPath([]string{"b", "a"}[i], mpio.PathOp{Kind: mpio.OpDown})) })
		}
		var pending [2]reply
		for range 2 * 3600 {
			for i, w := range hosts {
				if pending[i] == nil {
					pending[i] = w.submit(block.OpRead, 1, make([]byte, 512))
				}
				select {
				case err := <-pending[i]:
					require.NoError(t, err)
					done[i]++
					pending[i] = nil
				default:
				}
			}
			time.Sleep(500 * time.Millisecond)
		}
		assert.Greater(t, a.tgt.PortGroupSets(0), 6)
		assert.Less(t, a.tgt.PortGroupSets(0), 30, "in an hour")
		assert.Greater(t, min(done[0], done[1]), 1000, "%v", done)
		for i, w := range hosts {
			w.on(func() { require.NoError(t, w.d.SetPath([]string{"b", "a"}[i], mpio.PathOp{Kind: mpio.OpUp})) })
		}
		require.NoError(t, b.leave())
		a.close()
	})
}
