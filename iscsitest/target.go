package iscsitest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/iscsimp/iscsimp/internal/heldport"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

// Target is an iSCSI target in this process. All methods may be called from
// any goroutine.
type Target struct {
	cfg   Config
	rules rules[Action]
	wg    sync.WaitGroup // every goroutine of the target
	done  chan struct{}  // closed by Close

	// establishing serializes the last step of logins: between looking for an
	// old session and registering the new one nobody else may log in.
	establishing sync.Mutex

	mu         sync.Mutex // guards everything below
	params     Params
	nodes      []*node
	portals    []*portal
	sessions   map[sessionKey]*session
	limbo      map[sessionKey][]*task // hung tasks of sessions that are gone
	extra      map[*session]bool      // live sessions that lost their key (Quirks.NoReinstatement)
	conns      map[*conn]bool
	nextTSIH   uint16
	nextConn   int
	closed     bool
	violations []Violation
}

// node is one target name.
type node struct {
	name, alias string
	luns        []*lun // by rising number
	portals     []int  // nil: all
}

func (n *node) lun(number uint16) *lun {
	for _, l := range n.luns {
		if l.number == number {
			return l
		}
	}
	return nil
}

func (n *node) behind(portal int) bool { return n.portals == nil || slices.Contains(n.portals, portal) }

// portal is one address.
type portal struct {
	index int
	cfg   Portal
	held  *heldport.Port // from the first StartPortal to Close, so that StartPortal finds the port again; nil: none
	addr  string
	ln    net.Listener
	up    bool

	redirect *Redirect // guarded by Target.mu
}

// NewTarget starts a target. The caller must Close it. A target that is to run
// inside a synctest bubble must be made in it, with portals that do not listen
// (Addr "-").
func NewTarget(cfg Config) (*Target, error) {
	cfg.setDefaults()
	if cfg.CHAP != nil {
		own := *cfg.CHAP
		own.registry = chap.NewRegistry()
		own.Users = maps.Clone(own.Users)
		cfg.CHAP = &own
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("iscsitest: %w", err)
	}
	t := &Target{
		cfg:      cfg,
		params:   cfg.Params,
		done:     make(chan struct{}),
		sessions: make(map[sessionKey]*session),
		limbo:    make(map[sessionKey][]*task),
		extra:    make(map[*session]bool),
		conns:    make(map[*conn]bool),
	}
	if err := t.buildNodes(); err != nil {
		return nil, fmt.Errorf("iscsitest: %w", err)
	}
	for i, p := range cfg.Portals {
		addr := p.Addr
		if addr == "-" { // an address nobody listens on (RFC 5737)
			addr = fmt.Sprintf("192.0.2.%d:3260", i+1)
		}
		t.portals = append(t.portals, &portal{index: i, cfg: p, addr: addr, redirect: p.Redirect})
	}
	for i, p := range cfg.Portals {
		// A portal that is down is started too, for its port number.
		if err := t.StartPortal(i); err != nil {
			t.Close()
			return nil, err
		}
		if p.Down {
			t.StopPortal(i)
		}
	}
	return t, nil
}

func (t *Target) buildNodes() error {
	all := append([]Node{{Name: t.cfg.Name, Alias: t.cfg.Alias, LUNs: t.cfg.LUNs}}, t.cfg.Targets...)
	for _, cfg := range all {
		n := &node{name: cfg.Name, alias: cfg.Alias, portals: cfg.Portals}
		for _, l := range cfg.LUNs {
			if n.lun(l.Number) != nil {
				return fmt.Errorf("target %s has LUN %d twice", cfg.Name, l.Number)
			}
			u, err := newLUN(l, cfg.Name)
			if err != nil {
				return fmt.Errorf("target %s, LUN %d: %w", cfg.Name, l.Number, err)
			}
			u.reservations.attach(t, u)
			n.luns = append(n.luns, u)
		}
		slices.SortFunc(n.luns, func(a, b *lun) int { return int(a.number) - int(b.number) })
		t.nodes = append(t.nodes, n)
	}
	return nil
}

// Close ends all sessions at once, without a word to the initiators, and waits
// until every goroutine of the target has ended, and so for a Medium that is
// just reading or writing. Held commands are forgotten.
func (t *Target) Close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.done)
	}
	for _, p := range t.portals {
		t.lockedStop(p)
		p.held.Release()
	}
	conns := t.lockedConns(func(*conn) bool { return true })
	sessions := t.lockedSessions()
	t.mu.Unlock()
	for _, s := range sessions {
		s.end(endClosed)
	}
	for _, c := range conns {
		c.abort(false)
	}
	t.wg.Wait()
	for _, n := range t.nodes {
		for _, u := range n.luns {
			u.reservations.detach(t)
		}
	}
}

// Name is the iSCSI name of the first target.
func (t *Target) Name() string { return t.cfg.Name }

// Addr is the address of a portal, "host:port".
func (t *Target) Addr(portal int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.portals[portal].addr
}

// Addrs are the addresses of all portals.
func (t *Target) Addrs() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	addrs := make([]string, len(t.portals))
	for i, p := range t.portals {
		addrs[i] = p.addr
	}
	return addrs
}

// StartPortal serves a portal again, at the address it had.
func (t *Target) StartPortal(i int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return net.ErrClosed
	}
	p := t.portals[i]
	if p.up {
		return nil
	}
	if p.cfg.Addr != "-" {
		ln, err := p.listen()
		if err != nil {
			return fmt.Errorf("iscsitest: portal %d: %w", i, err)
		}
		p.ln = ln
		t.wg.Go(func() { t.acceptLoop(p, ln) })
	}
	p.up = true
	return nil
}

func (p *portal) listen() (net.Listener, error) {
	if p.held == nil {
		held, err := heldport.Hold(p.addr)
		if err != nil {
			return nil, err
		}
		p.held, p.addr = held, held.Addr()
	}
	return p.held.Listen()
}

// StopPortal makes a portal vanish: new connections are refused, those there
// are get a RST. Its sessions live on as the RFC says, until reinstated or
// until Time2Wait plus Time2Retain have run out.
func (t *Target) StopPortal(i int) {
	t.mu.Lock()
	t.lockedStop(t.portals[i])
	conns := t.lockedConns(func(c *conn) bool { return c.portal.index == i })
	t.mu.Unlock()
	for _, c := range conns {
		c.abort(true)
	}
}

// SetRedirect makes a portal answer logins of normal sessions with "moved", or
// serve them again (nil).
func (t *Target) SetRedirect(i int, r *Redirect) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.portals[i].redirect = r
}

func (t *Target) redirect(p *portal) *Redirect {
	t.mu.Lock()
	defer t.mu.Unlock()
	return p.redirect
}

func (t *Target) lockedStop(p *portal) {
	p.up = false
	if p.ln != nil {
		p.ln.Close()
		p.ln = nil
	}
}

func (t *Target) lockedConns(pick func(*conn) bool) []*conn {
	var conns []*conn
	for c := range t.conns {
		if pick(c) {
			conns = append(conns, c)
		}
	}
	return conns
}

func (t *Target) acceptLoop(p *portal, ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			t.cfg.Logf("portal %d: accept: %v", p.index, err)
			select { // out of file descriptors, most likely
			case <-time.After(50 * time.Millisecond):
				continue
			case <-t.done:
				return
			}
		}
		if err := t.ServeConn(nc, p.index); err != nil {
			nc.Close()
		}
	}
}

// Dial connects to a portal through net.Pipe: no socket is involved, so that it
// works in a synctest bubble. It fails like TCP while the portal is stopped.
func (t *Target) Dial(portal int) (net.Conn, error) {
	client, server := net.Pipe()
	if err := t.ServeConn(server, portal); err != nil {
		client.Close()
		server.Close()
		return nil, err
	}
	return client, nil
}

// ServeConn serves an initiator that is already connected, as if it had come to
// the portal. The target owns nc from now on if the error is nil.
func (t *Target) ServeConn(nc net.Conn, portal int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.portals[portal]
	if t.closed || !p.up {
		return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	c := newConn(t, p, nc, t.nextConn)
	t.nextConn++
	t.conns[c] = true
	t.wg.Go(c.serve)
	return nil
}

// Inject adds a rule: actions for the PDUs that when picks. Requests are shown
// to predicates when they arrive; responses (but not R2T, Reject, and those of
// the login) when they are about to be sent, a command's Data-In PDUs and status
// as one event with the header of the last.
func (t *Target) Inject(when Predicate, actions ...Action) *Injection {
	return t.rules.add(when, actions)
}

// Params returns the parameters new sessions get.
func (t *Target) Params() Params {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.params
}

// SetParams changes the parameters of sessions made from now on. Zero fields
// get their defaults.
func (t *Target) SetParams(p Params) error {
	p.setDefaults()
	if err := p.validate(); err != nil {
		return fmt.Errorf("iscsitest: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.params = p
	return nil
}

func (t *Target) node(name string) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// Violation is a rule of RFC 7143 that an initiator broke.
type Violation struct {
	Time   time.Time
	Portal int
	Conn   int    // number of the connection at this target, from 0
	Text   string // what was wrong, with the section
	PDU    string // the header of the PDU as one line of trace
}

// String is the violation in one line.
func (v Violation) String() string {
	return fmt.Sprintf("portal %d, connection %d: %s: %s", v.Portal, v.Conn, v.Text, v.PDU)
}

// Violations returns all rules broken so far, in order. A test of a correct
// initiator wants none.
func (t *Target) Violations() []Violation {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.violations)
}

// maxViolations bounds what is kept of an initiator that does nothing right.
const maxViolations = 1000

func (c *conn) violation(bhs []byte, format string, args ...any) {
	v := Violation{
		Time: time.Now(), Portal: c.portal.index, Conn: c.number,
		Text: fmt.Sprintf(format, args...), PDU: string(pdu.AppendTrace(nil, true, pdu.BHS(bhs))),
	}
	c.t.cfg.Logf("violation: %v", v)
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	if len(c.t.violations) < maxViolations {
		c.t.violations = append(c.t.violations, v)
	}
}
