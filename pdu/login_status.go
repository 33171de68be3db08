package pdu

import "fmt"

// LoginStatus is the Status-Class (high byte) and Status-Detail (low byte) of a
// Login Response (RFC 7143 §11.13.5).
type LoginStatus uint16

// Login status codes.
const (
	LoginSuccess            LoginStatus = 0x0000
	LoginMovedTemporarily   LoginStatus = 0x0101
	LoginMovedPermanently   LoginStatus = 0x0102
	LoginInitiatorError     LoginStatus = 0x0200
	LoginAuthFailure        LoginStatus = 0x0201
	LoginForbidden          LoginStatus = 0x0202
	LoginNotFound           LoginStatus = 0x0203
	LoginTargetRemoved      LoginStatus = 0x0204
	LoginUnsupportedVersion LoginStatus = 0x0205
	LoginTooManyConnections LoginStatus = 0x0206
	LoginMissingParameter   LoginStatus = 0x0207
	LoginCannotJoinSession  LoginStatus = 0x0208
	LoginSessionType        LoginStatus = 0x0209
	LoginNoSession          LoginStatus = 0x020a
	LoginInvalidRequest     LoginStatus = 0x020b
	LoginTargetError        LoginStatus = 0x0300
	LoginServiceUnavailable LoginStatus = 0x0301
	LoginOutOfResources     LoginStatus = 0x0302
)

// Status classes of a Login Response (RFC 7143 §11.13.5).
const (
	StatusClassSuccess        = 0 // accepted; negotiation goes on or is done
	StatusClassRedirection    = 1 // go to the TargetAddress in the response
	StatusClassInitiatorError = 2 // do not try again unchanged
	StatusClassTargetError    = 3 // may be tried again later
)

// Class returns the Status-Class. It alone tells a simple initiator what to do.
func (s LoginStatus) Class() uint8 { return uint8(s >> 8) }

// Detail returns the Status-Detail.
func (s LoginStatus) Detail() uint8 { return uint8(s) }

// String says in words what the target reported and what to check.
func (s LoginStatus) String() string {
	if text := s.text(); text != "" {
		return fmt.Sprintf("0x%04x: %s", uint16(s), text)
	}
	return fmt.Sprintf("0x%04x: %s", uint16(s), s.classText())
}

func (s LoginStatus) text() string {
	switch s {
	case LoginSuccess:
		return "success"
	case LoginMovedTemporarily:
		return "target moved temporarily: log in at the TargetAddress it returned"
	case LoginMovedPermanently:
		return "target moved permanently: log in at the TargetAddress it returned and update the configured portal"
	case LoginInitiatorError:
		return "initiator error: the target refused the login without naming a cause; see the target's log"
	case LoginAuthFailure:
		return "authentication failure: check the CHAP user and secrets on both sides, and whether the target demands CHAP"
	case LoginForbidden:
		return "authorization failure: allow this initiator name in the target's access list"
	case LoginNotFound:
		return "target not found: check the target name; discovery lists the names at this portal"
	case LoginTargetRemoved:
		return "target removed: it no longer exists and left no new address; discover again"
	case LoginUnsupportedVersion:
		return "unsupported version: the target does not speak iSCSI version 0"
	case LoginTooManyConnections:
		return "too many connections: this session has all the connections the target allows"
	case LoginMissingParameter:
		return "missing parameter: the target wants a key that was not sent, such as InitiatorName or TargetName"
	case LoginCannotJoinSession:
		return "cannot include in session: this portal cannot join the session; use a new session (TSIH 0)"
	case LoginSessionType:
		return "session type not supported: the target refuses this SessionType, or refuses it to this initiator"
	case LoginNoSession:
		return "session does not exist: its TSIH is gone at the target; start a new session (TSIH 0)"
	case LoginInvalidRequest:
		return "invalid during login: the target refused the request type sent in the Login Phase"
	case LoginTargetError:
		return "target error: hardware or software fault at the target; retry later and see the target's log"
	case LoginServiceUnavailable:
		return "service unavailable: the target is not in operation now; retry later"
	case LoginOutOfResources:
		return "out of resources: the target has no room for another session or connection; retry later or close unused sessions"
	default:
		return ""
	}
}

func (s LoginStatus) classText() string {
	switch s.Class() {
	case StatusClassSuccess:
		return "success with an unknown detail"
	case StatusClassRedirection:
		return "redirection with an unknown detail: log in at the TargetAddress it returned"
	case StatusClassInitiatorError:
		return "initiator error with an unknown detail: do not retry unchanged; see the target's log"
	case StatusClassTargetError:
		return "target error with an unknown detail: retry later"
	default:
		return "reserved status class: the target breaks RFC 7143 §11.13.5"
	}
}
