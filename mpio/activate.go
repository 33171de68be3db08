package mpio

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Where the target leaves access states to its initiators alone (explicit ALUA)
// and no path carries I/O, one group has to be made optimized by SET TARGET PORT
// GROUPS. A target that moves by itself (implicit) is never told to.
//
// Another host may want another group. So a group is chosen late, when it is
// clear that nothing else will carry I/O, and again only after pauses that grow,
// and differ by chance from host to host.
const (
	activateGrace     = time.Second      // nothing carries I/O, and no group of the target would
	activateGraceLost = 5 * time.Second  // ... but a group would that no path leads to
	activateFirst     = 10 * time.Second // between two attempts, doubled each time
	activateLast      = 10 * time.Minute // ... up to this
)

// activation is the state of SET TARGET PORT GROUPS. It is the Completer of its
// command.
type activation struct {
	d     *Device
	cmd   session.Command
	param []byte
	timer loop.Timer // while busy, the end of patience; else the time to look again

	busy     bool
	path     *path  // it was sent over
	group    uint16 // it was sent for
	granted  bool   // ... and was answered GOOD; nothing has carried I/O since
	stranded int64  // loop time since when nothing carries I/O, 0: something does
	next     int64  // loop time before which it is not tried again
	pause    time.Duration
	failed   map[uint16]bool // groups that could not be had, until one could
	tries    int             // unit attentions in a row
}

func (v *activation) init(d *Device) {
	v.d = d
	v.cmd.Owner = v
	v.cmd.LUN = d.cfg.LUN
	v.failed = make(map[uint16]bool)
	v.timer.Fn = func() {
		if v.busy {
			v.giveUp()
			return
		}
		d.activate()
	}
}

// giveUp ends the command under way, which is not answered.
func (v *activation) giveUp() {
	p := v.path
	p.abortOr(&v.cmd, func() bool { return v.busy && v.path == p }, func() {
		p.sess.Drop(&session.Error{
			Kind: session.KindTimeout, Portal: p.cfg.Portal,
			Msg:  v.cmd.CDB.Name() + " was not answered, and could not be aborted",
			Hint: "the target's controllers may hang: see its log",
		})
	})
}

// activate makes a group optimized if that is what it takes.
func (d *Device) activate() {
	v := &d.activation
	if v.busy || d.closing {
		return
	}
	now := d.loop.Now()
	p := d.hopeless(now)
	if p == nil {
		return
	}
	if v.stranded == 0 {
		v.stranded = max(now, 1)
	}
	grace := activateGrace
	if p.access.otherwise {
		grace = activateGraceLost
	}
	if now-v.next > int64(activateLast) {
		v.pause = 0
	}
	at := max(v.stranded+int64(grace), v.next)
	if p.access.otherwise { // another host may have taken it: its turn has to be worth something
		at = max(at, v.stranded+int64(v.pause)/2)
	}
	if now < at {
		d.loop.SetTimer(&v.timer, at)
		return
	}
	if v.granted {
		v.missed(errors.New("the target agreed, and nothing changed"))
	}
	if p = d.hopeless(now); v.failed[p.access.group] {
		clear(v.failed) // all of them were tried in vain: once more from the first
	}
	v.send(p)
}

// rescued notes that something carries I/O.
func (v *activation) rescued() {
	if v.stranded != 0 {
		v.stranded, v.granted = 0, false
		clear(v.failed)
		v.d.loop.StopTimer(&v.timer)
	}
}

// look has activate look at things as they are, soon and from the loop.
func (v *activation) look() {
	if v.busy || v.d.closing {
		return
	}
	for _, p := range v.d.paths {
		if p.access.tpgs == scsi.TPGSExplicit {
			v.d.loop.SetTimer(&v.timer, v.d.loop.Now())
			return
		}
	}
}

// hopeless gives the path to ask through if nothing will carry I/O unless it is
// asked for, else nil.
func (d *Device) hopeless(now int64) *path {
	if len(d.active) > 0 || d.anyChecking() {
		return nil
	}
	var list []*path
	for _, p := range d.paths {
		a := &p.access
		if !p.logged || p.offline || p.quarantined || !a.known {
			continue
		}
		if a.inTransition(now) {
			return nil
		}
		if a.held() && a.tpgs == scsi.TPGSExplicit && a.grouped && a.ready &&
			a.state != scsi.AccessOffline && (p.verified || p.partial) {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return slices.MinFunc(list, func(p, q *path) int {
		return cmp.Or(
			lessFirst(d.activation.failed[p.access.group], d.activation.failed[q.access.group]),
			cmp.Compare(p.cfg.Priority, q.cfg.Priority),
			lessFirst(!p.access.preferred, !q.access.preferred),
		)
	})
}

// lessFirst orders false before true.
func lessFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// send asks for p's group to be made optimized.
func (v *activation) send(p *path) {
	d := v.d
	now := d.loop.Now()
	v.path, v.group = p, p.access.group
	v.param = scsi.AppendSetTargetPortGroups(v.param[:0], []scsi.PortGroupState{{Group: v.group, State: scsi.AccessOptimized}})
	cmd := &v.cmd
	cmd.CDB = scsi.SetTargetPortGroups(uint32(len(v.param)))
	cmd.Dir, cmd.Data = session.DirWrite, v.param
	cmd.Err, cmd.Sense, cmd.Status, cmd.Received = nil, nil, scsi.Good, 0
	v.busy = true
	if !p.sess.Submit(cmd) {
		v.busy = false
		d.loop.SetTimer(&v.timer, now+int64(tickQueued))
		return
	}
	d.loop.SetTimer(&v.timer, now+int64(max(p.access.limit, d.cfg.IdentifyTimeout)))
	if v.tries > 0 {
		return // the same attempt once more
	}
	v.pause = min(max(2*v.pause, activateFirst), activateLast)
	v.next = now + int64(v.pause) + int64(v.pause)*int64(d.rnd.below(256))/1024
	d.emit(Event{
		Kind: PortGroupsSet, Path: p.cfg.ID, State: p.state,
		Text: fmt.Sprintf("no path carries I/O, and the target leaves it to its initiators: asking it to make target port group %d active/optimized", v.group),
	})
}

// CommandDone implements session.Completer.
func (v *activation) CommandDone(*session.Command) {
	v.busy = false
	d, p := v.d, v.path
	d.loop.StopTimer(&v.timer)
	switch err := v.cmd.Err; {
	case err != nil && err.Kind != session.KindResponse && !err.Settled:
		p.linkLost(err)
		v.tries = 0
	case err != nil:
		v.missed(err)
	default:
		v.answered()
	}
	d.kick()
}

// answered takes the target's answer.
func (v *activation) answered() {
	d, p := v.d, v.path
	var s scsi.Sense
	if v.cmd.Status == scsi.CheckCondition {
		s, _ = scsi.ParseSense(v.cmd.Sense)
	}
	switch {
	case scsi.Classify(v.cmd.Status, s) == scsi.RemedyNone:
		v.tries, v.granted = 0, true
	case d.noteSense(p, s, scsi.Classify(v.cmd.Status, s)):
		v.tries = 0
	case s.Key == scsi.KeyUnitAttention && v.tries < maxAttentions:
		v.tries++
		if !d.closing && p.logged && len(d.active) == 0 {
			v.send(p)
			return
		}
		v.tries = 0
	default:
		v.missed(scsi.NewCommandError(v.cmd.CDB.Opcode(), v.cmd.Status, s))
	}
	for _, q := range d.paths {
		if q.access.tpgs != 0 {
			q.query.soon(0)
		}
	}
}

// missed notes that the group could not be had: another one is next.
func (v *activation) missed(err error) {
	v.tries, v.granted = 0, false
	v.failed[v.group] = true
	v.d.emit(Event{
		Kind: PortGroupsSet, Path: v.path.cfg.ID, State: v.path.state, Err: err,
		Text: fmt.Sprintf("target port group %d could not be made active/optimized", v.group),
	})
}
