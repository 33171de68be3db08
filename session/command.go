package session

import (
	"github.com/iscsimp/iscsimp/scsi"
)

// Direction says which way a command's data goes.
type Direction uint8

// The data directions of a SCSI command.
const (
	DirNone Direction = iota
	DirRead
	DirWrite
	DirBoth // bidirectional: Data is sent, In is received
)

// Completer learns that a Command is done.
type Completer interface {
	// CommandDone runs on the session's loop, exactly once for each Command
	// that Submit accepted and that was not detached. It may submit further
	// commands. Sense aliases memory of the session and is valid during the
	// call only.
	CommandDone(c *Command)
}

// Command is one SCSI command. The submitter fills the first group of fields
// and owns the Command and Data before Submit and after CommandDone or a
// successful Detach; in between the session owns both. A Command can be used
// again; reuse allocates nothing.
type Command struct {
	LUN scsi.LUN
	CDB scsi.CDB
	// Long is the whole CDB, in place of CDB, if it has more than 16 bytes (RFC 7143
	// §11.2.2.3); else nil. At most 260 bytes, the most that SPC-4 knows: Submit
	// panics on more.
	Long []byte
	Dir  Direction
	Data []byte // DirRead: destination; else source; its length is the Expected Data Transfer Length
	// In is the destination of a DirBoth command; its length is the Bidirectional
	// Read Expected Data Transfer Length (§11.2.2.4).
	In    []byte
	Owner Completer
	User  any // for the owner; the session does not touch it

	// The outcome, valid from CommandDone on.

	// Err is nil if the target answered the command (look at Status then);
	// else an *Error that says why the outcome is not known.
	Err *Error
	// Status, Sense and the counters are the target's answer (RFC 7143 §11.4).
	Status      scsi.Status
	Sense       []byte
	Received    int    // bytes placed in Data (DirBoth: In), without holes, from its start
	Underflow   bool   // the target moved less than len(Data) ...
	Overflow    bool   // ... or had more to move
	Residual    uint32 // by so many bytes, if one of the two is set
	InUnderflow bool   // DirBoth: the same of In
	InOverflow  bool
	InResidual  uint32
	SubmittedAt int64 // loop time in ns when the session stamped the CmdSN

	slot int32 // task slot + 1; 0 = not with the session
}

// Sent reports whether bytes of the command may have left this host: a command
// that failed with Sent() false was certainly never seen by the target and may
// be retried anywhere, whatever it is. Valid once the command is done with Err set.
func (c *Command) Sent() bool { return c.Err != nil && c.Err.Sent }
