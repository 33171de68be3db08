package iscsitest

import (
	"fmt"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// r2t is a request for data that was not completely answered yet.
type r2t struct {
	ttt         uint32
	off, length uint32
	got         uint32
	dataSN      uint32 // of the next Data-Out
}

// lockedSolicit sends R2Ts until MaxOutstandingR2T are open or all data was
// asked for (§11.8).
func (s *session) lockedSolicit(t *task) {
	if !t.divided {
		t.lockedDivide()
	}
	for uint32(len(t.r2ts)) < s.neg.MaxOutstandingR2T && len(t.todo) > 0 {
		r := &r2t{ttt: s.lockedTTT(), off: t.todo[0].off, length: t.todo[0].n}
		t.todo = t.todo[1:]
		t.r2ts = append(t.r2ts, r)
		t.asked += r.length
		o := &outPDU{stat: statShown}
		(&pdu.R2T{
			LUN: uint64(t.cmd.LUN), ITT: t.cmd.ITT, TTT: r.ttt, R2TSN: t.r2tSN,
			BufferOffset: r.off, DesiredDataLen: r.length,
		}).AppendTo(o.bhs[:0])
		t.r2tSN++
		s.lockedSend(t, o)
	}
}

// lockedDivide cuts what did not come unsolicited into the pieces for R2Ts.
func (t *task) lockedDivide() {
	s := t.s
	most := s.neg.MaxBurstLength
	if n := s.params.R2TLength; n > 0 {
		most = min(most, n)
	}
	t.divided = true
	t.todo = parts(t.asked, uint32(len(t.buf)), most)
	if s.neg.AnySequenceOrder {
		t.shuffle(t.todo)
	}
}

// lockedTTT returns a Target Transfer Tag that was not used for long.
func (s *session) lockedTTT() uint32 {
	s.nextTTT++
	if s.nextTTT == pdu.ReservedTag {
		s.nextTTT = 1
	}
	return s.nextTTT
}

// dataOut takes a Data-Out PDU (§11.7).
func (s *session) dataOut(c *conn, p pdu.PDU) {
	v := pdu.DataOutView(p.BHS)
	s.mu.Lock()
	if !s.lockedHas(c) { // logged out meanwhile
		s.mu.Unlock()
		return
	}
	t := s.tasks[v.ITT()]
	if t == nil || t.c != c {
		stale := t == nil && s.lockedStale(v)
		late := t == nil && s.noData[v.ITT()]
		s.mu.Unlock()
		if late {
			c.violation(p.BHS, "data for a task that a function or event ended (§4.2.3.4, §11.9.1)")
		}
		if !stale {
			c.violation(p.BHS, "no task of this connection has this Initiator Task Tag (§11.7)")
			c.reject(p.BHS, pdu.RejectInvalidField)
		}
		return
	}
	var ok bool
	if v.TTT() == pdu.ReservedTag {
		ok = t.lockedUnsolicited(v, p.Data)
	} else {
		ok = t.lockedSolicited(v, p.Data)
	}
	run := ok && s.lockedAdvance(t)
	s.mu.Unlock()
	if !ok {
		c.reject(p.BHS, pdu.RejectInvalidField)
	}
	if run {
		s.run(t)
	}
}

// lockedStale reports whether a Data-Out belongs to a task that ended while
// the initiator could not know it yet.
func (s *session) lockedStale(v pdu.DataOutView) bool {
	if v.TTT() == pdu.ReservedTag {
		return s.aborted[v.ITT()]
	}
	return serial.LessEq(v.TTT(), s.nextTTT)
}

// lockedUnsolicited takes a Data-Out without Target Transfer Tag. It returns
// false if the PDU is to be rejected.
func (t *task) lockedUnsolicited(v pdu.DataOutView, data []byte) bool {
	if !t.unsolicited {
		t.lockedFail(v, "unsolicited data after F=1 (§11.7.1)", scsi.ASCUnexpectedUnsolicited)
		return false
	}
	neg, n := &t.s.neg, uint32(len(data))
	most := min(neg.FirstBurstLength, t.edtl)
	var why string
	switch {
	case v.DataSN() != t.unsolSN:
		why = fmt.Sprintf("DataSN %d, expected %d (§11.7.5)", v.DataSN(), t.unsolSN)
	case v.BufferOffset() != t.got:
		why = fmt.Sprintf("Buffer Offset %d, expected %d (§11.7.6, DataPDUInOrder=Yes)", v.BufferOffset(), t.got)
	case t.got+n > most:
		why = fmt.Sprintf("%d bytes of unsolicited data, the limit is %d (§13.14)", t.got+n, most)
	case v.Final() && t.got+n < most:
		why = fmt.Sprintf("%d bytes of unsolicited data announced by F=0, must be %d (§11.3.4)", t.got+n, most)
	}
	if why != "" {
		t.lockedFail(v, why, scsi.ASCNotEnoughUnsolicited)
	}
	if t.failed == nil {
		t.store(data, t.got)
	}
	t.unsolSN++
	t.got += n
	t.asked = max(t.asked, t.got)
	if v.Final() {
		t.unsolicited = false
	}
	return true
}

// lockedSolicited takes a Data-Out that answers an R2T. It returns false if the
// PDU is to be rejected.
func (t *task) lockedSolicited(v pdu.DataOutView, data []byte) bool {
	at := -1
	for i, r := range t.r2ts {
		if r.ttt == v.TTT() {
			at = i
		}
	}
	if at < 0 {
		if !t.s.lockedStale(v) {
			t.lockedFail(v, "Target Transfer Tag of no R2T (§11.7.4)", scsi.ASCUnexpectedUnsolicited)
		} else {
			t.lockedFail(v, "more data for an R2T that was answered (§11.7.1)", scsi.ASCUnexpectedUnsolicited)
		}
		return false
	}
	r, n := t.r2ts[at], uint32(len(data))
	var why string
	switch {
	case at > 0:
		why = "R2Ts must be answered in the order in which they came (§11.8)"
	case v.LUN() != uint64(t.cmd.LUN):
		why = "LUN is not that of the R2T (§11.7.4)"
	case v.DataSN() != r.dataSN:
		why = fmt.Sprintf("DataSN %d, expected %d (§11.7.5)", v.DataSN(), r.dataSN)
	case v.BufferOffset() != r.off+r.got:
		why = fmt.Sprintf("Buffer Offset %d, expected %d (§11.7.6, DataPDUInOrder=Yes)", v.BufferOffset(), r.off+r.got)
	case r.got+n > r.length:
		why = fmt.Sprintf("%d bytes of data for an R2T of %d (§11.8.4)", r.got+n, r.length)
	case v.Final() && r.got+n < r.length:
		why = fmt.Sprintf("F=1 after %d bytes of an R2T of %d (§11.7.1)", r.got+n, r.length)
	case !v.Final() && r.got+n == r.length:
		why = "F=0 in the last PDU of a sequence (§11.7.1)"
	}
	if why != "" {
		t.lockedFail(v, why, scsi.ASCNotEnoughUnsolicited)
	}
	if t.failed == nil {
		t.store(data, r.off+r.got)
	}
	r.dataSN++
	r.got += n
	if v.Final() || r.got >= r.length {
		t.r2ts = append(t.r2ts[:at], t.r2ts[at+1:]...)
	}
	return true
}

// store keeps what the command wants of the data; initiators may send more.
func (t *task) store(data []byte, off uint32) {
	if off < uint32(len(t.buf)) {
		copy(t.buf[off:], data)
	}
}
