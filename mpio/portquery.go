package mpio

import (
	"errors"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Bounds of a question for the target port groups.
const (
	queryFirstBuffer = 512
	queryLastBuffer  = 64 << 10 // some 8000 groups
)

// portQuery asks a path's target for its target port groups: one question at a
// time, now and then. It is the Completer of its command. A question that is not
// answered says nothing about the path, which may well carry I/O: it is aborted,
// and asked again.
type portQuery struct {
	p     *path
	cmd   session.Command
	buf   []byte
	timer loop.Timer // the next question; while busy, the end of patience

	busy  bool
	again bool  // something changed since the question was sent
	plain bool  // the target refuses the extended header
	heard bool  // asked for what another path heard: the answer goes no further
	due   int64 // loop time of the next question, 0: none is planned
	pace  int   // questions during a transition
	tries int   // unit attentions and the like in a row
}

func (q *portQuery) init(p *path) {
	q.p = p
	q.cmd.Owner = q
	q.cmd.LUN = p.dev.cfg.LUN
	q.timer.Fn = q.onTimer
}

// stop forgets what was planned: the session is gone, or about to be.
func (q *portQuery) stop() {
	q.again, q.heard, q.due, q.pace, q.tries = false, false, 0, 0, 0
	q.p.dev.loop.StopTimer(&q.timer)
}

// soon asks after a pause, or as soon as the question under way is answered.
func (q *portQuery) soon(pause time.Duration) {
	switch {
	case !q.p.logged || q.p.dev.closing:
	case q.busy:
		q.again = true
	default:
		q.at(q.p.dev.loop.Now() + int64(pause))
	}
}

// confirm asks because of what another path heard.
func (q *portQuery) confirm() {
	if !q.busy && q.due == 0 || q.due > q.p.dev.loop.Now() {
		q.heard = true
	}
	q.soon(0)
}

// at plans the next question, unless one is planned before that.
func (q *portQuery) at(when int64) {
	if q.due != 0 && q.due <= when {
		return
	}
	q.due = when
	q.p.dev.loop.SetTimer(&q.timer, when)
}

// plan plans the next question as far ahead as the state allows.
func (q *portQuery) plan() {
	p, a := q.p, &q.p.access
	if !p.logged || a.tpgs == 0 || q.busy || p.dev.closing {
		return
	}
	now, pause := p.dev.loop.Now(), accessInterval
	switch {
	case a.inTransition(now):
		pause = min(accessPaceFirst<<min(q.pace, 10), accessPaceLast)
		q.pace++
		q.at(min(now+int64(pause), a.since+int64(a.limit)))
		return
	case len(p.dev.active) == 0:
		pause = accessAnxious
	}
	q.pace = 0
	q.at(now + int64(pause))
}

func (q *portQuery) onTimer() {
	if !q.busy {
		q.due = 0
		q.ask()
		return
	}
	q.p.abortOr(&q.cmd, func() bool { return q.busy }, q.takeBack)
}

// takeBack gives up a question that is neither answered nor aborted. The session
// deals with it, as with all that was taken back.
func (q *portQuery) takeBack() {
	if !q.p.sess.Detach(&q.cmd) {
		return // the session is lost, or about to be
	}
	q.busy, q.due = false, 0
	q.soon(accessAnxious)
}

// ask sends the question.
func (q *portQuery) ask() {
	p := q.p
	if !p.logged || p.dev.closing {
		return
	}
	if q.buf == nil {
		q.buf = make([]byte, queryFirstBuffer)
	}
	cmd := &q.cmd
	cmd.CDB = scsi.ReportTargetPortGroups(!q.plain, uint32(len(q.buf)))
	cmd.Dir, cmd.Data = session.DirRead, q.buf
	cmd.Err, cmd.Sense, cmd.Status, cmd.Received = nil, nil, scsi.Good, 0
	q.busy, q.again = true, false
	if !p.sess.Submit(cmd) {
		q.busy = false
		q.at(p.dev.loop.Now() + int64(tickQueued)) // the command window is full
		return
	}
	p.dev.loop.SetTimer(&q.timer, p.dev.loop.Now()+int64(p.dev.cfg.IdentifyTimeout))
}

// CommandDone implements session.Completer.
func (q *portQuery) CommandDone(*session.Command) {
	q.busy, q.due = false, 0
	p, d := q.p, q.p.dev
	d.loop.StopTimer(&q.timer)
	switch err := q.cmd.Err; {
	case err != nil && err.Kind != session.KindResponse && !err.Settled:
		p.linkLost(err)
	case !p.logged || d.closing:
	case (err != nil || !q.answered()) && q.tries > 0:
		q.soon(accessAnxious)
	case q.again:
		q.soon(0)
	default:
		q.plan()
	}
	d.activate()
	d.kick()
}

// answered takes the answer, and reports whether it was one to the question.
func (q *portQuery) answered() bool {
	p := q.p
	var s scsi.Sense
	if q.cmd.Status == scsi.CheckCondition {
		s, _ = scsi.ParseSense(q.cmd.Sense)
	}
	if scsi.Classify(q.cmd.Status, s) == scsi.RemedyNone {
		return q.parse()
	}
	if q.tries++; q.tries > maxAttentions {
		q.tries = 0
		return false
	}
	switch {
	case p.dev.noteSense(p, s, scsi.Classify(q.cmd.Status, s)):
	case s.Key == scsi.KeyUnitAttention:
		q.soon(0)
	case s.Key == scsi.KeyIllegalRequest && !q.plain:
		q.plain = true
		q.soon(0)
	case s.Key == scsi.KeyIllegalRequest:
		q.tries = 0 // it does not know the question: now and then is enough
		p.untold()
	}
	return false
}

// parse reads the list, with a larger buffer if it does not fit.
func (q *portQuery) parse() bool {
	list, err := scsi.ParseTargetPortGroups(q.buf[:min(q.cmd.Received, len(q.buf))])
	if short, ok := errors.AsType[*scsi.FormatError](err); ok && errors.Is(err, scsi.ErrShort) &&
		short.Need > len(q.buf) && short.Need <= queryLastBuffer {
		q.buf = make([]byte, short.Need)
		q.soon(0)
		return false
	}
	q.tries = 0
	if err != nil {
		q.p.stat.lastError = err
		if q.plain {
			q.p.untold()
			return false
		}
		q.plain = true // as with a check, the older form may do
		q.soon(0)
		return false
	}
	q.p.told(&list, !q.heard)
	q.heard = false
	return true
}
