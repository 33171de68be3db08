package session

// outbound is the queue of bytes a connection has yet to send: headers, which
// are copied into chunks of its own, and data segments, which are sent from
// where they lie. It counts stream positions, so that whoever appended
// something can tell later whether it has left.
type outbound struct {
	segs   []segment
	head   int // first segment not fully sent
	off    int // bytes of segs[head] already sent
	chunk  *chunk
	spare  []*chunk
	queued uint64 // stream position of the end of the queue
	sent   uint64 // stream position of what has left
}

// segment is a run of bytes to be sent. Runs in a chunk keep the chunk busy.
type segment struct {
	b    []byte
	home *chunk // nil: the bytes belong to a command
}

// chunk holds headers until they have left.
type chunk struct {
	buf  []byte
	busy int // segments that point into buf
}

const (
	chunkSize = 32 << 10
	// headerRoom is what one call of header may append: BHS, AHS and header digest.
	headerRoom = 48 + 1020 + 4
)

// pending is the number of bytes waiting to be sent.
func (o *outbound) pending() int { return int(o.queued - o.sent) }

// room makes sure that n bytes, at most chunkSize, fit the current chunk and
// gives its fill level. What is then appended to chunk.buf is queued by commit.
func (o *outbound) room(n int) int {
	if o.chunk == nil || cap(o.chunk.buf)-len(o.chunk.buf) < n {
		o.nextChunk()
	}
	return len(o.chunk.buf)
}

// nextChunk takes a chunk that is empty. The one before is full of bytes to be
// sent: a chunk whose bytes have all left is emptied at once, by advance.
func (o *outbound) nextChunk() {
	if n := len(o.spare); n > 0 {
		o.chunk = o.spare[n-1]
		o.spare = o.spare[:n-1]
		return
	}
	o.chunk = &chunk{buf: make([]byte, 0, chunkSize)}
}

// commit queues what was appended to the current chunk since it was start long,
// joined with the segment before it where they touch.
func (o *outbound) commit(start int) {
	c := o.chunk
	n := len(c.buf) - start
	if n == 0 {
		return
	}
	o.queued += uint64(n)
	if last := len(o.segs) - 1; last >= o.head && o.segs[last].home == c {
		s := &o.segs[last]
		if at := cap(c.buf) - cap(s.b); at+len(s.b) == start {
			s.b = s.b[:len(s.b)+n]
			return
		}
	}
	c.busy++
	o.push(segment{b: c.buf[start:len(c.buf)], home: c})
}

// data appends bytes to be sent from where they lie; they must stay unchanged
// until sent has passed the position it returns.
func (o *outbound) data(b []byte) uint64 {
	if len(b) > 0 {
		o.queued += uint64(len(b))
		o.push(segment{b: b})
	}
	return o.queued
}

func (o *outbound) push(s segment) {
	if o.head == len(o.segs) {
		o.segs, o.head = o.segs[:0], 0
	} else if o.head > 64 && o.head > len(o.segs)/2 {
		n := copy(o.segs, o.segs[o.head:])
		clear(o.segs[n:])
		o.segs, o.head = o.segs[:n], 0
	}
	o.segs = append(o.segs, s)
}

// buffers appends the waiting bytes to iov, as far as its capacity goes.
func (o *outbound) buffers(iov [][]byte) [][]byte {
	off := o.off
	for i := o.head; i < len(o.segs) && len(iov) < cap(iov); i++ {
		iov = append(iov, o.segs[i].b[off:])
		off = 0
	}
	return iov
}

// advance tells that n bytes have left.
func (o *outbound) advance(n int) {
	o.sent += uint64(n)
	for n > 0 {
		s := &o.segs[o.head]
		left := len(s.b) - o.off
		if n < left {
			o.off += n
			return
		}
		n -= left
		o.off = 0
		if c := s.home; c != nil {
			if c.busy--; c.busy == 0 {
				c.buf = c.buf[:0]
				if c != o.chunk {
					o.spare = append(o.spare, c)
				}
			}
		}
		*s = segment{}
		o.head++
	}
	if o.head == len(o.segs) {
		o.segs, o.head = o.segs[:0], 0
	}
}
