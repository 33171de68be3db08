package iscsitest

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/iscsimp/iscsimp/internal/serial"
	"github.com/iscsimp/iscsimp/pdu"
)

// CheckCmdSNOrder checks what an initiator must keep on each connection
// (RFC 7143 §4.2.2.1): the CmdSN of its numbered requests rises, by one where
// the session has no other connection; immediate requests carry the CmdSN that
// the next numbered one will have. After a connection was logged out, what was
// sent on it (and perhaps never arrived) may come again out of order, once, with
// the same Initiator Task Tag (§7.2.1). It returns nil or all that is wrong.
func (r *Recorder) CheckCmdSNOrder() error {
	check := cmdSNCheck{conns: make(map[int]*cmdSNConn), sessions: make(map[uint16]*cmdSNSession)}
	var errs []error
	for _, rec := range r.Records() {
		if why := check.record(&rec); why != "" {
			errs = append(errs, fmt.Errorf("connection %d, PDU %d: %s: %s", rec.Conn, rec.Index, why, rec.Trace()))
		}
	}
	return errors.Join(errs...)
}

// cmdSNCheck follows the CmdSN of all connections recorded.
type cmdSNCheck struct {
	conns    map[int]*cmdSNConn
	sessions map[uint16]*cmdSNSession // by TSIH
}

// cmdSNSession is what connections of one session share.
type cmdSNSession struct {
	conns     []*cmdSNConn
	recovered bool              // a connection was logged out
	again     map[uint32]uint32 // what was recorded of such connections: ITT by CmdSN
}

// cmdSNConn follows the CmdSN of one connection.
type cmdSNConn struct {
	session *cmdSNSession // nil until the login is done
	cid     uint16
	joins   bool // the login named a session
	known   bool
	next    uint32
	sent    map[uint32]uint32 // numbered requests: ITT by CmdSN
	logouts map[uint32]uint16 // CIDs of connections being logged out, by ITT
}

func (k *cmdSNCheck) record(rec *Record) string {
	c := k.conns[rec.Conn]
	if c == nil {
		c = &cmdSNConn{sent: make(map[uint32]uint32), logouts: make(map[uint32]uint16)}
		k.conns[rec.Conn] = c
	}
	bhs := rec.BHS()
	switch bhs.Opcode() {
	case pdu.OpLogin:
		v := pdu.LoginView(bhs)
		c.known, c.next, c.cid, c.joins = true, v.CmdSN(), v.CID(), v.TSIH() != 0
	case pdu.OpLoginResponse:
		v := pdu.LoginResponseView(bhs)
		if v.LoginStatus() == pdu.LoginSuccess && v.Transit() && v.NSG() == pdu.StageFullFeature && v.TSIH() != 0 {
			k.joined(c, v.TSIH())
		}
	case pdu.OpLogoutResponse:
		v := pdu.LogoutResponseView(bhs)
		cid, ok := c.logouts[v.ITT()]
		if ok && (v.Response() == pdu.LogoutDone || v.Response() == pdu.LogoutNoCID) && c.session != nil {
			c.session.loggedOut(cid)
		}
	case pdu.OpLogout:
		if v := pdu.LogoutView(bhs); v.Reason() != pdu.LogoutCloseSession {
			c.logouts[v.ITT()] = v.CID()
		}
		return c.check(bhs)
	case pdu.OpSCSICommand, pdu.OpTaskMgmt, pdu.OpText, pdu.OpNOPOut:
		return c.check(bhs)
	}
	return ""
}

// joined notes that a login is done.
func (k *cmdSNCheck) joined(c *cmdSNConn, tsih uint16) {
	s := k.sessions[tsih]
	if s == nil || !c.joins {
		s = &cmdSNSession{again: make(map[uint32]uint32)}
		k.sessions[tsih] = s
	}
	s.loggedOut(c.cid) // if there was one, this takes its place
	s.conns = append(s.conns, c)
	c.session = s
}

// loggedOut lets the requests of a connection be sent again.
func (s *cmdSNSession) loggedOut(cid uint16) {
	for _, c := range s.conns {
		if c.cid == cid {
			s.recovered = true
			maps.Copy(s.again, c.sent)
			clear(c.sent)
		}
	}
}

// check takes a request that has a CmdSN.
func (c *cmdSNConn) check(bhs pdu.BHS) string {
	sn := bhs.CmdSN()
	if !c.known { // recording began later
		c.known, c.next = true, sn
	}
	want := c.next
	shared := c.joins || (c.session != nil && len(c.session.conns) > 1)
	if bhs.Immediate() {
		return outOfOrder(shared, sn, want)
	}
	retry := serial.Less(sn, want) && c.session != nil && c.session.retry(sn, bhs.ITT())
	c.sent[sn] = bhs.ITT()
	if retry {
		return ""
	}
	c.next = sn + 1
	return outOfOrder(shared, sn, want)
}

// retry reports whether a request that is out of order may be there because a
// connection was lost.
func (s *cmdSNSession) retry(sn, itt uint32) bool {
	if old, ok := s.again[sn]; ok && old != itt {
		return false
	}
	return s.recovered && !slices.ContainsFunc(s.conns, func(c *cmdSNConn) bool {
		_, sent := c.sent[sn]
		return sent
	})
}

func outOfOrder(shared bool, sn, want uint32) string {
	switch {
	case shared && serial.Less(sn, want):
		return fmt.Sprintf("CmdSN %d after %d", sn, want-1)
	case !shared && sn != want:
		return fmt.Sprintf("CmdSN %d, expected %d", sn, want)
	}
	return ""
}
