package iscsitest

import (
	"time"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// Action is what a Target does with a PDU that a Predicate picked, instead of
// or before the usual. Several actions for one PDU are all applied; delays add
// up, and of those that end the PDU the first one wins.
type Action struct {
	delay     time.Duration
	hang      *Hold // stops before the task starts
	holdWrite *Hold // stops after the data, before the medium
	terminal  terminalAction
	reason    pdu.RejectReason
	status    scsi.Status
	sense     []byte
	login     pdu.LoginStatus
}

type terminalAction uint8

const (
	actNothing terminalAction = iota
	actDrop
	actReject
	actFail
	actFailLogin
	actClose
	actReset
)

// Delay postpones a request's execution or a response by d; later PDUs
// overtake it. Data-Out PDUs are not delayed.
func Delay(d time.Duration) Action { return Action{delay: d} }

// Drop swallows. A request is accepted (its CmdSN counts, its task exists and
// can be aborted) but never carried out nor answered; a Data-Out PDU, login or
// NOP is ignored; a response is not sent though the command was carried out.
func Drop() Action { return Action{terminal: actDrop} }

// RejectPDU answers a request with a Reject PDU and forgets it (RFC 7143 §11.17).
func RejectPDU(reason pdu.RejectReason) Action { return Action{terminal: actReject, reason: reason} }

// Hang stops a command before it starts: no R2T, no data, no status until h is
// released.
func Hang(h *Hold) Action { return Action{hang: h} }

// HoldWrite stops a command after the target has all of its data and before the
// medium is touched, until h is released: a write that lands late.
func HoldWrite(h *Hold) Action { return Action{holdWrite: h} }

// Close closes the connection, as a target does that shuts down in order (FIN).
func Close() Action { return Action{terminal: actClose} }

// Reset cuts the connection with RST where it is TCP; else as Close.
func Reset() Action { return Action{terminal: actReset} }

// FailStatus answers a SCSI command with a status, and sense data if there is
// some, without carrying it out. Data the initiator still sends is taken and
// thrown away.
func FailStatus(status scsi.Status, sense []byte) Action {
	return Action{terminal: actFail, status: status, sense: sense}
}

// FailSense answers a SCSI command with CHECK CONDITION and fixed sense data.
func FailSense(key scsi.SenseKey, asc scsi.ASC) Action {
	return FailStatus(scsi.CheckCondition, scsi.AppendFixedSense(nil, key, asc))
}

// FailLogin answers a Login Request with a status and closes the connection
// (RFC 7143 §11.13.5).
func FailLogin(status pdu.LoginStatus) Action {
	return Action{terminal: actFailLogin, login: status}
}

// merge joins the actions for one PDU.
func merge(actions []Action) Action {
	var m Action
	for _, a := range actions {
		m.delay += a.delay
		if m.hang == nil {
			m.hang = a.hang
		}
		if m.holdWrite == nil {
			m.holdWrite = a.holdWrite
		}
		if m.terminal == actNothing && a.terminal != actNothing {
			m.terminal, m.reason, m.status, m.sense, m.login = a.terminal, a.reason, a.status, a.sense, a.login
		}
	}
	return m
}
