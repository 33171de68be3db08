package iscsitest

import (
	"slices"
	"sync"

	"github.com/iscsimp/iscsimp/scsi"
)

// Reservations are the persistent reservations of one logical unit (SPC-4
// §5.12): the registered I_T nexuses and who of them holds the reservation.
// The zero value is a unit nobody has registered with. All methods may be called
// from any goroutine.
type Reservations struct {
	mu         sync.Mutex // guards everything below
	generation uint32
	list       []*registrant // in the order of registration
	holder     *registrant   // nil with the all-registrants types, and if not held
	held       scsi.ReservationType
	aptpl      bool
	units      []unitRef
}

// registrant is one registered I_T nexus.
type registrant struct {
	nexus sessionKey
	key   uint64
	port  uint16 // relative target port
}

// unitRef is a unit of a target that these reservations are about.
type unitRef struct {
	t *Target
	u *lun
}

// ReservationState is what Reservations hold.
type ReservationState struct {
	Generation uint32
	// Keys of all registered I_T nexuses, in the order of registration; one that
	// several registered with is there as often.
	Keys []uint64
	// Ports are the relative target ports they registered through: 1 is portal 0.
	Ports []uint16
	// Held says that there is a reservation, of Type; Key is its holder's, 0 if
	// all registrants hold it.
	Held bool
	Type scsi.ReservationType
	Key  uint64
	// APTPL says that all of this outlives a loss of power.
	APTPL bool
}

// State returns what is reserved now.
func (r *Reservations) State() ReservationState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ReservationState{Generation: r.generation, Keys: r.lockedKeys(), Type: r.held, Held: r.held != 0, APTPL: r.aptpl}
	if r.holder != nil {
		s.Key = r.holder.key
	}
	for _, x := range r.list {
		s.Ports = append(s.Ports, x.port)
	}
	return s
}

// PowerLoss does to the reservations what a loss of power does: they are gone,
// unless the last REGISTER asked for them to be kept (APTPL, SPC-4 §5.12.5).
// To restart a target, Close it, call PowerLoss, and make a new one with the same
// Reservations and Medium.
func (r *Reservations) PowerLoss() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generation = 0
	if !r.aptpl {
		r.list, r.holder, r.held = nil, nil, 0
	}
}

// Forget removes a registration, by its place in State().Keys, without telling
// anybody, and the reservation if it held it: a target that loses its mind.
func (r *Reservations) Forget(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.list[i]
	r.list = slices.Delete(r.list, i, i+1)
	if r.holder == x {
		r.held, r.holder = 0, nil
	}
}

// Reservations of a LUN of the first target, nil if there is no such LUN.
func (t *Target) Reservations(number uint16) *Reservations {
	u, err := t.findLUN("", number)
	if err != nil {
		return nil
	}
	return u.reservations
}

// attach makes a unit one of those the reservations are about.
func (r *Reservations) attach(t *Target, u *lun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.units = append(r.units, unitRef{t, u})
}

// detach forgets the units of a target that is closed.
func (r *Reservations) detach(t *Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.units = slices.DeleteFunc(r.units, func(ref unitRef) bool { return ref.t == t })
}

func (r *Reservations) lockedKeys() []uint64 {
	keys := make([]uint64, len(r.list))
	for i, x := range r.list {
		keys[i] = x.key
	}
	return keys
}

// lockedFind returns the registration of a nexus, nil if there is none.
func (r *Reservations) lockedFind(nexus sessionKey) *registrant {
	for _, x := range r.list {
		if x.nexus == nexus {
			return x
		}
	}
	return nil
}

// lockedHolds reports whether x holds the reservation.
func (r *Reservations) lockedHolds(x *registrant) bool {
	return r.held != 0 && x != nil && (r.held.AllHold() || r.holder == x)
}

// accessClass is how a reservation concerns a command.
type accessClass uint8

const (
	accessAlways accessClass = iota // never conflicts
	accessReads                     // conflicts with exclusive access
	accessWrites                    // conflicts with write exclusive too
)

// classOf sorts a command after SPC-4 table 66 and SBC-3 table 13.
func classOf(cmd *command) accessClass {
	switch cmd.op {
	case scsi.OpTestUnitReady, scsi.OpInquiry, scsi.OpReportLuns, scsi.OpRequestSense,
		scsi.OpReadCapacity10, scsi.OpPersistentReserveIn, scsi.OpPersistentReserveOut:
		return accessAlways // PERSISTENT RESERVE OUT has rules of its own
	case scsi.OpServiceActionIn16:
		if cmd.sa == int(scsi.SAReadCapacity16) {
			return accessAlways
		}
	case scsi.OpMaintenanceIn:
		if cmd.sa == int(scsi.SAReportTargetPortGroups) {
			return accessAlways
		}
	case scsi.OpModeSelect6, scsi.OpModeSelect10, scsi.OpSyncCache10, scsi.OpSyncCache16, scsi.OpMaintenanceOut:
		return accessWrites
	}
	if cmd.flags&cmdWrites != 0 {
		return accessWrites
	}
	return accessReads
}

// conflicts reports whether a command of a nexus meets the reservation of another.
func (r *Reservations) conflicts(nexus sessionKey, cmd *command) bool {
	class := classOf(cmd)
	if class == accessAlways {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == 0 || class == accessReads && !r.held.ExcludesReads() {
		return false
	}
	x := r.lockedFind(nexus)
	return !(r.lockedHolds(x) || x != nil && r.held.Registrants())
}

// change is what a PERSISTENT RESERVE OUT does besides changing the table.
type change struct {
	res result
	// news are the unit attentions that others get.
	news []attention
	// abort are the nexuses whose tasks end, besides.
	abort []sessionKey
}

type attention struct {
	nexus sessionKey
	asc   scsi.ASC
}

func conflict() change { return change{res: result{status: scsi.ReservationConflict}} }

func refused(asc scsi.ASC) change { return change{res: checkCondition(scsi.KeyIllegalRequest, asc)} }

// tell adds news for everybody in list but the nexus that caused it.
func (c *change) tell(list []*registrant, but sessionKey, asc scsi.ASC) {
	for _, x := range list {
		if x.nexus != but {
			c.news = append(c.news, attention{x.nexus, asc})
		}
	}
}

// lockedEnd ends the reservation and tells who may have relied on it: only
// the types that give access to all registrants leave somebody behind
// (SPC-4 §5.12.11.2.2).
func (r *Reservations) lockedEnd(c *change, by sessionKey) {
	if r.held.Registrants() {
		c.tell(r.list, by, scsi.ASCReservationsReleased)
	}
	r.held, r.holder = 0, nil
}

// lockedRegister is REGISTER, and with ignore REGISTER AND IGNORE EXISTING KEY
// (SPC-4 §5.12.7).
func (r *Reservations) lockedRegister(nexus sessionKey, port uint16, p scsi.ReserveParameters, ignore bool) change {
	x, c := r.lockedFind(nexus), change{}
	known := uint64(0)
	if x != nil {
		known = x.key
	}
	if !ignore && p.Key != known {
		return conflict()
	}
	r.generation++
	switch {
	case p.ActionKey == 0 && x == nil:
		return c
	case p.ActionKey == 0:
		r.list = slices.DeleteFunc(r.list, func(y *registrant) bool { return y == x })
		if r.holder == x && r.held != 0 || r.held.AllHold() && len(r.list) == 0 {
			r.lockedEnd(&c, nexus)
		}
	case x == nil:
		r.list = append(r.list, &registrant{nexus, p.ActionKey, port})
	default:
		x.key = p.ActionKey
	}
	r.aptpl = p.APTPL
	return c
}

// lockedReserve is RESERVE (SPC-4 §5.12.9).
func (r *Reservations) lockedReserve(x *registrant, typ scsi.ReservationType) change {
	switch {
	case r.held != 0 && (!r.lockedHolds(x) || r.held != typ):
		return conflict()
	case r.held == 0:
		r.lockedHold(x, typ)
	}
	return change{}
}

func (r *Reservations) lockedHold(x *registrant, typ scsi.ReservationType) {
	r.held, r.holder = typ, x
	if typ.AllHold() {
		r.holder = nil
	}
}

// lockedRelease is RELEASE (SPC-4 §5.12.11.2).
func (r *Reservations) lockedRelease(x *registrant, typ scsi.ReservationType) change {
	c := change{}
	switch {
	case !r.lockedHolds(x): // not an error
	case r.held != typ:
		return refused(scsi.ASCInvalidRelease)
	default:
		r.lockedEnd(&c, x.nexus)
	}
	return c
}

// lockedClear is CLEAR (SPC-4 §5.12.11.6).
func (r *Reservations) lockedClear(x *registrant) change {
	c := change{}
	c.tell(r.list, x.nexus, scsi.ASCReservationsPreempted)
	r.list, r.held, r.holder = nil, 0, nil
	r.generation++
	return c
}

// lockedPreempt is PREEMPT and PREEMPT AND ABORT (SPC-4 §5.12.11.4, .5).
func (r *Reservations) lockedPreempt(x *registrant, key uint64, typ scsi.ReservationType, abort bool) change {
	c := change{}
	all := key == 0 && r.held.AllHold()
	holder := all || r.holder != nil && r.holder.key == key
	switch {
	case key == 0 && !all:
		return refused(scsi.ASCInvalidFieldInParameters)
	case !all && !slices.Contains(r.lockedKeys(), key):
		return conflict()
	case holder && !typ.Valid():
		return *changeOf(invalidField(2))
	}
	var gone []*registrant
	r.list = slices.DeleteFunc(r.list, func(y *registrant) bool {
		out := (all || y.key == key) && (y != x || !holder) // who takes the reservation over stays registered
		if out {
			gone = append(gone, y)
		}
		return out
	})
	c.tell(gone, x.nexus, scsi.ASCRegistrationsPreempted)
	switch {
	case holder:
		if r.held != typ {
			c.tell(r.list, x.nexus, scsi.ASCReservationsReleased)
		}
		r.lockedHold(x, typ)
	case r.held.AllHold() && len(r.list) == 0:
		r.held = 0
	}
	if abort {
		for _, y := range gone {
			c.abort = append(c.abort, y.nexus)
		}
	}
	r.generation++
	return c
}

func changeOf(res *result) *change { return &change{res: *res} }
