package session

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session/login"
)

// census counts what becomes of commands.
type census struct{ done map[*Command]int }

func (c *census) CommandDone(cmd *Command) { c.done[cmd]++ }

// FuzzSession feeds a session whatever bytes come, at login and in the
// full-feature phase, with commands in flight. It must never panic, and when the
// connection ends each command must have been completed exactly once.
func FuzzSession(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\n"), true, uint16(3))
	rsp := pdu.SCSIResponse{ITT: 0x2000, StatSN: 3, ExpCmdSN: 2, MaxCmdSN: 65}
	f.Add(rsp.AppendTo(nil), true, uint16(7))
	din := pdu.DataIn{Final: true, HasStatus: true, ITT: 0x2000, TTT: pdu.ReservedTag, StatSN: 3}
	f.Add(pdu.AppendPDU(nil, din.AppendTo(nil), nil, make([]byte, 1024), pdu.Digests{}), true, uint16(100))
	r2t := pdu.R2T{ITT: 0x4001, DesiredDataLen: 512, BufferOffset: 8192}
	f.Add(r2t.AppendTo(nil), true, uint16(1))
	log := pdu.LoginResponse{Transit: true, NSG: pdu.StageOperational}
	f.Add(pdu.AppendPDU(nil, log.AppendTo(nil), nil, []byte("AuthMethod=None\x00"), pdu.Digests{}), false, uint16(48))
	f.Fuzz(func(t *testing.T, p []byte, full bool, piece uint16) {
		feedHostile(t, p, full, int(piece%4096)+1, int(piece>>12))
	})
}

// feedHostile feeds p in pieces. The bits of mode say what was settled on: data in
// any order, ErrorRecoveryLevel 2, data asked for only with FastAbort.
func feedHostile(t *testing.T, p []byte, full bool, piece, mode int) {
	var w *world
	if full {
		w = loggedInWorld(t, "MaxRecvDataSegmentLength=8192\x00")
		w.s.params.DataPDUInOrder, w.s.params.DataSequenceInOrder = mode&1 == 0, mode&2 == 0
		w.s.params.ErrorRecoveryLevel = uint8(mode & 4 >> 1)
		w.s.params.ImmediateData = mode&8 == 0
		if mode&8 != 0 {
			w.s.params.TaskReporting = login.ReportFastAbort
		}
	} else {
		w = &world{t: t, now: 1}
		s, err := New(Config{InitiatorName: "i", TargetName: "t", Portal: "p:1"}, w, w)
		require.NoError(t, err)
		w.s = s
		s.Start()
		s.Connected(w.h, w)
	}
	c := &census{done: map[*Command]int{}}
	var cmds []*Command
	for i := range 4 {
		cmd := &Command{LUN: scsi.MakeLUN(1), Dir: Direction(i % 4), Data: make([]byte, 16384), In: make([]byte, 8192), Owner: c}
		if w.s.Submit(cmd) {
			cmds = append(cmds, cmd)
		}
	}
	iov := make([][]byte, 0, 64)
	for len(p) > 0 && w.aborted == nil {
		n := min(piece, len(p))
		give(w, p[:n])
		p = p[n:]
		if w.aborted == nil && w.closing == nil {
			sink(w, iov)
		}
		require.Less(t, w.s.conn.out.pending(), 1<<22)
		require.LessOrEqual(t, len(w.s.conn.in.buf), maxOtherData+8192)
	}
	reason := w.aborted
	if reason == nil {
		reason = w.closing
	}
	w.h.Closed(reason)
	for _, cmd := range cmds {
		require.Equal(t, 1, c.done[cmd])
	}
	require.Zero(t, w.s.tasks.scsi)
	if w.s.reporting == reportingWithheld && w.s.State() == StateLogin {
		return // hung up on, or refused, where TaskReporting was offered: another login was begun at once
	}
	require.Equal(t, StateRecovering, w.s.State())
}

// TestHostileTarget sends well-framed PDUs of random kinds, with tags and
// numbers that are often right, which a plain fuzzer seldom hits.
func TestHostileTarget(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	ops := []pdu.Opcode{
		pdu.OpNOPIn, pdu.OpSCSIResponse, pdu.OpTaskMgmtResponse, pdu.OpLoginResponse, pdu.OpTextResponse,
		pdu.OpDataIn, pdu.OpLogoutResponse, pdu.OpR2T, pdu.OpAsync, pdu.OpReject,
	}
	for range 1200 {
		var raw []byte
		for range rng.IntN(8) + 1 {
			bhs := make([]byte, pdu.BHSLen)
			for i := range bhs {
				if rng.IntN(4) == 0 {
					bhs[i] = byte(rng.Uint32())
				}
			}
			bhs[0] = byte(ops[rng.IntN(len(ops))])
			bhs[4] = 0
			if rng.IntN(8) == 0 {
				bhs[4] = byte(rng.IntN(3))
			}
			itt := uint32(rng.IntN(6))
			binary.BigEndian.PutUint32(bhs[16:], (itt+1)<<ittIndexBits|itt)
			if rng.IntN(2) == 0 {
				binary.BigEndian.PutUint32(bhs[36:], uint32(rng.IntN(2)))
				binary.BigEndian.PutUint32(bhs[40:], uint32(rng.IntN(3)*512))
			}
			raw = append(raw, pdu.AppendPDU(nil, bhs, make([]byte, int(bhs[4])*4), make([]byte, rng.IntN(5)*512), pdu.Digests{})...)
		}
		feedHostile(t, raw, rng.IntN(8) != 0, rng.IntN(300)+1, rng.IntN(16))
	}
}
