package mpio

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/session"
)

// A process that is killed leaves sessions behind, and in them writes that the
// target may execute when the next process has begun to write already. So the
// sessions through which writes may go are noted outside (Config.Remember) before
// they carry any I/O, and taken out in an orderly close. What the next process
// finds (Config.Inherited) becomes a ghost over the whole device for each: reads
// flow at once, writes wait until every one of the old sessions has ended. That
// is proven as for a path of this process, since the ISIDs are the same.

// SessionRecord names a session for a later process.
type SessionRecord struct {
	// Portal it logged in to, "host:port"; Target is the iSCSI name there.
	Portal, Target string
	// ISID of the session.
	ISID [6]byte
	// TPGT is the portal group as the target told it; negative: it did not.
	TPGT int
	// Provable: a later login with the same names, ISID and portal group ends it.
	// Without that only time settles what it left.
	Provable bool
}

// relicAfter is how long sessions of an earlier process wait for their path to be
// added, before they are looked for without one.
const relicAfter = 3 * time.Second

// memory is what is noted outside.
type memory struct {
	durable []SessionRecord
	busy    bool            // Remember is under way
	writing []SessionRecord // ... with this list
	again   bool            // ... and not up to date any more
	final   bool            // the device is closed: what remains is what was not settled
	waiting []noteWaiter

	relics []*path // sessions of an earlier process that no path stands for
	timer  loop.Timer
}

// noteWaiter is a path that was checked and waits until it is noted.
type noteWaiter struct {
	p     *path
	gen   uint64
	looks int // path.looks
	why   string
}

// record is how p's present session is noted.
func (p *path) record() SessionRecord {
	return SessionRecord{
		Portal: p.cfg.Portal, Target: p.cfg.Target, ISID: p.cfg.ISID,
		TPGT: p.detour.group, Provable: p.detour.group >= 0 && !p.unproven,
	}
}

// same reports whether r is a session of p, or of one in its place.
func (r *SessionRecord) same(pc *PathConfig) bool { return r.ISID == pc.ISID && r.Target == pc.Target }

// notes reports whether sessions are noted at all. They are on a unit that is write
// protected, too: it may cease to be at any time.
func (d *Device) notes() bool { return d.cfg.Remember != nil && !d.cfg.ReadOnly }

// noted reports whether p may carry I/O as far as its record is concerned; if
// not, admit is called again once it is durable.
func (d *Device) noted(p *path, why string) bool {
	r, m := p.record(), &d.memory
	if !d.notes() || slices.Contains(m.durable, r) && (!m.busy || slices.Contains(m.writing, r)) {
		return true
	}
	p.refresh("checked; waiting until its session is noted for a restart", nil)
	m.waiting = append(m.waiting, noteWaiter{p, p.gen, p.looks, why})
	d.remember()
	return false
}

// toNote lists what has to be remembered now.
func (d *Device) toNote() []SessionRecord {
	list := []SessionRecord{}
	add := func(r SessionRecord) {
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	for _, p := range d.paths {
		if p.listed && !d.memory.final || p.keptOut() > d.loop.Now() {
			add(p.record())
		}
	}
	for _, g := range d.ghosts {
		if g.earlier != nil {
			add(*g.earlier)
		} else {
			add(g.path.record())
		}
	}
	return list
}

// remember has the list noted, once whatever is under way is done.
func (d *Device) remember() {
	m := &d.memory
	if m.busy {
		m.again = true
		return
	}
	m.again = false
	list, waiting, final := d.toNote(), m.waiting, m.final
	if !final && len(waiting) == 0 && equalSets(list, m.durable) {
		return
	}
	m.busy, m.writing, m.waiting = true, list, nil
	d.cfg.Remember(slices.Clone(list), func(err error) {
		m.busy, m.writing = false, nil
		if err == nil {
			m.durable = list
		}
		for _, w := range waiting {
			w.done(err)
		}
		switch {
		case m.again:
			d.remember()
		case final:
			if err != nil {
				d.cfg.Logger.Warn("could not note that the device was closed: the next start will wait before it writes", "err", err)
			}
			m.final = false
			d.tellClosed()
		}
	})
}

// equalSets compares lists without duplicates.
func equalSets(a, b []SessionRecord) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(r SessionRecord) bool { return !slices.Contains(b, r) })
}

// errNotNoted is what keeps a path down whose session could not be noted.
var errNotNoted = errors.New("cannot note the session for a restart, so that nothing may be written through it")

// done goes on with a path, if it still is where it was.
func (w noteWaiter) done(err error) {
	p := w.p
	switch {
	case p.gen != w.gen || p.looks != w.looks || !p.logged || p.verified || p.check.running || p.dev.closeSent:
	case err != nil:
		p.check.fail(fmt.Errorf("%w: %w", errNotNoted, err))
	default:
		p.admit(w.why) // from the start: it may have to register by now
	}
}

// forget notes at the end what is left, and then tells that the device is closed.
func (d *Device) forget() {
	m := &d.memory
	d.loop.StopTimer(&m.timer)
	if !d.notes() || len(m.durable) == 0 && len(d.ghosts) == 0 && !m.busy {
		d.tellClosed()
		return
	}
	m.final = true
	d.remember()
}

// inherit raises the fences of an earlier process, before anything is written.
func (d *Device) inherit() {
	now := d.loop.Now()
	d.memory.durable = slices.Clone(d.cfg.Inherited)
	for i := range d.cfg.Inherited {
		r := &d.cfg.Inherited[i]
		p := d.heir(r)
		if p.detour.since = now; p.detour.group >= 0 && p.detour.group != r.TPGT {
			r.Provable = false // of two groups only one can be asked
		}
		if r.Provable {
			p.detour.group = r.TPGT
		}
		d.raiseEarlier(r, p, now)
		p.planDetour()
	}
	n := len(d.cfg.Inherited)
	if n == 0 || d.cfg.UnsafeNoFence {
		return
	}
	d.emit(Event{
		Kind: FenceRaised, Count: n,
		Text: fmt.Sprintf("an earlier process ended without logging out: writes wait until what is left of it (%s) has ended, for at most %v; reads do not", counted(n, "session"), d.cfg.FenceTimeout),
	})
	if len(d.memory.relics) > 0 {
		d.loop.SetTimer(&d.memory.timer, now+int64(relicAfter))
	}
}

// heir gives the path whose logins end the session of r.
func (d *Device) heir(r *SessionRecord) *path {
	for _, l := range [][]*path{d.paths, d.memory.relics} {
		for _, p := range l {
			if r.same(&p.cfg) {
				return p
			}
		}
	}
	p := d.newPath(PathConfig{ID: r.Portal, Portal: r.Portal, Target: r.Target, ISID: r.ISID, TPGT: r.TPGT})
	p.relic = true
	d.memory.relics = append(d.memory.relics, p)
	return p
}

// raiseEarlier notes a ghost of unknown writes over the whole device.
func (d *Device) raiseEarlier(r *SessionRecord, p *path, now int64) {
	if d.cfg.UnsafeNoFence {
		return
	}
	g := &ghost{path: p, at: now, deadline: now + int64(d.cfg.FenceTimeout), earlier: r}
	g.ext = extent{hi: wholeDevice, ghost: g}
	d.fence.hold(&g.ext)
	d.ghosts = append(d.ghosts, g)
	d.stat.fencesRaised++
	d.fenceBy(g.deadline)
}

// wholeDevice is past the end of every device.
const wholeDevice = 1 << 62

// takeOver hands what a relic stands for to the path that was added for it.
func (d *Device) takeOver(p *path) {
	for _, r := range d.memory.relics {
		if r.closed || r.cfg.ISID != p.cfg.ISID || r.cfg.Target != p.cfg.Target {
			continue
		}
		p.detour.since = d.loop.Now()
		if r.chain == 0 {
			p.detour.group = r.detour.group
		}
		for _, g := range d.ghosts {
			if g.path == r {
				g.path = p
				g.earlier.Provable = g.earlier.Provable && r.chain == 0
			}
		}
		d.retire(r)
	}
}

// onRelicTimer logs in where nobody else will, to end what was left there.
func (d *Device) onRelicTimer() {
	if d.closing && d.closeSent {
		return
	}
	if !d.ready { // the unit behind has to be compared with something
		d.loop.SetTimer(&d.memory.timer, d.loop.Now()+int64(relicAfter))
		return
	}
	for _, r := range d.memory.relics {
		if r.sess != nil || r.closed || r.detour.group < 0 || !d.haunts(r) {
			continue
		}
		var err error
		if r.sess, err = d.cfg.NewSession(r.cfg, r); err != nil {
			d.cfg.Logger.Warn("cannot look for a session of an earlier process", "portal", r.cfg.Portal, "err", err)
			r.sess = nil
			continue
		}
		r.detour.since = d.loop.Now() // its own portal has the first chance
		r.start()
		r.planDetour()
	}
}

// haunts reports whether p has a ghost.
func (d *Device) haunts(p *path) bool {
	return slices.ContainsFunc(d.ghosts, func(g *ghost) bool { return g.path == p })
}

// retire ends a relic.
func (d *Device) retire(r *path) {
	if r.closed {
		return
	}
	if r.sess == nil {
		r.closed = true
		return
	}
	r.stopCheck()
	r.sess.Close()
}

// earlierSettled follows when ghosts of an earlier process are gone.
func (d *Device) earlierSettled() {
	for _, r := range d.memory.relics {
		if !d.haunts(r) {
			d.retire(r)
		}
	}
	if d.notes() && !d.closeDone && len(d.memory.durable) > 0 {
		d.remember()
	}
}

// unprove takes note of a login of p that may have left its predecessor alive.
func (p *path) unprove(up session.Up) {
	p.unproven = p.unproven || !up.First
	for _, g := range p.dev.ghosts {
		if g.path == p && g.earlier != nil {
			g.earlier.Provable = false
		}
	}
}
