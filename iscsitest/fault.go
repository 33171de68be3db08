package iscsitest

import (
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// Fault is what a FaultProxy does with a PDU that a Predicate picked. Several
// faults for one PDU are applied in order.
type Fault struct {
	kind      faultKind
	delay     time.Duration
	hold      *Hold
	part      Part
	bit       int
	fixDigest bool
	keep      int
}

type faultKind uint8

const (
	faultDelay faultKind = iota + 1
	faultHold
	faultHoldTask
	faultDrop
	faultDuplicate
	faultFlip
	faultTruncate
	faultCut
	faultCutInitiator
	faultCutTarget
)

// Part is a part of a PDU.
type Part uint8

// The parts a fault can hit.
const (
	PartHeader Part = iota // the 48 bytes of the header, not the AHS or the digest
	PartData               // the data segment; nothing happens to PDUs without
)

// FaultDelay makes the PDU, and so all behind it in its direction, late by d.
func FaultDelay(d time.Duration) Fault { return Fault{kind: faultDelay, delay: d} }

// FaultHold stops the PDU and everything behind it in its direction until h is
// released: a path that is stuck.
func FaultHold(h *Hold) Fault { return Fault{kind: faultHold, hold: h} }

// FaultHoldTask stops the PDU and all later PDUs of the same Initiator Task Tag
// in its direction until h is released; others overtake them. What is held is
// delivered even if its sender is gone by then: a write that was stuck in the
// network.
func FaultHoldTask(h *Hold) Fault { return Fault{kind: faultHoldTask, hold: h} }

// FaultDrop removes the PDU from the stream.
func FaultDrop() Fault { return Fault{kind: faultDrop} }

// FaultDuplicate sends the PDU twice.
func FaultDuplicate() Fault { return Fault{kind: faultDuplicate} }

// FaultFlip inverts one bit, counted from the first bit of the part, modulo its
// length. With fixDigest the digests are made to fit again: a fault that no
// digest can find.
func FaultFlip(part Part, bit int, fixDigest bool) Fault {
	return Fault{kind: faultFlip, part: part, bit: bit, fixDigest: fixDigest}
}

// FaultTruncate sends the first bytes of the PDU only, then resets the
// connection on both sides.
func FaultTruncate(bytes int) Fault { return Fault{kind: faultTruncate, keep: bytes} }

// FaultCut resets the connection on both sides; the PDU is lost.
func FaultCut() Fault { return Fault{kind: faultCut} }

// FaultCutInitiator resets the initiator's side; what is on its way to the
// target, this PDU included, still gets there.
func FaultCutInitiator() Fault { return Fault{kind: faultCutInitiator} }

// FaultCutTarget resets the target's side; what is on its way to the initiator,
// this PDU included, still gets there.
func FaultCutTarget() Fault { return Fault{kind: faultCutTarget} }

// flip changes the bytes of a PDU as a FaultFlip wants.
func (f Fault) flip(raw []byte, l pdu.Layout, d pdu.Digests) {
	part := raw[:pdu.BHSLen]
	if f.part == PartData {
		part = raw[l.DataOff : l.DataOff+l.DataLen]
	}
	if len(part) == 0 {
		return
	}
	bit := f.bit % (8 * len(part))
	part[bit/8] ^= 0x80 >> (bit % 8)
	if !f.fixDigest {
		return
	}
	if d.Header {
		pdu.PutDigest(raw[l.HeaderLen:], pdu.CRC32C(raw[:l.HeaderLen]))
	}
	if l.DataDigestLen > 0 {
		end := l.DataOff + l.DataLen + l.PadLen
		pdu.PutDigest(raw[end:], pdu.CRC32C(raw[l.DataOff:end]))
	}
}
