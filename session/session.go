// Package session is one iSCSI session (RFC 7143): login, the command window,
// data transfer, keep-alive, and recovery at ErrorRecoveryLevel 0. 
package session

import (
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
)

// State is a session's state.
type State uint8

// free → login → logged-in → recovering → login | failed; closing → closed from anywhere.
const (
	StateFree       State = iota // made, not started
	StateLogin                   // dialing or logging in
	StateLoggedIn                // full-feature phase
	StateRecovering              // lost; waiting to dial again
	StateClosing                 // logout is under way
	StateClosed                  // over; never comes back
)

// Up tells the observer about a login that succeeded.
type Up struct {
	// Reinstated is true if this login provably ended the session before it:
	// same ISID, same portal group, login with TSIH 0 answered with a TSIH that
	// is not 0, after a security stage (RFC 7143 §6.3.5). All commands of the
	// old session are then settled: no copy of them can reach the medium later.
	Reinstated bool
	// First is true for the first login of this Session.
	First bool
	TPGT  uint16
	TSIH  uint16
}

// Observer is told about changes. All calls come on the loop, never from
// inside a method of the session that the observer itself called, and may call
// back into the session.
type Observer interface {
	// SessionUp: commands are accepted from now on.
	SessionUp(s *Session, up Up)
	// SessionDown: the session was lost or a login attempt failed. When it
	// comes every command has already been completed with an error, and no
	// buffer is touched any more. Unless the session is closing it tries again
	// by itself at retryAt (loop time).
	SessionDown(s *Session, err *Error, retryAt int64)
	// SessionSilent: commands or a ping are outstanding and nothing at all was
	// received for SuspectAfter. SessionAlive: bytes came again.
	SessionSilent(s *Session)
	SessionAlive(s *Session)
	// SessionClosed is the last call, after Close.
	SessionClosed(s *Session)
}

// Env is what the session asks of the world. Implemented over a loop by Driver
// and by fakes in tests. All calls come on the loop.
type Env interface {
	Now() int64
	// Dial asks for a connection to the session's portal. The answer is one
	// call of Connected or DialFailed, later, on the loop, unless CancelDial came.
	Dial(portal string, timeout time.Duration, h loop.Handler)
	CancelDial()
	// SetTimer asks for one call of Tick at the given time, replacing the one before; 0 = none.
	SetTimer(at int64)
	// Jitter gives a factor in [0,1).
	Jitter() float64
}

/* Contract, implemented in this package (all only on the loop):

func New(cfg Config, env Env, obs Observer) (*Session, error)
func (s *Session) Start()                    // dial and log in; then keep the session alive for ever
func (s *Session) Room() int                 // commands that Submit takes now: min(window, CmdsMax-inflight); 0 unless logged in
func (s *Session) Submit(c *Command) bool    // false: no room, c stays the caller's
func (s *Session) Detach(c *Command) bool    // takes an in-flight command back: its buffer is never touched again, late data is
                                             // discarded, CommandDone never comes. false for a write whose data may still be needed: Drop then.
func (s *Session) Drop(err *Error)           // give the connection up now (RST): commands complete with err, then recovery
func (s *Session) RetryNow()                 // dial at once instead of at RetryAt
func (s *Session) Close()                    // no new commands; Logout, bounded; then SessionClosed. In-flight commands: completed or failed first
func (s *Session) Oldest() int64             // SubmittedAt of the oldest command in flight, 0 = none   (O(1) or cheap)
func (s *Session) Stats() Stats
func (s *Session) SendTargets(done func([]TargetInfo, *Error)) // discovery sessions
type TargetInfo struct { Name string; Portals []PortalInfo }; type PortalInfo struct { Address string; TPGT int }
func DeriveISID(parts ...string) [6]byte     // type 10b, from a hash

type Driver: Env over a loop:
func NewDriver(l loop.Loop, dial func(ctx context.Context, network, address string) (net.Conn, error)) *Driver   // one per session
func (d *Driver) Bind(s *Session)

*/
