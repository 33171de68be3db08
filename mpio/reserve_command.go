package mpio

import (
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// reserveBuffer has room for 4095 keys, or for the full status of some hundred paths.
const reserveBuffer = 32 << 10

// reserveReply is what became of one command about reservations.
type reserveReply struct {
	p        *path
	gen      uint64 // the login it was sent with
	data     []byte // of PERSISTENT RESERVE IN
	conflict bool   // answered RESERVATION CONFLICT; err says so, too
	unsent   bool   // it never left this host
	refused  bool   // not carried out, for the access state of the path
	unknown  bool   // it may have been carried out, or may still be: not settled
	err      error  // nil: GOOD
}

// reserveCall is one command about reservations over one path, from its making to
// its end. A command that the target did not carry out (unit attention, BUSY) is
// sent again, one whose fate is unknown never is. It is the Completer of its command.
type reserveCall struct {
	p        *path
	gen      uint64
	cmd      session.Command
	timer    loop.Timer
	onTime   func()
	began    int64
	troubles int
	done     func(reserveReply)
}

// reserveIn asks over p; done is called on the loop, at once if p is lost.
func (p *path) reserveIn(sa uint8, done func(reserveReply)) {
	c := p.newReserveCall(scsi.PersistentReserveIn(sa, reserveBuffer), done)
	c.cmd.Dir, c.cmd.Data = session.DirRead, make([]byte, reserveBuffer)
	c.send()
}

// reserveOut changes registrations or reservations over p.
func (p *path) reserveOut(sa uint8, t scsi.ReservationType, params scsi.ReserveParameters, done func(reserveReply)) {
	c := p.newReserveCall(scsi.PersistentReserveOut(sa, t), done)
	c.cmd.Dir, c.cmd.Data = session.DirWrite, params.AppendTo(nil)
	c.send()
}

func (p *path) newReserveCall(cdb scsi.CDB, done func(reserveReply)) *reserveCall {
	c := &reserveCall{p: p, gen: p.gen, began: p.dev.loop.Now(), done: done}
	c.cmd.Owner, c.cmd.LUN, c.cmd.CDB = c, p.dev.cfg.LUN, cdb
	c.timer.Fn = func() { c.onTime() }
	return c
}

// after calls fn in a while, instead of whatever was planned.
func (c *reserveCall) after(pause time.Duration, fn func()) {
	c.onTime = fn
	c.p.dev.loop.SetTimer(&c.timer, c.p.dev.loop.Now()+int64(pause))
}

func (c *reserveCall) send() {
	p := c.p
	switch {
	case !p.logged || p.gen != c.gen:
		c.finish(reserveReply{unsent: true, err: fmt.Errorf("%s: path %s was lost", c.cmd.CDB.Name(), p.cfg.ID)})
	case p.sess.Submit(&c.cmd):
		c.after(c.patience(), c.timedOut)
	case p.dev.loop.Now()-c.began >= int64(c.patience()):
		c.finish(reserveReply{unsent: true, err: fmt.Errorf("%s: path %s takes no commands", c.cmd.CDB.Name(), p.cfg.ID)})
	default:
		c.after(checkPause/2, c.send) // the command window is full
	}
}

// patience is how long an answer may take. PREEMPT AND ABORT waits at the target
// for the commands that it ends.
func (c *reserveCall) patience() time.Duration {
	if c.cmd.Dir == session.DirWrite {
		return c.p.dev.cfg.CommandTimeout
	}
	return c.p.dev.cfg.IdentifyTimeout
}

// timedOut gives up a session that does not even answer this.
func (c *reserveCall) timedOut() {
	c.p.sess.Drop(&session.Error{
		Kind: session.KindTimeout, Portal: c.p.cfg.Portal,
		Msg:  fmt.Sprintf("%s was not answered for %v", c.cmd.CDB.Name(), c.patience()),
		Hint: "the target's storage may hang: see its log",
	})
}

// finish tells the outcome, from a timer's or a session's call or from the first send.
func (c *reserveCall) finish(r reserveReply) {
	c.p.dev.loop.StopTimer(&c.timer)
	r.p, r.gen = c.p, c.gen
	c.done(r)
}

// CommandDone implements session.Completer.
func (c *reserveCall) CommandDone(*session.Command) {
	p := c.p
	p.dev.loop.StopTimer(&c.timer)
	if err := c.cmd.Err; err != nil {
		if err.Kind != session.KindResponse {
			if p.gen == c.gen {
				p.linkLost(err)
			}
		} else {
			p.sess.Drop(err) // a new session settles what this answer leaves open
		}
		c.finish(reserveReply{unsent: !err.Sent, unknown: err.Sent && c.cmd.Dir == session.DirWrite, err: err})
		p.dev.kick()
		return
	}
	c.answered()
	p.dev.kick()
}

// answered handles the target's answer.
func (c *reserveCall) answered() {
	var sense scsi.Sense
	if c.cmd.Status == scsi.CheckCondition {
		sense, _ = scsi.ParseSense(c.cmd.Sense)
	}
	now := c.p.dev.loop.Now()
	remedy := scsi.Classify(c.cmd.Status, sense)
	err := scsi.NewCommandError(c.cmd.CDB.Opcode(), c.cmd.Status, sense)
	switch {
	case remedy == scsi.RemedyNone:
		c.finish(reserveReply{data: c.cmd.Data[:min(c.cmd.Received, len(c.cmd.Data))]})
	case c.cmd.Status == scsi.ReservationConflict:
		c.finish(reserveReply{conflict: true, err: err})
	case remedy == scsi.OtherPath && c.p.refused(sense):
		c.finish(reserveReply{refused: true, err: err})
	case c.cmd.Status == scsi.TaskAborted && c.cmd.Dir == session.DirWrite:
		// Another initiator ended it, at what point it does not say. A new session
		// makes sure that it is over.
		c.p.sess.Drop(&session.Error{Kind: session.KindTarget, Portal: c.p.cfg.Portal, Msg: c.cmd.CDB.Name() + " was aborted by another initiator"})
		c.finish(reserveReply{unknown: true, err: err})
	case remedy == scsi.RetryHere && c.cmd.Status == scsi.CheckCondition && sense.Key == scsi.KeyUnitAttention && c.troubles < maxAttentions:
		c.troubles++
		c.p.dev.noteSense(c.p, sense, remedy)
		c.send() // the news is about something else: it was not carried out
	case (remedy == scsi.RetryHere && c.cmd.Status != scsi.CheckCondition || remedy == scsi.Wait) && now-c.began < int64(c.p.dev.cfg.RetryTimeout):
		c.after(checkPause, c.send)
	default:
		c.finish(reserveReply{err: c.explain(err, sense)})
	}
}

// explain adds what to do about a service action that the target does not have.
func (c *reserveCall) explain(err error, sense scsi.Sense) error {
	if sense.Key != scsi.KeyIllegalRequest || sense.Code != scsi.ASCInvalidFieldInCDB && sense.Code != scsi.ASCInvalidOpcode {
		return err
	}
	hint := "the target does not support it"
	switch {
	case sense.Code == scsi.ASCInvalidOpcode:
		hint = "the target has no persistent reservations"
	case c.cmd.CDB.ServiceAction() == scsi.SAPreemptAndAbort && c.cmd.Dir == session.DirWrite:
		hint = "the target cannot end that host's commands: preempt without that, and wait until nothing it had sent can still be under way"
	}
	return fmt.Errorf("%s: %w; %s", c.cmd.CDB.Name(), err, hint)
}
