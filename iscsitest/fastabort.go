package iscsitest

import (
	"slices"

	"github.com/iscsimp/iscsimp/pdu"
)

// TaskReporting is the most a Target takes of the list that the initiator offers
// under that key (RFC 7143 §13.23).
type TaskReporting uint8

const (
	// ReportRFC3720 takes RFC3720 only.
	ReportRFC3720 TaskReporting = iota
	// ReportResponseFence takes ResponseFence, too. Nothing else comes of it: the
	// answers to functions for many tasks are fenced in any case.
	ReportResponseFence
	// ReportFastAbort takes FastAbort, too: functions for many tasks have the effects
	// of §4.2.3.4, and Data-Outs that come too late are violations.
	ReportFastAbort
)

var reportings = []string{"RFC3720", "ResponseFence", "FastAbort"}

// String is the value of the key.
func (r TaskReporting) String() string {
	if int(r) < len(reportings) {
		return reportings[r]
	}
	return "unknown"
}

// termination is an event 5 that was not acknowledged yet (§11.9.1).
type termination struct {
	c    *conn
	lun  uint64
	itts []uint32
}

// terminate tells the initiators of tasks that were aborted by a request on c, as
// far as they agreed to FastAbort, that no data is wanted for them any more: on c
// the request itself said so, on other connections an event does, one for each unit
// (§4.2.3.4, §4.2.3.5).
func terminate(c *conn, tasks []*task) {
	type place struct {
		c   *conn
		lun uint64
	}
	told := make(map[place]*termination)
	for _, t := range tasks {
		if t.s.neg.TaskReporting != ReportFastAbort {
			continue
		}
		if t.c == c {
			t.s.mu.Lock()
			t.s.lockedNoData(t.cmd.ITT)
			t.s.mu.Unlock()
			continue
		}
		at := place{t.c, uint64(t.cmd.LUN)}
		if told[at] == nil {
			told[at] = &termination{c: t.c, lun: at.lun}
		}
		told[at].itts = append(told[at].itts, t.cmd.ITT)
	}
	for _, e := range told {
		e.c.sess.announce(e)
	}
}

// announce sends an event 5.
func (s *session) announce(e *termination) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.lockedHas(e.c) {
		return
	}
	s.terminations = append(s.terminations, e)
	o := &outPDU{}
	(&pdu.Async{LUN: e.lun, AsyncEvent: pdu.AsyncTaskTermination}).AppendTo(o.bhs[:0])
	e.c.send(o)
}

// lockedAcknowledged takes a NOP-Out that wants no answer: it may acknowledge the
// oldest event 5 for its unit. From then on no data must come.
func (s *session) lockedAcknowledged(c *conn, lun uint64) {
	for i, e := range s.terminations {
		if e.c == c && e.lun == lun {
			s.terminations = slices.Delete(s.terminations, i, i+1)
			for _, itt := range e.itts {
				s.lockedNoData(itt)
			}
			return
		}
	}
}

// lockedNoData notes that data for a task would come too late, unless the tag is
// in use again.
func (s *session) lockedNoData(itt uint32) {
	if s.tasks[itt] == nil && len(s.noData) < maxAborted {
		s.noData[itt] = true
	}
}
