package nbd

import (
	"github.com/iscsimp/iscsimp/internal/invariants"
)

// idleRequests is how many unused requests a shard keeps.
const idleRequests = 4096

// shard is what the connections of one loop share. Used on that loop only.
type shard struct {
	pool    pool
	scratch []byte // requestLen for a partial request, then windowFull; empty between callbacks
	idle    []*request
	conns   int // streams open on this loop
}

func newShard() *shard {
	return &shard{scratch: make([]byte, requestLen+windowFull)}
}

// newRequest returns a request for c with Owner set and everything else zero.
func (s *shard) newRequest(c *conn) *request {
	if n := len(s.idle); n > 0 {
		q := s.idle[n-1]
		s.idle = s.idle[:n-1]
		q.conn = c
		return q
	}
	q := &request{conn: c}
	q.Owner = q
	return q
}

// freeRequest takes back a request whose buffer has been given away.
func (s *shard) freeRequest(q *request) {
	*q = request{}
	q.Owner = q
	if len(s.idle) < idleRequests {
		s.idle = append(s.idle, q)
	}
}

// leave is called when a stream ends. The last one takes the idle memory along.
func (s *shard) leave() {
	s.conns--
	if s.conns == 0 {
		s.pool.trim()
		s.idle = nil
	}
}

// panicIfInvariants stops the program where a bug of ours shows, in builds
// made to find them.
func panicIfInvariants(what string) {
	if invariants.Enabled {
		panic(what)
	}
}
