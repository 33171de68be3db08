package session

import "time"

// Choosing among the connections of a session: the one with the fewest bytes
// outstanding. A connection that drains slowly keeps its bytes longer and so gets
// fewer, whatever the reason. Times of single commands do not tell connections
// apart under load, since the target executes commands in the order of CmdSN
// over all connections, and an idle one would look as slow as the busiest; they
// decide between connections with equal loads, as at depth 1.

const (
	overhead      = 4096            // a command's weight in bytes besides its data
	latencyWeight = 0.2             // of a new sample
	latencyStale  = 1 * time.Second // without a sample for so long, half of a latency is forgotten
)

// pick gives the connection for a command.
func (s *Session) pick() *conn {
	if len(s.members) == 0 {
		return s.conn
	}
	var best *conn
	now := s.env.Now()
	for i := range s.members {
		m := &s.members[i]
		if !m.up() {
			continue
		}
		c := m.conn
		if c.load == 0 && now-c.sampledAt > int64(latencyStale) {
			c.latency, c.sampledAt = c.latency/2, now
		}
		if best == nil || c.betterThan(best) {
			best = c
		}
	}
	if best == nil {
		return s.conn
	}
	return best
}

func (c *conn) betterThan(o *conn) bool {
	switch {
	case c.silent != o.silent:
		return o.silent
	case c.load != o.load:
		return c.load < o.load
	}
	return c.latency < o.latency
}

// loaded notes that t was queued on its connection.
func (t *task) loaded() { t.conn.load += t.weight() }

func (t *task) weight() int { return int(max(t.length, t.inLen)) + overhead }

// unloaded notes that t is over; ok if it was answered.
func (t *task) unloaded(now int64, ok bool) {
	c := t.conn
	c.load -= t.weight()
	if ok {
		c.latency += (float64(now-t.at) - c.latency) * latencyWeight
		c.sampledAt = now
	}
}
