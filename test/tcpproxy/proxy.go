// Package tcpproxy is a plain TCP proxy whose line can go bad: it forwards, delays, narrows, falls silent, or cuts, on command, while connections are open. It is for
// real targets and the demo, where a path has to fail without touching the target.
//
// What does not belong here: anything that knows iSCSI. Faults at the level of PDUs are the business of iscsitest.
package tcpproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/internal/heldport"
)

// maxQueuedBytes bounds what one direction of one connection may hold back. It is far above what a target sends in one delay, so that a delayed line keeps its
// throughput; beyond it the sender is held by TCP.
const maxQueuedBytes = 64 << 20

// dialTimeout bounds the connection to the target that each accepted connection causes.
const dialTimeout = 5 * time.Second

// Mode is what the line does at the moment.
type Mode int

// The modes of a line.
const (
	Forwarding Mode = iota // bytes pass, after the delay, if there is one
	Stalled                // no byte passes and no end of a connection either; connections stay open, new ones are accepted and hear nothing
	Cut                    // connections were reset, new ones are refused
)

// String names the mode.
func (m Mode) String() string {
	switch m {
	case Forwarding:
		return "forwarding"
	case Stalled:
		return "stalled"
	case Cut:
		return "cut"
	default:
		return fmt.Sprintf("Mode(%d)", int(m))
	}
}

// Stats are counts since the proxy was opened.
type Stats struct {
	Mode     Mode
	Delay    time.Duration // added in each direction
	Rate     int64         // bytes per second and connection in each direction; 0: no limit
	ToTarget int64         // bytes passed on to the target
	ToClient int64         // bytes passed on to clients
	Accepted int           // connections accepted
	Open     int           // connections open now
}

// Proxy forwards connections from one address to another. All methods may be called from any goroutine.
type Proxy struct {
	held   *heldport.Port // what clients connect to; still there after a cut
	target string

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced on each change of mode
	mode     Mode
	delay    time.Duration
	rate     int64        // bytes per second; 0: no limit
	listener net.Listener // nil while cut or closed
	links    map[*link]struct{}
	stats    Stats
	closed   bool

	working sync.WaitGroup // accept loops and links
}

// Open listens on listen ("127.0.0.1:0" chooses a port) and forwards to target, which need not answer yet.
func Open(listen, target string) (*Proxy, error) {
	held, err := heldport.Hold(listen)
	if err != nil {
		return nil, fmt.Errorf("tcpproxy: %w", err)
	}
	p := &Proxy{held: held, target: target, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.listenLocked(); err != nil {
		held.Release()
		return nil, err
	}
	return p, nil
}

// Addr is the host:port clients connect to; it stays the same over a cut.
func (p *Proxy) Addr() string { return p.held.Addr() }

// Target is the host:port connections are forwarded to.
func (p *Proxy) Target() string { return p.target }

// Go heals the line: no delay, no stall, no cut. Bytes held back by a stall flow now.
func (p *Proxy) Go() error { return p.set(Forwarding, 0) }

// Delay forwards with this much latency added in each direction; the throughput is not limited. Bytes on their way keep the delay they came with.
func (p *Proxy) Delay(each time.Duration) error { return p.set(Forwarding, each) }

// Stall lets the line fall silent without closing anything, as a dropped route does.
func (p *Proxy) Stall() error { return p.set(Stalled, 0) }

// Cut resets every connection on both sides and refuses new ones until Go or Delay.
func (p *Proxy) Cut() error { return p.set(Cut, 0) }

// Reset resets every connection on both sides once; new ones are treated as the mode says.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resetLocked()
}

// ResetOne resets the n-th oldest of the connections that are open now, counted from 0, on both sides; false if there are not that many.
func (p *Proxy) ResetOne(n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := slices.SortedFunc(maps.Keys(p.links), func(a, b *link) int { return a.number - b.number })
	if n < 0 || n >= len(links) {
		return false
	}
	links[n].reset()
	return true
}

// Limit caps each direction of each connection at a number of bytes per second, from now on and whatever the mode; 0 ends it. What the line holds back is
// then bounded too, so that the sender feels the cap.
func (p *Proxy) Limit(bytesPerSecond int64) error {
	if bytesPerSecond < 0 {
		return fmt.Errorf("tcpproxy: negative rate %d", bytesPerSecond)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = bytesPerSecond
	return nil
}

// limit is the cap of this moment.
func (p *Proxy) limit() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// Stats returns the counts of this moment.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Mode, s.Delay, s.Rate, s.Open = p.mode, p.delay, p.rate, len(p.links)
	return s
}

// Close resets every connection, stops listening and waits until nothing of the proxy runs any more.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	err := p.unlistenLocked()
	p.held.Release()
	p.resetLocked()
	p.announceLocked()
	p.mu.Unlock()
	p.working.Wait()
	return err
}

func (p *Proxy) set(mode Mode, delay time.Duration) error {
	if delay < 0 {
		return fmt.Errorf("tcpproxy: negative delay %v", delay)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.mode, p.delay = mode, delay
	p.announceLocked()
	if mode == Cut {
		err := p.unlistenLocked()
		p.resetLocked()
		return err
	}
	if p.listener == nil {
		return p.listenLocked()
	}
	return nil
}

// announceLocked wakes everyone who waits for a change. p.mu is held.
func (p *Proxy) announceLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) resetLocked() {
	for l := range p.links {
		l.reset()
	}
}

func (p *Proxy) listenLocked() error {
	listener, err := p.held.Listen()
	if err != nil {
		return fmt.Errorf("tcpproxy: %w", err)
	}
	p.listener = listener
	p.working.Go(func() { p.accept(listener) })
	return nil
}

func (p *Proxy) unlistenLocked() error {
	if p.listener == nil {
		return nil
	}
	err := p.listener.Close()
	p.listener = nil
	return err
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, or a client that left the queue: neither ends the proxy
			time.Sleep(10 * time.Millisecond)
			continue
		}
		p.working.Go(func() { p.serve(conn.(*net.TCPConn)) })
	}
}

// serve forwards one connection until both directions have ended.
func (p *Proxy) serve(client *net.TCPConn) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	l := &link{client: client, cancelDial: cancel, done: make(chan struct{})}
	if !p.add(l) {
		return
	}
	defer p.remove(l)
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", p.target)
	if err != nil || !l.attach(conn.(*net.TCPConn)) {
		if err == nil {
			resetConn(conn.(*net.TCPConn))
		}
		l.reset()
		return
	}
	var directions sync.WaitGroup
	directions.Go(func() { p.forward(l, l.client, l.server, &p.stats.ToTarget) })
	directions.Go(func() { p.forward(l, l.server, l.client, &p.stats.ToClient) })
	directions.Wait()
	_ = l.client.Close()
	_ = l.server.Close()
}

// add registers an accepted connection; one that came in while the line was cut is reset.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.mode == Cut {
		resetConn(l.client)
		return false
	}
	p.links[l] = struct{}{}
	l.number = p.stats.Accepted
	p.stats.Accepted++
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// line returns the mode, the delay, and a channel that closes when either changes.
func (p *Proxy) line() (Mode, time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.delay, p.changed
}

func (p *Proxy) count(counter *int64, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*counter += int64(n)
}
