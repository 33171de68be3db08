package session

import "github.com/iscsimp/iscsimp/scsi"

// Uninterested is embedded by an Observer that has no use for what it may hear
// beyond the state of the session.
type Uninterested struct{}

// CommandLate implements Observer.
func (Uninterested) CommandLate(*Session, int64, int) {}

// LateSense implements Observer.
func (Uninterested) LateSense(*Session, scsi.Status, []byte) {}

// AsyncSense implements Observer.
func (Uninterested) AsyncSense(*Session, scsi.LUN, []byte) {}

// lateSense hands on sense data of a detached task.
func (s *Session) lateSense(status scsi.Status, sense []byte) {
	if len(sense) > 0 {
		s.obs.LateSense(s, status, sense)
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
	if answered {
		s.obs.CommandLate(s, took, bytes)
	}
	if over != nil {
		over()
	}
}
