package session

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session/login"
)

// fastTarget agrees to FastAbort and asks for the data of writes in many pieces.
func fastTarget(t *testing.T, at place) *iscsitest.Target {
	return newTarget(t, at, iscsitest.Config{Params: iscsitest.Params{
		TaskReporting: iscsitest.ReportFastAbort, MaxConnections: 4,
		InitialR2T: true, NoImmediateData: true, R2TLength: 2048, MaxOutstandingR2T: 2,
	}})
}

// attention takes the unit attention of a reset, if there is one.
func (l *live) attention() {
	l.t.Helper()
	o := newOp(DirNone, 0, nil)
	l.submit(o)
	o.wait(l.t)
}

// acknowledged waits until the target got an answer to each event that it sent.
func (l *live) acknowledged() {
	l.t.Helper()
	require.Eventually(l.t, func() bool {
		for _, s := range l.tgt.Sessions() {
			if s.Terminations > 0 {
				return false
			}
		}
		return true
	}, 10*time.Second, time.Millisecond)
}

// TestFastAbort: resets in the middle of writes, over one connection and several.
// The target counts each Data-Out that comes too late as a violation.
func TestFastAbort(t *testing.T) {
	for _, connections := range []int{1, 3} {
		onDrivers(t, func(t *testing.T, at place) {
			tgt := fastTarget(t, at)
			l := logIn(t, at, tgt, Config{Connections: connections})
			l.awaitConnections(connections)
			var p Params
			l.do(func() { p = l.s.Stats().Params })
			require.Equal(t, login.ReportFastAbort, p.TaskReporting)
			ended := 0
			for round := range 30 {
				var ops []*op
				for i := range 6 {
					ops = append(ops, newOp(DirWrite, uint64(i*200), bytes.Repeat([]byte{byte(round)}, 64<<10)))
				}
				l.submit(ops...)
				if round%3 == 0 { // else with nothing but the first R2Ts
					l.run(newOp(DirRead, 0, make([]byte, 512)))
				}
				r := l.function(func(done func(TMFResult)) bool { return l.s.ResetLUN(scsi.MakeLUN(0), done) })
				require.True(t, r.Ended(), r.String())
				for _, o := range ops {
					if o.wait(t); o.Err != nil {
						requireAborted(t, o)
						ended++
					}
				}
				l.acknowledged()
				l.attention()
				l.run(newOp(DirWrite, 0, make([]byte, 64<<10)))
			}
			require.Positive(t, ended)
			require.Empty(t, tgt.Violations())
		})
	}
}

// TestFastAbortByOthers: another session resets the unit. Its event stops the data,
// and what the target does not answer is found out by asking.
func TestFastAbortByOthers(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		tgt := fastTarget(t, at)
		a := logIn(t, at, tgt, Config{Connections: 2})
		a.awaitConnections(2)
		b := logIn(t, at, tgt, Config{ISID: DeriveISID("another")})
		for range 20 {
			var ops []*op
			for i := range 4 {
				ops = append(ops, newOp(DirWrite, uint64(i*200), make([]byte, 64<<10)))
			}
			a.submit(ops...)
			r := b.function(func(done func(TMFResult)) bool { return b.s.ResetLUN(scsi.MakeLUN(0), done) })
			require.True(t, r.Ended(), r.String())
			for _, o := range ops {
				done := make(chan TMFResult, 1)
				asked := false
				a.do(func() { asked = a.s.AbortTask(&o.Command, func(r TMFResult) { done <- r }) })
				if asked {
					r := <-done
					require.True(t, r.Ended(), r.String())
					require.Contains(t, []pdu.TMResponse{pdu.TMComplete, pdu.TMNoTask}, r.Response)
				}
				o.wait(t)
			}
			a.acknowledged()
			a.attention()
			b.attention()
		}
		require.Empty(t, tgt.Violations())
	})
}
