package scsi

import "fmt"

// Opcode is the OPERATION CODE, byte 0 of a CDB (SPC-4).
type Opcode uint8

// The operation codes this package builds or names.
const (
	OpTestUnitReady        Opcode = 0x00
	OpRequestSense         Opcode = 0x03
	OpFormatUnit           Opcode = 0x04
	OpRead6                Opcode = 0x08
	OpWrite6               Opcode = 0x0a
	OpInquiry              Opcode = 0x12
	OpModeSelect6          Opcode = 0x15
	OpReserve6             Opcode = 0x16
	OpRelease6             Opcode = 0x17
	OpModeSense6           Opcode = 0x1a
	OpStartStopUnit        Opcode = 0x1b
	OpSendDiagnostic       Opcode = 0x1d
	OpPreventAllowRemoval  Opcode = 0x1e
	OpReadCapacity10       Opcode = 0x25
	OpRead10               Opcode = 0x28
	OpWrite10              Opcode = 0x2a
	OpWriteVerify10        Opcode = 0x2e
	OpVerify10             Opcode = 0x2f
	OpPreFetch10           Opcode = 0x34
	OpSyncCache10          Opcode = 0x35
	OpWriteSame10          Opcode = 0x41
	OpUnmap                Opcode = 0x42
	OpLogSense             Opcode = 0x4d
	OpModeSelect10         Opcode = 0x55
	OpModeSense10          Opcode = 0x5a
	OpPersistentReserveIn  Opcode = 0x5e
	OpPersistentReserveOut Opcode = 0x5f
	OpExtendedCopy         Opcode = 0x83
	OpReceiveCopyResults   Opcode = 0x84
	OpRead16               Opcode = 0x88
	OpCompareAndWrite      Opcode = 0x89
	OpWrite16              Opcode = 0x8a
	OpORWrite16            Opcode = 0x8b
	OpWriteVerify16        Opcode = 0x8e
	OpVerify16             Opcode = 0x8f
	OpPreFetch16           Opcode = 0x90
	OpSyncCache16          Opcode = 0x91
	OpWriteSame16          Opcode = 0x93
	OpWriteAtomic16        Opcode = 0x9c
	OpServiceActionIn16    Opcode = 0x9e // see SAReadCapacity16, SAGetLBAStatus
	OpReportLuns           Opcode = 0xa0
	OpMaintenanceIn        Opcode = 0xa3 // see SAReportTargetPortGroups, SAReportSupportedOpcodes
	OpMaintenanceOut       Opcode = 0xa4 // see SASetTargetPortGroups
	OpRead12               Opcode = 0xa8
	OpWrite12              Opcode = 0xaa
	OpWriteVerify12        Opcode = 0xae
	OpVerify12             Opcode = 0xaf
)

// Service actions: the second half of the name of a command whose operation
// code stands for a family. They live in the low five bits of CDB byte 1.
const (
	SAReadCapacity16         uint8 = 0x10 // of OpServiceActionIn16
	SAGetLBAStatus           uint8 = 0x12 // of OpServiceActionIn16
	SAReportTargetPortGroups uint8 = 0x0a // of OpMaintenanceIn
	SAReportSupportedOpcodes uint8 = 0x0c // of OpMaintenanceIn
	SAReportSupportedTMF     uint8 = 0x0d // of OpMaintenanceIn
	SASetTargetPortGroups    uint8 = 0x0a // of OpMaintenanceOut
)

// opcodeNames holds the standard's names.
var opcodeNames = [256]string{
	OpTestUnitReady:        "TEST UNIT READY",
	OpRequestSense:         "REQUEST SENSE",
	OpFormatUnit:           "FORMAT UNIT",
	OpRead6:                "READ(6)",
	OpWrite6:               "WRITE(6)",
	OpInquiry:              "INQUIRY",
	OpModeSelect6:          "MODE SELECT(6)",
	OpReserve6:             "RESERVE(6)",
	OpRelease6:             "RELEASE(6)",
	OpModeSense6:           "MODE SENSE(6)",
	OpStartStopUnit:        "START STOP UNIT",
	OpSendDiagnostic:       "SEND DIAGNOSTIC",
	OpPreventAllowRemoval:  "PREVENT ALLOW MEDIUM REMOVAL",
	OpReadCapacity10:       "READ CAPACITY(10)",
	OpRead10:               "READ(10)",
	OpWrite10:              "WRITE(10)",
	OpWriteVerify10:        "WRITE AND VERIFY(10)",
	OpVerify10:             "VERIFY(10)",
	OpPreFetch10:           "PRE-FETCH(10)",
	OpSyncCache10:          "SYNCHRONIZE CACHE(10)",
	OpWriteSame10:          "WRITE SAME(10)",
	OpUnmap:                "UNMAP",
	OpLogSense:             "LOG SENSE",
	OpModeSelect10:         "MODE SELECT(10)",
	OpModeSense10:          "MODE SENSE(10)",
	OpPersistentReserveIn:  "PERSISTENT RESERVE IN",
	OpPersistentReserveOut: "PERSISTENT RESERVE OUT",
	OpExtendedCopy:         "EXTENDED COPY",
	OpReceiveCopyResults:   "RECEIVE COPY RESULTS",
	OpRead16:               "READ(16)",
	OpCompareAndWrite:      "COMPARE AND WRITE",
	OpWrite16:              "WRITE(16)",
	OpORWrite16:            "ORWRITE(16)",
	OpWriteVerify16:        "WRITE AND VERIFY(16)",
	OpVerify16:             "VERIFY(16)",
	OpPreFetch16:           "PRE-FETCH(16)",
	OpSyncCache16:          "SYNCHRONIZE CACHE(16)",
	OpWriteSame16:          "WRITE SAME(16)",
	OpWriteAtomic16:        "WRITE ATOMIC(16)",
	OpServiceActionIn16:    "SERVICE ACTION IN(16)",
	OpReportLuns:           "REPORT LUNS",
	OpMaintenanceIn:        "MAINTENANCE IN",
	OpMaintenanceOut:       "MAINTENANCE OUT",
	OpRead12:               "READ(12)",
	OpWrite12:              "WRITE(12)",
	OpWriteVerify12:        "WRITE AND VERIFY(12)",
	OpVerify12:             "VERIFY(12)",
}

// String returns the standard's name of the command, "opcode 0x.." if unknown.
func (o Opcode) String() string {
	if name := opcodeNames[o]; name != "" {
		return name
	}
	return fmt.Sprintf("opcode 0x%02x", uint8(o))
}

// hasServiceAction reports whether byte 1 of the CDB names the command further.
func (o Opcode) hasServiceAction() bool {
	switch o {
	case OpServiceActionIn16, OpMaintenanceIn, OpMaintenanceOut,
		OpPersistentReserveIn, OpPersistentReserveOut:
		return true
	}
	return false
}

// serviceActionName returns the standard's name of a command of a family, or "".
func serviceActionName(o Opcode, sa uint8) string {
	switch o {
	case OpServiceActionIn16:
		switch sa {
		case SAReadCapacity16:
			return "READ CAPACITY(16)"
		case SAGetLBAStatus:
			return "GET LBA STATUS"
		}
	case OpMaintenanceIn:
		switch sa {
		case SAReportTargetPortGroups:
			return "REPORT TARGET PORT GROUPS"
		case SAReportSupportedOpcodes:
			return "REPORT SUPPORTED OPERATION CODES"
		case SAReportSupportedTMF:
			return "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS"
		}
	case OpMaintenanceOut:
		if sa == SASetTargetPortGroups {
			return "SET TARGET PORT GROUPS"
		}
	case OpPersistentReserveIn:
		if int(sa) < len(reserveInNames) {
			return "PERSISTENT RESERVE IN " + reserveInNames[sa]
		}
	case OpPersistentReserveOut:
		if int(sa) < len(reserveOutNames) {
			return "PERSISTENT RESERVE OUT " + reserveOutNames[sa]
		}
	}
	return ""
}
