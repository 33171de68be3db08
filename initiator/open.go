package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/session"
)

// discoveryHeadStart is how long the first logins wait for discovery, so that
// portal groups and further portals are known, without ever waiting for a
// portal that does not answer.
const discoveryHeadStart = 250 * time.Millisecond

// resolveTimeout bounds asking a name server which portals are the same.
const resolveTimeout = 2 * time.Second

// Open logs in to cfg.LUN through every portal of cfg.Target and returns it as
// one device, as soon as cfg.Wait is met; the other paths come up in the
// background. Portals are those given, and, unless cfg.OnlyGiven, those the
// given ones name. A portal that does not answer does not spoil the rest.
//
// Open gives up when every path has failed, or when ctx ends. The error is an
// *Error with the reason of each portal: KindConnect or KindTimeout if none
// could be reached, KindLogin or KindAuth if the target refused, KindNotFound
// if there is no such LUN, KindUnusable if it is not a disk, KindIdentity if
// Wait asks for paths that lead elsewhere.
//
// The device must be closed.
func Open(ctx context.Context, cfg Config) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d, err := newDevice(cfg)
	if err != nil {
		return nil, err
	}
	if err := inUse.open(d); err != nil {
		d.Abort()
		return nil, err
	}
	cfg.CHAP.warn(d.log)
	cfg.DiscoveryCHAP.warn(d.log)
	d.findPaths(ctx)
	select {
	case err = <-d.starter.result:
	case <-ctx.Done():
		err = d.gaveUp(context.Cause(ctx))
	}
	if err != nil {
		d.Abort()
		return nil, err
	}
	return d, nil
}

// findPaths adds the given portals, and those found, and starts the device.
// Portals that are slow to tell about others, and name servers, are waited for
// in the background.
func (d *Device) findPaths(ctx context.Context) {
	var finds <-chan finding
	if !d.cfg.OnlyGiven {
		finds = d.cfg.discovery().ask(d.background, d.loop)
	}
	if d.cfg.OneNode {
		d.onLoop(func() { d.mp.Relate(d.cfg.Portals...) })
	}
	m := &merger{}
	over := finds == nil
	headStart := time.NewTimer(discoveryHeadStart)
	defer headStart.Stop()
	for wait := !over; wait; {
		select {
		case f, more := <-finds:
			if wait = more; more {
				d.heard(m, f)
			}
			over = !more
		case <-headStart.C:
			wait = false
		case <-ctx.Done():
			wait = false
		}
	}
	d.addPaths(m, d.isLiteral)
	d.onLoop(d.mp.Start)
	// What may take its time must not hold up the paths that are known.
	d.helpers.Go(func() {
		d.addPaths(m, d.hasName)
		if !over {
			for f := range finds {
				d.heard(m, f)
				d.addPaths(m, d.isLiteral)
				d.addPaths(m, d.hasName)
			}
		}
		d.onLoop(d.starter.complete)
	})
}

// heard notes what one portal said.
func (d *Device) heard(m *merger, f finding) {
	if d.background.Err() != nil { // the device is being closed
		return
	}
	if f.report.Err != nil {
		d.log.Warn("discovery failed at a portal", "portal", f.report.Portal, "err", f.report.Err)
		return
	}
	m.add(f.report.Portal, f.targets)
	d.relate(f)
}

// relate tells the device which portals the target names together.
func (d *Device) relate(f finding) {
	for _, t := range f.targets {
		if t.Name != d.cfg.Target {
			continue
		}
		groups := map[int][]string{}
		for _, p := range t.Portals {
			if address, err := ParsePortal(p.Address); err == nil {
				groups[p.TPGT] = append(groups[p.TPGT], address)
			}
		}
		d.onLoop(func() {
			for tag, portals := range groups {
				if tag >= 0 {
					d.mp.Relate(portals...)
				}
			}
		})
	}
}

// addPaths adds a path for every portal given, and every portal of the target
// in m, that has none yet, as far as which picks them.
func (d *Device) addPaths(m *merger, which func(portal string) bool) {
	var portals []TargetPortal
	for _, p := range d.cfg.Portals {
		portals = append(portals, TargetPortal{Address: p, TPGT: -1})
	}
	var names []string
	for _, t := range m.targets() {
		names = append(names, t.Name)
		if t.Name != d.cfg.Target {
			continue
		}
		for _, p := range t.Portals {
			if i := slices.IndexFunc(portals, func(g TargetPortal) bool { return g.Address == p.Address }); i >= 0 {
				portals[i].TPGT = p.TPGT
			} else {
				portals = append(portals, p)
			}
		}
	}
	for _, p := range portals {
		if !which(p.Address) || d.haveAddress[p.Address] {
			continue
		}
		same := d.sameHosts(p.Address)
		if slices.ContainsFunc(same, func(a string) bool { return d.haveAddress[a] }) {
			continue
		}
		for _, a := range same {
			d.haveAddress[a] = true
		}
		d.addPath(p, d.cfg.setting(same))
	}
	d.onLoop(func() { d.starter.listed = names })
}

// addPath adds one path and names it by its number.
func (d *Device) addPath(p TargetPortal, set PathSetting) {
	if d.background.Err() != nil {
		return
	}
	d.pathCount++
	cfg := mpio.PathConfig{
		ID:     fmt.Sprint(d.pathCount),
		Portal: p.Address,
		TPGT:   p.TPGT,
		ISID:   d.cfg.session(p.Address, p.TPGT).ISID,

		Priority: set.Priority,
		Weight:   set.Weight,
	}
	d.onLoop(func() {
		d.starter.expect(cfg.ID, cfg.Portal, set.Down)
		err := d.mp.AddPath(cfg)
		if err == nil && set.Down {
			err = d.mp.SetPath(cfg.ID, PathOp{Kind: PathDown})
		}
		if err != nil {
			d.log.Error("a portal is not used", "portal", cfg.Portal, "err", err)
			d.starter.failed(cfg.ID, err, true)
		}
	})
}

// hasName reports whether portal is written with a host name to be looked up.
func (d *Device) hasName(portal string) bool {
	host, _, err := net.SplitHostPort(portal)
	if err != nil || d.cfg.Dial != nil { // what names mean is up to Dial then
		return false
	}
	_, err = netip.ParseAddr(host)
	return err != nil
}

func (d *Device) isLiteral(portal string) bool { return !d.hasName(portal) }

// sameHosts returns portal and, if it is written with a host name, the
// addresses behind the name: two ways to write one portal must not become two paths.
func (d *Device) sameHosts(portal string) []string {
	same := []string{portal}
	if !d.hasName(portal) {
		return same
	}
	host, port, _ := net.SplitHostPort(portal)
	ctx, cancel := context.WithTimeout(d.background, resolveTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return same // the login will say so
	}
	for _, a := range addresses {
		same = append(same, net.JoinHostPort(a.Unmap().String(), port))
	}
	return same
}

// newSession is mpio's way to make the session of a path.
func (d *Device) newSession(pc mpio.PathConfig, obs session.Observer) (mpio.Session, error) {
	driver := session.NewDriver(d.loop, d.cfg.Dial)
	cfg := d.cfg.session(pc.Portal, pc.TPGT)
	cfg.ISID = pc.ISID
	s, err := session.New(cfg, driver, &pathWatch{obs, d.starter, pc.ID})
	if err != nil {
		return nil, err
	}
	driver.Bind(s)
	return s, nil
}

// pathWatch tells the starter how logins go; everything else passes by it.
type pathWatch struct {
	session.Observer
	starter *starter
	id      string
}

// SessionDown implements session.Observer.
func (w *pathWatch) SessionDown(s *session.Session, err *session.Error, retryAt int64) {
	// A target that hangs up without a word may get on with the next attempt,
	// which offers fewer keys.
	w.starter.failed(w.id, err, err.Kind != session.KindTransport || isDialError(err))
	w.Observer.SessionDown(s, err, retryAt)
}

// starter decides when Open is done. Everything but result belongs to the loop.
type starter struct {
	wait   Wait
	target string
	result chan error // one value
	told   bool
	over   bool // no more paths will come
	listed []string
	paths  []*startingPath
}

// startingPath is how far a path has come.
type startingPath struct {
	id, portal string
	out        bool // taken out of use beforehand: it is not waited for
	up         bool
	standby    bool // the target takes no I/O through it (ALUA): all that can be waited for
	final      bool // it failed, and trying on will hardly help
	checked    bool // err is about the unit behind the path, which says more than what follows
	attempts   int
	err        error
}

func newStarter(cfg Config) *starter {
	return &starter{wait: cfg.Wait, target: cfg.Target, result: make(chan error, 1)}
}

// expect announces a path; out if it is not to be used for now.
func (s *starter) expect(id, portal string, out bool) {
	s.paths = append(s.paths, &startingPath{id: id, portal: portal, out: out})
}

// complete tells that no more paths will be announced.
func (s *starter) complete() {
	s.over = true
	s.decide()
}

func (s *starter) path(id string) *startingPath {
	i := slices.IndexFunc(s.paths, func(p *startingPath) bool { return p.id == id })
	if i < 0 {
		return nil
	}
	return s.paths[i]
}

// failed tells that a login failed, or a session was lost.
func (s *starter) failed(id string, err error, final bool) {
	p := s.path(id)
	if p == nil || s.told {
		return
	}
	p.up, p.standby = false, false
	p.attempts++
	p.final = p.final || final || p.attempts > 1
	if !p.checked {
		p.err = err
	}
	s.decide()
}

// event follows the paths' states. What befalls sessions comes by failed.
func (s *starter) event(e Event) {
	p := s.path(e.Path)
	if p == nil || s.told {
		return
	}
	switch e.Kind {
	case mpio.PathUp, mpio.PathMarginal: // a marginal path can be used, too
		p.up, p.standby, p.final, p.checked = true, false, false, false
	case mpio.PathChanged:
		if p.standby = e.State == mpio.StateStandby; p.standby {
			p.err = eventErr(e)
		}
	case mpio.PathQuarantined, mpio.PathDown:
		if err, ok := errors.AsType[*session.Error](e.Err); ok && err.Kind != session.KindResponse {
			return
		}
		p.up, p.standby, p.final, p.checked, p.err = false, false, true, true, eventErr(e)
	default:
		return
	}
	s.decide()
}

// pathError is a cause in the words of the event that told of it.
type pathError struct {
	text  string
	cause error
}

func (e *pathError) Error() string { return e.text }
func (e *pathError) Unwrap() error { return e.cause }

// eventErr makes an error of what an event says about its path.
func eventErr(e Event) error { return &pathError{e.Text, e.Err} }

// decide tells Open once the outcome is clear.
func (s *starter) decide() {
	if s.told {
		return
	}
	up, standby, final, out := 0, 0, 0, 0
	for _, p := range s.paths {
		switch {
		case p.up:
			up++
		case p.out:
			out++
		case p.standby:
			standby++
		case p.final:
			final++
		}
	}
	need := max(1, int(s.wait))
	if s.wait == WaitAll {
		need = max(1, len(s.paths)-out-standby)
	}
	switch {
	case up >= need && (s.over || s.wait != WaitAll):
		s.tell(nil)
	case s.over && up+final+out == len(s.paths) && up < need:
		s.tell(s.failure())
	}
}

func (s *starter) tell(err error) {
	s.told = true
	s.result <- err
}

// failure says why the device cannot be had.
func (s *starter) failure() *Error {
	e := &Error{Msg: "no path to the LUN came up", Hint: "`iscsimp doctor -p PORTAL` looks into it"}
	up := 0
	for _, p := range s.paths {
		if p.up {
			up++
			continue
		}
		err := p.err
		switch {
		case p.out:
			err = &Error{Kind: KindOther, Msg: "taken out of use by hand"}
			e.Hint = "take a path back into use first: `iscsimp path NAME PORTAL up --save`"
		case err == nil:
			err = &Error{Kind: KindTimeout, Msg: "no answer yet"}
		}
		e.Portals = append(e.Portals, portalErr(p.portal, err))
	}
	switch {
	case up > 0 && up == len(s.paths):
		e.Msg = fmt.Sprintf("cannot wait for %d paths: the target has %d, as far as its portals tell", s.wait, up)
		e.Hint = "give more portals, or wait for fewer"
	case up > 0:
		e.Msg = fmt.Sprintf("only %d of %d paths came up", up, len(s.paths))
		e.Hint = "wait for fewer paths, or see to the others"
	}
	e.Kind = worstKind(e.Portals)
	if len(s.listed) > 0 && !slices.Contains(s.listed, s.target) {
		e.Hint = "the portals do not list this target; they list " + listWords(s.listed)
	}
	return e
}

// gaveUp is failure for when time ran out or the caller lost patience.
func (d *Device) gaveUp(cause error) error {
	var e *Error
	if !d.onLoop(func() { e = d.starter.failure() }) {
		return &Error{Kind: KindOf(cause), Msg: "opening the device", Err: cause}
	}
	e.Err = cause
	if kind := KindOf(cause); kind == KindTimeout {
		e.Kind = kind
	}
	return e
}

// listWords joins words for a sentence, and not too many of them.
func listWords(words []string) string {
	const most = 8
	if len(words) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:most], ", "), len(words)-most)
	}
	return strings.Join(words, ", ")
}
