package hostile

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// opcodes are those a target may send.
var opcodes = []pdu.Opcode{
	pdu.OpNOPIn, pdu.OpSCSIResponse, pdu.OpTaskMgmtResponse, pdu.OpLoginResponse, pdu.OpTextResponse,
	pdu.OpDataIn, pdu.OpLogoutResponse, pdu.OpR2T, pdu.OpAsync, pdu.OpReject,
}

// next makes the next PDU, waiting for a command if there is nothing to answer; nil: the connection is over.
func (t *target) next() []byte {
	for {
		t.mu.Lock()
		if t.gone {
			t.mu.Unlock()
			return nil
		}
		if t.rng.IntN(t.lies) == 0 {
			out := t.lie()
			t.mu.Unlock()
			return out
		}
		if len(t.tasks) > 0 {
			out := t.answer(t.pick())
			t.mu.Unlock()
			return out
		}
		t.mu.Unlock()
		select {
		case <-t.wake:
		case <-time.After(5 * time.Millisecond): // quiet is no reason not to lie
		}
	}
}

// pick chooses a task, the same one for the same random numbers. t.mu is held, as in all below.
func (t *target) pick() *task {
	tags := slices.Sorted(maps.Keys(t.tasks))
	return t.tasks[tags[t.rng.IntN(len(tags))]]
}

func (t *target) frame(bhs, data []byte) []byte { return pdu.AppendPDU(nil, bhs, nil, data, t.digests) }

func (t *target) window() (exp, last uint32) { return t.expCmdSN, t.expCmdSN + 63 }

// answer is the honest next PDU of a task: data, or the status.
func (t *target) answer(c *task) []byte {
	exp, last := t.window()
	if !c.read || c.next >= c.edtl {
		delete(t.tasks, c.itt)
		response := pdu.SCSIResponse{ITT: c.itt, StatSN: t.statSN, ExpCmdSN: exp, MaxCmdSN: last, ExpDataSN: c.dataSN}
		t.statSN++
		return t.frame(response.AppendTo(nil), nil)
	}
	length := min(uint32(t.rng.IntN(16)+1)*unit, c.edtl-c.next)
	in := pdu.DataIn{ITT: c.itt, TTT: pdu.ReservedTag, ExpCmdSN: exp, MaxCmdSN: last, DataSN: c.dataSN, BufferOffset: c.next}
	in.Final = c.next+length == c.edtl
	if in.Final && t.rng.IntN(2) == 0 {
		in.HasStatus, in.StatSN = true, t.statSN
		t.statSN++
		delete(t.tasks, c.itt)
	}
	data := Content(c.lba, c.next, length)
	c.dataSN++
	c.next += length
	return t.frame(in.AppendTo(nil), data)
}

// lie makes a PDU that is not in order.
func (t *target) lie() []byte {
	if len(t.tasks) == 0 || t.rng.IntN(4) == 0 {
		return t.random()
	}
	c := t.pick()
	exp, last := t.window()
	switch t.rng.IntN(7) {
	case 0: // other data at an offset where none can be expected
		in := pdu.DataIn{ITT: c.itt, TTT: pdu.ReservedTag, ExpCmdSN: exp, MaxCmdSN: last, DataSN: c.dataSN, BufferOffset: c.next + uint32(t.rng.IntN(unit-1)) + 1}
		return t.frame(in.AppendTo(nil), make([]byte, unit))
	case 1: // the right data, at a place that is not next, in any order, past the end too
		offset := uint32(t.rng.IntN(80)) * unit
		in := pdu.DataIn{
			ITT: c.itt, TTT: pdu.ReservedTag, ExpCmdSN: exp, MaxCmdSN: last, DataSN: c.dataSN + uint32(t.rng.IntN(3)), BufferOffset: offset,
			Final: t.rng.IntN(2) == 0, HasStatus: t.rng.IntN(3) == 0, StatSN: t.statSN,
		}
		return t.frame(in.AppendTo(nil), Content(c.lba, offset, uint32(t.rng.IntN(40))*unit))
	case 2: // good status before the data are there, or with a residual that is none
		response := pdu.SCSIResponse{
			ITT: c.itt, StatSN: t.statSN, ExpCmdSN: exp, MaxCmdSN: last, ExpDataSN: uint32(t.rng.IntN(4)),
			Underflow: t.rng.IntN(2) == 0, ResidualCount: uint32(t.rng.IntN(40)) * unit,
		}
		t.statSN++
		return t.frame(response.AppendTo(nil), nil)
	case 3: // a bit flipped on the way
		out := t.answer(c)
		if t.digests.Data && len(out) > pdu.BHSLen+2*pdu.DigestLen {
			out[pdu.BHSLen+pdu.DigestLen+t.rng.IntN(len(out)-pdu.BHSLen-2*pdu.DigestLen)] ^= 1 << t.rng.IntN(8)
		} else if t.digests.Header {
			out[8+t.rng.IntN(40)] ^= 1 << t.rng.IntN(8) // not the lengths: the stream would only wait
		}
		return out
	case 4: // R2Ts of all kinds, also for reads
		r2t := pdu.R2T{
			ITT: c.itt, TTT: t.rng.Uint32(), StatSN: t.statSN, ExpCmdSN: exp, MaxCmdSN: last, R2TSN: uint32(t.rng.IntN(3)),
			BufferOffset: uint32(t.rng.IntN(80)) * unit, DesiredDataLen: uint32(t.rng.IntN(160)) * unit,
		}
		return t.frame(r2t.AppendTo(nil), nil)
	case 5: // numbers out of order
		nop := pdu.NOPIn{
			ITT: pdu.ReservedTag, TTT: t.rng.Uint32(), StatSN: t.statSN + uint32(t.rng.IntN(3)), ExpCmdSN: exp + uint32(t.rng.IntN(3)) - 1,
			MaxCmdSN: last + uint32(t.rng.IntN(9)) - 4,
		}
		return t.frame(nop.AppendTo(nil), nil)
	default: // more of an answered command
		out := t.answer(c)
		return append(out, out...)
	}
}

// random is a PDU of a random kind with random fields. Its data segment is of zeros, or what belongs to the task that it may hit by chance.
func (t *target) random() []byte {
	bhs := make([]byte, pdu.BHSLen)
	for i := range bhs {
		if t.rng.IntN(4) == 0 {
			bhs[i] = byte(t.rng.Uint32())
		}
	}
	opcode := opcodes[t.rng.IntN(len(opcodes))]
	bhs[0], bhs[4] = byte(opcode), 0
	length := t.rng.IntN(5) * unit
	if t.rng.IntN(64) == 0 {
		length = t.rng.IntN(1 << 20)
	}
	if t.rng.IntN(2) == 0 {
		binary.BigEndian.PutUint32(bhs[24:], t.statSN)
		binary.BigEndian.PutUint32(bhs[28:], t.expCmdSN)
		binary.BigEndian.PutUint32(bhs[32:], t.expCmdSN+63)
	}
	data := make([]byte, length)
	if len(t.tasks) > 0 && opcode != pdu.OpDataIn {
		binary.BigEndian.PutUint32(bhs[16:], t.pick().itt)
	}
	return pdu.AppendPDU(nil, bhs, nil, data, t.digests)
}
