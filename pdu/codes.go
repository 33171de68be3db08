package pdu

import "fmt"

// codeName returns names[code], or "prefix-0x.." for a code without a name.
func codeName(names []string, code uint8, prefix string) string {
	if int(code) < len(names) && names[code] != "" {
		return names[code]
	}
	return fmt.Sprintf("%s-0x%02x", prefix, code)
}

// TaskAttr is the task attribute of a SCSI Command, 0..7 (RFC 7143 §11.3.1).
type TaskAttr uint8

// Task attributes; 5..7 are reserved.
const (
	AttrUntagged    TaskAttr = 0
	AttrSimple      TaskAttr = 1
	AttrOrdered     TaskAttr = 2
	AttrHeadOfQueue TaskAttr = 3
	AttrACA         TaskAttr = 4
)

var taskAttrNames = []string{"untagged", "simple", "ordered", "head-of-queue", "aca"}

// String returns the name of the attribute.
func (a TaskAttr) String() string { return codeName(taskAttrNames, uint8(a), "attr") }

// ServiceResponse is the Response field of a SCSI Response (RFC 7143 §11.4.3).
// Values from 0x80 are vendor specific, all others not listed are reserved. Every
// value but ServiceCompleted means that the command failed in the target's iSCSI
// layer and that the SCSI status must be ignored.
type ServiceResponse uint8

// Service responses.
const (
	ServiceCompleted     ServiceResponse = 0 // command completed at target
	ServiceTargetFailure ServiceResponse = 1 // target failure
)

var serviceNames = []string{"completed", "target-failure"}

// String returns the name of the response.
func (r ServiceResponse) String() string { return codeName(serviceNames, uint8(r), "response") }

// Known reports whether the code is defined, or vendor specific.
func (r ServiceResponse) Known() bool { return r <= ServiceTargetFailure || r >= 0x80 }

// TMFunction is a task management function, 0..127 (RFC 7143 §11.5.1; 9..12 from
// RFC 7144 §4.4 need iSCSIProtocolLevel 2).
type TMFunction uint8

// Task management functions.
const (
	TMAbortTask       TMFunction = 1
	TMAbortTaskSet    TMFunction = 2
	TMClearACA        TMFunction = 3
	TMClearTaskSet    TMFunction = 4
	TMLUNReset        TMFunction = 5
	TMTargetWarmReset TMFunction = 6
	TMTargetColdReset TMFunction = 7
	TMTaskReassign    TMFunction = 8
	TMQueryTask       TMFunction = 9
	TMQueryTaskSet    TMFunction = 10
	TMITNexusReset    TMFunction = 11
	TMQueryAsyncEvent TMFunction = 12
)

var tmFunctionNames = []string{
	"", "abort-task", "abort-task-set", "clear-aca", "clear-task-set", "lun-reset",
	"target-warm-reset", "target-cold-reset", "task-reassign", "query-task",
	"query-task-set", "it-nexus-reset", "query-async-event",
}

// String returns the name of the function.
func (f TMFunction) String() string { return codeName(tmFunctionNames, uint8(f), "function") }

// TMResponse is the outcome of a task management function (RFC 7143 §11.6.1;
// TMSucceeded from RFC 7144).
type TMResponse uint8

// Task management responses.
const (
	TMComplete            TMResponse = 0   // function complete
	TMNoTask              TMResponse = 1   // task does not exist
	TMNoLUN               TMResponse = 2   // LUN does not exist
	TMStillAllegiant      TMResponse = 3   // task still allegiant
	TMReassignUnsupported TMResponse = 4   // task allegiance reassignment not supported
	TMUnsupported         TMResponse = 5   // task management function not supported
	TMUnauthorized        TMResponse = 6   // function authorization failed
	TMSucceeded           TMResponse = 7   // function succeeded (answer to a query)
	TMRejected            TMResponse = 255 // function rejected
)

var tmResponseNames = []string{
	"complete", "no-such-task", "no-such-lun", "task-still-allegiant",
	"reassign-unsupported", "function-unsupported", "not-authorized", "succeeded",
}

// String returns the name of the response.
func (r TMResponse) String() string {
	if r == TMRejected {
		return "rejected"
	}
	return codeName(tmResponseNames, uint8(r), "response")
}

// Known reports whether the code is defined in RFC 7143 or RFC 7144.
func (r TMResponse) Known() bool { return r <= TMSucceeded || r == TMRejected }

// Stage is a stage of the Login Phase, 0..3 (RFC 7143 §11.12.3); 2 is reserved.
type Stage uint8

// Login stages.
const (
	StageSecurity    Stage = 0 // SecurityNegotiation
	StageOperational Stage = 1 // LoginOperationalNegotiation
	StageFullFeature Stage = 3 // FullFeaturePhase
)

var stageNames = []string{"security", "operational", "", "full-feature"}

// String returns the name of the stage.
func (s Stage) String() string { return codeName(stageNames, uint8(s), "stage") }

// LogoutReason says what a Logout Request closes, 0..127 (RFC 7143 §11.14.1).
type LogoutReason uint8

// Logout reasons.
const (
	LogoutCloseSession    LogoutReason = 0
	LogoutCloseConnection LogoutReason = 1
	LogoutForRecovery     LogoutReason = 2 // remove the connection for recovery
)

var logoutReasonNames = []string{"close-session", "close-connection", "remove-for-recovery"}

// String returns the name of the reason.
func (r LogoutReason) String() string { return codeName(logoutReasonNames, uint8(r), "reason") }

// LogoutResult is the outcome of a Logout Request (RFC 7143 §11.15.1).
type LogoutResult uint8

// Logout results.
const (
	LogoutDone                LogoutResult = 0 // connection or session closed
	LogoutNoCID               LogoutResult = 1 // CID not found
	LogoutRecoveryUnsupported LogoutResult = 2 // connection recovery is not supported
	LogoutCleanupFailed       LogoutResult = 3 // cleanup failed
)

var logoutResultNames = []string{"closed", "no-such-cid", "recovery-unsupported", "cleanup-failed"}

// String returns the name of the result.
func (r LogoutResult) String() string { return codeName(logoutResultNames, uint8(r), "response") }

// Known reports whether the code is defined.
func (r LogoutResult) Known() bool { return r <= LogoutCleanupFailed }

// SNACKType says what a SNACK asks for, 0..15 (RFC 7143 §11.16.1).
type SNACKType uint8

// SNACK types.
const (
	SNACKData    SNACKType = 0 // resend Data-In or R2T PDUs
	SNACKStatus  SNACKType = 1 // resend numbered responses
	SNACKDataACK SNACKType = 2 // acknowledge Data-In PDUs
	SNACKRData   SNACKType = 3 // resend Data-In PDUs, resegmented
)

var snackTypeNames = []string{"data-r2t", "status", "data-ack", "r-data"}

// String returns the name of the type.
func (t SNACKType) String() string { return codeName(snackTypeNames, uint8(t), "type") }

// AsyncEvent is the event of an Asynchronous Message (RFC 7143 §11.9.1). Values
// from 248 are vendor specific, all others not listed are unassigned.
type AsyncEvent uint8

// Asynchronous events.
const (
	AsyncSCSIEvent          AsyncEvent = 0 // sense data in the data segment
	AsyncLogoutRequest      AsyncEvent = 1 // log out within Param3 seconds
	AsyncConnectionDrop     AsyncEvent = 2 // connection with CID Param1 is going down
	AsyncSessionDrop        AsyncEvent = 3 // all connections of the session are going down
	AsyncNegotiationRequest AsyncEvent = 4 // send a Text Request within Param3 seconds
	AsyncTaskTermination    AsyncEvent = 5 // all tasks of the LUN are being terminated
)

var asyncEventNames = []string{
	"scsi-event", "logout-request", "connection-drop", "session-drop",
	"negotiation-request", "task-termination",
}

// String returns the name of the event.
func (e AsyncEvent) String() string {
	if e.Vendor() {
		return fmt.Sprintf("vendor-0x%02x", uint8(e))
	}
	return codeName(asyncEventNames, uint8(e), "event")
}

// Vendor reports whether the event is vendor specific.
func (e AsyncEvent) Vendor() bool { return e >= 248 }

// Known reports whether the event is assigned, or vendor specific.
func (e AsyncEvent) Known() bool { return e <= AsyncTaskTermination || e.Vendor() }

// RejectReason says why a target refused a PDU (RFC 7143 §11.17.1).
type RejectReason uint8

// Reject reasons; all other values are unassigned.
const (
	RejectReserved         RejectReason = 0x01 // reserved
	RejectDataDigest       RejectReason = 0x02 // data (payload) digest error
	RejectSNACK            RejectReason = 0x03 // SNACK reject
	RejectProtocolError    RejectReason = 0x04 // protocol error
	RejectUnsupported      RejectReason = 0x05 // command not supported
	RejectImmediate        RejectReason = 0x06 // too many immediate commands
	RejectTaskInProgress   RejectReason = 0x07 // task in progress
	RejectInvalidDataACK   RejectReason = 0x08 // invalid data ack
	RejectInvalidField     RejectReason = 0x09 // invalid PDU field
	RejectLongOp           RejectReason = 0x0a // out of resources for a Target Transfer Tag
	RejectNegotiationReset RejectReason = 0x0b // deprecated; treat as a failed negotiation
	RejectWaitingForLogout RejectReason = 0x0c // waiting for logout
)

var rejectReasonNames = []string{
	"", "reserved", "data-digest-error", "snack-reject", "protocol-error",
	"command-not-supported", "too-many-immediate-commands", "task-in-progress",
	"invalid-data-ack", "invalid-pdu-field", "long-op-out-of-resources",
	"negotiation-reset", "waiting-for-logout",
}

// String returns the name of the reason.
func (r RejectReason) String() string { return codeName(rejectReasonNames, uint8(r), "reason") }

// Known reports whether the reason is assigned.
func (r RejectReason) Known() bool { return r >= RejectReserved && r <= RejectWaitingForLogout }

// Resendable reports whether the rejected PDU may be sent again as it was, by
// the table in §11.17.1. For RejectDataDigest that holds only for a command with
// immediate data: Data-Out is sent again only when the target asks with an R2T.
func (r RejectReason) Resendable() bool {
	switch r {
	case RejectDataDigest, RejectSNACK, RejectImmediate, RejectLongOp:
		return true
	default:
		return false
	}
}
