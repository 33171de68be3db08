package initiator

import (
	"context"
	"errors"
	"net"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// visit is a short-lived session for a goroutine that may wait: log in, ask a
// few things, leave. It makes no attempt to survive anything.
type visit struct {
	session.Uninterested
	loop     loop.Loop
	session  *session.Session
	decided  chan error    // one value: the outcome of the login
	closed   chan struct{} // the session is over
	attempts int           // loop only
	told     bool          // loop only: decided has its value
}

// newVisit prepares a session on l. It does nothing before login.
func newVisit(l loop.Loop, cfg session.Config, dial session.DialFunc) (*visit, error) {
	v := &visit{loop: l, decided: make(chan error, 1), closed: make(chan struct{})}
	driver := session.NewDriver(l, dial)
	s, err := session.New(cfg, driver, v)
	if err != nil {
		return nil, err
	}
	driver.Bind(s)
	v.session = s
	return v, nil
}

// login connects and logs in. Whatever the outcome, leave must follow.
func (v *visit) login(ctx context.Context) error {
	if !v.loop.Post(v.session.Start) {
		return loop.ErrClosed
	}
	select {
	case err := <-v.decided:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave logs out and waits until the session is over, which is bounded by its
// logout timeout; with ctx ended the connection is dropped at once.
func (v *visit) leave(ctx context.Context) {
	if ctx.Err() != nil {
		v.loop.Post(func() { v.session.Drop(&session.Error{Kind: session.KindClosed, Msg: "not needed any more"}) })
	}
	if v.loop.Post(v.session.Close) {
		<-v.closed
	}
}

// sendTargets asks for every target (RFC 7143 Appendix C).
func (v *visit) sendTargets(ctx context.Context) ([]session.TargetInfo, error) {
	type answer struct {
		targets []session.TargetInfo
		err     error
	}
	done := make(chan answer, 1)
	posted := v.loop.Post(func() {
		v.session.SendTargets(func(targets []session.TargetInfo, err *session.Error) {
			a := answer{targets: targets}
			if err != nil { // a nil *Error must not become an error that is not nil
				a.err = err
			}
			done <- a
		})
	})
	if !posted {
		return nil, loop.ErrClosed
	}
	select {
	case a := <-done:
		return a.targets, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// answer is what became of one command.
type answer struct {
	status scsi.Status
	sense  scsi.Sense
	data   []byte
}

// call is one command under way for a waiting goroutine.
type call struct {
	cmd   session.Command
	done  chan struct{}
	sense scsi.Sense
}

// CommandDone implements session.Completer.
func (c *call) CommandDone(cmd *session.Command) {
	c.sense, _ = scsi.ParseSense(cmd.Sense) // must be read during this call
	close(c.done)
}

// errNoRoom: the target's command window is shut, which one command at a time
// does not bring about.
var errNoRoom = errors.New("the target takes no command")

// exec runs one command that returns up to size bytes.
func (v *visit) exec(ctx context.Context, lun scsi.LUN, cdb scsi.CDB, size int) (answer, error) {
	c := &call{done: make(chan struct{})}
	c.cmd = session.Command{LUN: lun, CDB: cdb, Owner: c}
	if size > 0 {
		c.cmd.Dir, c.cmd.Data = session.DirRead, make([]byte, size)
	}
	accepted := make(chan bool, 1)
	if !v.loop.Post(func() { accepted <- v.session.Submit(&c.cmd) }) {
		return answer{}, loop.ErrClosed
	}
	if !<-accepted {
		return answer{}, errNoRoom
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		// The buffer is the command's own and nobody else's: it may stay behind.
		return answer{}, context.Cause(ctx)
	}
	if c.cmd.Err != nil {
		return answer{}, c.cmd.Err
	}
	return answer{status: c.cmd.Status, sense: c.sense, data: c.cmd.Data[:c.cmd.Received]}, nil
}

// query is exec for commands that must succeed. UNIT ATTENTION, which every
// new session meets first (SAM-5 §5.14), and a busy target are asked again.
func (v *visit) query(ctx context.Context, lun scsi.LUN, cdb scsi.CDB, size int) ([]byte, error) {
	const tries = 8
	for i := 1; ; i++ {
		a, err := v.exec(ctx, lun, cdb, size)
		if err != nil {
			return nil, err
		}
		if a.status == scsi.Good {
			return a.data, nil
		}
		if i == tries || scsi.Classify(a.status, a.sense) != scsi.RetryHere {
			return nil, scsi.NewCommandError(cdb.Opcode(), a.status, a.sense)
		}
	}
}

func (v *visit) tell(err error) {
	if !v.told {
		v.told = true
		v.decided <- err
	}
}

// SessionUp implements session.Observer.
func (v *visit) SessionUp(*session.Session, session.Up) { v.tell(nil) }

// SessionDown implements session.Observer. A target that hangs up on the first
// login gets a second one, in which the session offers fewer keys.
func (v *visit) SessionDown(s *session.Session, err *session.Error, _ int64) {
	v.attempts++
	if v.attempts == 1 && err.Kind == session.KindTransport && !isDialError(err) {
		s.RetryNow()
		return
	}
	v.tell(err)
	s.Close()
}

// SessionSilent implements session.Observer.
func (v *visit) SessionSilent(*session.Session) {}

// SessionAlive implements session.Observer.
func (v *visit) SessionAlive(*session.Session) {}

// SessionChanged implements session.Observer.
func (v *visit) SessionChanged(*session.Session) {}

// SessionClosed implements session.Observer.
func (v *visit) SessionClosed(*session.Session) {
	v.tell(&session.Error{Kind: session.KindClosed})
	close(v.closed)
}

// isDialError reports whether no connection came about at all.
func isDialError(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}

// kindOf classes what a lower layer reports.
func kindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	switch {
	case errors.Is(err, mpio.ErrNoSuchLUN):
		return KindNotFound
	case errors.Is(err, mpio.ErrController), errors.Is(err, mpio.ErrNotDisk), errors.Is(err, mpio.ErrBlockSize):
		return KindUnusable
	case errors.Is(err, mpio.ErrOtherUnit):
		return KindIdentity
	}
	e, ok := errors.AsType[*session.Error](err)
	if !ok {
		return KindOf(err)
	}
	switch e.Kind {
	case session.KindLogin:
		if e.Login == pdu.LoginAuthFailure || e.Login == pdu.LoginForbidden {
			return KindAuth
		}
		return KindLogin
	case session.KindTimeout:
		return KindTimeout
	case session.KindTransport:
		if e.AuthLikely {
			return KindAuth
		}
		if t, ok := errors.AsType[net.Error](e.Err); ok && t.Timeout() {
			return KindTimeout
		}
		return KindConnect
	case session.KindProtocol, session.KindTarget:
		return KindConnect
	case session.KindClosed:
		return KindClosed
	case session.KindResponse:
	}
	return KindOther
}

// portalErr notes err for portal.
func portalErr(portal string, err error) PortalError {
	if errors.Is(err, context.DeadlineExceeded) {
		err = &pathError{"no answer in time; check that an iSCSI target answers at this portal, or give it longer", err}
	}
	return PortalError{Portal: portal, Kind: kindOf(err), Err: err}
}
