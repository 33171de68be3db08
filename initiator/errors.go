package initiator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrorKind classes an Error by what the caller can do about it. The command
// line turns it into an exit code.
type ErrorKind uint8

// The kinds of Error.
const (
	// KindOther is none of the following.
	KindOther ErrorKind = iota
	// KindInvalid: the caller's configuration or argument is wrong. Trying again cannot help.
	KindInvalid
	// KindConnect: no portal could be reached, or what answered does not speak iSCSI.
	KindConnect
	// KindTimeout: time ran out while waiting for an answer.
	KindTimeout
	// KindLogin: the target refused the login for a reason other than the next.
	KindLogin
	// KindAuth: the target does not accept who this initiator is
	// (login status 0201 or 0202, RFC 7143 §11.13.5).
	KindAuth
	// KindNotFound: the target was reached, but has no such LUN.
	KindNotFound
	// KindUnusable: the LUN is there, but it is not a disk this package can use.
	KindUnusable
	// KindIdentity: the paths do not lead to one and the same LUN.
	KindIdentity
	// KindClosed: the device or the session was closed meanwhile.
	KindClosed
)

// String returns the kind in words.
func (k ErrorKind) String() string {
	switch k {
	case KindInvalid:
		return "invalid argument"
	case KindConnect:
		return "connection failed"
	case KindTimeout:
		return "timed out"
	case KindLogin:
		return "login refused"
	case KindAuth:
		return "authentication failed"
	case KindNotFound:
		return "not found"
	case KindUnusable:
		return "not usable"
	case KindIdentity:
		return "paths disagree"
	case KindClosed:
		return "closed"
	case KindOther:
	}
	return "error"
}

// Error is every error that Discover, Luns and Open return, and every error
// the parsers of this package return. Errors of I/O are those of the block
// layer (ErrIO and its like).
type Error struct {
	Kind ErrorKind
	// Msg says what went wrong, in words; Hint what to do about it (may be empty).
	Msg, Hint string
	// Portals holds the reason for each portal concerned, in the order given.
	Portals []PortalError
	// Err is the cause, if there is a single one.
	Err error
}

// PortalError is what went wrong at one portal.
type PortalError struct {
	Portal string // as ParsePortal returns it
	Kind   ErrorKind
	Err    error
}

// Error returns the reason as "portal: reason".
func (e PortalError) Error() string { return e.Portal + ": " + e.reason() }

// reason is the reason alone; lower layers like to name the portal too.
func (e PortalError) reason() string {
	return strings.TrimPrefix(e.Err.Error(), e.Portal+": ")
}

// Unwrap gives the cause.
func (e PortalError) Unwrap() error { return e.Err }

// Error gives message, cause, the reason of each portal and the hint, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Msg)
	switch {
	case e.Err != nil && e.Msg == "":
		b.WriteString(e.Err.Error())
	case e.Err != nil:
		fmt.Fprintf(&b, ": %v", e.Err)
	case e.Msg == "":
		b.WriteString(e.Kind.String())
	}
	for i, group := range groupReasons(e.Portals) {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep)
		b.WriteString(group)
	}
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// groupReasons says a reason that several portals share once.
func groupReasons(portals []PortalError) []string {
	var reasons []string
	at := make(map[string][]string)
	for _, p := range portals {
		r := p.reason()
		if at[r] == nil {
			reasons = append(reasons, r)
		}
		at[r] = append(at[r], p.Portal)
	}
	for i, r := range reasons {
		reasons[i] = strings.Join(at[r], ", ") + ": " + r
	}
	return reasons
}

// Unwrap gives the cause and the reason of each portal.
func (e *Error) Unwrap() []error {
	var all []error
	if e.Err != nil {
		all = append(all, e.Err)
	}
	for _, p := range e.Portals {
		all = append(all, p)
	}
	return all
}

// KindOf returns the kind of the first *Error in err's tree; for a context's
// error KindTimeout; else KindOther.
func KindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return KindTimeout
	}
	return KindOther
}

func invalidf(hint, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Msg: fmt.Sprintf(format, args...), Hint: hint}
}

// worstKind picks the kind that tells the user most: what a target said
// outweighs that another portal was not reached.
func worstKind(portals []PortalError) ErrorKind {
	// Later in the list tells more.
	order := []ErrorKind{
		KindOther, KindInvalid, KindClosed, KindTimeout, KindConnect, KindLogin,
		KindNotFound, KindUnusable, KindAuth, KindIdentity,
	}
	worst := KindOther
	for _, p := range portals {
		if slices.Index(order, p.Kind) > slices.Index(order, worst) {
			worst = p.Kind
		}
	}
	return worst
}
