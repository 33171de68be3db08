package session

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// rig is a logged-in session on a fake world, without traces, and with a target
// that answers whatever was submitted last.
type rig struct {
	w    *world
	iov  [][]byte
	cmd  *Command
	done int
}

func (r *rig) CommandDone(*Command) { r.done++ }

func loggedInWorld(t testing.TB, params string) *world {
	w := &world{now: 1 << 40}
	if tt, ok := t.(*testing.T); ok {
		w.t = tt
	}
	s, err := New(Config{
		InitiatorName: "iqn.2026-01.test:host", TargetName: "iqn.2026-01.test:disk",
		Portal: "127.0.0.1:3260", TPGT: -1,
	}, w, w)
	require.NoError(t, err)
	w.s, w.cmds = s, map[string]*Command{}
	s.Start()
	s.Connected(w.h, w)
	sec := pdu.LoginResponse{Transit: true, CSG: pdu.StageSecurity, NSG: pdu.StageOperational, StatSN: 1, ExpCmdSN: 1, MaxCmdSN: 64}
	give(w, pdu.AppendPDU(nil, sec.AppendTo(nil), nil, []byte("AuthMethod=None\x00"), pdu.Digests{}))
	op := pdu.LoginResponse{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, TSIH: 1, StatSN: 2, ExpCmdSN: 1, MaxCmdSN: 64}
	give(w, pdu.AppendPDU(nil, op.AppendTo(nil), nil, []byte(params), pdu.Digests{}))
	require.Equal(t, StateLoggedIn, s.State())
	w.lines = nil
	sink(w, make([][]byte, 0, 64))
	return w
}

// give feeds bytes in reads as large as the session offers.
func give(w *world, p []byte) {
	for len(p) > 0 && w.aborted == nil {
		direct, scratch := w.h.ReadBuffers()
		n := copy(direct, p)
		n += copy(scratch, p[n:])
		p = p[n:]
		if err := w.h.DidRead(n); err != nil {
			w.aborted = err
		}
	}
}

// sink takes all output and throws it away.
func sink(w *world, iov [][]byte) {
	for {
		n := 0
		for _, b := range w.h.WriteBuffers(iov[:0]) {
			n += len(b)
		}
		if n == 0 {
			return
		}
		w.h.DidWrite(n)
	}
}

// TestNoAllocations: a 4 KiB read and write take no memory from the heap.
func TestNoAllocations(t *testing.T) {
	for _, dir := range []Direction{DirRead, DirWrite} {
		w := loggedInWorld(t, "MaxRecvDataSegmentLength=65536\x00")
		r := &rig{w: w, iov: make([][]byte, 0, 64), cmd: &Command{LUN: scsi.MakeLUN(1), Dir: dir, Data: make([]byte, 4096)}}
		r.cmd.Owner = r
		din := pdu.DataIn{Final: true, HasStatus: true, TTT: pdu.ReservedTag}
		reply := pdu.AppendPDU(nil, din.AppendTo(nil), nil, make([]byte, 4096), pdu.Digests{})
		r.cmd.CDB = scsi.Read10(0, 8, 0)
		if dir == DirWrite {
			rsp := pdu.SCSIResponse{}
			reply = rsp.AppendTo(nil)
			r.cmd.CDB = scsi.Write10(0, 8, 0)
		}
		statSN := uint32(3)
		round := func() {
			if !w.s.Submit(r.cmd) {
				t.Fatal("no room")
			}
			sink(w, r.iov)
			binary.BigEndian.PutUint32(reply[16:], w.s.tasks.first().itt)
			binary.BigEndian.PutUint32(reply[24:], statSN)
			binary.BigEndian.PutUint32(reply[28:], w.s.cmdSN)
			binary.BigEndian.PutUint32(reply[32:], w.s.cmdSN+63)
			statSN++
			w.now += 1000
			give(w, reply)
		}
		for range 100 {
			round()
		}
		require.Zero(t, testing.AllocsPerRun(1000, round))
		require.Equal(t, 1101, r.done)
	}
}

// BenchmarkRead4K is one 4 KiB read through the core, bytes in and out copied once each.
func BenchmarkRead4K(b *testing.B) {
	w := loggedInWorld(b, "MaxRecvDataSegmentLength=65536\x00")
	r := &rig{w: w, iov: make([][]byte, 0, 64), cmd: &Command{LUN: scsi.MakeLUN(1), Dir: DirRead, Data: make([]byte, 4096)}}
	r.cmd.Owner, r.cmd.CDB = r, scsi.Read10(0, 8, 0)
	din := pdu.DataIn{Final: true, HasStatus: true, TTT: pdu.ReservedTag}
	reply := pdu.AppendPDU(nil, din.AppendTo(nil), nil, make([]byte, 4096), pdu.Digests{})
	b.ReportAllocs()
	for b.Loop() {
		w.s.Submit(r.cmd)
		sink(w, r.iov)
		binary.BigEndian.PutUint32(reply[16:], w.s.tasks.first().itt)
		binary.BigEndian.PutUint32(reply[32:], w.s.cmdSN+63)
		give(w, reply)
	}
}
