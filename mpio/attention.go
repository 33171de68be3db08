package mpio

import (
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// noteSense reacts to what sense data says about more than the command that
// brought it. It reports whether the access state of p is why the command was
// refused: nothing else is wrong with it.
func (d *Device) noteSense(p *path, s scsi.Sense, r scsi.Remedy) (refused bool) {
	if p.refused(s) {
		return true
	}
	switch {
	case s.LostEarlierWrite():
		d.loseCache(p, "the target reported a deferred error ("+s.String()+")")
	case s.Key == scsi.KeyUnitAttention:
		d.attend(p, s.Code)
	}
	if isReservationNews(s) {
		d.audit(p)
	}
	if raisesDoubt(s, r) {
		p.doubt(s.Code.String())
	}
	return false
}

// LateSense implements session.Observer: news that came with a command
// which was taken back because its path was silent.
func (p *path) LateSense(_ *session.Session, status scsi.Status, data []byte) {
	if s, ok := scsi.ParseSense(data); ok && status == scsi.CheckCondition && p.logged {
		p.dev.noteSense(p, s, scsi.Classify(status, s))
		p.dev.kick()
	}
}

// AsyncSense implements session.Observer.
func (p *path) AsyncSense(s *session.Session, lun scsi.LUN, data []byte) {
	if lun == p.dev.cfg.LUN {
		p.LateSense(s, scsi.CheckCondition, data)
	}
}

// attend handles a UNIT ATTENTION. Each I_T nexus, that is each session, gets its
// own of every event; what concerns the path is done for each, what concerns the
// unit once.
func (d *Device) attend(p *path, code scsi.ASC) {
	if p.relic || p.detour.via != "" {
		return
	}
	switch {
	case code>>8 == scsi.ASCPowerOnOrReset>>8:
		d.resetSeen(p, code)
		if !p.introduced {
			return // the greeting to a new session
		}
		p.cleared = d.loop.Now()
	case code == scsi.ASCCommandsCleared, code == scsi.ASCReservationsPreempted, code == scsi.ASCRegistrationsPreempted:
		p.cleared = d.loop.Now()
	case code == scsi.ASCALUAStateChanged, code == scsi.ASCALUATransitionFailed, code == scsi.ASCReportedLUNsChanged:
		p.accessNews()
	case code == scsi.ASCCapacityChanged && p.introduced:
		p.resized = true
		d.compareSizes(p)
	case (code == scsi.ASCModeParametersChanged || code == scsi.ASCParametersChanged) && p.verified && !p.check.running:
		p.startCheck("parameters changed")
	}
	d.tellAttention(p, code)
}

// attentionWords say what is done about a change.
var attentionWords = map[scsi.ASC]string{
	scsi.ASCParametersChanged:     "they are read again",
	scsi.ASCModeParametersChanged: "they are read again",
	scsi.ASCThinSoftThreshold:     "give the target more space before it refuses writes",
	scsi.ASCMediumMayHaveChanged:  "the unit behind the path is looked at again before it carries I/O",
	scsi.ASCALUAStateChanged:      "the access states of its port groups are asked for",
	scsi.ASCALUATransitionFailed:  "the access states of its port groups are asked for",
	scsi.ASCCapacityChanged:       "its size is read again through every path",
	scsi.ASCInquiryDataChanged:    "the unit behind the path is looked at again before it carries I/O",
	scsi.ASCReportedLUNsChanged:   "the unit behind the path is looked at again before it carries I/O; `iscsimp luns` lists what there is now",
	scsi.ASCPowerOnOrReset:        "the unit behind the path is looked at again before it carries I/O",
	scsi.ASCPowerOn:               "the unit behind the path is looked at again before it carries I/O",
	scsi.ASCDeviceInternalReset:   "the unit behind the path is looked at again before it carries I/O",
	scsi.ASCBusReset:              "the unit behind the path is looked at again before it carries I/O",
	scsi.ASCDeviceReset:           "the unit behind the path is looked at again before it carries I/O",
	scsi.ASCCommandsCleared:       "those that are not answered are asked about, and sent again",
	scsi.ASCNexusLoss:             "the unit behind the path is looked at again before it carries I/O",
}

// tellAttention tells of a change once, not for each path that reports it.
func (d *Device) tellAttention(p *path, code scsi.ASC) {
	words := attentionWords[code]
	if words == "" {
		return // news about a command, or of no use
	}
	if d.told == nil {
		d.told = make(map[scsi.ASC]*sighting)
	}
	s := d.told[code]
	if s == nil {
		s = new(sighting)
		d.told[code] = s
	}
	if !s.fresh(p, d.loop.Now()) {
		return
	}
	d.emit(Event{
		Kind: AttentionSeen, Path: p.cfg.ID, State: p.state,
		Text: fmt.Sprintf("the target reported: %v: %s", code, words),
	})
}

// sighting tells the reports of one event, which come over each path, from those
// of the next. A path reports an event once. So the first report of a path that
// was not heard yet is of the same event, unless that is long ago.
type sighting struct {
	paths uint64 // bits of those that reported it
	at    int64  // loop time of the first report
}

// sightingLasts is when the last path must have reported an event: with idle ones
// polled it is a matter of seconds.
const sightingLasts = 10 * time.Minute

// fresh takes a report of p, and says whether it is of a new event.
func (s *sighting) fresh(p *path, now int64) bool {
	if s.paths == 0 || s.paths&p.bit != 0 || now-s.at > int64(sightingLasts) {
		s.paths, s.at = p.bit, now
		return true
	}
	s.paths |= p.bit
	return false
}
