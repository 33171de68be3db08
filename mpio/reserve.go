package mpio

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
)

// Persistent reservations (SPC-4 §5.12) belong to an I_T nexus, and a device has
// one for each path. So the device registers over every path, and a path that
// comes back carries no I/O before it is registered. The rules, in the order of
// their weight:
//
//   - Who was preempted stays out. A path registers by itself only if a key of
//     this host is still registered with the unit: if none is, another host has
//     fenced this one off (or the target forgot everything), and to register
//     again would undo that. All requests fail then until somebody says Register.
//   - A key of another host is touched only by Preempt, which names it, and by
//     ClearReservations when told to.
//   - PERSISTENT RESERVE OUT is not idempotent. One whose answer was lost is not
//     sent again before it is settled: before the session it was sent with is
//     proven to be over. Keys and reservation then say what became of it.

// Errors of reservations; compare with errors.Is.
var (
	// ErrNotRegistered: reservations need a registration; see Device.Register.
	ErrNotRegistered = errors.New("this host is not registered with the unit: register a key first")
	// ErrReserveBusy: one operation on reservations at a time.
	ErrReserveBusy = errors.New("another operation on reservations is under way: try again when it is done")
	// ErrPreempted: the keys of this host were removed by another one, or lost by
	// the target. Every request fails with it until Register or Unregister.
	ErrPreempted = errors.New("this host's registration was removed: it was fenced off")
	// ErrOutcomeUnknown: the answer was lost, and what the target did, or may still
	// do, could not be found out.
	ErrOutcomeUnknown = errors.New("the outcome is not known")
	// ErrReserveInvalid: the operation cannot be done as asked for.
	ErrReserveInvalid = errors.New("not possible")
)

// ConflictError says that a reservation, or a registration that is missing,
// kept the target from doing something.
type ConflictError struct {
	Held   bool   // there is a reservation; the rest counts only then
	Holder uint64 // key of who holds it, 0 with the all-registrants types
	Type   scsi.ReservationType
	Ours   bool // a key of this host holds it, over another path
}

// Error names the holder.
func (e *ConflictError) Error() string {
	switch {
	case !e.Held:
		return "reservation conflict, though nobody holds a persistent reservation: this path is not registered, or the unit is reserved in the old way, RESERVE(6)"
	case e.Type.AllHold():
		return fmt.Sprintf("reservation conflict: the unit is reserved (%v) for all who are registered, and this host is not", e.Type)
	case e.Ours:
		return fmt.Sprintf("reservation conflict: the unit is reserved (%v) by this host's key %s, but over another path", e.Type, KeyText(e.Holder))
	}
	return fmt.Sprintf("reservation conflict: the unit is reserved (%v) by key %s of another host", e.Type, KeyText(e.Holder))
}

// KeyText is a key as people write it.
func KeyText(key uint64) string { return fmt.Sprintf("0x%016x", key) }

// Registration is how Register registers this host.
type Registration struct {
	// Key names this host among those that use the unit. It must not be 0, and no
	// other host may use it.
	Key uint64
	// PerPath gives every path a key of its own: Key, Key+1, … in the order of the
	// paths, 64 at most, all of which must be this host's alone. A path that is dead
	// with writes inside can then be fenced off by its key alone, which settles them
	// at once instead of after Config.FenceTimeout. To fence this host off another
	// one has to preempt each of these keys.
	PerPath bool
	// Volatile does not ask the target to keep registration and reservation over a
	// loss of power (APTPL). Default: kept, if the target can.
	Volatile bool
}

// reserveState is what the device knows about reservations of its unit.
type reserveState struct {
	on    bool // this host is registered, as far as known
	reg   Registration
	aptpl bool
	lost  error // ErrPreempted with detail: every request fails with it

	// The reservation of this host, as far as known.
	held    scsi.ReservationType // 0: none
	holder  *path                // nil: not known
	noAbort bool                 // the target refused PREEMPT AND ABORT

	op *reserveOp // under way
}

// pathReserve is what is known of one path.
type pathReserve struct {
	key       uint64 // registered over this path, 0: none as far as known
	attempt   int    // counts enrolments: an answer to an older one is late news
	pending   string // identified, as is said here, while an operation changes this host's keys; it may use the path, I/O may not
	conflicts ioList // commands that met a conflict, until it is clear why
	judging   ioList // ... about which is being asked now
	auditing  bool
	again     bool // something happened during the audit
	// Logins ended, ended+1, … before endedBy are over at the target, for certain.
	ended, endedBy uint64
	// A command of an earlier session of this path was declared settled by
	// preempting its key. Without proof that this session is over the path must
	// not register again before this time.
	notBefore  int64
	settledGen uint64
	timer      loop.Timer // of planPreempt
	tried      int64      // loop time when that was begun last: once for each loss
}

// keyOf is the key of a path.
func (d *Device) keyOf(p *path) uint64 {
	if d.rsv.reg.PerPath {
		return d.rsv.reg.Key + uint64(bits.TrailingZeros64(p.bit))
	}
	return d.rsv.reg.Key
}

// owns reports whether a key is one of this host.
func (r *reserveState) owns(key uint64) bool {
	if r.reg.PerPath {
		return key >= r.reg.Key && key-r.reg.Key < maxPaths
	}
	return key == r.reg.Key
}

// reservable reports whether p can carry commands about reservations.
func (p *path) reservable() bool {
	return p.logged && (p.verified || p.rsv.pending != "") && !p.quarantined && !p.closed && p.detour.via == "" && !p.access.mute()
}

// startReserve checks what all operations have in common; op is nil with an error.
func (d *Device) startReserve(name string, needsKey bool, done func(error)) (*reserveOp, error) {
	switch {
	case d.closing:
		return nil, block.ErrClosed
	case !d.ready:
		return nil, fmt.Errorf("%w: no path to the device has been identified yet", block.ErrIO)
	case d.rsv.op != nil:
		return nil, ErrReserveBusy
	case needsKey && d.rsv.lost != nil:
		return nil, d.rsv.lost
	case needsKey && !d.rsv.on:
		return nil, ErrNotRegistered
	}
	op := &reserveOp{d: d, name: name, done: done}
	op.timer.Fn = op.timeOut
	d.rsv.op = op
	return op, nil
}

// begin starts an operation, or tells why not.
func (d *Device) reserveOp(name string, needsKey bool, done func(error), run func(*reserveOp)) {
	op, err := d.startReserve(name, needsKey, done)
	if err != nil {
		done(fmt.Errorf("%s: %w", name, err))
		return
	}
	run(op)
}

// Register registers this host over every path, whatever was registered there
// before, and calls done on the loop, perhaps at once. From then on a path that
// comes back, or is new, registers before it carries I/O. It succeeds if one path
// did; the others carry no I/O before they did, too.
func (d *Device) Register(reg Registration, done func(error)) {
	switch {
	case reg.Key == 0:
		done(fmt.Errorf("register: %w: the key must not be 0", ErrReserveInvalid))
		return
	case reg.PerPath && reg.Key > math.MaxUint64-maxPaths:
		done(fmt.Errorf("register: %w: there is no room for %d keys from %s on", ErrReserveInvalid, maxPaths, KeyText(reg.Key)))
		return
	}
	d.reserveOp("register", false, done, func(op *reserveOp) { op.register(reg) })
}

// Unregister takes back the registrations of this host, those of dead paths
// included, and with them a reservation that it holds. Requests go on, as far as
// the target lets them. It also ends the refusal of all requests after this host
// was fenced off.
func (d *Device) Unregister(done func(error)) {
	d.reserveOp("unregister", false, done, func(op *reserveOp) { op.whenNothingIsKeptOut(op.unregister) })
}

// Reserve reserves the unit for this host. Types that let a single I_T nexus in
// are refused on a device with several paths, since only one of them could be used.
func (d *Device) Reserve(t scsi.ReservationType, done func(error)) {
	if err := d.checkType(t); err != nil {
		done(fmt.Errorf("reserve: %w", err))
		return
	}
	d.reserveOp("reserve", true, done, func(op *reserveOp) { op.reserve(t) })
}

// checkType refuses types that are none, or of no use here.
func (d *Device) checkType(t scsi.ReservationType) error {
	switch {
	case !t.Valid():
		return fmt.Errorf("%w: there is no %v", ErrReserveInvalid, t)
	case !t.Registrants() && len(d.paths) > 1:
		return fmt.Errorf("%w: %v lets one path in, and there are %d: use %v", ErrReserveInvalid, t, len(d.paths), t.ForRegistrants())
	}
	return nil
}

// Release releases the reservation if this host holds it. That of another host
// stays, which is an error, a *ConflictError.
func (d *Device) Release(done func(error)) {
	d.reserveOp("release", true, done, func(op *reserveOp) { op.whenNothingIsKeptOut(op.release) })
}

// Preemption is whom Preempt fences off, and how.
type Preemption struct {
	// Key of the host to fence off: its registrations and its reservation go.
	Key uint64
	// Abort ends its commands in the unit, too (PREEMPT AND ABORT). Only then
	// nothing it has under way is carried out afterwards.
	Abort bool
	// Type is that of the reservation this host holds afterwards, if the other
	// held one. Default: as before, but for registrants where one path would not do.
	Type scsi.ReservationType
}

// Preempt fences another host off.
func (d *Device) Preempt(v Preemption, done func(error)) {
	err := error(nil)
	switch {
	case v.Key == 0:
		err = fmt.Errorf("%w: the key of the host to fence off must not be 0", ErrReserveInvalid)
	case d.rsv.on && d.rsv.owns(v.Key):
		err = fmt.Errorf("%w: %s is a key of this host: use unregister", ErrReserveInvalid, KeyText(v.Key))
	case v.Type != 0:
		err = d.checkType(v.Type)
	}
	if err != nil {
		done(fmt.Errorf("preempt: %w", err))
		return
	}
	d.reserveOp("preempt", true, done, func(op *reserveOp) { op.preempt(v) })
}

// ClearReservations removes every registration and the reservation. Where other
// hosts are registered that needs otherHosts.
func (d *Device) ClearReservations(otherHosts bool, done func(error)) {
	d.reserveOp("clear", true, done, func(op *reserveOp) {
		op.whenNothingIsKeptOut(func() { op.clear(otherHosts) })
	})
}

// reserveView is what the unit says about its reservations.
type reserveView struct {
	keys []uint64
	res  scsi.Reservation
}

// ours reports whether a key of this host is registered.
func (v *reserveView) ours(r *reserveState) bool { return slices.ContainsFunc(v.keys, r.owns) }

// heldByUs reports whether this host holds the reservation; for all registrants
// that is so if it is registered.
func (v *reserveView) heldByUs(r *reserveState) bool {
	switch {
	case !v.res.Held:
		return false
	case v.res.Type.AllHold():
		return v.ours(r)
	}
	return r.owns(v.res.Key)
}

// conflict is the error of a command that met a conflict under this view.
func (v *reserveView) conflict(r *reserveState) *ConflictError {
	return &ConflictError{
		Held: v.res.Held, Holder: v.res.Key, Type: v.res.Type,
		Ours: r.on && v.res.Held && !v.res.Type.AllHold() && r.owns(v.res.Key),
	}
}
