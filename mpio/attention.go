package mpio

import "github.com/iscsimp/iscsimp/scsi"

// noteSense reacts to what sense data says about more than the command that
// brought it. It reports whether the access state of p is why the command was
// refused: nothing else is wrong with it.
func (d *Device) noteSense(p *path, s scsi.Sense, r scsi.Remedy) (refused bool) {
	if p.refused(s) {
		return true
	}
	if s.Key == scsi.KeyUnitAttention {
		switch s.Code {
		case scsi.ASCALUAStateChanged, scsi.ASCALUATransitionFailed, scsi.ASCReportedLUNsChanged:
			p.accessNews()
		}
	}
	if isReservationNews(s) {
		d.audit(p)
	}
	if raisesDoubt(s, r) {
		p.doubt(s.Code.String())
	}
	return false
}
