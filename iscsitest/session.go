package iscsitest

import (
	"slices"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// sessionKey is what may exist only once: the I_T nexus, RFC 7143 §4.4.3. For
// discovery sessions without a target the portal stands in (§7.4.2.1).
type sessionKey struct {
	initiator string
	isid      [6]byte
	target    string
	tpgt      uint16
	address   int // portal index + 1 for unnamed discovery sessions
}

// session is one iSCSI session. It is written for several connections; for now
// a login that wants to add one is refused.
type session struct {
	t         *Target
	key       sessionKey
	node      *node // nil for unnamed discovery sessions
	discovery bool
	tsih      uint16
	neg       Negotiated // of the leading connection
	cmdWindow uint32
	params    Params
	since     time.Time

	mu       sync.Mutex // guards everything below
	dead     bool
	expCmdSN uint32
	maxCmdSN uint32 // the largest ever shown: it must not go back
	inFlight uint32 // numbered SCSI tasks that were delivered and are not done
	waiting  map[uint32]*request
	tasks    map[uint32]*task // by ITT; from reception to response
	conns    map[uint16]*conn
	ua       map[*lun][]scsi.ASC // unit attentions not reported yet
	nextTTT  uint32
	pings    map[uint32]uint64 // TTT of NOP-Ins not answered yet, with their LUN
	texts    map[uint32]*textExchange
	timeout  *time.Timer     // runs while there is no connection
	commands uint64          // SCSI commands received
	aborted  map[uint32]bool // ITTs of tasks that ended early: their data may still come
}

// request is a request PDU that is not carried out yet.
type request struct {
	c      *conn
	bhs    [pdu.BHSLen]byte
	ahs    []byte
	data   []byte
	action Action
	task   *task // of a SCSI command
}

func (r *request) header() pdu.BHS { return r.bhs[:] }

// endReason says why a session or task ends.
type endReason uint8

const (
	endAborted    endReason = iota // by task management
	endReinstated                  // by a login in its place
	endLogout
	endTimeout // Time2Retain ran out after the last connection was lost
	endDropped // by Target.DropSessions
	endClosed  // Target.Close
)

// establish makes the session of a login that is about to succeed, after it
// ended the session whose place it takes. It returns nil if the target closes.
func (t *Target) establish(l *loginState) *session {
	t.establishing.Lock()
	defer t.establishing.Unlock()
	key := l.key()
	secure := l.passedSec || l.stage == pdu.StageSecurity
	q := t.cfg.Quirks
	if q.NoReinstatement || (q.ReinstateNeedsSecurity && !secure) {
		t.mu.Lock()
		if old := t.sessions[key]; old != nil {
			t.extra[old] = true
			delete(t.sessions, key)
		}
		t.mu.Unlock()
	} else {
		t.mu.Lock()
		old, hung := t.sessions[key], t.limbo[key]
		delete(t.limbo, key)
		t.mu.Unlock()
		if old != nil {
			t.cfg.Logf("session %d is reinstated", old.tsih)
			old.end(endReinstated)
		}
		for _, task := range hung {
			task.abort(endReinstated)
		}
	}
	s := &session{
		t: t, key: key, node: l.node, discovery: l.discovery, neg: l.c.neg,
		cmdWindow: l.params.CmdWindow, params: l.params, since: time.Now(),
		expCmdSN: l.hdr.CmdSN, maxCmdSN: l.hdr.CmdSN + l.params.CmdWindow - 1,
		aborted: make(map[uint32]bool),
		waiting: make(map[uint32]*request),
		tasks:   make(map[uint32]*task),
		conns:   make(map[uint16]*conn),
		ua:      make(map[*lun][]scsi.ASC),
		pings:   make(map[uint32]uint64),
		texts:   make(map[uint32]*textExchange),
	}
	if l.node != nil && !l.discovery {
		for _, u := range l.node.luns {
			if u.cfg.PowerOnUA {
				s.ua[u] = []scsi.ASC{scsi.ASCPowerOnOrReset}
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	s.tsih = t.lockedNewTSIH()
	t.sessions[key] = s
	return s
}

// lockedNewTSIH returns a session handle that is not in use.
func (t *Target) lockedNewTSIH() uint16 {
	for {
		t.nextTSIH++
		used := t.nextTSIH == 0 || slices.ContainsFunc(t.lockedSessions(), func(s *session) bool { return s.tsih == t.nextTSIH })
		if !used {
			return t.nextTSIH
		}
	}
}

func (t *Target) lockedSessions() []*session {
	var all []*session
	for _, s := range t.sessions {
		all = append(all, s)
	}
	for s := range t.extra {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int { return int(a.tsih) - int(b.tsih) })
	return all
}

// checkTSIH judges a login that names a session (§6.3.1): it would add a
// connection, which is not supported yet.
func (t *Target) checkTSIH(key sessionKey, tsih uint16) (pdu.LoginStatus, string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[key]
	if s == nil || s.tsih != tsih {
		return pdu.LoginNoSession, "no such session"
	}
	return pdu.LoginTooManyConnections, "one connection per session"
}

// join adds a connection whose login is done, and has the final response sent
// before anybody else can send something; false if the session is over.
func (s *session) join(c *conn, respond func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return false
	}
	s.conns[c.cid] = c
	respond()
	return true
}

// connLost is called when a connection has ended, however it did. The tasks
// are kept for as long as was Negotiated (§7.5, §13.16), the session too.
func (s *session) connLost(c *conn) {
	s.mu.Lock()
	if s.conns[c.cid] == c {
		delete(s.conns, c.cid)
	}
	keep := time.Duration(s.neg.DefaultTime2Wait+s.neg.DefaultTime2Retain) * time.Second
	last := len(s.conns) == 0 && !s.dead
	if last && keep > 0 {
		s.timeout = time.AfterFunc(keep, func() { s.end(endTimeout) })
	}
	s.mu.Unlock()
	if last && keep == 0 {
		s.end(endTimeout)
	}
}

// end ends the session: when it returns no task of it will change a medium any
// more. Only tasks held with HoldHung or HoldZombie outlive some reasons.
func (s *session) end(why endReason) {
	t := s.t
	s.mu.Lock()
	s.dead = true
	tasks := s.lockedTakeTasks(func(*task) bool { return true })
	conns := s.lockedConns()
	if s.timeout != nil {
		s.timeout.Stop()
	}
	s.mu.Unlock()
	for _, task := range tasks {
		if !task.abort(why) {
			t.mu.Lock()
			t.limbo[s.key] = append(t.limbo[s.key], task)
			t.mu.Unlock()
		}
	}
	t.mu.Lock()
	if t.sessions[s.key] == s {
		delete(t.sessions, s.key)
	}
	delete(t.extra, s)
	t.mu.Unlock()
	if why != endLogout { // Logout closes its connection after the answer
		for _, c := range conns {
			c.abort(why == endDropped)
		}
	}
}

func (s *session) lockedConns() []*conn {
	conns := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// lockedTakeTasks removes the tasks picked, so that they cannot be answered.
func (s *session) lockedTakeTasks(pick func(*task) bool) []*task {
	var taken []*task
	for itt, task := range s.tasks {
		if pick(task) {
			taken = append(taken, task)
			delete(s.tasks, itt)
			s.lockedReleaseSlot(task)
			if len(s.aborted) < maxAborted {
				s.aborted[itt] = true
			}
		}
	}
	return taken
}

// maxAborted bounds what is remembered of aborted tasks.
const maxAborted = 4096

// lockedReleaseSlot opens the command window by one when a task is over.
func (s *session) lockedReleaseSlot(t *task) {
	if t.delivered && !t.immediate {
		s.inFlight--
	}
}

// window returns what ExpCmdSN and MaxCmdSN of a PDU have to be (§4.2.2.1):
// there is room for cmdWindow tasks, and those in flight take of it.
func (s *session) window() (exp, maxSN uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lockedUpdateWindow()
	return s.expCmdSN, s.maxCmdSN
}

func (s *session) lockedUpdateWindow() {
	room := s.expCmdSN + s.cmdWindow - s.inFlight - 1
	if serial.Less(s.maxCmdSN, room) {
		s.maxCmdSN = room
	}
}

// handle takes one PDU of full feature phase; false ends the connection. The
// PDU's memory is the connection's and is not kept.
func (s *session) handle(c *conn, p pdu.PDU) bool {
	op := p.BHS.Opcode()
	c.ackStatus(p.BHS)
	action := Action{}
	if s.t.rules.any() {
		action = merge(s.t.rules.match(s.event(c, p)))
		switch action.terminal {
		case actClose:
			return false
		case actReset:
			c.abort(true)
			return false
		}
	}
	switch op {
	case pdu.OpDataOut:
		if action.terminal != actDrop {
			s.dataOut(c, p)
		}
		return true
	case pdu.OpSNACK:
		c.violation(p.BHS, "SNACK at ErrorRecoveryLevel 0 (§11.16)")
		c.reject(p.BHS, pdu.RejectSNACK)
		return true
	case pdu.OpSCSICommand, pdu.OpTaskMgmt, pdu.OpText, pdu.OpNOPOut, pdu.OpLogout:
		return s.numbered(c, p, action)
	case pdu.OpLogin:
		c.violation(p.BHS, "Login Request in full feature phase (§6.3)")
		c.reject(p.BHS, pdu.RejectProtocolError)
		return true
	}
	c.violation(p.BHS, "opcode that no initiator may send (§11.2.1.2)")
	c.reject(p.BHS, pdu.RejectUnsupported)
	return true
}

// ackStatus notes which responses the initiator has.
func (c *conn) ackStatus(bhs pdu.BHS) {
	exp := bhs.ExpStatSN()
	if serial.Less(c.nextStat.Load(), exp) {
		c.violation(bhs, "ExpStatSN %d acknowledges a response that was not sent, next is %d (§4.2.2.2)", exp, c.nextStat.Load())
		return
	}
	c.expStatSN.Store(exp)
}

// event describes a PDU for predicates.
func (s *session) event(c *conn, p pdu.PDU) *Event {
	e := &Event{
		Dir: FromInitiator, Portal: c.portal.index, Conn: c.number, TSIH: s.tsih,
		BHS: p.BHS, Data: p.Data, Index: c.index - 1,
	}
	switch p.BHS.Opcode() {
	case pdu.OpSCSICommand:
		e.Command = commandOf(pdu.SCSICommandView(p.BHS))
	case pdu.OpDataOut:
		s.mu.Lock()
		if t := s.tasks[p.BHS.ITT()]; t != nil {
			e.Command = &t.cmd
		}
		s.mu.Unlock()
	}
	return e
}

func commandOf(v pdu.SCSICommandView) *Command {
	return &Command{
		LUN: scsi.LUN(v.LUN()), ITT: v.ITT(), CmdSN: v.CmdSN(), CDB: scsi.CDB(v.CDB()),
		Read: v.Read(), Write: v.Write(),
	}
}

// numbered takes a request that has a CmdSN: it is carried out when its turn
// comes, or at once if it is immediate (§4.2.2.1).
func (s *session) numbered(c *conn, p pdu.PDU, action Action) bool {
	r := &request{c: c, bhs: [pdu.BHSLen]byte(p.BHS), ahs: p.AHS, data: p.Data, action: action}
	sn := p.BHS.CmdSN()
	s.mu.Lock()
	if s.dead {
		s.mu.Unlock()
		return false
	}
	s.lockedUpdateWindow()
	immediate := p.BHS.Immediate()
	if !immediate {
		if why := s.lockedOutside(sn); why != "" {
			s.mu.Unlock()
			c.violation(p.BHS, "CmdSN %d %s (§4.2.2.1)", sn, why)
			return true // silently ignored
		}
	}
	if s.discovery && !discoveryMay(p.BHS.Opcode()) {
		s.mu.Unlock()
		c.violation(p.BHS, "only Text and Logout are allowed in a discovery session (§4.3)")
		c.reject(p.BHS, pdu.RejectProtocolError)
		return true
	}
	if p.BHS.Opcode() == pdu.OpSCSICommand && action.terminal != actReject {
		known, ok := s.lockedNewTask(r)
		if !ok {
			s.mu.Unlock()
			if !known {
				c.violation(p.BHS, "Initiator Task Tag is in use (§11.2.1.8)")
				c.reject(p.BHS, pdu.RejectTaskInProgress)
			}
			return true
		}
	}
	var ready []*request
	switch {
	case immediate:
		ready = append(ready, r)
	case sn == s.expCmdSN:
		ready = s.lockedDrain(r)
	default:
		r.ahs, r.data = slices.Clone(r.ahs), slices.Clone(r.data)
		s.waiting[sn] = r
	}
	s.lockedDeliver(ready)
	s.mu.Unlock()
	for _, r := range ready {
		if !s.carryOut(r) {
			return false
		}
	}
	return true
}

// lockedOutside says why a CmdSN cannot be taken; empty if it can.
func (s *session) lockedOutside(sn uint32) string {
	switch {
	case serial.Less(sn, s.expCmdSN):
		return "was received before"
	case !serial.LessEq(sn, s.maxCmdSN):
		return "is outside the command window"
	case s.waiting[sn] != nil:
		return "was received before"
	}
	return ""
}

// lockedDrain returns r, whose turn it is, and all requests waiting behind it.
func (s *session) lockedDrain(r *request) []*request {
	ready := []*request{r}
	for {
		s.expCmdSN++
		next := s.waiting[s.expCmdSN]
		if next == nil {
			return ready
		}
		delete(s.waiting, s.expCmdSN)
		ready = append(ready, next)
	}
}

// lockedDeliver counts tasks whose turn has come against the command window.
func (s *session) lockedDeliver(ready []*request) {
	for _, r := range ready {
		if r.task != nil && s.tasks[r.task.cmd.ITT] == r.task { // else aborted
			r.task.delivered = true
			s.inFlight += uint32(asNumber(!r.task.immediate))
		}
	}
}

// carryOut performs a request whose turn has come; false ends the connection.
func (s *session) carryOut(r *request) bool {
	a := r.action
	switch {
	case a.terminal == actReject:
		r.c.reject(r.header(), a.reason)
		return true
	case r.task != nil:
		s.startTask(r)
		return true
	case a.terminal == actDrop:
		return true
	case a.delay > 0 || a.hang != nil:
		r.ahs, r.data = slices.Clone(r.ahs), slices.Clone(r.data)
		s.t.wg.Go(func() {
			if r.c.pause(a) && !s.perform(r) {
				r.c.closeWhenSent()
			}
		})
		return true
	}
	return s.perform(r)
}

// perform carries out a request that is no SCSI command.
func (s *session) perform(r *request) bool {
	switch r.header().Opcode() {
	case pdu.OpText:
		s.text(r)
	case pdu.OpNOPOut:
		s.nopOut(r)
	case pdu.OpLogout:
		return s.logout(r)
	case pdu.OpTaskMgmt:
		s.taskMgmt(r)
	}
	return true
}

// pause waits as an action for a PDU that is no SCSI command wants; false if
// the connection ended meanwhile.
func (c *conn) pause(a Action) bool {
	if a.delay > 0 {
		timer := time.NewTimer(a.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.gone:
			return false
		}
	}
	if a.hang != nil {
		a.hang.arrive()
		select {
		case <-a.hang.released:
		case <-c.gone:
			return false
		}
	}
	return true
}

// discoveryMay reports whether a request is allowed in a discovery session.
// NOP-Out is not mentioned by the RFC; initiators send it.
func discoveryMay(op pdu.Opcode) bool {
	return op == pdu.OpText || op == pdu.OpLogout || op == pdu.OpNOPOut
}
