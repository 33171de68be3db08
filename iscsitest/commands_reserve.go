package iscsitest

import (
	"slices"

	"github.com/iscsimp/iscsimp/scsi"
)

// CDB usage of the persistent reservation commands.
var (
	usageReserveIn  = scsi.CDB{0x5e, 0x1f, 7: 0xff, 8: 0xff, 9: 0x04}
	usageReserveOut = scsi.CDB{0x5f, 0x1f, 0xff, 5: 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0x04}
)

// reserveCommands are PERSISTENT RESERVE IN and OUT (SPC-4 §6.15, §6.16).
func reserveCommands() []*command {
	const always = cmdAnyType | cmdNoMedium | cmdStandby
	var list []*command
	for _, sa := range []uint8{scsi.SAReadKeys, scsi.SAReadReservation, scsi.SAReportCapabilities, scsi.SAReadFullStatus} {
		list = append(list, &command{op: scsi.OpPersistentReserveIn, sa: int(sa), flags: always, run: reserveIn, usage: usageReserveIn})
	}
	for _, sa := range []uint8{
		scsi.SARegister, scsi.SAReserve, scsi.SARelease, scsi.SAClear, scsi.SAPreempt, scsi.SAPreemptAndAbort, scsi.SARegisterAndIgnore,
	} {
		list = append(list, &command{
			op: scsi.OpPersistentReserveOut, sa: int(sa), flags: always, run: reserveOut, out: paramLen, usage: usageReserveOut,
		})
	}
	return list
}

// reserveIn answers PERSISTENT RESERVE IN.
func reserveIn(x *execution) result {
	r := x.u.reservations
	s := r.State()
	switch x.cdb.ServiceAction() {
	case scsi.SAReadKeys:
		return x.cut(scsi.AppendReserveKeys(nil, s.Generation, s.Keys))
	case scsi.SAReadReservation:
		return x.cut(scsi.Reservation{Generation: s.Generation, Held: s.Held, Key: s.Key, Type: s.Type}.AppendTo(nil))
	case scsi.SAReportCapabilities:
		return x.cut(scsi.ReserveCapabilities{
			PersistCapable: true, PersistActive: s.APTPL, TypesKnown: true, Types: scsi.ReservationTypes(),
		}.AppendTo(nil))
	}
	return x.cut(r.fullStatus())
}

// fullStatus is the data of READ FULL STATUS.
func (r *Reservations) fullStatus() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]scsi.Registration, len(r.list))
	for i, x := range r.list {
		list[i] = scsi.Registration{
			Key: x.key, Port: x.port, Holder: r.lockedHolds(x),
			TransportID: scsi.AppendISCSITransportID(nil, x.nexus.initiator, x.nexus.isid),
		}
		if list[i].Holder {
			list[i].Type = r.held
		}
	}
	return scsi.AppendFullStatus(nil, r.generation, list)
}

// Bits of the parameter list of PERSISTENT RESERVE OUT that this target refuses.
const (
	specifyPorts = 0x08 // SPEC_I_PT
	allPorts     = 0x04 // ALL_TG_PT
)

// reserveOut carries out PERSISTENT RESERVE OUT. Who loses what by it has been
// told, and commands that had to end have, when it returns.
func reserveOut(x *execution) result {
	n, _ := x.cdb.ParameterLength()
	p, err := scsi.ParseReserveParameters(x.data)
	switch {
	case err != nil, n != scsi.ReserveParametersLen:
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCParameterListLength)
	case x.data[20]&(specifyPorts|allPorts) != 0:
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInParameters)
	}
	c := x.changeReservations(p)
	for _, a := range c.news {
		x.u.reservations.attend(a)
	}
	if len(c.abort) > 0 {
		x.abortPreempted(c.abort)
	}
	return c.res
}

// changeReservations does what the service action says to the table.
func (x *execution) changeReservations(p scsi.ReserveParameters) change {
	r, nexus := x.u.reservations, x.s.key
	typ, sa := scsi.ReservationType(x.cdb[2]&0x0f), x.cdb.ServiceAction()
	r.mu.Lock()
	defer r.mu.Unlock()
	if sa == scsi.SARegister || sa == scsi.SARegisterAndIgnore {
		return r.lockedRegister(nexus, uint16(x.task.c.portal.index+1), p, sa == scsi.SARegisterAndIgnore)
	}
	self := r.lockedFind(nexus)
	switch {
	case self == nil || self.key != p.Key:
		return conflict()
	case sa == scsi.SAClear:
		return r.lockedClear(self)
	case x.cdb[2]&0xf0 != 0: // only whole units can be reserved
		return *changeOf(invalidField(2))
	case sa == scsi.SAPreempt || sa == scsi.SAPreemptAndAbort:
		return r.lockedPreempt(self, p.ActionKey, typ, sa == scsi.SAPreemptAndAbort)
	case !typ.Valid():
		return *changeOf(invalidField(2))
	case sa == scsi.SAReserve:
		return r.lockedReserve(self, typ)
	}
	return r.lockedRelease(self, typ)
}

// attend queues a unit attention in the session of a nexus, if there is one now.
func (r *Reservations) attend(a attention) {
	for _, at := range r.sessionsOf(a.nexus) {
		at.s.attend(at.u, a.asc)
	}
}

// sessionUnit is a session and the unit that the reservations are about in it.
type sessionUnit struct {
	s *session
	u *lun
}

// sessionsOf finds the sessions of a nexus, with the unit.
func (r *Reservations) sessionsOf(nexus sessionKey) []sessionUnit {
	r.mu.Lock()
	units := slices.Clone(r.units)
	r.mu.Unlock()
	var found []sessionUnit
	for _, ref := range units {
		ref.t.mu.Lock()
		for _, s := range ref.t.lockedSessions() {
			if s.key == nexus && s.node != nil && !s.discovery && s.node.lun(ref.u.number) == ref.u {
				found = append(found, sessionUnit{s, ref.u})
			}
		}
		ref.t.mu.Unlock()
	}
	return found
}

// abortPreempted ends the tasks of nexuses in the unit, those of sessions long
// gone included. They are not answered (control mode page, TAS=0).
//
// That cannot go round in a circle: a nexus that was preempted changes nothing
// any more, so that one PREEMPT AND ABORT only ever waits for one before it.
func (x *execution) abortPreempted(nexuses []sessionKey) {
	r := x.u.reservations
	for _, nexus := range nexuses {
		for _, at := range r.sessionsOf(nexus) {
			at.s.mu.Lock()
			tasks := at.s.lockedTakeTasks(func(t *task) bool { return t.lun == at.u && t != x.task })
			at.s.mu.Unlock()
			at.s.abortTasks(tasks, endAborted)
		}
		for _, t := range r.hung(nexus) {
			t.abort(endAborted)
		}
	}
}

// hung are the tasks of a nexus that outlived their session.
func (r *Reservations) hung(nexus sessionKey) []*task {
	r.mu.Lock()
	units := slices.Clone(r.units)
	r.mu.Unlock()
	var tasks []*task
	for _, ref := range units {
		ref.t.mu.Lock()
		for _, t := range ref.t.limbo[nexus] { // they stay listed; aborting twice does no harm
			if t.lun == ref.u {
				tasks = append(tasks, t)
			}
		}
		ref.t.mu.Unlock()
	}
	return tasks
}
