package initiator

import (
	"context"
	"errors"
	"fmt"

	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

// Registration says how Register registers this host with the unit.
type Registration = mpio.Registration

// Preemption says whom Preempt fences off, and how.
type Preemption = mpio.Preemption

// Reservations is what the unit says about its reservations.
type Reservations = mpio.ReservationInfo

// ConflictError is in the errors of I/O, Reserve and Release when another host holds
// a reservation. It names the holder.
type ConflictError = mpio.ConflictError

// KeyText is a key as people write it: hexadecimal, with all its digits.
func KeyText(key uint64) string { return mpio.KeyText(key) }

// Errors of reservations; compare with errors.Is.
var (
	// ErrNotRegistered: Register comes first.
	ErrNotRegistered = mpio.ErrNotRegistered
	// ErrReserveBusy: one operation on reservations at a time.
	ErrReserveBusy = mpio.ErrReserveBusy
	// ErrPreempted: this host was fenced off. All I/O fails with it, wrapped, until
	// Register or Unregister.
	ErrPreempted = mpio.ErrPreempted
	// ErrOutcomeUnknown: the target's answer was lost, and what it did, or may still
	// do, could not be found out. Reservations tells how things stand.
	ErrOutcomeUnknown = mpio.ErrOutcomeUnknown
)

// ReservationType is the type of a persistent reservation (SPC-4 §5.12).
type ReservationType = scsi.ReservationType

// The reservation types that make sense over several paths: all registered hosts
// may write (and, exclusively, read), nobody else. With the last two every
// registered host holds the reservation, so that it outlives any one of them.
const (
	WriteExclusiveRegistrantsOnly = scsi.WriteExclusiveRegistrantsOnly
	ExclusiveRegistrantsOnly      = scsi.ExclusiveRegistrantsOnly
	WriteExclusiveAllRegistrants  = scsi.WriteExclusiveAllRegistrants
	ExclusiveAllRegistrants       = scsi.ExclusiveAllRegistrants
)

// The types for devices with a single path.
const (
	WriteExclusive  = scsi.WriteExclusive
	ExclusiveAccess = scsi.ExclusiveAccess
)

// Register registers this host's key with the unit, over every path. A path that
// comes back later, or is found later, registers before it carries I/O, but only
// while a key of this host is still registered: after another host removed it all
// I/O fails with ErrPreempted, until Register is called again.
//
// It replaces any key this host has registered, and returns once one path has
// registered; the others carry no I/O before they have. All methods about
// reservations may wait for a path, up to Config.FenceTimeout; when ctx ends
// first, the operation goes on by itself.
func (d *Device) Register(ctx context.Context, r Registration) error {
	return d.reservation(ctx, func(done func(error)) { d.mp.Register(r, done) })
}

// Unregister removes the registrations of this host, those of paths that are down
// included, and with them a reservation that it holds. I/O goes on.
func (d *Device) Unregister(ctx context.Context) error {
	return d.reservation(ctx, d.mp.Unregister)
}

// Reserve reserves the unit for the hosts that are registered with it. The error of
// a unit that another host has reserved is a *ConflictError.
func (d *Device) Reserve(ctx context.Context, t ReservationType) error {
	return d.reservation(ctx, func(done func(error)) { d.mp.Reserve(t, done) })
}

// Release releases the unit, if this host has reserved it.
func (d *Device) Release(ctx context.Context) error {
	return d.reservation(ctx, d.mp.Release)
}

// Preempt fences another host off: its registrations go, and its reservation, if it
// holds one, becomes this host's. This host must be registered.
func (d *Device) Preempt(ctx context.Context, p Preemption) error {
	return d.reservation(ctx, func(done func(error)) { d.mp.Preempt(p, done) })
}

// ClearReservations removes the reservation and every registration. Where other
// hosts are registered it does so only if otherHosts is true: they lose theirs.
func (d *Device) ClearReservations(ctx context.Context, otherHosts bool) error {
	return d.reservation(ctx, func(done func(error)) { d.mp.ClearReservations(otherHosts, done) })
}

// Reservations asks the unit who is registered and who holds the reservation. It
// needs a usable path, but no registration.
func (d *Device) Reservations(ctx context.Context) (Reservations, error) {
	read := make(chan Reservations, 1)
	err := d.reservation(ctx, func(done func(error)) {
		d.mp.ReadReservations(func(r Reservations, err error) {
			read <- r
			done(err)
		})
	})
	if err != nil {
		return Reservations{}, err
	}
	return <-read, nil
}

// reservation starts an operation on the loop and waits for its end, or for that of ctx.
func (d *Device) reservation(ctx context.Context, start func(done func(error))) error {
	result := make(chan error, 1)
	if err := d.call(ctx, func() error {
		start(func(err error) { result <- err })
		return nil
	}); err != nil {
		return err
	}
	select {
	case err := <-result:
		if errors.Is(err, mpio.ErrReserveInvalid) {
			return &Error{Kind: KindInvalid, Err: err}
		}
		return err
	case <-d.closed: // the loop has ended, and what still waited on it with it
		return fmt.Errorf("device %s: %w", d.cfg.Name, ErrClosed)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
