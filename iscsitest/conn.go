package iscsitest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// conn is one connection from an initiator. One goroutine reads and carries
// requests out, another writes, so that reading never waits for the peer to
// take what is sent.
type conn struct {
	t      *Target
	portal *portal
	number int
	nc     net.Conn
	r      *bufio.Reader
	gone   chan struct{} // closed when the connection is given up

	// Of the reading goroutine.
	digests pdu.Digests
	recvMax int // most bytes in one data segment: MaxRecvDataSegmentLength
	buf     []byte
	index   int // PDUs received
	cid     uint16

	// Set at the end of the login, before anybody else knows the connection.
	sess *session
	neg  Negotiated

	loggedOut atomic.Bool   // a Logout of this connection was answered
	expStatSN atomic.Uint32 // acknowledged by the initiator
	nextStat  atomic.Uint32 // StatSN of the next response
	outIndex  atomic.Int64  // PDUs sent

	mu      sync.Mutex // guards everything below
	out     []*outPDU
	wake    chan struct{} // capacity 1: out or closing changed
	closing bool          // close when out is empty
	aborted bool
}

// outPDU is a PDU on its way to the initiator. The sequence numbers are put in
// when it is written, so that they are right whatever was sent meanwhile.
type outPDU struct {
	bhs      [pdu.BHSLen]byte
	data     []byte
	stat     statUse
	noCmdSN  bool // not a PDU of a session: ExpCmdSN and MaxCmdSN are in bhs
	after    func()
	switchTo *pdu.Digests // digests of all PDUs after this one
}

// statUse says what a PDU does with StatSN (RFC 7143 §4.2.2.2).
type statUse uint8

const (
	statNumbered statUse = iota // carries the next StatSN and uses it up
	statShown                   // carries it without using it up: R2T, NOP-In that is no answer
	statNone                    // has no StatSN: Data-In without status
)

func newConn(t *Target, p *portal, nc net.Conn, number int) *conn {
	c := &conn{
		t: t, portal: p, number: number, nc: nc,
		r:       bufio.NewReaderSize(nc, 64<<10),
		gone:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		recvMax: defaultMRDSL,
	}
	c.nextStat.Store(1)
	return c
}

// serve runs the connection from its first byte to its end.
func (c *conn) serve() {
	var writer sync.WaitGroup
	writer.Go(c.writeLoop)
	limit := time.AfterFunc(c.t.Params().LoginTimeout, func() {
		c.t.cfg.Logf("connection %d: login took too long", c.number)
		c.abort(false)
	})
	ok := c.login()
	limit.Stop()
	if ok {
		c.fullFeature()
	}
	if c.loggedOut.Load() { // see leave
		io.Copy(io.Discard, c.r)
	}
	c.closeWhenSent()
	writer.Wait()
	c.abort(false)
	if c.sess != nil {
		c.sess.connLost(c)
	}
	c.t.mu.Lock()
	delete(c.t.conns, c)
	c.t.mu.Unlock()
}

// logoutPatience is how long the initiator may take to close the connection
// after a Logout Response, before the target does. Some initiators take a close
// that comes along with the response for a failure.
const logoutPatience = 100 * time.Millisecond

// leave has the reader of a connection that was logged out ignore what comes and
// wait for the initiator to close. Any goroutine may call it.
func (c *conn) leave() {
	c.loggedOut.Store(true)
	c.nc.SetReadDeadline(time.Now().Add(logoutPatience))
}

// receive reads one PDU; its memory is used again by the next call. With a
// data digest error the PDU is valid but for its data.
func (c *conn) receive() (pdu.PDU, error) {
	p, err := pdu.ReadPDU(c.r, c.buf, c.digests, pdu.Limits{MaxAHS: pdu.MaxAHSLen, MaxData: c.recvMax})
	if p.BHS == nil {
		return p, err
	}
	c.buf = p.BHS[:0]
	if n := pdu.LayoutOf(p.BHS, c.digests).Total; n > cap(c.buf) {
		c.buf = make([]byte, 0, n)
	}
	c.index++
	if rec := c.t.cfg.Recorder; rec != nil {
		rec.record(FromInitiator, c.portal.index, c.number, p.BHS, p.Data)
	}
	return p, err
}

// fullFeature serves requests until the connection ends.
func (c *conn) fullFeature() {
	for {
		p, err := c.receive()
		if err != nil && !c.survives(p, err) {
			return
		}
		if err != nil {
			continue
		}
		if c.loggedOut.Load() || !c.sess.handle(c, p) {
			return
		}
	}
}

// survives handles an error of receive and reports whether the connection goes on.
func (c *conn) survives(p pdu.PDU, err error) bool {
	frame, ok := errors.AsType[*pdu.FrameError](err)
	if !ok {
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !c.loggedOut.Load() {
			c.t.cfg.Logf("connection %d: %v", c.number, err)
		}
		return false
	}
	c.t.cfg.Logf("connection %d: %v", c.number, frame)
	if !frame.InSync() {
		if frame.Kind == pdu.FrameDataTooLong {
			var bhs [pdu.BHSLen]byte
			c.violation(bhs[:], "%v (§13.12)", frame)
		}
		return false
	}
	// At ErrorRecoveryLevel 0 a digest error ends the connection (§7.8); the
	// Reject lets the initiator know why. Above that the initiator sends the
	// request again, in the gap that it leaves (§7.2.1).
	c.reject(p.BHS, pdu.RejectDataDigest)
	return c.neg.ErrorRecoveryLevel > 0 && p.BHS.Opcode() != pdu.OpDataOut
}

// send queues PDUs to be written in this order. It never blocks.
func (c *conn) send(list ...*outPDU) {
	c.mu.Lock()
	if !c.aborted && !c.closing {
		c.out = append(c.out, list...)
	}
	c.mu.Unlock()
	c.signal()
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// closeWhenSent closes the connection in order once everything queued is out.
func (c *conn) closeWhenSent() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.signal()
}

// abort closes the connection now; with reset the peer gets a RST, if this is TCP.
func (c *conn) abort(reset bool) {
	c.mu.Lock()
	first := !c.aborted
	c.aborted = true
	c.out = nil
	c.mu.Unlock()
	if !first {
		return
	}
	if tcp, ok := c.nc.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	c.nc.Close()
	close(c.gone)
}

// takeOut waits for PDUs to be written; nil means that there will be none.
func (c *conn) takeOut() []*outPDU {
	for {
		c.mu.Lock()
		out, stop := c.out, c.aborted || c.closing
		c.out = nil
		c.mu.Unlock()
		if len(out) > 0 {
			return out
		}
		if stop {
			return nil
		}
		select {
		case <-c.wake:
		case <-c.gone:
		}
	}
}

// writeBatch is how many PDUs go into one writev at most.
const writeBatch = 64

func (c *conn) writeLoop() {
	defer c.abort(false)
	var digests pdu.Digests
	for {
		out := c.takeOut()
		if out == nil {
			return
		}
		for len(out) > 0 {
			n, err := c.write(out, &digests)
			if err != nil {
				return
			}
			out = out[n:]
		}
	}
}

// write sends the first PDUs of out and returns how many.
func (c *conn) write(out []*outPDU, digests *pdu.Digests) (int, error) {
	var iov net.Buffers
	n := 0
	for _, p := range out[:min(len(out), writeBatch)] {
		c.stamp(p)
		iov = appendWire(iov, p, *digests)
		n++
		if p.switchTo != nil {
			*digests = *p.switchTo
		}
		if p.after != nil { // must see what came before it written
			break
		}
	}
	if _, err := iov.WriteTo(c.nc); err != nil {
		return n, err
	}
	if last := out[n-1]; last.after != nil {
		last.after()
	}
	return n, nil
}

// stamp puts the sequence numbers into a header that is about to be written.
func (c *conn) stamp(p *outPDU) {
	bhs := pdu.BHS(p.bhs[:])
	bhs.SetDataLen(len(p.data))
	if !p.noCmdSN { // else it may be that there is no session yet
		exp, maxSN := c.sess.window()
		bhs.SetExpCmdSN(exp)
		bhs.SetMaxCmdSN(maxSN)
	}
	switch p.stat {
	case statNumbered:
		bhs.SetStatSN(c.nextStat.Add(1) - 1)
	case statShown:
		bhs.SetStatSN(c.nextStat.Load())
	}
	c.outIndex.Add(1)
	if rec := c.t.cfg.Recorder; rec != nil {
		rec.record(FromTarget, c.portal.index, c.number, bhs, p.data)
	}
}

var padding [4]byte

// appendWire appends the bytes of a PDU: header, digest, data, padding, digest.
func appendWire(iov net.Buffers, p *outPDU, d pdu.Digests) net.Buffers {
	iov = append(iov, p.bhs[:])
	if d.Header {
		iov = append(iov, digestOf(p.bhs[:]))
	}
	if len(p.data) == 0 {
		return iov
	}
	iov = append(iov, p.data)
	pad := padding[:pdu.PadLen(len(p.data))]
	if len(pad) > 0 {
		iov = append(iov, pad)
	}
	if d.Data {
		crc := pdu.UpdateCRC32C(pdu.CRC32C(p.data), pad)
		var b [pdu.DigestLen]byte
		pdu.PutDigest(b[:], crc)
		iov = append(iov, b[:])
	}
	return iov
}

func digestOf(p []byte) []byte {
	b := make([]byte, pdu.DigestLen)
	pdu.PutDigest(b, pdu.CRC32C(p))
	return b
}

// reject sends a Reject PDU with the header that was refused (RFC 7143 §11.17).
func (c *conn) reject(bhs pdu.BHS, reason pdu.RejectReason) {
	o := &outPDU{data: append([]byte(nil), bhs[:pdu.BHSLen]...)}
	(&pdu.Reject{Reason: reason}).AppendTo(o.bhs[:0])
	c.send(o)
}
