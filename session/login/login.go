// Package login is the login phase of an iSCSI connection (RFC 7143 §6, §13) as
// a pure state machine: the target's answers go in, the next request or the
// outcome comes out. It knows no socket, clock or goroutine, and nothing of the
// full-feature phase.
package login

import (
	"errors"
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

// Bounds on what a target may make us do before the login counts as failed.
const (
	maxRounds = 32       // request/response exchanges
	maxText   = 64 << 10 // bytes of keys in one (possibly split) response
	// maxAnswers bounds what we answer to one response. With our own offer it
	// stays below the 8192 bytes that a request may have during login (§13.12).
	maxAnswers = 7 << 10
)

// Config is what this side brings to the login.
type Config struct {
	InitiatorName string
	TargetName    string // empty for discovery sessions
	Discovery     bool
	ISID          [6]byte
	CID           uint16
	// TSIH is the session to join as a further connection, 0 for a new session.
	TSIH uint16
	// TPGT is the portal group tag the portal is expected to have, or -1.
	TPGT int
	// Offer holds the values proposed; see DefaultOffer.
	Offer Offer
	// TaskReporting offers TaskReporting, and takes it where the target offers it
	// (RFC 7143 §13.23); else the semantics of RFC 3720 hold. It is not offered by
	// Minimal logins, further connections, or to targets that left AuthMethod
	// unanswered.
	TaskReporting bool
	// CHAP authenticates this login (RFC 7143 §12.1.3); it must be fresh. nil: no
	// authentication. A target that wants none is let off in one-way CHAP only;
	// see Result.AuthMethod.
	CHAP *chap.Initiator
	// Minimal leaves out every operational key that has a usable default. Some
	// old targets close the connection on a key they do not know. A discovery
	// session then starts in the operational stage, as RFC 7143 §6.3 allows:
	// gotgt takes SessionType from there alone, and closes on a login that names
	// no target otherwise.
	Minimal bool
}

// Request is a Login Request to be sent: the header (CmdSN and ExpStatSN are
// the sender's to fill in) and the text.
type Request struct {
	Header pdu.Login
	Text   []byte
}

// Error is a login that failed on what the target said.
type Error struct {
	// Status is the target's status when it refused (class 1, 2 or 3), 0201 when
	// authentication failed, whichever side says so, or 0 when it broke the protocol.
	Status pdu.LoginStatus
	// Redirect is the portal a status of class 1 sends us to ("host:port").
	Redirect string
	Msg      string
	Hint     string
	// Err is the *chap.Error if this side ended the authentication, else nil. Msg
	// and Hint have its words.
	Err error
}

func (e *Error) Error() string {
	if e.Hint != "" {
		return e.Msg + "; " + e.Hint
	}
	return e.Msg
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Machine is one login. Make one with New for each connection.
type Machine struct {
	cfg    Config
	stage  pdu.Stage // the stage our last request was in
	more   []byte    // text of a response split with the C bit (RFC 7143 §6.2)
	rounds int

	neg      negotiator
	auth     auth
	authDone bool // the security stage was passed
	tsih     uint16
	done     bool
}

// New makes a login.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, neg: newNegotiator(cfg), auth: auth{chap: cfg.CHAP}}
}

// First gives the first request: the security stage, since several targets
// reinstate a session, or add a connection to one, only in a login that passed
// it. Minimal discovery sessions are the exception, unless the target is to prove
// itself.
func (m *Machine) First() Request {
	if m.cfg.Discovery && m.cfg.Minimal && m.auth.mayEnd() {
		m.stage, m.auth.left = pdu.StageOperational, true
		t := pdu.AppendKey(nil, "InitiatorName", m.cfg.InitiatorName)
		return m.request(m.neg.offer(pdu.AppendKey(t, "SessionType", "Discovery")))
	}
	m.stage = pdu.StageSecurity
	var t []byte
	t = pdu.AppendKey(t, "InitiatorName", m.cfg.InitiatorName)
	if m.cfg.Discovery {
		t = pdu.AppendKey(t, "SessionType", "Discovery")
	} else {
		if m.cfg.TSIH == 0 { // leading connections only (RFC 7143 §13.21)
			// Normal is the default, but LIO refuses logins that leave it out.
			t = pdu.AppendKey(t, "SessionType", "Normal")
		}
		t = pdu.AppendKey(t, "TargetName", m.cfg.TargetName)
	}
	t = pdu.AppendKey(t, "AuthMethod", m.auth.methods())
	return m.request(t)
}

// Done reports whether the login is complete.
func (m *Machine) Done() bool { return m.done }

// TSIH is the target's session handle from the final response; 0 from targets
// that break RFC 7143 §11.13.3.
func (m *Machine) TSIH() uint16 { return m.tsih }

// OfferedTaskReporting reports whether TaskReporting was offered, which targets
// older than RFC 7143 may not bear.
func (m *Machine) OfferedTaskReporting() bool { return m.neg.reporting.offered }

// InSecurityStage reports whether the last request was one of the security stage.
func (m *Machine) InSecurityStage() bool { return m.stage == pdu.StageSecurity }

// SecurityStage reports whether the login went through the security stage.
func (m *Machine) SecurityStage() bool { return m.authDone }

// Result is what was settled; valid once Done.
func (m *Machine) Result() Result { return m.neg.result() }

// Step takes one Login Response. When it returns no error and Done is still
// false, the request it returns must be sent next.
func (m *Machine) Step(resp pdu.LoginResponse, text []byte) (Request, error) {
	if m.rounds++; m.rounds > maxRounds {
		return Request{}, protocolError("the target still negotiates after %d rounds", maxRounds)
	}
	if resp.StatusClass != 0 {
		return Request{}, m.refused(resp, text)
	}
	if err := m.checkHeader(resp); err != nil {
		return Request{}, err
	}
	if len(m.more)+len(text) > maxText {
		return Request{}, protocolError("more than %d bytes of login keys", maxText)
	}
	m.more = append(m.more, text...)
	if resp.Continue {
		return m.request(nil), nil // RFC 7143 §6.2: an empty request fetches the rest
	}
	answers, err := m.takeKeys()
	if err != nil {
		return Request{}, err
	}
	if answers, err = m.authenticate(answers); err != nil {
		return Request{}, err
	}
	if resp.Transit {
		return m.transit(resp, answers)
	}
	return m.request(answers), nil // the target had something to say first
}

// checkHeader refuses responses that cannot belong to our last request.
func (m *Machine) checkHeader(resp pdu.LoginResponse) error {
	switch {
	case resp.VersionActive != 0:
		return protocolError("the target speaks iSCSI version %d, this initiator only version 0", resp.VersionActive)
	case resp.CSG != m.stage:
		return protocolError("the target answers for login stage %d while stage %d is under way", resp.CSG, m.stage)
	case resp.Transit && resp.Continue:
		return protocolError("the target sets both the T and the C bit in a login response")
	case resp.Transit && m.stage == pdu.StageSecurity && !m.auth.mayEnd():
		return unauthenticated()
	case m.cfg.TSIH != 0 && resp.TSIH != 0 && resp.TSIH != m.cfg.TSIH: // §11.13.3; targets that leave it out are borne with
		return protocolError("the target answers for another session (TSIH %d) than the one to be joined (%d)", resp.TSIH, m.cfg.TSIH)
	case resp.Transit && resp.NSG != m.nextStage():
		return protocolError("the target goes to login stage %d instead of %d", resp.NSG, m.nextStage())
	}
	return nil
}

// takeKeys hands the complete text of a response to the negotiator and returns
// the answers it calls for.
func (m *Machine) takeKeys() ([]byte, error) {
	text := m.more
	m.more = m.more[:0]
	var answers []byte
	err := pdu.WalkKeys(text, func(key, value []byte) error {
		if handled, err := m.takeAuthKey(string(key), string(value)); handled || err != nil {
			return err
		}
		var err error
		answers, err = m.neg.take(answers, string(key), string(value))
		if err == nil && len(answers) > maxAnswers {
			return protocolError("the target's keys call for more than %d bytes of answers", maxAnswers)
		}
		return err
	})
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return nil, e
		}
		return nil, protocolError("login keys cannot be read: %v", err)
	}
	return answers, nil
}

func (m *Machine) nextStage() pdu.Stage {
	if m.stage == pdu.StageSecurity {
		return pdu.StageOperational
	}
	return pdu.StageFullFeature
}

// transit enters the stage the response agreed to.
func (m *Machine) transit(resp pdu.LoginResponse, answers []byte) (Request, error) {
	if resp.NSG == pdu.StageFullFeature {
		m.tsih, m.done = resp.TSIH, true
		return Request{}, nil
	}
	if !m.auth.mayLeave() {
		return Request{}, unauthenticated()
	}
	m.authDone, m.auth.left = true, true
	m.stage = pdu.StageOperational
	return m.request(m.neg.offer(answers)), nil
}

// request makes a request of the stage. But for authentication, all we have to
// say of a stage goes into one request, so each asks for the transit to the next,
// also the empty ones (RFC 7143 §6.3.3).
func (m *Machine) request(text []byte) Request {
	r := Request{Text: text, Header: pdu.Login{
		Transit: true, CSG: m.stage, NSG: m.nextStage(),
		ISID: m.cfg.ISID, TSIH: m.cfg.TSIH, CID: m.cfg.CID, DataLen: len(text),
	}}
	if !m.asked() {
		r.Header.Transit, r.Header.NSG = false, 0
	}
	return r
}

// asked reports whether a request made now, which is the last one made until an
// answer to it was taken, asks for the transit to the next stage.
func (m *Machine) asked() bool { return m.stage != pdu.StageSecurity || m.auth.asks() }

func protocolError(format string, args ...any) *Error {
	return &Error{Msg: fmt.Sprintf(format, args...)}
}
