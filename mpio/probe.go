package mpio

import (
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// prober sends a command of the device's own over a path that changes nothing: it
// tells whether the unit still answers there, and how fast. One at a time and
// path; it is the Completer of its command.
type prober struct {
	p      *path
	cmd    session.Command
	buf    []byte
	busy   bool
	sentAt int64
	lastAt int64 // loop time of the last one sent
	pause  int64 // from the last use of the path to the next poll, with jitter

	polls uint64 // sent since the start, of either kind
	n     int    // turns through the kinds of a sample
}

// Kinds of probes. Small commands can pass where large frames are lost, as with
// a wrong MTU on the way; hence the third.
const (
	probeReady     = iota // TEST UNIT READY
	probeBlock            // READ of one block
	probeFrames           // READ of probeReadBytes
	probeKinds            // number of them
	probeReadBytes = 64 << 10
)

// send sends a probe, if there is room. false: there is none, or one is under way.
func (b *prober) send(kind int) bool {
	p, d := b.p, b.p.dev
	if b.busy || !p.usable() || p.sess.Room() <= 0 {
		return false
	}
	c := &b.cmd
	c.Owner, c.LUN, c.Dir, c.Data, c.CDB = b, d.cfg.LUN, session.DirNone, nil, scsi.TestUnitReady()
	c.Err, c.Sense, c.Status, c.Received = nil, nil, scsi.Good, 0
	if kind != probeReady {
		blocks := uint64(1)
		if kind == probeFrames {
			blocks = max(1, min(probeReadBytes>>d.geo.shift, d.geo.maxBlocks, d.geo.size>>d.geo.shift))
		}
		n := int(blocks << d.geo.shift)
		if len(b.buf) < n {
			b.buf = make([]byte, n)
		}
		c.Dir, c.Data, c.CDB = session.DirRead, b.buf[:n], scsi.Read(0, uint32(blocks), 0)
	}
	b.busy, b.sentAt, b.lastAt = true, d.loop.Now(), d.loop.Now()
	if !p.sess.Submit(c) {
		b.busy = false
		return false
	}
	b.polls++
	return true
}

// overdue gives up a probe that is not answered although the session lives.
func (b *prober) overdue(now int64) {
	p := b.p
	limit := p.dev.cfg.IdentifyTimeout
	if !b.busy || now-b.sentAt < int64(limit) || !p.sess.Detach(&b.cmd) {
		return
	}
	b.busy = false
	p.health.sampled(now-b.sentAt, true)
	p.lookAgain(fmt.Sprintf("%v was not answered for %v", b.cmd.CDB.Opcode(), limit.Round(time.Millisecond)))
}

// CommandDone implements session.Completer.
func (b *prober) CommandDone(c *session.Command) {
	b.busy = false
	p := b.p
	p.hedge.unseen = 0
	took := p.dev.loop.Now() - b.sentAt
	switch {
	case c.Err != nil && c.Err.Kind != session.KindResponse:
		if !c.Err.Settled {
			p.linkLost(c.Err)
		}
		p.health.sampled(took, true)
	case !p.usable():
	default:
		p.health.sampled(took, b.judge(c))
	}
	p.dev.kick()
}

// judge reports whether an answer counts against the path, and has the unit
// looked at again where the answer casts doubt on it.
func (b *prober) judge(c *session.Command) (failed bool) {
	p := b.p
	if c.Err != nil {
		p.lookAgain(c.Err.Error())
		return true
	}
	var sense scsi.Sense
	if c.Status == scsi.CheckCondition {
		sense, _ = scsi.ParseSense(c.Sense)
	}
	remedy := scsi.Classify(c.Status, sense)
	switch {
	case remedy == scsi.RemedyNone:
		return c.Dir == session.DirRead && c.Received != len(c.Data)
	case c.Status != scsi.CheckCondition:
		return false // busy, or reserved by another host: it answers
	case p.dev.noteSense(p, sense, remedy):
		return false // its target keeps it in standby
	case raisesDoubt(sense, remedy):
		return sense.Key == scsi.KeyNotReady
	case isReservationNews(sense):
		return false
	case sense.Key == scsi.KeyNotReady:
		// The check waits for a unit that becomes ready, and fails for others.
		p.doubt(sense.Code.String())
		return true
	case remedy != scsi.OtherPath && remedy != scsi.GiveUp:
		return false
	case !p.health.sampling:
		p.lookAgain("it did not pass a poll: " + scsi.NewCommandError(c.CDB.Opcode(), c.Status, sense).Error())
	}
	return true
}
