package schedules

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// fault does one thing to a path, or to the target.
type fault struct {
	name string
	do   func(r *rig, path int)
}

var faults = []fault{
	{"delay", func(r *rig, p int) { r.proxies[p].SetDelay(r.upTo(60 * time.Millisecond)) }},
	{"stall", func(r *rig, p int) { r.mode(p, iscsitest.ModeStall, r.upTo(6*time.Second)) }},
	{"cut", func(r *rig, p int) { r.mode(p, iscsitest.ModeCut, r.upTo(3*time.Second)) }},
	{"refuse", func(r *rig, p int) { r.mode(p, iscsitest.ModeRefuse, r.upTo(3*time.Second)) }},
	{"reset", func(r *rig, p int) { r.proxies[p].Cut() }},
	{"late arrival", lateArrival},
	{"hung writes", hungWrites},
	{"held on the line", heldOnTheLine},
	{"lost answers", func(r *rig, p int) {
		answers := iscsitest.And(iscsitest.OnPortal(p), iscsitest.Op(pdu.OpSCSIResponse), iscsitest.First(1+r.rnd.IntN(3)))
		r.inject(answers, iscsitest.Drop())
	}},
	{"lost requests", func(r *rig, p int) {
		r.rules = append(r.rules, r.proxies[p].Inject(iscsitest.And(iscsitest.Op(pdu.OpSCSICommand, pdu.OpDataOut), iscsitest.First(1)), iscsitest.FaultDrop()))
	}},
	{"turned away", turnedAway},
	{"no WRITE SAME", func(r *rig, p int) {
		r.inject(iscsitest.And(iscsitest.OnPortal(p), iscsitest.SCSI(scsi.OpWriteSame16), iscsitest.First(1)), iscsitest.FailSense(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode))
	}},
	{"no FUA", func(r *rig, p int) {
		bit := iscsitest.Func("FUA", func(e *iscsitest.Event) bool { return e.Command.CDB[1]&0x08 != 0 })
		r.inject(iscsitest.And(iscsitest.OnPortal(p), iscsitest.SCSI(scsi.OpWrite10), bit, iscsitest.First(1)), iscsitest.FailSense(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB))
	}},
	{"hang", func(r *rig, p int) {
		h := r.hold(iscsitest.HoldStrict)
		r.inject(iscsitest.And(iscsitest.OnPortal(p), iscsitest.SCSI(), iscsitest.First(2)), iscsitest.Hang(h))
	}},
	{"unit attention", func(r *rig, _ int) {
		for _, asc := range []scsi.ASC{scsi.ASCReportedLUNsChanged, scsi.ASCPowerOn}[:1+r.rnd.IntN(2)] {
			require.NoError(r.t, r.tgt.UnitAttention(0, asc))
		}
	}},
	{"dropped sessions", func(r *rig, p int) { r.tgt.DropSessions(iscsitest.ByPortal(p)) }},
	{"connection lost", func(r *rig, p int) { r.tgt.CutConnection(iscsitest.ByPortal(p), uint16(r.rnd.IntN(2))) }},
	{"logout asked for", func(r *rig, p int) {
		r.tgt.SendAsync(iscsitest.ByPortal(p), pdu.Async{AsyncEvent: pdu.AsyncLogoutRequest, Param3: 5}, nil)
	}},
	{"portal gone", func(r *rig, p int) {
		r.tgt.StopPortal(p)
		r.later(r.upTo(4*time.Second), func() { require.NoError(r.t, r.tgt.StartPortal(p)) })
	}},
	{"restart", restart},
	{"access", access},
	{"by hand", byHand},
}

// lateArrival: the path stalls, the initiator's side dies, and what was on its way arrives later.
func lateArrival(r *rig, p int) {
	require.NoError(r.t, r.proxies[p].SetMode(iscsitest.ModeStall))
	r.later(r.upTo(500*time.Millisecond), func() {
		r.proxies[p].CutInitiator()
		r.later(r.upTo(holdMost/2), func() { require.NoError(r.t, r.proxies[p].SetMode(iscsitest.ModeGo)) })
	})
}

// hungWrites: the target has the data of some writes and executes them later, unless their session was reinstated.
func hungWrites(r *rig, p int) {
	h := r.hold(iscsitest.HoldHung)
	r.inject(iscsitest.And(iscsitest.OnPortal(p), iscsitest.Writes(), iscsitest.First(1+r.rnd.IntN(3))), iscsitest.HoldWrite(h))
	r.later(r.upTo(time.Second), func() { r.tgt.CutConnections(iscsitest.ByPortal(p)) })
}

// heldOnTheLine: some writes stay on the line while the rest of the connection goes on, and then dies on our side.
func heldOnTheLine(r *rig, p int) {
	h := r.hold(iscsitest.HoldStrict)
	r.rules = append(r.rules, r.proxies[p].Inject(iscsitest.And(iscsitest.Writes(), iscsitest.First(1+r.rnd.IntN(2))), iscsitest.FaultHold(h)))
	r.later(r.upTo(time.Second), func() { r.proxies[p].CutInitiator() })
}

func turnedAway(r *rig, p int) {
	commands := iscsitest.And(iscsitest.OnPortal(p), iscsitest.SCSI(), iscsitest.First(1+r.rnd.IntN(4)))
	actions := []iscsitest.Action{
		iscsitest.FailStatus(scsi.Busy, nil),
		iscsitest.FailStatus(scsi.TaskSetFull, nil),
		iscsitest.FailSense(scsi.KeyAbortedCommand, 0x4700),
		iscsitest.FailSense(scsi.KeyUnitAttention, scsi.ASCPowerOn),
		iscsitest.FailSense(scsi.KeyHardwareError, 0x4400),
		iscsitest.RejectPDU(pdu.RejectProtocolError),
	}
	r.inject(commands, actions[r.rnd.IntN(len(actions))])
}

// restart: every portal goes, every session ends, and they come back.
func restart(r *rig, _ int) {
	for i := range r.proxies {
		r.tgt.StopPortal(i)
	}
	r.tgt.DropSessions(nil)
	r.later(r.upTo(3*time.Second), func() {
		for i := range r.proxies {
			require.NoError(r.t, r.tgt.StartPortal(i))
		}
	})
}

func access(r *rig, p int) {
	if !r.alua {
		return
	}
	states := []scsi.AccessState{scsi.AccessOptimized, scsi.AccessNonOptimized, scsi.AccessStandby, scsi.AccessUnavailable}
	require.NoError(r.t, r.tgt.SetAccess(0, uint16(1+p%2), states[r.rnd.IntN(len(states))], r.upTo(2*time.Second)))
}

func byHand(r *rig, p int) {
	id := r.snapshot().Paths[p].ID
	r.on(func() {
		require.NoError(r.t, r.d.SetPath(id, mpio.PathOp{Kind: mpio.OpDown}))
		require.NoError(r.t, r.d.SetPolicy(mpio.Policies()[r.rnd.IntN(len(mpio.Policies()))]))
	})
	r.later(r.upTo(2*time.Second), func() {
		r.on(func() { require.NoError(r.t, r.d.SetPath(id, mpio.PathOp{Kind: mpio.OpUp})) })
	})
}
