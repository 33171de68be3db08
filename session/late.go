package session

import "github.com/iscsimp/iscsimp/scsi"

// LateObserver is what an Observer may implement besides: it is told of answers
// that nobody waits for any more, since only they tell how slow a session is
// whose commands were taken away from it.
type LateObserver interface {
	// CommandLate: the target answered a command that Detach had taken back, so
	// many ns after Submit. bytes is the length of a read, 0 for commands of any
	// other kind. On the loop; it may call any method of the session.
	CommandLate(s *Session, took int64, bytes int)
}

// LateSenseObserver is what an Observer may implement besides: sense data may tell
// of the unit (a UNIT ATTENTION is reported once), whoever waits for the command.
type LateSenseObserver interface {
	// LateSense: the target answered a command that Detach had taken back with
	// this status and sense data, which is valid during the call. On the loop; it
	// may call any method of the session.
	LateSense(s *Session, status scsi.Status, sense []byte)
}

// AsyncSenseObserver is what an Observer may implement besides: an Asynchronous
// Message of a SCSI event (RFC 7143 §11.9.4) reports what no command will.
type AsyncSenseObserver interface {
	// AsyncSense: the target sent sense data about a unit, which is valid during
	// the call. On the loop; it may call any method of the session.
	AsyncSense(s *Session, lun scsi.LUN, sense []byte)
}

// asyncSense hands on the sense data of a SCSI event.
func (s *Session) asyncSense(lun scsi.LUN, sense []byte) {
	if o, ok := s.obs.(AsyncSenseObserver); ok {
		o.AsyncSense(s, lun, sense)
	}
}

// lateSense hands on sense data of a detached task.
func (s *Session) lateSense(status scsi.Status, sense []byte) {
	if o, ok := s.obs.(LateSenseObserver); ok && len(sense) > 0 {
		o.LateSense(s, status, sense)
	}
}

// late ends the detached task t, which the target has answered.
func (s *Session) late(t *task) {
	now := s.env.Now()
	took, bytes, answered, over := now-t.at, 0, !t.aborted, t.over
	if t.read {
		bytes = int(t.inLen)
	}
	t.unloaded(now, answered)
	s.tasks.remove(t)
	if o, ok := s.obs.(LateObserver); ok && answered {
		o.CommandLate(s, took, bytes)
	}
	if over != nil {
		over()
	}
}
