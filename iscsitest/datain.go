package iscsitest

import (
	"math/rand/v2"
	"slices"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// part is a piece of a transfer.
type part struct{ off, n uint32 }

// parts cuts the bytes from lo up to hi into pieces that end at multiples of
// most, counted from lo.
func parts(lo, hi, most uint32) (list []part) {
	for off := lo; off < hi; off += most {
		list = append(list, part{off, min(most, hi-off)})
	}
	return list
}

// shuffle brings pieces into an order that depends on the task only.
func (t *task) shuffle(list []part) {
	rng := rand.New(rand.NewPCG(uint64(t.cmd.ITT), uint64(t.cmd.CmdSN)))
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// answer makes the PDUs that end the task: Data-In and status.
func (t *task) answer(res result) []*outPDU {
	var out []*outPDU
	var r pdu.SCSIResponse
	if t.cmd.Read {
		data := res.data[:min(len(res.data), int(t.inLen))]
		out = t.dataIn(data)
	}
	moved := uint32(len(res.data)) + res.moved
	if t.bidi {
		moved = res.moved
		read := residualOf(uint32(len(res.data)), t.inLen)
		r.BidiOverflow, r.BidiUnderflow, r.BidiResidualCount = read.over, read.under, read.n
	}
	wrote := residualOf(moved, t.edtl)
	r.Overflow, r.Underflow, r.ResidualCount = wrote.over, wrote.under, wrote.n
	if len(out) > 0 && res.status == scsi.Good && !t.s.params.SeparateStatus && !t.bidi { // §11.7.3
		last := out[len(out)-1]
		in := pdu.DataInView(last.bhs[:]).Decode()
		in.HasStatus, in.Status = true, uint8(res.status)
		in.Overflow, in.Underflow, in.ResidualCount = wrote.over, wrote.under, wrote.n
		in.AppendTo(last.bhs[:0])
		last.stat = statNumbered
		return out
	}
	r.Status, r.ITT, r.ExpDataSN = uint8(res.status), t.cmd.ITT, uint32(len(out))+t.r2tSN
	o := &outPDU{}
	if len(res.sense) > 0 {
		o.data = slices.Concat([]byte{byte(len(res.sense) >> 8), byte(len(res.sense))}, res.sense)
	}
	r.AppendTo(o.bhs[:0])
	return append(out, o)
}

// dataIn makes the Data-Ins for what a command reads, sequence by sequence: one
// ends at each multiple of MaxBurstLength (§11.7.1).
func (t *task) dataIn(data []byte) (out []*outPDU) {
	neg := &t.s.neg
	segment := t.c.neg.SendMRDSL
	if t.s.t.cfg.Quirks.IgnoreMRDSL {
		segment = 64 << 10
	}
	var dataSN uint32
	if t.bidi {
		dataSN = t.r2tSN // R2Ts and Data-Ins share a sequence (§11.8.2)
	}
	sequences := parts(0, uint32(len(data)), neg.MaxBurstLength)
	if neg.AnySequenceOrder {
		t.shuffle(sequences)
	}
	for _, sequence := range sequences {
		pieces := parts(sequence.off, sequence.off+sequence.n, segment)
		if neg.AnyPDUOrder {
			t.shuffle(pieces)
		}
		for i, p := range pieces {
			in := pdu.DataIn{
				Final: i == len(pieces)-1, ITT: t.cmd.ITT, TTT: pdu.ReservedTag,
				DataSN: dataSN, BufferOffset: p.off,
			}
			dataSN++
			if in.Final && t.s.params.AckData && neg.ErrorRecoveryLevel > 0 {
				t.wantAck(&in)
			}
			o := &outPDU{data: data[p.off : p.off+p.n], stat: statNone}
			in.DataLen = len(o.data)
			in.AppendTo(o.bhs[:0])
			out = append(out, o)
		}
	}
	return out
}

// residual is what is left of an expected length (§11.4.5.1).
type residual struct {
	over, under bool
	n           uint32
}

func residualOf(presented, expected uint32) residual {
	switch {
	case presented > expected:
		return residual{over: true, n: presented - expected}
	case presented < expected:
		return residual{under: true, n: expected - presented}
	}
	return residual{}
}

// dataAck is an acknowledgement that is waited for.
type dataAck struct {
	c   *conn
	lun uint64
	sn  uint32 // DataSN of the next Data-In
}

// wantAck sets the A bit, and what goes with it (§11.7.2).
func (t *task) wantAck(in *pdu.DataIn) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	in.Ack, in.TTT, in.LUN = true, s.lockedTTT(), uint64(t.cmd.LUN)
	s.acks[in.TTT] = dataAck{c: t.c, lun: in.LUN, sn: in.DataSN + 1}
}

// snack takes a SNACK. What is sent again would have to be kept; refusing is
// allowed at any level. Acknowledgements of data have to be right (§11.16).
func (s *session) snack(c *conn, bhs pdu.BHS) {
	if s.neg.ErrorRecoveryLevel == 0 {
		c.violation(bhs, "SNACK at ErrorRecoveryLevel 0 (§11.16)")
	}
	v := pdu.SNACKView(bhs)
	if v.Type() != pdu.SNACKDataACK {
		c.reject(bhs, pdu.RejectSNACK)
		return
	}
	s.mu.Lock()
	want, ok := s.acks[v.TTT()]
	delete(s.acks, v.TTT())
	s.mu.Unlock()
	switch {
	case !ok:
		c.violation(bhs, "DataACK for a Target Transfer Tag that waits for none (§11.16.5)")
	case want.c != c:
		c.violation(bhs, "DataACK on another connection than its Data-In (§4.2.5.1)")
	case v.ITT() != pdu.ReservedTag:
		c.violation(bhs, "DataACK with an Initiator Task Tag (§11.16.4)")
	case v.LUN() != want.lun:
		c.violation(bhs, "LUN is not that of the Data-In (§11.16.5)")
	case v.BegRun() != want.sn || v.RunLength() != 0:
		c.violation(bhs, "DataACK for BegRun %d, RunLength %d, expected %d, 0 (§11.16.6)", v.BegRun(), v.RunLength(), want.sn)
	default:
		return
	}
	c.reject(bhs, pdu.RejectInvalidDataACK)
}
