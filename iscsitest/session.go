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

// session is one iSCSI session with its connections (RFC 7143 §4.2). CmdSN, the
// tasks and the LUNs belong to it; StatSN, digests and MaxRecvDataSegmentLength
// to each connection.
type session struct {
	t         *Target
	key       sessionKey
	node      *node // nil for unnamed discovery sessions
	discovery bool
	tsih      uint16
	neg       Negotiated // of the leading connection; conn.neg has what is not session-wide
	cmdWindow uint32
	params    Params
	since     time.Time

	// delivering is held while requests are carried out in the order of CmdSN;
	// see deliverReady.
	delivering sync.Mutex

	mu       sync.Mutex // guards everything below
	dead     bool
	ready    []*request // whose turn has come, in order
	expCmdSN uint32
	maxCmdSN uint32 // the largest ever shown: it must not go back
	inFlight uint32 // numbered SCSI tasks that were delivered and are not done
	waiting  map[uint32]*request
	tasks    map[uint32]*task // by ITT; from reception to response
	conns    map[uint16]*conn // by CID
	lost     map[*conn]*lostConn
	ua       map[*lun][]scsi.ASC // unit attentions not reported yet
	nextTTT  uint32
	dying    map[*task]bool   // taken out of tasks, and perhaps not aborted yet
	pings    map[uint32]*ping // NOP-Ins not answered yet, by TTT
	texts    map[uint32]*textExchange
	acks     map[uint32]dataAck // by TTT
	commands uint64             // SCSI commands received
	aborted  map[uint32]bool    // ITTs of tasks that ended early: their data may still come
	noData   map[uint32]bool    // of those, with FastAbort: it must not
	// terminations are events that no NOP-Out has acknowledged yet.
	terminations []*termination
	// recovering: a connection has ended before, so that requests which were
	// received may come again.
	recovering bool
}

// request is a request PDU that is not carried out yet.
type request struct {
	c      *conn
	bhs    [pdu.BHSLen]byte
	ahs    []byte
	data   []byte
	action Action
	task   *task // of a SCSI command

	admitted bool // checked, and to be carried out
}

func (r *request) header() pdu.BHS { return r.bhs[:] }

// endReason says why a session or task ends.
type endReason uint8

const (
	endAborted    endReason = iota // by task management
	endReinstated                  // by a login in its place
	endLogout
	endTimeout // Time2Retain ran out after a connection was lost
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
	if q.NoReinstatement || (q.ReinstateNeedsSecurity && !secure) || l.join != nil {
		t.mu.Lock()
		if old := t.sessions[key]; old != nil {
			t.extra[old] = true
			delete(t.sessions, key)
		}
		t.mu.Unlock()
	} else {
		t.mu.Lock()
		old := t.sessions[key]
		t.mu.Unlock()
		if old != nil {
			t.cfg.Logf("session %d is reinstated", old.tsih)
			old.end(endReinstated)
		}
		t.mu.Lock()
		hung := t.limbo[key]
		delete(t.limbo, key)
		t.mu.Unlock()
		for _, task := range hung {
			task.abort(endReinstated)
		}
	}
	s := &session{
		t: t, key: key, node: l.node, discovery: l.discovery, neg: l.c.neg,
		cmdWindow: l.params.CmdWindow, params: l.params, since: time.Now(),
		expCmdSN: l.hdr.CmdSN, maxCmdSN: l.hdr.CmdSN + l.params.CmdWindow - 1,
		aborted: make(map[uint32]bool),
		noData:  make(map[uint32]bool),
		waiting: make(map[uint32]*request),
		tasks:   make(map[uint32]*task),
		dying:   make(map[*task]bool),
		conns:   make(map[uint16]*conn),
		lost:    make(map[*conn]*lostConn),
		ua:      make(map[*lun][]scsi.ASC),
		pings:   make(map[uint32]*ping),
		texts:   make(map[uint32]*textExchange),
		acks:    make(map[uint32]dataAck),
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

// end ends the session: when it returns no task of it will change a medium any
// more. Only tasks held with HoldHung or HoldZombie outlive some reasons.
func (s *session) end(why endReason) { s.endBut(why, nil) }

// endBut ends the session and leaves it to the caller to close one connection.
func (s *session) endBut(why endReason, but *conn) {
	t := s.t
	s.mu.Lock()
	s.dead = true
	tasks := s.lockedTakeTasks(func(*task) bool { return true })
	conns := s.lockedConns()
	for _, lost := range s.lost {
		if lost.timer != nil {
			lost.timer.Stop()
		}
	}
	s.mu.Unlock()
	s.abortTasks(tasks, why)
	t.mu.Lock()
	if t.sessions[s.key] == s {
		delete(t.sessions, s.key)
	}
	delete(t.extra, s)
	t.mu.Unlock()
	for _, c := range conns {
		if c != but {
			c.abort(why == endDropped)
		}
	}
}

func (s *session) lockedConns() []*conn {
	conns := make([]*conn, 0, len(s.conns))
	for _, c := range s.conns {
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(a, b *conn) int { return int(a.cid) - int(b.cid) })
	return conns
}

// lockedTakeTasks removes the tasks picked, so that they cannot be answered. The
// caller must abort them. Those that somebody else took and is just aborting are
// returned too, so that nobody says they are over before that is true.
func (s *session) lockedTakeTasks(pick func(*task) bool) []*task {
	var taken []*task
	for task := range s.dying {
		if pick(task) {
			taken = append(taken, task)
		}
	}
	for itt, task := range s.tasks {
		if pick(task) {
			taken = append(taken, task)
			delete(s.tasks, itt)
			s.dying[task] = true
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
		s.snack(c, p.BHS)
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
		Dir: FromInitiator, Portal: c.portal.index, Conn: c.number, CID: c.cid, TSIH: s.tsih,
		BHS: p.BHS, Data: p.Data, Index: c.index - 1,
	}
	switch p.BHS.Opcode() {
	case pdu.OpSCSICommand:
		e.Command = commandOf(pdu.SCSICommandView(p.BHS))
		e.Command.Long, _ = longCDB(p.BHS, p.AHS) // what is wrong is told when it is taken
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
	s.mu.Lock()
	if !s.lockedHas(c) {
		s.mu.Unlock()
		return false
	}
	s.lockedAdmit(r)
	s.mu.Unlock()
	if p.BHS.Immediate() {
		if r.admitted {
			s.carryOut(r)
		}
	} else {
		s.deliverReady()
	}
	return !c.loggedOut.Load()
}

// lockedAdmit checks a request and puts it where it has to wait for its turn.
func (s *session) lockedAdmit(r *request) {
	c, bhs, sn := r.c, r.header(), r.header().CmdSN()
	s.lockedUpdateWindow()
	immediate := bhs.Immediate()
	if !immediate {
		if why, retry := s.lockedOutside(sn); why != "" {
			if !retry || !s.recovering { // else sent again by mistake, after a connection was lost (§7.2.1)
				c.violation(bhs, "CmdSN %d %s (§4.2.2.1)", sn, why)
			}
			return // silently ignored
		}
	}
	if s.discovery && !discoveryMay(bhs.Opcode()) {
		c.violation(bhs, "only Text and Logout are allowed in a discovery session (§4.3)")
		c.reject(bhs, pdu.RejectProtocolError)
		return
	}
	if bhs.Opcode() == pdu.OpSCSICommand && r.action.terminal != actReject {
		known, ok := s.lockedNewTask(r)
		if !ok {
			if !known {
				c.violation(bhs, "Initiator Task Tag is in use (§11.2.1.8)")
				c.reject(bhs, pdu.RejectTaskInProgress)
			}
			return
		}
	}
	r.admitted = true
	switch {
	case immediate:
		s.lockedDeliver(r)
	case sn == s.expCmdSN:
		s.lockedDrain(r)
	default:
		r.ahs, r.data = slices.Clone(r.ahs), slices.Clone(r.data)
		s.waiting[sn] = r
	}
}

// lockedOutside says why a CmdSN cannot be taken; empty if it can.
func (s *session) lockedOutside(sn uint32) (why string, received bool) {
	switch {
	case serial.Less(sn, s.expCmdSN), s.waiting[sn] != nil:
		return "was received before", true
	case !serial.LessEq(sn, s.maxCmdSN):
		return "is outside the command window", false
	}
	return "", false
}

// lockedDrain makes r, whose turn it is, and all requests waiting behind it ready.
func (s *session) lockedDrain(r *request) {
	for next := r; next != nil; next = s.waiting[s.expCmdSN] {
		delete(s.waiting, s.expCmdSN)
		s.ready = append(s.ready, next)
		s.lockedDeliver(next)
		s.expCmdSN++
	}
}

// lockedDeliver counts a task whose turn has come against the command window.
func (s *session) lockedDeliver(r *request) {
	if r.task != nil && s.tasks[r.task.cmd.ITT] == r.task { // else aborted
		r.task.delivered = true
		s.inFlight += uint32(asNumber(!r.task.immediate))
	}
}

// deliverReady carries out all requests whose turn has come, in the order of
// CmdSN over all connections. The memory of a request is that of the connection
// it came from, whose reader waits here until somebody has carried it out.
func (s *session) deliverReady() {
	s.delivering.Lock()
	defer s.delivering.Unlock()
	for {
		s.mu.Lock()
		if len(s.ready) == 0 {
			s.ready = nil
			s.mu.Unlock()
			return
		}
		r := s.ready[0]
		s.ready = s.ready[1:]
		s.mu.Unlock()
		s.carryOut(r)
	}
}

// carryOut performs a request whose turn has come.
func (s *session) carryOut(r *request) {
	a := r.action
	switch {
	case a.terminal == actReject:
		r.c.reject(r.header(), a.reason)
	case r.task != nil:
		s.startTask(r)
	case a.terminal == actDrop:
	case a.delay > 0 || a.hang != nil:
		r.ahs, r.data = slices.Clone(r.ahs), slices.Clone(r.data)
		s.t.wg.Go(func() {
			if r.c.pause(a) {
				s.perform(r)
			}
		})
	default:
		s.perform(r)
	}
}

// perform carries out a request that is no SCSI command.
func (s *session) perform(r *request) {
	switch r.header().Opcode() {
	case pdu.OpText:
		s.text(r)
	case pdu.OpNOPOut:
		s.nopOut(r)
	case pdu.OpLogout:
		s.logout(r)
	case pdu.OpTaskMgmt:
		s.taskMgmt(r)
	}
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
