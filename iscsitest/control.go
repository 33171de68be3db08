package iscsitest

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// SessionInfo is a snapshot of one session.
type SessionInfo struct {
	TSIH       uint16
	Initiator  string
	ISID       [6]byte
	Target     string // empty for unnamed discovery sessions
	TPGT       uint16
	Discovery  bool
	Since      time.Time
	Negotiated Negotiated
	Conns      []ConnInfo // by rising CID
	Lost       []uint16   // CIDs of connections that were lost and not logged out
	ExpCmdSN   uint32
	MaxCmdSN   uint32
	Commands   uint64 // SCSI commands received
	Tasks      int    // SCSI commands received and not answered yet
	Pings      int    // NOP-Ins that wait for an answer
	Acks       int    // Data-Ins with A bit that wait for their DataACK
	// Terminations are events of ended tasks (§11.9.1, event 5) not acknowledged yet.
	Terminations int
}

// ConnInfo is a snapshot of one connection in full feature phase.
type ConnInfo struct {
	Number    int // of the connection at this target, from 0
	CID       uint16
	Portal    int // index into Config.Portals
	Remote    net.Addr
	StatSN    uint32 // of the next response
	ExpStatSN uint32 // last received
	Tasks     int    // SCSI commands received on it and not answered yet
	// Negotiated has the digests and the SendMRDSL and RecvMRDSL of the
	// connection; the rest is the session's.
	Negotiated Negotiated
}

// Sessions returns all sessions, by rising TSIH. Those without connections wait
// to be reinstated or to time out.
func (t *Target) Sessions() []SessionInfo {
	t.mu.Lock()
	sessions := t.lockedSessions()
	t.mu.Unlock()
	infos := make([]SessionInfo, len(sessions))
	for i, s := range sessions {
		infos[i] = s.info()
	}
	return infos
}

func (s *session) info() SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lockedUpdateWindow()
	info := SessionInfo{
		TSIH: s.tsih, Initiator: s.key.initiator, ISID: s.key.isid, Target: s.key.target,
		TPGT: s.key.tpgt, Discovery: s.discovery, Since: s.since, Negotiated: s.neg,
		ExpCmdSN: s.expCmdSN, MaxCmdSN: s.maxCmdSN,
		Commands: s.commands, Tasks: len(s.tasks), Pings: len(s.pings), Acks: len(s.acks),
		Terminations: len(s.terminations),
	}
	tasks := make(map[*conn]int)
	for _, t := range s.tasks {
		tasks[t.c]++
	}
	info.Lost = s.lockedLostCIDs()
	for _, c := range s.lockedConns() {
		info.Conns = append(info.Conns, ConnInfo{
			Tasks: tasks[c], Negotiated: c.neg,
			Number: c.number, CID: c.cid, Portal: c.portal.index, Remote: c.nc.RemoteAddr(),
			StatSN: c.nextStat.Load(), ExpStatSN: c.expStatSN.Load(),
		})
	}
	return info
}

// pick returns the sessions that which says yes to; nil picks all.
func (t *Target) pick(which func(SessionInfo) bool) []*session {
	t.mu.Lock()
	sessions := t.lockedSessions()
	t.mu.Unlock()
	var picked []*session
	for _, s := range sessions {
		if which == nil || which(s.info()) {
			picked = append(picked, s)
		}
	}
	return picked
}

// ByTSIH picks one session, for DropSessions and its like.
func ByTSIH(tsih uint16) func(SessionInfo) bool {
	return func(s SessionInfo) bool { return s.TSIH == tsih }
}

// ByPortal picks the sessions that have a connection through a portal.
func ByPortal(index int) func(SessionInfo) bool {
	return func(s SessionInfo) bool {
		for _, c := range s.Conns {
			if c.Portal == index {
				return true
			}
		}
		return false
	}
}

// DropSessions ends sessions without a word: tasks, state and connections
// (RST). A nil function picks all. It returns how many there were.
func (t *Target) DropSessions(which func(SessionInfo) bool) int {
	picked := t.pick(which)
	for _, s := range picked {
		s.end(endDropped)
	}
	return len(picked)
}

// CutConnections resets the connections of sessions, which live on as after any
// connection loss. A nil function picks all. It returns how many there were.
func (t *Target) CutConnections(which func(SessionInfo) bool) int {
	n := 0
	for _, c := range t.connsOf(t.pick(which)) {
		c.abort(true)
		n++
	}
	return n
}

// CutConnection resets the connection of a CID in the sessions picked, which live
// on. It returns how many there were.
func (t *Target) CutConnection(which func(SessionInfo) bool, cid uint16) int {
	n := 0
	for _, s := range t.pick(which) {
		if c := s.conn(cid); c != nil {
			c.abort(true)
			n++
		}
	}
	return n
}

// DropConnection tells the initiators of the sessions picked that the connection
// of a CID ends, by the Asynchronous Message "connection drop" (RFC 7143 §11.9.1),
// and then drops it. The message goes over another connection of the session if
// there is one. It returns how many connections there were.
func (t *Target) DropConnection(which func(SessionInfo) bool, cid uint16) int {
	n := 0
	for _, s := range t.pick(which) {
		c := s.conn(cid)
		if c == nil {
			continue
		}
		n++
		o := &outPDU{}
		(&pdu.Async{
			AsyncEvent: pdu.AsyncConnectionDrop, Param1: cid,
			Param2: uint16(s.neg.DefaultTime2Wait), Param3: uint16(s.neg.DefaultTime2Retain),
		}).AppendTo(o.bhs[:0])
		via := c
		for _, other := range t.connsOf([]*session{s}) {
			if other != c {
				via = other
			}
		}
		if via == c {
			c.send(o)
			c.closeWhenSent()
			continue
		}
		o.after = func() { c.abort(false) }
		via.send(o)
	}
	return n
}

// conn returns the living connection of a CID, nil if there is none.
func (s *session) conn(cid uint16) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns[cid]
}

// connsOf returns all connections of the sessions.
func (t *Target) connsOf(sessions []*session) []*conn {
	var conns []*conn
	for _, s := range sessions {
		s.mu.Lock()
		conns = append(conns, s.lockedConns()...)
		s.mu.Unlock()
	}
	return conns
}

// SendAsync sends an Asynchronous Message on every connection of the sessions
// picked (RFC 7143 §11.9); data is the data segment, see AsyncSense. It returns
// on how many. What the event announces the caller has to do itself.
func (t *Target) SendAsync(which func(SessionInfo) bool, a pdu.Async, data []byte) int {
	conns := t.connsOf(t.pick(which))
	for _, c := range conns {
		o := &outPDU{data: data}
		a.AppendTo(o.bhs[:0])
		c.send(o)
	}
	return len(conns)
}

// AsyncSense is the data segment of an Asynchronous Message with sense data (§11.9.4).
func AsyncSense(key scsi.SenseKey, asc scsi.ASC) []byte {
	sense := scsi.AppendFixedSense(nil, key, asc)
	return append([]byte{byte(len(sense) >> 8), byte(len(sense))}, sense...)
}

// SendNOPIn sends a NOP-In on every connection of the sessions picked (§11.19);
// wantsAnswer makes it a ping, see SessionInfo.Pings. It returns on how many.
func (t *Target) SendNOPIn(which func(SessionInfo) bool, wantsAnswer bool) int {
	conns := t.connsOf(t.pick(which))
	for _, c := range conns {
		if wantsAnswer {
			c.sess.mu.Lock()
			c.sess.lockedPing(&ping{c: c})
			c.sess.mu.Unlock()
			continue
		}
		o := &outPDU{stat: statShown}
		(&pdu.NOPIn{ITT: pdu.ReservedTag, TTT: pdu.ReservedTag}).AppendTo(o.bhs[:0])
		c.send(o)
	}
	return len(conns)
}

// SendReject sends a Reject of the PDU whose header is given (§11.17) on every
// connection of the sessions picked. It returns on how many.
func (t *Target) SendReject(which func(SessionInfo) bool, reason pdu.RejectReason, bhs pdu.BHS) int {
	conns := t.connsOf(t.pick(which))
	for _, c := range conns {
		c.reject(bhs, reason)
	}
	return len(conns)
}

// DialContext connects through net.Pipe to the portal whose address is given;
// it fits where a dial function like that of net.Dialer is wanted.
func (t *Target) DialContext(_ context.Context, _, address string) (net.Conn, error) {
	for i, addr := range t.Addrs() {
		if addr == address {
			return t.Dial(i)
		}
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("no portal at %s", address)}
}
