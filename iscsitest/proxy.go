package iscsitest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/iscsimp/iscsimp/internal/heldport"
)

// ProxyConfig describes a FaultProxy.
type ProxyConfig struct {
	// Target is the address to pass connections on to, "host:port". Required
	// unless Dial is set.
	Target string
	// Dial connects to the target, instead of TCP to Target; for net.Pipe:
	// func() (net.Conn, error) { return tgt.Dial(0) }.
	Dial func() (net.Conn, error)
	// Listen is the address to listen on. Default "127.0.0.1:0"; "-" does not
	// listen: the proxy is then reached by its Dial and ServeConn only.
	Listen string
	// Portal is the number that Events and Records carry.
	Portal int
	// Recorder gets every PDU as it arrives at the proxy, before any fault; nil: none.
	Recorder *Recorder
	// Logf gets a line for each connection and fault; nil: none.
	Logf func(format string, args ...any)
}

// Mode is the state of the whole path through a FaultProxy.
type Mode uint8

const (
	// ModeGo passes everything on.
	ModeGo Mode = iota
	// ModeStall lets nothing through in either direction while connections stay
	// up, old and new ones: a silent death. What was sent meanwhile arrives when
	// the mode changes, as TCP would have it.
	ModeStall
	// ModeCut resets connections, old and new ones.
	ModeCut
	// ModeRefuse resets old connections and refuses new ones.
	ModeRefuse
)

// String is the name of the mode.
func (m Mode) String() string {
	switch m {
	case ModeGo:
		return "go"
	case ModeStall:
		return "stall"
	case ModeCut:
		return "cut"
	case ModeRefuse:
		return "refuse"
	}
	return "mode?"
}

// FaultProxy passes iSCSI connections on to a target and breaks what it is told
// to. It follows logins, so that it knows PDU boundaries with digests too; what
// is not iSCSI passes unseen. All methods may be called from any goroutine.
type FaultProxy struct {
	cfg   ProxyConfig
	rules rules[Fault]
	wg    sync.WaitGroup
	done  chan struct{}

	mu      sync.Mutex // guards everything below
	mode    Mode
	delay   time.Duration
	changed chan struct{} // closed and renewed when mode changes
	ln      net.Listener
	held    *heldport.Port // so that the port is still there after ModeRefuse; nil: it does not listen
	addr    string
	conns   map[*proxyConn]bool
	next    int
	closed  bool
}

// NewFaultProxy starts a proxy. The caller must Close it.
func NewFaultProxy(cfg ProxyConfig) (*FaultProxy, error) {
	if cfg.Dial == nil {
		if cfg.Target == "" {
			return nil, errors.New("iscsitest: a FaultProxy needs a Target address or a Dial function")
		}
		cfg.Dial = func() (net.Conn, error) { return net.DialTimeout("tcp", cfg.Target, 10*time.Second) }
	}
	orDefault(&cfg.Listen, "127.0.0.1:0")
	if cfg.Logf == nil {
		cfg.Logf = func(string, ...any) {}
	}
	p := &FaultProxy{
		cfg: cfg, addr: cfg.Listen, done: make(chan struct{}), changed: make(chan struct{}),
		conns: make(map[*proxyConn]bool),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if cfg.Listen == "-" {
		return p, nil
	}
	var err error
	if p.held, err = heldport.Hold(cfg.Listen); err != nil {
		return nil, fmt.Errorf("iscsitest: proxy: %w", err)
	}
	p.addr = p.held.Addr()
	if err := p.lockedListen(); err != nil {
		p.held.Release()
		return nil, err
	}
	return p, nil
}

func (p *FaultProxy) lockedListen() error {
	if p.held == nil || p.ln != nil {
		return nil
	}
	ln, err := p.held.Listen()
	if err != nil {
		return fmt.Errorf("iscsitest: proxy: %w", err)
	}
	p.ln = ln
	p.wg.Go(func() { p.acceptLoop(ln) })
	return nil
}

func (p *FaultProxy) acceptLoop(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		// Connecting to the target may take its time; others need not wait.
		p.wg.Go(func() {
			if err := p.ServeConn(c); err != nil {
				p.cfg.Logf("proxy: %v", err)
				closeHard(c)
			}
		})
	}
}

// Close cuts all connections and waits until every goroutine of the proxy ended.
func (p *FaultProxy) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		close(p.done)
	}
	if p.ln != nil {
		p.ln.Close()
		p.ln = nil
	}
	p.held.Release()
	p.mu.Unlock()
	p.Cut()
	p.wg.Wait()
}

// Addr is the address the proxy listens on.
func (p *FaultProxy) Addr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// Inject adds a rule: faults for the PDUs that when picks, seen when they
// arrive at the proxy.
func (p *FaultProxy) Inject(when Predicate, faults ...Fault) *Injection {
	return p.rules.add(when, faults)
}

// SetMode changes the state of the path. It fails only if the port could not
// be listened on again.
func (p *FaultProxy) SetMode(m Mode) error {
	p.mu.Lock()
	p.mode = m
	close(p.changed)
	p.changed = make(chan struct{})
	var err error
	switch {
	case m == ModeRefuse && p.ln != nil:
		p.ln.Close()
		p.ln = nil
	case m != ModeRefuse && !p.closed:
		err = p.lockedListen()
	}
	p.mu.Unlock()
	if m == ModeCut || m == ModeRefuse {
		p.Cut()
	}
	return err
}

// SetDelay makes every PDU late by d, in each direction, from now on; the order
// is kept and the throughput is not limited. 0 ends it.
func (p *FaultProxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *FaultProxy) currentDelay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.delay
}

// waitPassable waits until the path lets something through; false if the
// connection ended before.
func (p *FaultProxy) waitPassable(ended <-chan struct{}) bool {
	for {
		p.mu.Lock()
		mode, changed := p.mode, p.changed
		p.mu.Unlock()
		if mode != ModeStall {
			return true
		}
		select {
		case <-changed:
		case <-ended:
			return false
		}
	}
}

func (p *FaultProxy) list() []*proxyConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := make([]*proxyConn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	return conns
}

// Conns is the number of connections there are now. One whose initiator is gone
// counts as long as something is held for the target.
func (p *FaultProxy) Conns() int { return len(p.list()) }

// Cut resets all connections on both sides; what was held or on its way is lost.
func (p *FaultProxy) Cut() {
	for _, c := range p.list() {
		c.abort()
	}
}

// CutInitiator resets all connections on the initiator's side. What is on its
// way to the target, or held, still gets there; the target learns of the end
// after that.
func (p *FaultProxy) CutInitiator() {
	for _, c := range p.list() {
		closeHard(c.client)
	}
}

// CutTarget resets all connections on the target's side. What is on its way to
// the initiator still gets there.
func (p *FaultProxy) CutTarget() {
	for _, c := range p.list() {
		closeHard(c.server)
	}
}

// Dial connects to the target through the proxy by net.Pipe.
func (p *FaultProxy) Dial() (net.Conn, error) {
	p.mu.Lock()
	refuse := p.closed || p.mode == ModeRefuse
	p.mu.Unlock()
	if refuse {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	client, inner := net.Pipe()
	if err := p.ServeConn(inner); err != nil {
		client.Close()
		inner.Close()
		return nil, err
	}
	return client, nil
}

// DialContext is Dial in the form of net.Dialer's method; the address is ignored.
func (p *FaultProxy) DialContext(context.Context, string, string) (net.Conn, error) { return p.Dial() }

// ServeConn passes on a connection of an initiator. The proxy owns it from now
// on if the error is nil.
func (p *FaultProxy) ServeConn(client net.Conn) error {
	p.mu.Lock()
	open := p.lockedOpen()
	p.mu.Unlock()
	if !open {
		return errPathCut
	}
	server, err := p.cfg.Dial()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lockedOpen() { // changed meanwhile
		closeHard(server)
		return errPathCut
	}
	c := newProxyConn(p, p.next, client, server)
	p.next++
	p.conns[c] = true
	p.wg.Go(c.run)
	return nil
}

var errPathCut = errors.New("iscsitest: the path is cut")

func (p *FaultProxy) lockedOpen() bool {
	return !p.closed && p.mode != ModeCut && p.mode != ModeRefuse
}

// closeHard closes with RST where it is TCP.
func closeHard(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
