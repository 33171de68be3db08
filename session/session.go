// Package session is one iSCSI session (RFC 7143): login, the command window,
// data transfer, keep-alive, and recovery at ErrorRecoveryLevel 0.
//
// The core does no I/O: bytes, commands and time go in; bytes to send,
// completions and timers come out. It has no goroutine, socket, clock or lock,
// belongs to one loop, and is run by either of the loop's drivers. What does not
// belong here: what a SCSI command means (package scsi), which path to use and
// what to do with a command whose outcome is unknown (package mpio).
package session

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session/chap"
)

// Up tells the observer about a login that succeeded.
type Up struct {
	// Reinstated is true if this login provably ended the session before it:
	// same ISID, same portal group as the target told both times, no redirect,
	// login with TSIH 0 answered with a TSIH that is not 0, after a security
	// stage (RFC 7143 §6.3.5). All commands of the
	// old session are then settled: no copy of them can reach the medium later.
	Reinstated bool
	// Conclusive is what Reinstated is, apart from the session before it: the login
	// ended every session with the same names, ISID and portal group that the
	// target had, those of another process too.
	Conclusive bool
	// Via is the portal of a login that Detour asked for, else empty.
	Via string
	// First is true for the first login of this Session.
	First bool
	TPGT  int // portal group tag, -1 if the target did not tell
	TSIH  uint16
}

// Observer is told about changes. All calls come on the loop and may call back
// into the session.
type Observer interface {
	// SessionUp: commands are accepted from now on.
	SessionUp(s *Session, up Up)
	// SessionDown: the session was lost or a login attempt failed. When it
	// comes every command has already been completed with an error, and no
	// buffer is touched any more. Unless the session is closing it tries again
	// by itself at retryAt (loop time).
	SessionDown(s *Session, err *Error, retryAt int64)
	// SessionSilent: commands and a ping are outstanding and nothing at all was
	// received for SuspectAfter. SessionAlive: bytes came again.
	SessionSilent(s *Session)
	SessionAlive(s *Session)
	// SessionChanged: a connection joined the session or left it, or commands
	// that waited for one can go.
	SessionChanged(s *Session)
	// SessionClosed is the last call, after Close.
	SessionClosed(s *Session)

	// CommandLate: the target answered a command that Detach had taken back, so
	// many ns after Submit. bytes is the length of a read, 0 for commands of any
	// other kind. Only that tells how slow a session is whose commands were taken
	// away from it.
	CommandLate(s *Session, took int64, bytes int)
	// LateSense: the target answered a command that Detach had taken back with
	// this status and sense data, which is valid during the call. It may tell of
	// the unit (a UNIT ATTENTION is reported once), whoever waits for the command.
	LateSense(s *Session, status scsi.Status, sense []byte)
	// AsyncSense: the target sent sense data about a unit by itself, in an
	// Asynchronous Message (RFC 7143 §11.9.4); valid during the call. It reports
	// what no command will.
	AsyncSense(s *Session, lun scsi.LUN, sense []byte)
}

// Env is what the session asks of the world. Implemented over a loop by Driver
// and by fakes in tests. All calls come on the loop.
type Env interface {
	// Now is the monotonic time in nanoseconds.
	Now() int64
	// Dial asks for a connection to portal, to be served by h. The answer is one
	// call of Connected or DialFailed, later, on the loop, unless CancelDial came.
	// Several may be under way, for different handlers.
	Dial(portal string, timeout time.Duration, h loop.Handler)
	// CancelDial withdraws the Dial for h, if one is under way.
	CancelDial(h loop.Handler)
	// SetTimer asks for one call of Tick at the given time, replacing the one before; 0 = none.
	SetTimer(at int64)
	// Jitter gives a factor in [0,1).
	Jitter() float64
}

// Session is one iSCSI session. Not safe for concurrent use: every method must
// be called on the loop it belongs to.
type Session struct {
	cfg Config
	env Env
	obs Observer
	log *slog.Logger

	state State
	// conn is the connection being made by the first login, and then the one
	// that session-wide requests go over; nil while waiting.
	conn    *conn
	members []member // with several connections: all of them, conn included
	tasks   taskTable

	// Command numbering (RFC 7143 §4.2.2.1), per session.
	cmdSN, expCmdSN, maxCmdSN uint32

	params Params
	tsih   uint16
	tpgt   int

	// Login and recovery.
	minimal   bool  // offer the smallest set of keys; see cutShort
	fullTaken bool  // a login with the full set succeeded
	loggedAt  int64 // loop time of the last login
	brief     int   // sessions in a row that the peer ended soon after the login
	cuts      int   // logins in a row in which the peer hung up
	rebuffs   int   // of those, without authentication and any answer; see noteRebuff
	// Algorithms of CHAP that the target can do when it refused the configured
	// list, else nil; again: a login with them is due at once. See refusedCHAP.
	algorithms []chap.Algorithm
	again      bool
	proven     bool   // the session was authenticated with CHAP
	peer       string // with mutual CHAP: the name under which the target has proven itself
	toldOpen   bool   // that the target wants no authentication was logged
	toldGap    bool   // that a StatSN was left out was logged
	reporting  reportingState
	redirect   string // dial here instead of the portal, once
	redirects  int
	sentTo     string               // where the portal sent this login, or the session, on to
	sendings   [maxRedirects]string // told of, by how often the login had been sent on before
	strayed    bool                 // the last login was redirected
	via        string               // the login under way, or the session, is a detour through this portal
	viaTPGT    int                  // ... and must lead to this portal group
	deadline   int64                // of the login or logout under way
	retryAt    int64
	backoff    time.Duration
	failing    bool          // commands of a lost connection are being completed
	waitFloor  time.Duration // Time2Wait asked for by the target
	notBefore  int64         // when it is over
	lastErr    *Error

	// Task management; see tmf.go.
	tmfs       int      // requests under way
	barrier    *tmf     // one for many tasks is under way: no commands meanwhile
	buried     []uint32 // a ring of the tags of tasks aborted lately
	nextBuried int
	taskDue    int64 // the earliest task.due, or earlier; 0 = none

	// Keep-alive.
	silent  bool // as last told to the observer
	timerAt int64

	logins, losses           uint64
	bytesSent, bytesReceived uint64
	lastAsync, lastReject    Notice
	text                     *textExchange
	logoutAt                 int64  // the target asked for a logout: not later than this
	logoutSent               bool   // of the session
	downFor                  *Error // why a session of several connections is being given up
}

// maxConnections bounds Config.Connections.
const maxConnections = 16

// New makes a session from cfg; env and obs must not be nil. It does nothing until Start.
func New(cfg Config, env Env, obs Observer) (*Session, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Session{
		cfg: cfg, env: env, obs: obs, log: cfg.Logger,
		tasks: newTaskTable(cfg.CmdsMax + extraTasks + maxTMFs + 2*cfg.Connections),
		tpgt:  cfg.TPGT,
	}, nil
}

// Start dials and logs in, and from then on keeps the session alive until
// Close. A second call does nothing.
func (s *Session) Start() {
	if s.state == StateFree {
		s.to(evStart)
		s.dial()
	}
}

// State is the session's state.
func (s *Session) State() State { return s.state }

// Room is the number of commands Submit takes now: what the target's command
// window (RFC 7143 §4.2.2.1) and CmdsMax leave; 0 unless logged in.
func (s *Session) Room() int {
	if s.state != StateLoggedIn || s.conn.dead && s.other(nil) == nil || s.logoutAt != 0 || s.barrier != nil || s.cfg.Discovery {
		return 0
	}
	window := serial.Diff(s.maxCmdSN+1, s.cmdSN)
	return max(0, min(int(window), s.cfg.CmdsMax-s.tasks.scsi))
}

// Oldest is the time the oldest unanswered command was submitted, 0 if there is none.
func (s *Session) Oldest() int64 {
	for t := s.tasks.first(); t != nil; t = s.tasks.after(t) {
		if t.kind == taskSCSI && t.cmd != nil {
			return t.at
		}
	}
	return 0
}

// Stats is a snapshot.
func (s *Session) Stats() Stats {
	st := Stats{
		State: s.state, Portal: s.cfg.Portal, SentTo: s.sentTo, ISID: s.cfg.ISID, TSIH: s.tsih, TPGT: s.tpgt,
		Params: s.params, InFlight: s.tasks.scsi, Room: s.Room(),
		Logins: s.logins, Losses: s.losses, RetryAt: s.retryAt,
		BytesSent: s.bytesSent, BytesReceived: s.bytesReceived,
		Conns: s.connStats(), LastAsync: s.lastAsync, LastReject: s.lastReject,
	}
	if s.lastErr != nil {
		st.LastError = s.lastErr.Error()
	}
	if c := s.conn; c != nil {
		st.LastReceived, st.LocalAddr = c.lastRecv, c.localAddr()
	}
	if s.state == StateLoggedIn {
		st.Connections = 1
	}
	if len(s.members) > 0 {
		st.Connections = 0
	}
	for i := range s.members {
		if s.members[i].up() {
			st.Connections++
		}
	}
	return st
}

// Drop gives the connection up now: it is reset, every command completes with
// err, and the session recovers. Commands complete later, not from inside Drop.
func (s *Session) Drop(err *Error) {
	if s.conn == nil || (s.state != StateLoggedIn && s.state != StateClosing) {
		return
	}
	if err == nil {
		err = s.err(KindClosed, "the connection was given up")
	}
	s.abandon(err)
	s.conn.abort(err)
}

// RetryNow dials, if the session waits to do so, at once or as soon as Time2Wait
// allows (RFC 7143 §7.5).
func (s *Session) RetryNow() {
	if s.state != StateRecovering {
		return
	}
	s.backoff = 0
	s.retryAt = max(s.env.Now(), s.notBefore)
	switch {
	case s.failing: // the commands of the lost connection come first
	case s.retryAt > s.env.Now():
		s.rearm()
	default:
		s.dialNow()
	}
}

// Close ends the session: commands in flight are given up unless the caller
// waited for them, a Logout is sent, and SessionClosed follows, not later than
// LogoutTimeout from now.
func (s *Session) Close() {
	switch s.state {
	case StateClosing, StateClosed:
		return
	case StateLoggedIn:
		s.to(evClose)
		s.deadline = s.env.Now() + int64(s.cfg.LogoutTimeout)
		if !s.conn.dead && !s.logoutSent { // the target may have asked for one before
			s.sendLogout()
		}
		s.rearm()
	case StateLogin:
		s.to(evClose)
		s.deadline = s.env.Now() + int64(s.cfg.LogoutTimeout)
		if s.conn.stream == nil {
			s.env.CancelDial(s.conn)
			s.conn = nil
			s.closed()
			return
		}
		s.conn.abort(s.err(KindClosed, "closed during login"))
	default:
		s.to(evClose)
		if !s.failing { // else connClosed goes on with it
			s.closed()
		}
	}
}

func (s *Session) closed() {
	s.conn, s.members, s.retryAt = nil, nil, 0
	s.env.SetTimer(0)
	s.to(evClosed)
	s.obs.SessionClosed(s)
}

func (s *Session) err(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Portal: s.portal(), SentTo: s.sentTo, Msg: fmt.Sprintf(format, args...)}
}

// withDefaults validates cfg and fills in the defaults.
func (cfg Config) withDefaults() (Config, error) {
	if err := checkName("initiator", cfg.InitiatorName); err != nil {
		return cfg, err
	}
	if !cfg.Discovery {
		if err := checkName("target", cfg.TargetName); err != nil {
			return cfg, err
		}
	}
	if cfg.Portal == "" {
		return cfg, errors.New("session: no portal")
	}
	var err error
	if cfg.CHAP, err = checkCHAP(cfg.CHAP); err != nil {
		return cfg, fmt.Errorf("session: %w", err)
	}
	for _, f := range []struct {
		name   string
		v      *uint32
		def    uint32
		lo, hi uint32
	}{
		{"MaxRecvDataSegmentLength", &cfg.MaxRecvDataSegmentLength, 262144, 512, 1<<24 - 1},
		{"MaxBurstLength", &cfg.MaxBurstLength, 16776192, 512, 1<<24 - 1},
		{"FirstBurstLength", &cfg.FirstBurstLength, 262144, 512, 1<<24 - 1},
	} {
		if *f.v == 0 {
			*f.v = f.def
		}
		if *f.v < f.lo || *f.v > f.hi {
			return cfg, fmt.Errorf("session: %s is %d, must be from %d to %d", f.name, *f.v, f.lo, f.hi)
		}
	}
	cfg.FirstBurstLength = min(cfg.FirstBurstLength, cfg.MaxBurstLength)
	if cfg.MaxOutstandingR2T == 0 {
		cfg.MaxOutstandingR2T = 8
	}
	if cfg.Connections == 0 {
		cfg.Connections = 1
	}
	if cfg.Connections < 1 || cfg.Connections > maxConnections {
		return cfg, fmt.Errorf("session: Connections is %d, must be from 1 to %d", cfg.Connections, maxConnections)
	}
	if l := cfg.ErrorRecoveryLevel; l != 0 && (l != 2 || cfg.Connections == 1) {
		return cfg, fmt.Errorf("session: ErrorRecoveryLevel is %d, must be 0, or 2 with several connections", l)
	}
	if cfg.CmdsMax == 0 {
		cfg.CmdsMax = 128
	}
	if cfg.CmdsMax < 1 || cfg.CmdsMax > maxTasks {
		return cfg, fmt.Errorf("session: CmdsMax is %d, must be from 1 to %d", cfg.CmdsMax, maxTasks)
	}
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"LoginTimeout", &cfg.LoginTimeout, 10 * time.Second},
		{"LogoutTimeout", &cfg.LogoutTimeout, 5 * time.Second},
		{"AbortTimeout", &cfg.AbortTimeout, 15 * time.Second},
		{"LUResetTimeout", &cfg.LUResetTimeout, 30 * time.Second},
		{"TargetResetTimeout", &cfg.TargetResetTimeout, 30 * time.Second},
		{"DetachTimeout", &cfg.DetachTimeout, 30 * time.Second},
		{"NoopInterval", &cfg.NoopInterval, time.Second},
		{"NoopTimeout", &cfg.NoopTimeout, 2 * time.Second},
		{"SuspectAfter", &cfg.SuspectAfter, 200 * time.Millisecond},
		{"ReconnectMin", &cfg.ReconnectMin, 100 * time.Millisecond},
		{"ReconnectMax", &cfg.ReconnectMax, 5 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < 0 && d.v != &cfg.NoopInterval {
			return cfg, fmt.Errorf("session: %s is %v, must be positive", d.name, *d.v)
		}
	}
	cfg.ReconnectMax = max(cfg.ReconnectMax, cfg.ReconnectMin)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Logger = cfg.Logger.With("portal", cfg.Portal)
	return cfg, nil
}

// checkName refuses what cannot be an iSCSI name (RFC 7143 §4.2.7): empty, longer
// than 223 bytes, not UTF-8, or with characters that would break a text key. The
// rest is the target's to judge.
func checkName(what, name string) error {
	if name == "" {
		return fmt.Errorf("session: no %s name", what)
	}
	if len(name) > 223 {
		return fmt.Errorf("session: the %s name is %d bytes long, at most 223 are allowed", what, len(name))
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("session: the %s name %q is not UTF-8", what, name)
	}
	for _, r := range name {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return fmt.Errorf("session: the %s name %q contains a blank or control character", what, name)
		}
	}
	return nil
}
