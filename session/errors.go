package session

import (
	"errors"

	"github.com/iscsimp/iscsimp/pdu"
)

// Kind classes an Error by what went wrong; what to do follows from it.
type Kind uint8

// The kinds of Error.
const (
	KindTransport Kind = iota + 1 // the connection was lost, reset or could not be made: another path, reinstate
	KindTimeout                   // the peer was silent for too long: another path, reinstate
	KindProtocol                  // the peer broke RFC 7143: another path, reinstate
	KindLogin                     // the target refused the login; Login says how
	KindTarget                    // the target ended the session or connection on purpose (Async Message, Reject)
	KindClosed                    // this side closed the session
	KindAborted                   // ended by a task management function of this side; always Settled
	KindResponse                  // iSCSI response code other than "completed at target" (RFC 7143 §11.4.3)
)

func (k Kind) String() string {
	switch k {
	case KindTransport:
		return "connection lost"
	case KindTimeout:
		return "no answer"
	case KindProtocol:
		return "protocol error"
	case KindLogin:
		return "login refused"
	case KindTarget:
		return "ended by the target"
	case KindClosed:
		return "closed"
	case KindAborted:
		return "aborted"
	case KindResponse:
		return "target failure"
	}
	return "error"
}

// Error is every error this package gives out.
type Error struct {
	Kind   Kind
	Portal string
	// SentTo is the address that Portal had sent the login on to, "" if it had not:
	// what went wrong went wrong there.
	SentTo string
	// Sent is true if bytes of the command concerned may have left this host.
	Sent bool
	// Settled is true if the target has provably ended the command concerned:
	// what it did, if anything, is done, and no copy of it can be executed later.
	Settled bool
	// Login is the status of a refused login, for KindLogin.
	Login pdu.LoginStatus
	// AuthLikely is true, for KindTransport, if the target hung up without a word on
	// two logins in a row that brought no authentication, and never took one: most
	// likely it demands CHAP.
	AuthLikely bool
	// NotConnected is true, for KindTransport, if the connection was never made.
	NotConnected bool
	// Msg says what happened, in words; Hint what to do about it (may be empty).
	Msg, Hint string
	// Err is the cause, if there is one.
	Err error
}

// Error gives portal, kind, message, cause and hint in one line.
func (e *Error) Error() string {
	s := e.Kind.String()
	if e.NotConnected {
		s = "cannot connect"
	}
	if e.SentTo != "" {
		s = "at " + e.SentTo + ", where it sends logins: " + s
	}
	if e.Portal != "" {
		s = e.Portal + ": " + s
	}
	if e.Msg != "" {
		s += ": " + e.Msg
	}
	if e.Err != nil {
		s += " (" + causeText(e.Err) + ")"
	}
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Permanent reports whether trying again soon cannot help: the target knows
// this initiator or target name and says no (status class 02, RFC 7143 §11.13.5).
func (e *Error) Permanent() bool {
	return e.Kind == KindLogin && e.Login>>8 == 2
}

// SafeToRetry reports whether err proves that no byte of the command left this
// host, so that it can be sent again anywhere whatever it does.
func SafeToRetry(err error) bool {
	var e *Error
	return errors.As(err, &e) && !e.Sent
}
