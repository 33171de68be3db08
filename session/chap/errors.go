package chap

import (
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
)

// Reason is the kind of an [Error].
type Reason uint8

// Reasons.
const (
	// ReasonConfig: what this side was given cannot work.
	ReasonConfig Reason = iota + 1
	// ReasonSecret: a secret cannot be read, or its file is open to others.
	ReasonSecret
	// ReasonUse: a method was called out of turn.
	ReasonUse
	// ReasonProtocol: a key of the peer is missing, malformed or out of place.
	ReasonProtocol
	// ReasonAlgorithm: the two sides have no algorithm in common, or the target
	// took one that was not offered.
	ReasonAlgorithm
	// ReasonReflection: the peer sent a challenge or a response that is ours.
	ReasonReflection
	// ReasonName: the peer goes by another name than expected.
	ReasonName
	// ReasonResponse: the peer's response is wrong.
	ReasonResponse
	// ReasonSameSecret: the peer's response was made with our own secret.
	ReasonSameSecret
	// ReasonNoAnswer: the peer does not prove itself although it was asked to.
	ReasonNoAnswer
	// ReasonExpired: the answer to our challenge came too late.
	ReasonExpired
	// ReasonRandom: the source of random bytes fails or repeats itself.
	ReasonRandom
)

var reasonNames = [...]string{
	ReasonConfig: "configuration", ReasonSecret: "secret", ReasonUse: "use", ReasonProtocol: "protocol",
	ReasonAlgorithm: "algorithm", ReasonReflection: "reflection", ReasonName: "name", ReasonResponse: "response",
	ReasonSameSecret: "same secret", ReasonNoAnswer: "no answer", ReasonExpired: "expired", ReasonRandom: "random",
}

// String names the reason in a word or two.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Error is every error of this package. It holds no secret, challenge or response.
type Error struct {
	Reason Reason
	Msg    string // what is wrong
	Hint   string // what to do about it
	Err    error  // the cause, or nil
}

// Error gives Msg, the cause, and Hint.
func (e *Error) Error() string {
	s := "chap: " + e.Msg
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Status is how a target refuses a login because of e (RFC 7143 §11.13.5).
func (e *Error) Status() pdu.LoginStatus {
	switch e.Reason {
	case ReasonProtocol:
		return pdu.LoginInitiatorError
	case ReasonConfig, ReasonSecret, ReasonUse, ReasonRandom:
		return pdu.LoginTargetError
	default:
		return pdu.LoginAuthFailure
	}
}

// Hints shared by several errors.
const (
	hintTargetBroken = "the target breaks RFC 7143 §12.1.3: report it to its maker, or log in without CHAP on a trusted network"
	hintPeerBroken   = "the other side breaks RFC 7143 §12.1.3: report it to its maker"
	hintAttack       = "the connection must be closed: someone may be posing as the other side (RFC 7143 §9.2.1)"
	hintOwnSecret    = "give each direction a secret of its own, on the target too"
)

func newError(reason Reason, hint, format string, args ...any) *Error {
	return &Error{Reason: reason, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

func configError(hint, format string, args ...any) *Error {
	return newError(ReasonConfig, hint, format, args...)
}

func secretError(hint, format string, args ...any) *Error {
	return newError(ReasonSecret, hint, format, args...)
}

// quote quotes text of a peer or user at bounded length.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}
