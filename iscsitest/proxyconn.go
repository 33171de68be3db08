package iscsitest

import (
	"bufio"
	"io"
	"net"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// proxyConn is one connection through a FaultProxy.
type proxyConn struct {
	p              *FaultProxy
	number         int
	client, server net.Conn
	up, down       *stream // to the target, to the initiator
	ended          chan struct{}
	endOnce        sync.Once

	mu       sync.Mutex // guards everything below
	cid      uint16
	commands map[uint32]*Command
	login    loginWatch
	digests  pdu.Digests
}

func newProxyConn(p *FaultProxy, number int, client, server net.Conn) *proxyConn {
	c := &proxyConn{
		p: p, number: number, client: client, server: server,
		ended: make(chan struct{}), commands: make(map[uint32]*Command),
	}
	c.up = newStream(c, FromInitiator, client, server)
	c.down = newStream(c, FromTarget, server, client)
	return c
}

// run passes PDUs on until both directions have ended.
func (c *proxyConn) run() {
	c.p.cfg.Logf("proxy: connection %d", c.number)
	var wg sync.WaitGroup
	for _, s := range []*stream{c.up, c.down} {
		wg.Go(s.readLoop)
		wg.Go(s.writeLoop)
	}
	wg.Wait()
	c.abort()
	c.p.mu.Lock()
	delete(c.p.conns, c)
	c.p.mu.Unlock()
}

// abort ends the connection on both sides; nothing is delivered any more.
func (c *proxyConn) abort() {
	c.endOnce.Do(func() { close(c.ended) })
	closeHard(c.client)
	closeHard(c.server)
}

// event describes a PDU to predicates, and notes what later PDUs need.
func (c *proxyConn) event(s *stream, bhs pdu.BHS, data []byte) *Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &Event{Dir: s.dir, Portal: c.p.cfg.Portal, Conn: c.number, BHS: bhs, Data: data, Index: s.index}
	if s.dir == FromInitiator && bhs.Opcode() == pdu.OpLogin {
		c.cid = pdu.LoginView(bhs).CID()
	}
	e.CID = c.cid
	s.index++
	switch bhs.Opcode() {
	case pdu.OpSCSICommand:
		e.Command = commandOf(pdu.SCSICommandView(bhs))
		c.commands[bhs.ITT()] = e.Command
	case pdu.OpDataOut, pdu.OpR2T, pdu.OpDataIn, pdu.OpSCSIResponse:
		e.Command = c.commands[bhs.ITT()]
	case pdu.OpLogin, pdu.OpLoginResponse:
		if c.login.see(s.dir, bhs, data) {
			c.digests = c.login.digests
		}
	}
	return e
}

func (c *proxyConn) currentDigests() pdu.Digests {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.digests
}

// loginWatch follows a login to learn which digests come after it.
type loginWatch struct {
	text    [2][]byte // by direction, while the C bit is set
	digests pdu.Digests
}

// see takes a login PDU and returns true for the final response.
func (w *loginWatch) see(dir Direction, bhs pdu.BHS, data []byte) (done bool) {
	w.text[dir] = append(w.text[dir], data...)
	const continueBit = 0x40
	if bhs[1]&continueBit != 0 {
		return false
	}
	// The value sent last is the outcome: the answer to a list of proposals.
	pdu.WalkKeys(w.text[dir], func(key, value []byte) error {
		switch string(key) {
		case "HeaderDigest":
			w.digests.Header = string(value) == "CRC32C"
		case "DataDigest":
			w.digests.Data = string(value) == "CRC32C"
		}
		return nil
	})
	w.text[dir] = w.text[dir][:0]
	if dir != FromTarget {
		return false
	}
	v := pdu.LoginResponseView(bhs)
	return v.Transit() && v.NSG() == pdu.StageFullFeature && v.StatusClass() == 0
}

// stream is one direction of a connection.
type stream struct {
	c        *proxyConn
	dir      Direction
	from, to net.Conn
	r        *bufio.Reader
	index    int  // of the next PDU; guarded by c.mu
	opaque   bool // not iSCSI: passed on unseen

	mu     sync.Mutex // guards everything below
	queue  []parcel
	wake   chan struct{} // capacity 1
	held   map[uint32]*heldTask
	eof    bool // nothing will be added but what is held
	broken bool // nobody writes any more
}

// parcel is something to be delivered in its turn.
type parcel struct {
	raw  []byte
	due  time.Time // zero: now
	hold *Hold
	cut  bool // reset both sides after it
}

// heldTask collects the PDUs of a task that FaultHoldTask stopped.
type heldTask struct{ parcels []parcel }

func newStream(c *proxyConn, dir Direction, from, to net.Conn) *stream {
	return &stream{
		c: c, dir: dir, from: from, to: to, r: bufio.NewReaderSize(from, 64<<10),
		wake: make(chan struct{}, 1), held: make(map[uint32]*heldTask),
	}
}

func (s *stream) readLoop() {
	for {
		raw, layout, err := s.next()
		if err != nil {
			s.mu.Lock()
			s.eof = true
			s.mu.Unlock()
			s.signal()
			return
		}
		if s.opaque {
			s.push(s.late(parcel{raw: raw}))
			continue
		}
		s.take(raw, layout)
	}
}

// next reads a PDU with all its digests, whether they are right or not.
func (s *stream) next() ([]byte, pdu.Layout, error) {
	if s.opaque {
		return s.nextOpaque()
	}
	if s.index == 0 {
		if first, err := s.r.Peek(1); err == nil && !s.mayStart(pdu.Opcode(first[0]&0x3f)) {
			s.opaque = true
			return s.nextOpaque()
		}
	}
	head, err := s.r.Peek(pdu.BHSLen)
	if err != nil {
		return nil, pdu.Layout{}, err
	}
	// The digests are looked up now, when the header is here: the first PDU of
	// full feature phase cannot arrive before the final Login Response passed.
	l := pdu.LayoutOf(head, s.c.currentDigests())
	raw := make([]byte, l.Total)
	_, err = io.ReadFull(s.r, raw)
	return raw, l, err
}

// mayStart reports whether an iSCSI stream can begin with the opcode.
func (s *stream) mayStart(op pdu.Opcode) bool {
	if s.dir == FromInitiator {
		return op == pdu.OpLogin
	}
	return op == pdu.OpLoginResponse || op == pdu.OpReject
}

func (s *stream) nextOpaque() ([]byte, pdu.Layout, error) {
	buf := make([]byte, 4096)
	n, err := s.r.Read(buf)
	if n > 0 {
		err = nil
	}
	return buf[:n], pdu.Layout{}, err
}

// late puts the delay of the path on a parcel.
func (s *stream) late(p parcel) parcel {
	if d := s.c.p.currentDelay(); d > 0 {
		p.due = time.Now().Add(d)
	}
	return p
}

// take applies the rules to a PDU and queues what is left of it.
func (s *stream) take(raw []byte, l pdu.Layout) {
	bhs, data := pdu.BHS(raw[:pdu.BHSLen]), raw[l.DataOff:l.DataOff+l.DataLen]
	digests := s.c.currentDigests()
	e := s.c.event(s, bhs, data)
	p := s.c.p
	if rec := p.cfg.Recorder; rec != nil {
		rec.record(s.dir, p.cfg.Portal, s.c.number, bhs, data)
	}
	out := s.late(parcel{raw: raw})
	copies := 1
	for _, f := range p.rules.match(e) {
		p.cfg.Logf("proxy: fault %d for %v", f.kind, e)
		switch f.kind {
		case faultDelay:
			if out.due.IsZero() {
				out.due = time.Now()
			}
			out.due = out.due.Add(f.delay)
		case faultHold:
			out.hold = f.hold
		case faultHoldTask:
			s.holdTask(bhs.ITT(), f.hold)
		case faultDrop:
			copies = 0
		case faultDuplicate:
			copies++
		case faultFlip:
			f.flip(raw, l, digests)
		case faultTruncate:
			out.raw, out.cut = raw[:min(max(f.keep, 0), len(raw))], true
		case faultCut:
			s.c.abort()
			return
		case faultCutInitiator:
			closeHard(s.c.client)
		case faultCutTarget:
			closeHard(s.c.server)
		}
	}
	for range copies {
		s.deliver(e.BHS.ITT(), out)
	}
}

// holdTask begins to collect the PDUs of a task, until h is released.
func (s *stream) holdTask(itt uint32, h *Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[itt] != nil {
		return
	}
	s.held[itt] = new(heldTask)
	h.arrive()
	s.c.p.wg.Go(func() {
		select {
		case <-h.released:
		case <-s.c.ended:
		}
		s.mu.Lock()
		s.queue = append(s.queue, s.held[itt].parcels...)
		delete(s.held, itt)
		s.mu.Unlock()
		s.signal()
	})
}

// deliver queues a parcel, behind others of its task if those are held.
func (s *stream) deliver(itt uint32, p parcel) {
	s.mu.Lock()
	if h := s.held[itt]; h != nil && itt != pdu.ReservedTag {
		h.parcels = append(h.parcels, p)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.push(p)
}

func (s *stream) push(p parcel) {
	s.mu.Lock()
	if !s.broken {
		s.queue = append(s.queue, p)
	}
	s.mu.Unlock()
	s.signal()
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// pop waits for the next parcel; false if there will be none.
func (s *stream) pop() (parcel, bool) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			p := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return p, true
		}
		over := s.eof && len(s.held) == 0
		s.mu.Unlock()
		if over {
			return parcel{}, false
		}
		select {
		case <-s.wake:
		case <-s.c.ended:
			return parcel{}, false
		}
	}
}

// writeLoop delivers parcels in order. When the sender is gone and all is
// delivered the receiver learns of the end.
func (s *stream) writeLoop() {
	for {
		p, ok := s.pop()
		if !ok || !s.wait(p) {
			break
		}
		if _, err := s.to.Write(p.raw); err != nil {
			s.giveUp()
			return
		}
		if p.cut {
			s.c.abort()
			return
		}
	}
	if !s.c.p.waitPassable(s.c.ended) {
		return
	}
	s.finish()
}

// wait lets a parcel's time come; false if the connection ended before.
func (s *stream) wait(p parcel) bool {
	if d := time.Until(p.due); !p.due.IsZero() && d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.c.ended:
			return false
		}
	}
	if p.hold != nil {
		p.hold.arrive()
		select {
		case <-p.hold.released:
		case <-s.c.ended:
			return false
		}
	}
	return s.c.p.waitPassable(s.c.ended)
}

// giveUp is for a receiver that is gone: what comes for it is thrown away. If
// that is the target, the initiator learns of it when all on its way to it is
// delivered. Without an initiator the connection goes on as long as there is
// something for the target; its socket stays open, for it may hold data still.
func (s *stream) giveUp() {
	s.mu.Lock()
	s.broken, s.queue = true, nil
	s.mu.Unlock()
	if s.dir == FromInitiator {
		s.to.Close()
	}
}

// finish tells the receiver that the sender is gone. Towards the target that is
// a half close where possible: closing for good could discard, by a RST, what
// the target did not read yet.
func (s *stream) finish() {
	if tcp, ok := s.to.(*net.TCPConn); ok && s.dir == FromInitiator {
		if tcp.CloseWrite() == nil {
			return
		}
	}
	s.to.Close()
}
