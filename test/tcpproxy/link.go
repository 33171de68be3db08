package tcpproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// link is one forwarded connection: a client, and our own connection to the target.
type link struct {
	client     *net.TCPConn
	cancelDial func()
	number     int           // of the connection, in the order of acceptance
	done       chan struct{} // closed by reset

	mu     sync.Mutex
	server *net.TCPConn // nil until dialed
	broken bool         // reset was called
}

// attach hands over the connection to the target; false means that the link was reset meanwhile.
func (l *link) attach(server *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return false
	}
	l.server = server
	return true
}

// reset sends RST to both sides and ends everything that works for the link. It may be called more than once.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return
	}
	l.broken = true
	close(l.done)
	l.cancelDial()
	resetConn(l.client)
	if l.server != nil {
		resetConn(l.server)
	}
}

func resetConn(c *net.TCPConn) {
	_ = c.SetLinger(0) // closing now sends RST
	_ = c.Close()
}

// forward moves one direction: a reader stamps each piece with the time it is due, a writer lets it go at that time. Reading on while earlier pieces wait is
// what keeps a delayed line as wide as an undelayed one.
func (p *Proxy) forward(l *link, from, to *net.TCPConn, counter *int64) {
	q := newQueue()
	var reader sync.WaitGroup
	reader.Go(func() {
		err := p.readInto(q, from)
		q.end(err)
	})
	err := p.writeFrom(q, l, to, counter)
	if errors.Is(err, io.EOF) {
		_ = to.CloseWrite() // an orderly end passes as an orderly end
	} else {
		l.reset()
	}
	q.abandon()
	reader.Wait()
}

func (p *Proxy) readInto(q *queue, from *net.TCPConn) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_, delay, _ := p.line()
			due := time.Time{}
			if delay > 0 {
				due = time.Now().Add(delay)
			}
			if !q.push(p.room(), piece{bytes: append([]byte(nil), buf[:n]...), due: due}) {
				return net.ErrClosed
			}
		}
		if err != nil {
			return err
		}
	}
}

// writeFrom returns io.EOF after an orderly end of the source, any other error otherwise.
func (p *Proxy) writeFrom(q *queue, l *link, to *net.TCPConn, counter *int64) error {
	var narrow bucket
	for {
		next, err := q.pop()
		if err != nil {
			if !p.waitUnstalled(l) { // silence hides the end of a connection too
				return net.ErrClosed
			}
			return err
		}
		if wait := time.Until(next.due); !next.due.IsZero() && wait > 0 {
			select {
			case <-time.After(wait):
			case <-l.done:
				return net.ErrClosed
			}
		}
		if !p.waitUnstalled(l) {
			return net.ErrClosed
		}
		if err := p.writePiece(&narrow, l, to, next.bytes, counter); err != nil {
			return err
		}
	}
}

// waitUnstalled waits while the line is stalled; false means that the link was reset.
func (p *Proxy) waitUnstalled(l *link) bool {
	for {
		mode, _, changed := p.line()
		if mode != Stalled {
			return true
		}
		select {
		case <-changed:
		case <-l.done:
			return false
		}
	}
}

type piece struct {
	bytes []byte
	due   time.Time // zero: at once
}

// queue holds the pieces of one direction between its reader and its writer.
type queue struct {
	mu        sync.Mutex
	moved     *sync.Cond
	pieces    []piece
	bytes     int   // of pieces
	err       error // why no more pieces come
	abandoned bool  // nobody pops any more
}

func newQueue() *queue {
	q := &queue{}
	q.moved = sync.NewCond(&q.mu)
	return q
}

// push waits until less than limit bytes are queued; false means that nobody pops any more.
func (q *queue) push(limit int, p piece) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes >= limit && !q.abandoned {
		q.moved.Wait()
	}
	if q.abandoned {
		return false
	}
	q.pieces = append(q.pieces, p)
	q.bytes += len(p.bytes)
	q.moved.Broadcast()
	return true
}

// pop waits for a piece; after the last one it returns the reason of the end.
func (q *queue) pop() (piece, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pieces) == 0 && q.err == nil {
		q.moved.Wait()
	}
	if len(q.pieces) == 0 {
		return piece{}, q.err
	}
	p := q.pieces[0]
	q.pieces = q.pieces[1:]
	q.bytes -= len(p.bytes)
	q.moved.Broadcast()
	return p, nil
}

func (q *queue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
	q.moved.Broadcast()
}

func (q *queue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.abandoned = true
	q.moved.Broadcast()
}
