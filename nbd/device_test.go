package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
)

// memDevice is a block device in memory. By default it completes inside
// Submit; with later set, on the loop afterwards; with hold set, when told to.
type memDevice struct {
	geo   block.Geometry
	lp    loop.Loop
	data  []byte
	later bool
	hold  bool
	fail  func(r *block.Request) error // nil result: the request is carried out

	queue []*block.Request
	task  loop.Task
	seen  []block.Request // with record set: every request, Data dropped
	recrd bool
}

func newMemDevice(lp loop.Loop, size uint64) *memDevice {
	d := &memDevice{
		lp:   lp,
		data: make([]byte, size),
		geo:  block.Geometry{Size: size, BlockSize: 512, PhysicalBlock: 4096, CanTrim: true, CanZero: true},
	}
	d.task.Run = d.completeAll
	return d
}

func (d *memDevice) Geometry() block.Geometry { return d.geo }
func (d *memDevice) Loop() loop.Loop          { return d.lp }

func (d *memDevice) Submit(r *block.Request) {
	if d.recrd {
		seen := *r
		seen.Data, seen.Owner = nil, nil
		d.seen = append(d.seen, seen)
	}
	if !d.later && !d.hold {
		d.complete(r)
		return
	}
	d.queue = append(d.queue, r)
	if d.later && len(d.queue) == 1 {
		d.lp.PostTask(&d.task)
	}
}

func (d *memDevice) completeAll() {
	for len(d.queue) > 0 {
		d.completeAt(len(d.queue) - 1) // last in, first out: out of order on purpose
	}
}

// completeAt completes one held request.
func (d *memDevice) completeAt(i int) {
	r := d.queue[i]
	d.queue = append(d.queue[:i], d.queue[i+1:]...)
	d.complete(r)
}

func (d *memDevice) complete(r *block.Request) {
	r.Err = d.perform(r)
	r.Owner.RequestDone(r)
}

func (d *memDevice) perform(r *block.Request) error {
	if d.fail != nil {
		if err := d.fail(r); err != nil {
			return err
		}
	}
	if r.Op == block.OpFlush {
		return nil
	}
	if r.Offset > uint64(len(d.data)) || r.Length > uint64(len(d.data))-r.Offset {
		return block.ErrRange
	}
	part := d.data[r.Offset : r.Offset+r.Length]
	switch r.Op {
	case block.OpRead:
		copy(r.Data, part)
	case block.OpWrite:
		copy(part, r.Data)
	case block.OpTrim, block.OpWriteZeroes:
		clear(part)
	}
	return nil
}

// manualLoop is a loop without a driver: posted work runs when run is called.
type manualLoop struct {
	posted []func()
}

func (l *manualLoop) Now() int64                 { return 0 }
func (l *manualLoop) Post(fn func()) bool        { l.posted = append(l.posted, fn); return true }
func (l *manualLoop) PostTask(t *loop.Task) bool { return l.Post(t.Run) }
func (l *manualLoop) Attach(net.Conn, loop.Handler) (loop.Stream, error) {
	return nil, io.ErrUnexpectedEOF
}
func (l *manualLoop) SetTimer(*loop.Timer, int64) {}
func (l *manualLoop) StopTimer(*loop.Timer)       {}
func (l *manualLoop) Close()                      {}
func (l *manualLoop) Done() <-chan struct{}       { return nil }

func (l *manualLoop) run() {
	for len(l.posted) > 0 {
		fn := l.posted[0]
		l.posted = l.posted[1:]
		fn()
	}
}

// fakeStream notes what the connection asks of its stream.
type fakeStream struct {
	flushes, resumes int
	closed, aborted  bool
	reason           error
}

func (s *fakeStream) Flush()               { s.flushes++ }
func (s *fakeStream) ResumeReading()       { s.resumes++ }
func (s *fakeStream) Close(reason error)   { s.closed, s.reason = true, reason }
func (s *fakeStream) Abort(reason error)   { s.aborted, s.reason = true, reason }
func (s *fakeStream) LocalAddr() net.Addr  { return &net.UnixAddr{} }
func (s *fakeStream) RemoteAddr() net.Addr { return &net.UnixAddr{} }

// rig is a connection in the transmission phase without socket and driver.
type rig struct {
	t      testing.TB
	srv    *Server
	loop   *manualLoop
	dev    *memDevice
	conn   *conn
	stream *fakeStream
	out    bytes.Buffer // what the connection has sent
	iov    [][]byte
}

func newRig(t testing.TB, size uint64, change func(*Config, *memDevice)) *rig {
	t.Helper()
	r := &rig{t: t, loop: &manualLoop{}, stream: &fakeStream{}, iov: make([][]byte, 0, 16)}
	r.dev = newMemDevice(r.loop, size)
	cfg := Config{Exports: []Export{{Name: "disk", Device: r.dev}}}
	if change != nil {
		change(&cfg, r.dev)
	}
	srv, err := New(cfg)
	require.NoError(t, err)
	r.srv = srv
	r.conn = r.connect()
	r.conn.stream = r.stream
	return r
}

// connect makes one more connection to the export, past the handshake.
func (r *rig) connect() *conn {
	e := &r.srv.cfg.Exports[0]
	l, err := e.limits()
	require.NoError(r.t, err)
	c, err := r.srv.reserve(e, l, "test")
	require.NoError(r.t, err)
	c.shard.conns++
	return c
}

// offer gives the connection what it wants to read of b, at most chunk bytes
// at a time, and returns what it did not take.
func (r *rig) offer(b []byte, chunk int) (rest []byte, err error) {
	for len(b) > 0 && err == nil {
		direct, scratch := r.conn.ReadBuffers()
		n := copy(direct, b[:min(chunk, len(b))])
		n += copy(scratch, b[n:max(n, min(chunk, len(b)))])
		if n == 0 {
			return b, nil
		}
		b = b[n:]
		err = r.conn.DidRead(n)
	}
	return b, err
}

// feed requires the connection to take all of b.
func (r *rig) feed(b []byte) {
	r.t.Helper()
	rest, err := r.offer(b, len(b))
	require.NoError(r.t, err)
	require.Empty(r.t, rest, "the connection stopped reading")
}

// send lets up to limit bytes of output leave.
func (r *rig) send(limit int) (sent int) {
	for sent < limit {
		iov := r.conn.WriteBuffers(r.iov[:0])
		n := 0
		for _, b := range iov {
			k := min(len(b), limit-sent-n)
			r.out.Write(b[:k])
			n += k
		}
		if n == 0 {
			break
		}
		sent += n
		r.conn.DidWrite(n)
	}
	return sent
}

func (r *rig) sendAll() { r.send(1 << 30) }

// answer is one reply as a client sees it.
type answer struct {
	cookie uint64
	errno  uint32
	data   string
}

// answers decodes everything sent so far; reads tells the lengths of the READs
// by cookie.
func (r *rig) answers(reads map[uint64]int) []answer {
	r.t.Helper()
	r.sendAll()
	var all []answer
	for r.out.Len() > 0 {
		h := r.out.Next(simpleReplyLen)
		require.Len(r.t, h, simpleReplyLen)
		require.Equal(r.t, magicSimpleReply, binary.BigEndian.Uint32(h))
		a := answer{cookie: binary.BigEndian.Uint64(h[8:]), errno: binary.BigEndian.Uint32(h[4:])}
		if n := reads[a.cookie]; n > 0 && a.errno == 0 {
			data := r.out.Next(n)
			require.Len(r.t, data, n)
			a.data = string(data)
		}
		all = append(all, a)
	}
	return all
}

// end closes the stream and requires that nothing is kept.
func (r *rig) end() {
	r.t.Helper()
	r.conn.Closed(io.EOF)
	for len(r.dev.queue) > 0 {
		r.dev.completeAt(0)
	}
	assert.Zero(r.t, r.conn.inflight)
	assert.Zero(r.t, r.conn.memory)
	assert.Zero(r.t, r.conn.shard.pool.out, "buffers handed out and not given back")
	assert.Empty(r.t, r.srv.conns, "the server still knows the connection")
}

// req encodes a request; a WRITE's payload follows.
func req(cmd, flags uint16, cookie, offset uint64, length uint32, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicRequest)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, cmd)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, payload...)
}

// write encodes a WRITE with its payload.
func write(flags uint16, cookie, offset uint64, payload []byte) []byte {
	return req(cmdWrite, flags, cookie, offset, uint32(len(payload)), payload...)
}

// pattern fills n bytes that differ everywhere.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16) ^ seed
	}
	return b
}
