package login

import (
	"errors"
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

// authStep is how far the exchange of CHAP has come: what the next complete
// response of the target has to bring.
type authStep uint8

const (
	stepMethod    authStep = iota // the target's choice of AuthMethod
	stepChallenge                 // its CHAP_A, CHAP_I and CHAP_C
	stepProof                     // its CHAP_N and CHAP_R: mutual CHAP only
	stepOver                      // nothing: the stage may be left
)

// auth is the security stage of a login that brings CHAP (RFC 7143 §12.1.3).
type auth struct {
	chap   *chap.Initiator // nil: no authentication is configured, and nothing here is used
	step   authStep
	keys   chap.Keys // of the response that is being read
	silent bool      // the target did not speak of AuthMethod when it could have
	left   bool      // the stage was left: refusals are about something else
}

// methods is our AuthMethod. A target that is to prove itself must not get out
// of that by choosing None, so None is not offered to it.
func (a *auth) methods() string {
	switch {
	case a.chap == nil:
		return "None"
	case a.chap.Mutual():
		return "CHAP"
	default:
		return "CHAP,None"
	}
}

// asks reports whether a request of the security stage has the T bit set: not
// before all that we have to say was said (RFC 7143 appendix B).
func (a *auth) asks() bool { return a.mayLeave() || a.step == stepProof }

// mayEnd reports whether the target may set the T bit now. It may not without
// having been asked to, but gotgt does; where None is welcome that is no harm.
func (a *auth) mayEnd() bool { return a.asks() || a.step == stepMethod && !a.chap.Mutual() }

// mayLeave reports whether the security stage may end, with all that the target
// said taken. Targets that leave AuthMethod out altogether are taken to mean
// None, unless they are to prove themselves.
func (a *auth) mayLeave() bool {
	if a.chap == nil || a.step == stepOver {
		return true
	}
	return a.step == stepMethod && a.silent && !a.chap.Mutual()
}

// answered reports whether our response to the target's challenge was sent.
func (a *auth) answered() bool { return a.chap != nil && a.chap.Chosen() != 0 }

// takeAuthKey takes the keys that belong to authentication. Values are kept out
// of errors: a challenge and its response are enough to guess at the secret.
func (m *Machine) takeAuthKey(key, value string) (handled bool, err error) {
	a := &m.auth
	if a.chap == nil {
		return false, nil
	}
	if key == "AuthMethod" {
		if m.neg.auth != "" && m.neg.auth != value {
			return true, changed(key, m.neg.auth, value)
		}
		m.neg.auth = value
		return true, nil
	}
	if handled, err = a.keys.Set(key, value); err != nil {
		return true, authError(err)
	}
	if handled && m.stage != pdu.StageSecurity {
		return true, protocolError("the target sends %s after the security stage", key)
	}
	return handled, nil
}

// authenticate goes one step on when all keys of a response are there.
func (m *Machine) authenticate(answers []byte) ([]byte, error) {
	a := &m.auth
	if a.chap == nil || m.stage != pdu.StageSecurity {
		return answers, nil
	}
	keys := a.keys
	a.keys = chap.Keys{}
	if keys != (chap.Keys{}) && (a.step == stepMethod || a.step == stepOver) {
		return nil, protocolError("the target sends keys of CHAP that are not due: %v", keys) // their names
	}
	switch a.step {
	case stepMethod:
		return m.methodChosen(answers)
	case stepChallenge:
		answers, err := a.chap.Step(answers, keys)
		if err != nil {
			return nil, authError(err)
		}
		a.step = stepOver
		if a.chap.Mutual() {
			a.step = stepProof
		}
		return answers, nil
	case stepProof:
		// This response must bring the proof, whatever else it says: the stage is
		// not left before.
		if err := a.chap.Verify(keys); err != nil {
			return nil, authError(err)
		}
		a.step = stepOver
	case stepOver:
	}
	return answers, nil
}

// methodChosen acts on the target's AuthMethod.
func (m *Machine) methodChosen(answers []byte) ([]byte, error) {
	a := &m.auth
	switch m.neg.auth {
	case "CHAP":
		a.step = stepChallenge
		return a.chap.AppendOffer(answers), nil
	case "None":
		if a.chap.Mutual() {
			return nil, unproven("the target wants no authentication, but is to prove itself")
		}
		a.step = stepOver // its choice: with one-way CHAP nobody vouches for the target in any case
		return answers, nil
	case "":
		if a.silent && a.chap.Mutual() {
			return nil, unproven("the target does not answer AuthMethod=CHAP, but is to prove itself")
		}
		a.silent = true // it has one more request to answer
		return answers, nil
	}
	e := &Error{Status: pdu.LoginAuthFailure, Msg: fmt.Sprintf("the target answers AuthMethod=%s to %s", m.neg.auth, a.methods())}
	if isReply(m.neg.auth) {
		e.Hint = "it has no CHAP: set CHAP up on the target, or log in without"
	} else {
		e.Hint = "set the target up for CHAP or for no authentication: this initiator has no other method"
	}
	return nil, e
}

// unproven is the error for a target that evades mutual CHAP.
func unproven(msg string) *Error {
	return &Error{
		Status: pdu.LoginAuthFailure, Msg: msg,
		Hint: "set CHAP up on the target in both directions, or leave the mutual secret out here; if it is set up, someone may be posing as the target",
	}
}

// unauthenticated is the error for a target that ends the security stage too early.
func unauthenticated() *Error {
	return &Error{
		Status: pdu.LoginAuthFailure, Msg: "the target leaves the security stage before authentication is done",
		Hint: "set CHAP up on the target, or take it out here; if it is set up, someone may be posing as the target",
	}
}

// authError is an error of the exchange in the words of a login.
func authError(err error) *Error {
	e := &Error{Status: pdu.LoginAuthFailure, Msg: err.Error(), Err: err}
	if c, ok := errors.AsType[*chap.Error](err); ok {
		e.Msg, e.Hint = c.Msg, c.Hint
		if c.Err != nil {
			e.Msg = fmt.Sprintf("%s: %v", c.Msg, c.Err)
		}
	}
	return e
}

// explain adds to a refusal what it means in a login with CHAP. Some targets have
// only "initiator error" to say about a wrong response.
func (a *auth) explain(e *Error) {
	said := e.Status == pdu.LoginAuthFailure || e.Status == pdu.LoginInitiatorError && a.answered()
	if a.chap == nil || a.left || !said {
		return
	}
	e.Status = pdu.LoginAuthFailure
	if a.answered() {
		e.Hint = fmt.Sprintf("it does not accept the CHAP response (%v): user or secret differ between the two sides", a.chap.Chosen())
		if a.chap.Mutual() {
			e.Hint += ", or the target has no secret to prove itself with"
		}
	} else {
		e.Hint = "it does not accept CHAP the way it is offered, or this initiator: compare the algorithms, and the target's access list"
	}
}
