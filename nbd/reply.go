package nbd

// replyRing is the queue of replies that wait to leave, in the order they were
// made. The headers of replies without data lie side by side in hdrs, so that
// a run of them leaves as one piece; a READ's header lies in the headroom of
// its buffer, in front of the data.
//
// A slice given to the loop stays as it is until the reply has left: growing
// copies, it never moves.
type replyRing struct {
	slots      []reply // length is a power of two, or zero
	hdrs       []byte  // simpleReplyLen bytes per slot
	head, tail uint32  // free-running; slot = counter modulo length
	sent       int     // bytes of the head reply that have left
}

// reply is one slot. wire is nil for a reply without data.
type reply struct {
	wire []byte // header and data
	buf  buffer // what wire lies in
	cost int
}

const firstReplySlots = 64

func (r *replyRing) len() int { return int(r.tail - r.head) }

func (r *replyRing) header(i uint32) []byte {
	at := int(i&uint32(len(r.slots)-1)) * simpleReplyLen
	return r.hdrs[at : at+simpleReplyLen : at+simpleReplyLen]
}

func (r *replyRing) slot(i uint32) *reply { return &r.slots[i&uint32(len(r.slots)-1)] }

// push appends a slot and returns it with its index.
func (r *replyRing) push() (*reply, uint32) {
	if r.len() == len(r.slots) {
		r.grow()
	}
	i := r.tail
	r.tail++
	return r.slot(i), i
}

// grow doubles the ring. Bounded, since a connection's pending requests are.
func (r *replyRing) grow() {
	size := max(2*len(r.slots), firstReplySlots)
	bigger := replyRing{
		slots: make([]reply, size),
		hdrs:  make([]byte, size*simpleReplyLen),
		head:  r.head, tail: r.tail, sent: r.sent,
	}
	for i := r.head; i != r.tail; i++ {
		*bigger.slot(i) = *r.slot(i)
		copy(bigger.header(i), r.header(i))
	}
	*r = bigger
}

// replyHeader queues a reply without data.
func (c *conn) replyHeader(errno uint32, cookie uint64) {
	if errno != 0 {
		c.stats.errors.Add(1)
	}
	slot, i := c.replies.push()
	*slot = reply{}
	putSimpleReply(c.replies.header(i), errno, cookie)
	c.stream.Flush()
}

// replyData queues the reply of a successful READ, whose buffer moves from the
// request to the reply.
func (c *conn) replyData(q *request) {
	wire := q.buf.b[:headroom+len(q.Data)]
	putSimpleReply(wire, 0, q.cookie)
	slot, _ := c.replies.push()
	*slot = reply{wire: wire, buf: q.buf, cost: q.cost}
	q.buf, q.Data = buffer{}, nil
	c.stream.Flush()
}

// WriteBuffers implements loop.Handler.
func (c *conn) WriteBuffers(iov [][]byte) [][]byte {
	r := &c.replies
	sent := r.sent
	for i := r.head; i != r.tail && len(iov) < cap(iov); {
		if wire := r.slot(i).wire; wire != nil {
			iov = append(iov, wire[sent:])
			i++
		} else {
			from := i
			i = r.headerRun(i)
			at := int(from&uint32(len(r.slots)-1)) * simpleReplyLen
			iov = append(iov, r.hdrs[at+sent:at+int(i-from)*simpleReplyLen])
		}
		sent = 0
	}
	return iov
}

// headerRun returns the end of the run of replies without data that begins at
// from and lies in one piece.
func (r *replyRing) headerRun(from uint32) uint32 {
	i := from + 1
	for i != r.tail && i&uint32(len(r.slots)-1) != 0 && r.slot(i).wire == nil {
		i++
	}
	return i
}

// DidWrite implements loop.Handler. Here a request's life ends, so here
// requests that waited for room go on.
func (c *conn) DidWrite(n int) {
	r := &c.replies
	n += r.sent
	for r.head != r.tail {
		slot := r.slot(r.head)
		size := simpleReplyLen
		if slot.wire != nil {
			size = len(slot.wire)
		}
		if n < size {
			break
		}
		n -= size
		r.head++
		c.pending--
		c.release(slot)
	}
	r.sent = n
	if c.blocked && !c.stopped() {
		c.unblock()
	}
	c.closeIfDone()
	c.publish()
}

func (c *conn) release(slot *reply) {
	if slot.wire == nil {
		return
	}
	c.shard.pool.put(slot.buf)
	c.memory -= slot.cost
	*slot = reply{}
}

// dropAll releases what never left.
func (r *replyRing) dropAll(c *conn) {
	for ; r.head != r.tail; r.head++ {
		c.release(r.slot(r.head))
	}
	r.sent = 0
}
