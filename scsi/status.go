package scsi

import "fmt"

// Status is the SCSI status of a finished command (SAM-5).
type Status uint8

// The status codes. The gaps are obsolete.
const (
	Good                Status = 0x00
	CheckCondition      Status = 0x02 // sense data says why
	ConditionMet        Status = 0x04 // success of PRE-FETCH
	Busy                Status = 0x08 // try again later
	ReservationConflict Status = 0x18 // another initiator holds a reservation
	TaskSetFull         Status = 0x28 // too many commands queued: try again with fewer
	ACAActive           Status = 0x30 // an auto contingent allegiance blocks the unit
	TaskAborted         Status = 0x40 // aborted by another initiator
)

// String returns the standard's name, "status 0x.." if unknown.
func (s Status) String() string {
	switch s {
	case Good:
		return "GOOD"
	case CheckCondition:
		return "CHECK CONDITION"
	case ConditionMet:
		return "CONDITION MET"
	case Busy:
		return "BUSY"
	case ReservationConflict:
		return "RESERVATION CONFLICT"
	case TaskSetFull:
		return "TASK SET FULL"
	case ACAActive:
		return "ACA ACTIVE"
	case TaskAborted:
		return "TASK ABORTED"
	}
	return fmt.Sprintf("status 0x%02x", uint8(s))
}

// SenseKey is the coarse class of a sense code (SPC-4), 0 to 15.
type SenseKey uint8

// The sense keys.
const (
	KeyNoSense        SenseKey = 0x0
	KeyRecoveredError SenseKey = 0x1 // the command succeeded, with some effort
	KeyNotReady       SenseKey = 0x2
	KeyMediumError    SenseKey = 0x3
	KeyHardwareError  SenseKey = 0x4
	KeyIllegalRequest SenseKey = 0x5
	KeyUnitAttention  SenseKey = 0x6 // something happened before this command, which was not executed
	KeyDataProtect    SenseKey = 0x7
	KeyBlankCheck     SenseKey = 0x8
	KeyVendorSpecific SenseKey = 0x9
	KeyCopyAborted    SenseKey = 0xa
	KeyAbortedCommand SenseKey = 0xb
	KeyVolumeOverflow SenseKey = 0xd
	KeyMiscompare     SenseKey = 0xe
	KeyCompleted      SenseKey = 0xf
)

// senseKeyNames holds the standard's names.
var senseKeyNames = [16]string{
	"NO SENSE", "RECOVERED ERROR", "NOT READY", "MEDIUM ERROR",
	"HARDWARE ERROR", "ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT",
	"BLANK CHECK", "VENDOR SPECIFIC", "COPY ABORTED", "ABORTED COMMAND",
	"SENSE KEY 0xC", "VOLUME OVERFLOW", "MISCOMPARE", "COMPLETED",
}

// String returns the standard's name.
func (k SenseKey) String() string {
	if int(k) < len(senseKeyNames) {
		return senseKeyNames[k]
	}
	return fmt.Sprintf("SENSE KEY 0x%X", uint8(k))
}
