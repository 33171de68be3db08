package scsi

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Errors a parser's *FormatError wraps; compare with errors.Is.
var (
	// ErrShort: the data ends too early. Asking again with an allocation length
	// of at least FormatError.Need may help.
	ErrShort = errors.New("data too short")
	// ErrMalformed: the data contradicts itself or what was asked for.
	ErrMalformed = errors.New("malformed data")
)

// FormatError says why data returned by a target could not be parsed.
type FormatError struct {
	What string // the data, for example "VPD page 0x83"
	Err  error  // ErrShort or ErrMalformed
	Have int    // bytes at hand, with ErrShort
	Need int    // bytes the data says it has, at least, with ErrShort
	Why  string // what is wrong, with ErrMalformed
}

// Error names the data and the fault.
func (e *FormatError) Error() string {
	if e.Why != "" {
		return "scsi: " + e.What + ": " + e.Err.Error() + ": " + e.Why
	}
	return fmt.Sprintf("scsi: %s: %v: %d bytes, need %d", e.What, e.Err, e.Have, e.Need)
}

// Unwrap returns ErrShort or ErrMalformed.
func (e *FormatError) Unwrap() error { return e.Err }

// short is the error of data that ends too early.
func short(what string, have, need int) error {
	return &FormatError{What: what, Err: ErrShort, Have: have, Need: need}
}

// malformed is the error of data that cannot be what it says.
func malformed(what, format string, args ...any) error {
	return &FormatError{What: what, Err: ErrMalformed, Why: fmt.Sprintf(format, args...)}
}

// CommandError is a command that a target answered with anything but success.
type CommandError struct {
	Op     Opcode // of the command
	Status Status // of the answer
	Sense  Sense  // zero when the target sent none
}

// NewCommandError returns nil if st means success (GOOD, CONDITION MET, or
// CHECK CONDITION with nothing but a recovered error) and a *CommandError otherwise.
func NewCommandError(op Opcode, st Status, s Sense) error {
	if Classify(st, s) == RemedyNone {
		return nil
	}
	return &CommandError{Op: op, Status: st, Sense: s}
}

// Remedy is Classify of the error's status and sense.
func (e *CommandError) Remedy() Remedy { return Classify(e.Status, e.Sense) }

// Error says which command failed, how, where, and what can be done about it.
func (e *CommandError) Error() string {
	var b strings.Builder
	b.WriteString(e.Op.String())
	b.WriteString(": ")
	b.WriteString(e.Status.String())
	if e.Status == CheckCondition {
		b.WriteString(": ")
		if e.Sense.IsZero() {
			b.WriteString("the target sent no sense data")
		} else {
			b.WriteString(e.Sense.String())
			e.appendWhere(&b)
		}
	}
	if hint := e.hint(); hint != "" {
		b.WriteString("; ")
		b.WriteString(hint)
	}
	return b.String()
}

// appendWhere adds the block or the CDB field the sense data points at.
func (e *CommandError) appendWhere(b *strings.Builder) {
	s := &e.Sense
	switch s.Key {
	case KeyMediumError, KeyHardwareError, KeyRecoveredError:
		if s.HasInfo { // SBC-3: the LBA
			b.WriteString(" at block ")
			b.WriteString(strconv.FormatUint(s.Information, 10))
		}
	case KeyMiscompare:
		if s.HasInfo { // SBC-3, COMPARE AND WRITE: offset of the first byte that differs
			b.WriteString(" at byte ")
			b.WriteString(strconv.FormatUint(s.Information, 10))
		}
	case KeyIllegalRequest:
		if p, ok := s.FieldPointer(); ok {
			b.WriteString(", ")
			b.WriteString(p.String())
		}
	}
}

// hint is advice to the user, or "" where the text already says all.
func (e *CommandError) hint() string {
	if e.Status == ReservationConflict {
		return "another host holds a reservation on this unit"
	}
	if e.Status != CheckCondition {
		return ""
	}
	if e.Sense.LostEarlierWrite() {
		return "an earlier write that was already answered is lost: check the data on the unit"
	}
	return hints[e.Sense.Code]
}

// hints maps sense codes users can do something about to what they can do.
var hints = map[ASC]string{
	ASCLUNNotSupported:       "the target does not offer this LUN here: check its number and the target's access list",
	ASCWriteProtected:        "the unit is read-only: check the target's configuration",
	ASCHardwareWriteProtect:  "the unit is read-only: check the target's configuration",
	ASCSoftwareWriteProtect:  "the unit is read-only: check its mode page 0x0A and the target's configuration",
	ASCSpaceAllocationFailed: "the target's storage pool is full: add space or discard unused blocks",
	ASCLBAOutOfRange:         "the block lies beyond the unit's end: it may have shrunk, read its capacity again",
	ASCMediumNotPresent:      "the unit has no medium: it may have been taken offline at the target",
	ASCUnrecoveredReadError:  "the block cannot be read on any path: restore it from a copy",
	ASCInvalidOpcode:         "the target does not know this command",
	ASCManualIntervention:    "the target asks for manual intervention: see its own log",
	ASCAccessDenied:          "the target refuses this initiator: check its access list",
}
