package session

import "time"

// Choosing among the connections of a session. What a command costs on one is
// the bytes outstanding there, its own included, times the time that an
// outstanding byte took lately: on a link of limited bandwidth that is the queue
// before it, on a long one the share of the round trip.

const (
	overhead   = 4096            // a command's weight in bytes besides its data
	paceWeight = 0.2             // of a new sample
	paceStale  = 1 * time.Second // a pace without a sample for so long is forgotten bit by bit
	firstPace  = 1               // ns per byte, before there is a sample
)

// pick gives the connection for a command with n bytes of data.
func (s *Session) pick(n int) *conn {
	if len(s.members) == 0 {
		return s.conn
	}
	var best *conn
	var least float64
	now := s.env.Now()
	for i := range s.members {
		m := &s.members[i]
		if !m.up() || m.conn.logoutSent {
			continue
		}
		c := m.conn
		if c.load == 0 && c.pace > firstPace && now-c.pacedAt > int64(paceStale) {
			c.pace, c.pacedAt = max(c.pace/2, firstPace), now
		}
		cost := float64(c.load+n+overhead) * max(c.pace, firstPace)
		if best == nil || c.silent != best.silent && best.silent || c.silent == best.silent && cost < least {
			best, least = c, cost
		}
	}
	if best == nil {
		return s.conn
	}
	return best
}

// loaded notes that t was queued on its connection.
func (t *task) loaded() {
	t.conn.load += int(t.length) + overhead
	t.load = t.conn.load
}

// unloaded notes that t is over; ok if it was answered.
func (t *task) unloaded(now int64, ok bool) {
	c := t.conn
	c.load -= int(t.length) + overhead
	if !ok || t.load <= 0 {
		return
	}
	sample := float64(now-t.at) / float64(t.load)
	if c.pacedAt == 0 {
		c.pace = sample
	} else {
		c.pace += (sample - c.pace) * paceWeight
	}
	c.pacedAt = now
}
