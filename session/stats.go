package session

import "time"

// ConnStats is a snapshot of one connection of a session.
type ConnStats struct {
	// CID is the connection's identifier (RFC 7143 §4.4.3), 0 for the first one.
	CID uint16
	// State is "up", "joining" (dialing or logging in), "waiting" (to be dialed
	// again), or "clean-up" (lost; its commands are being settled over another one).
	State string
	// LocalAddr is this end's address, "" if there is no connection now.
	LocalAddr string
	// Outstanding is the load in bytes by which commands are spread over the
	// connections: data under way, and 4096 for each command.
	Outstanding int
	// Latency is the recent one of its commands in seconds, 0 if not known.
	Latency float64
	// Silent: nothing was received for Config.SuspectAfter although something is outstanding.
	Silent bool
	// RetryIn is the time until the next dial in seconds, 0 if none is planned.
	RetryIn float64
}

// Notice is something a target said on its own.
type Notice struct {
	Text  string // "" if it never did
	Count uint64 // since the start
	At    int64  // loop time of the last one
}

// noticed notes what the target said. Never on the hot path.
func (s *Session) noticed(n *Notice, text string) {
	n.Text, n.At = text, s.env.Now()
	n.Count++
}

var memberStates = [...]string{
	memberIdle: "waiting", memberJoining: "joining", memberUp: "up",
	memberCleaning: "clean-up", memberProving: "clean-up", memberSettling: "clean-up",
}

// connStats describes every connection, the only one too.
func (s *Session) connStats() []ConnStats {
	now := s.env.Now()
	if len(s.members) == 0 {
		if s.conn == nil || s.state != StateLoggedIn {
			return nil
		}
		return []ConnStats{s.conn.stats(memberStates[memberUp])}
	}
	list := make([]ConnStats, 0, len(s.members))
	for i := range s.members {
		m := &s.members[i]
		st := ConnStats{CID: m.cid, State: memberStates[m.state]}
		if m.conn != nil {
			st = m.conn.stats(st.State)
		}
		if m.state == memberIdle && m.retryAt > now {
			st.RetryIn = time.Duration(m.retryAt - now).Seconds()
		}
		list = append(list, st)
	}
	return list
}

func (c *conn) stats(state string) ConnStats {
	return ConnStats{
		CID: c.cid, State: state, LocalAddr: c.localAddr(),
		Outstanding: c.load, Latency: c.latency / 1e9, Silent: c.silent,
	}
}

// localAddr is this end's address, "" while there is none.
func (c *conn) localAddr() string {
	if c.stream == nil || c.stream.LocalAddr() == nil {
		return ""
	}
	return c.stream.LocalAddr().String()
}
