package iscsitest

import (
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// Direction is the way a PDU travels.
type Direction uint8

// The directions.
const (
	FromInitiator Direction = iota // requests and Data-Out
	FromTarget                     // responses, Data-In, R2T, Async, Reject
)

// String is the arrow used in traces: "I>T" or "T>I".
func (d Direction) String() string {
	if d == FromTarget {
		return "T>I"
	}
	return "I>T"
}

// Event is one PDU on its way, as seen by predicates. It is valid during the
// call only.
type Event struct {
	Dir     Direction
	Portal  int     // index into Config.Portals; 0 at a FaultProxy
	Conn    int     // number of the connection at this Target or FaultProxy, from 0
	CID     uint16  // of the connection in its session
	TSIH    uint16  // of the session, 0 before the login is done
	BHS     pdu.BHS // the 48-byte header
	Data    []byte  // the data segment
	Index   int     // number of the PDU on its connection and direction, from 0
	Command *Command
}

// Command is the SCSI command an Event belongs to: the SCSI Command PDU itself,
// or the one whose Initiator Task Tag the PDU carries.
type Command struct {
	LUN   scsi.LUN
	ITT   uint32
	CmdSN uint32
	CDB   scsi.CDB
	Long  []byte // the whole CDB if it is longer than 16 bytes; nil at a FaultProxy and Recorder
	Read  bool   // R bit
	Write bool   // W bit
}

// Opcode is the opcode of the PDU.
func (e *Event) Opcode() pdu.Opcode { return e.BHS.Opcode() }

// String names the PDU for error messages.
func (e *Event) String() string {
	s := fmt.Sprintf("%s portal=%d conn=%d #%d %s", e.Dir, e.Portal, e.Conn, e.Index, e.Opcode())
	if e.Command != nil {
		s += " " + e.Command.CDB.String()
	}
	return s
}
