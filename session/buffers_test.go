package session

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// offerBytes is how many bytes the session has to send now.
func (w *world) offerBytes() (n int) {
	for _, b := range w.h.WriteBuffers(make([][]byte, 0, 1024)) {
		n += len(b)
	}
	return n
}

// TestWriteAnsweredEarly: a write whose status came before all of its data had
// left keeps its buffer until the last byte is out, however the rest is written.
func TestWriteAnsweredEarly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		w := newWorld(t)
		w.quickLogin(transcript.Cmd{Input: []string{"MaxRecvDataSegmentLength=4096", "InitialR2T=No"}})
		var ops []*Command
		for range 1 + rng.IntN(4) {
			c := &Command{Owner: w, Dir: DirWrite, Data: make([]byte, 512*(1+rng.IntN(40))), LUN: scsi.MakeLUN(1)}
			require.True(t, w.s.Submit(c))
			ops = append(ops, c)
		}
		ends := make([]uint64, len(ops))
		for i, c := range ops {
			ends[i] = w.s.tasks.slots[c.slot-1].end
		}
		w.h.DidWrite(1 + rng.IntN(w.offerBytes()-1))
		w.lines = nil
		for _, i := range rng.Perm(len(ops)) {
			left := w.s.conn.out.sent < ends[i]
			r := pdu.SCSIResponse{ITT: w.s.tasks.slots[ops[i].slot-1].itt, StatSN: w.s.conn.expStatSN, ExpCmdSN: 1, MaxCmdSN: 32}
			w.feed(r.AppendTo(nil), 48)
			require.Equal(t, left, ops[i].slot != 0)
			require.False(t, left && w.s.Detach(ops[i]), "its buffer is still needed")
		}
		for w.s.conn.out.pending() > 0 {
			w.h.DidWrite(1 + rng.IntN(w.offerBytes()))
			for i, c := range ops {
				require.Equal(t, w.s.conn.out.sent < ends[i], c.slot != 0, "completed with its last byte")
			}
		}
		require.Zero(t, w.s.tasks.scsi)
		require.Zero(t, w.s.conn.waiting)
		require.Len(t, w.lines, len(ops))
	}
}

// TestSentAtLoss: at each byte of what was written when the connection ended, a
// command is safe to retry if and only if none of its bytes had left.
func TestSentAtLoss(t *testing.T) {
	total := 0
	for cut := 0; cut == 0 || cut <= total; cut += 7 {
		w := newWorld(t)
		w.quick()
		a := &Command{Owner: w, User: "a", Dir: DirRead, Data: make([]byte, 512)}
		b := &Command{Owner: w, User: "b", Dir: DirWrite, Data: make([]byte, 1024)}
		c := &Command{Owner: w, User: "c"}
		for _, cmd := range []*Command{a, b, c} {
			require.True(t, w.s.Submit(cmd))
		}
		if total = w.offerBytes(); cut > 0 {
			w.h.DidWrite(cut)
		}
		w.h.Closed(io.EOF)
		assert.Equal(t, cut > 0, a.Sent())
		assert.Equal(t, cut > 48, b.Sent())
		assert.Equal(t, cut > 48+48+1024, c.Sent())
		assert.Equal(t, cut <= 48, SafeToRetry(b.Err))
	}
	assert.Equal(t, 3*48+1024, total)
	assert.False(t, SafeToRetry(io.EOF))
	assert.False(t, (&Command{}).Sent())
}

// TestDetachAtEachByte: a read is taken back after each number of bytes of its
// answer; what still comes goes nowhere, and the next command is not disturbed.
func TestDetachAtEachByte(t *testing.T) {
	for _, digest := range []string{"None", "CRC32C"} {
		length := 0
		for at := 0; at == 0 || at < length; at++ {
			w := newWorld(t)
			w.s.cfg.DataDigest = true
			w.quickLogin(transcript.Cmd{Input: []string{"DataDigest=" + digest}})
			a := &Command{Owner: w, User: "a", Dir: DirRead, Data: bytes.Repeat([]byte{1}, 96)}
			b := &Command{Owner: w, User: "b", Dir: DirRead, Data: make([]byte, 30)}
			require.True(t, w.s.Submit(a))
			require.True(t, w.s.Submit(b))
			w.settleOutput()
			w.lines = nil
			answer := answerRead(w, a, 62, 34)
			length = len(answer)
			answer = append(answer, answerRead(w, b, 30)...)
			w.feed(answer[:at], 1+at%11)
			require.True(t, w.s.Detach(a))
			require.False(t, w.s.Detach(a), "only once")
			before := bytes.Clone(a.Data)
			w.feed(answer[at:], 1+at%23)
			require.Nil(t, w.aborted)
			require.Equal(t, before, a.Data, "touched after Detach at byte %d", at)
			require.Equal(t, []string{"late after 0s: bytes=96", "done b: GOOD received=30 sense= resid=0 under=false"}, w.lines)
			require.Equal(t, bytes.Repeat([]byte{0x5a}, 30), b.Data)
			require.Zero(t, w.s.tasks.scsi)
		}
	}
}

// answerRead makes the Data-Ins that answer a read, the last with the status.
func answerRead(w *world, c *Command, lengths ...int) (out []byte) {
	off := 0
	for i, n := range lengths {
		last := i == len(lengths)-1
		p := pdu.DataIn{
			Final: last, HasStatus: last, ITT: w.s.tasks.slots[c.slot-1].itt, TTT: pdu.ReservedTag,
			StatSN: w.s.conn.expStatSN, ExpCmdSN: w.s.cmdSN, MaxCmdSN: w.s.cmdSN + 8, DataSN: uint32(i), BufferOffset: uint32(off),
		}
		out = append(out, pdu.AppendPDU(nil, p.AppendTo(nil), nil, bytes.Repeat([]byte{0x5a}, n), w.s.conn.digests)...)
		off += n
	}
	return out
}

// TestReadInPieces: an answer of several Data-Ins arrives whole, however the
// stream is cut, small and large segments mixed, with and without digests.
func TestReadInPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for round := range 60 {
		w := newWorld(t)
		w.s.cfg.DataDigest, w.s.cfg.HeaderDigest = true, true
		digest := []string{"None", "CRC32C"}[round%2]
		w.quickLogin(transcript.Cmd{Input: []string{"DataDigest=" + digest, "HeaderDigest=" + digest}})
		var answer []byte
		var ops []*Command
		for range 4 {
			var lengths []int
			total := 0
			for range 1 + rng.IntN(4) {
				n := rng.IntN(2000)
				if rng.IntN(2) == 0 {
					n += largeSegment
				}
				lengths = append(lengths, n)
				total += n
			}
			c := &Command{Owner: w, Dir: DirRead, Data: make([]byte, total)}
			require.True(t, w.s.Submit(c))
			ops = append(ops, c)
			answer = append(answer, answerRead(w, c, lengths...)...)
		}
		w.settleOutput()
		for len(answer) > 0 {
			n := min(len(answer), 1+rng.IntN(1+rng.IntN(100000)))
			w.feed(answer[:n], n)
			answer = answer[n:]
		}
		require.Nil(t, w.aborted)
		for _, c := range ops {
			require.Nil(t, c.Err)
			require.Equal(t, len(c.Data), c.Received)
			require.Equal(t, len(c.Data), bytes.Count(c.Data, []byte{0x5a}))
		}
	}
}
