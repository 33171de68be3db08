package mpio

import (
	"fmt"
	"log/slog"
)

// EventKind says what happened.
type EventKind uint8

// The kinds of Event, all in the past tense.
const (
	PathUp             EventKind = iota + 1 // the path was identified and carries I/O
	PathDown                                // the path was lost, or its check failed; Err says why
	PathSuspected                           // the path fell silent with commands in flight
	PathQuarantined                         // the path led to another unit: it is not used
	PathMarginal                            // the path failed, flapped or stalled where the others did not: used only if no path is up
	PathClosed                              // the path was logged out, since the device closes
	PathChanged                             // any other change of state: connecting, checking, offline
	DeviceReady                             // the first path was identified: geometry is known
	NoPath                                  // the last usable path was lost: requests wait
	NoPathExpired                           // they waited for too long: requests fail
	PathsBack                               // a path is usable again
	FailedBack                              // I/O returned to a better path that had failed and is back
	FenceRaised                             // writes of unknown outcome hold back newer ones to their blocks
	FenceSettled                            // ... and no longer do; Text says what proved it
	Retried                                 // commands were sent again
	RequestFailed                           // a request was given up; Err says why
	CommandTimedOut                         // a command grew too old on a live path: it is aborted
	CommandAborted                          // ... and the target ended it, by an abort or a reset of the unit
	AbortFailed                             // ... and it did not; Text says why. A reset of the unit, or a new session, is next
	UnitReset                               // the unit was asked to reset, which ends the commands of other hosts too
	FeatureLost                             // the target turned out not to support something
	CapacityChanged                         // a path reports another size than the device has
	ReservationChanged                      // keys or reservation of this host changed, as somebody wanted
	ReservationLost                         // another host removed this host's keys: every request fails
	AccessChanged                           // the target changed the access state of a path's port group (ALUA)
	PortGroupsSet                           // the target was asked to change access states; Err: it did not
	AttentionSeen                           // the target reported a change of the unit (UNIT ATTENTION); told once, not for each path
	CacheDoubted                            // it may be lost, and the target does not say so
	ProtectionChanged                       // the unit was write protected, or is not any more
	CacheLost                               // the unit's write cache may be lost with answered writes in it: flushes under way fail, or else the next one
	DeviceClosed                            // the device was closed
)

var eventNames = [...]string{
	PathUp: "path-up", PathDown: "path-down", PathSuspected: "path-suspected",
	PathQuarantined: "path-quarantined", PathMarginal: "path-marginal", PathClosed: "path-closed", PathChanged: "path-changed", DeviceReady: "device-ready",
	NoPath: "no-path", NoPathExpired: "no-path-expired", PathsBack: "paths-back", FailedBack: "failed-back",
	FenceRaised: "fence-raised", FenceSettled: "fence-settled", Retried: "retried",
	RequestFailed: "request-failed", CommandTimedOut: "command-timed-out",
	CommandAborted: "command-aborted", AbortFailed: "abort-failed", UnitReset: "unit-reset",
	FeatureLost: "feature-lost", CapacityChanged: "capacity-changed", DeviceClosed: "device-closed",
	ReservationChanged: "reservation-changed", ReservationLost: "reservation-lost",
	AccessChanged: "access-changed", PortGroupsSet: "port-groups-set",
	AttentionSeen: "attention-seen", CacheLost: "cache-lost",
	CacheDoubted: "cache-doubted", ProtectionChanged: "protection-changed",
}

// String is the name used in logs and JSON.
func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return fmt.Sprintf("event-%d", uint8(k))
}

// MarshalText gives the name.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Event tells of something that happened to the device.
type Event struct {
	At    int64     // loop time in ns
	Kind  EventKind // what
	Path  string    // ID of the path it is about, "" if none
	State State     // the path's state after it, with a path event
	Count int       // of commands or writes, where it is about several
	Text  string    // in words, with the reason
	Err   error     // the cause, if it is an error

	unproven bool // only time settled it
}

// level is how loud an event is in the log.
func (k EventKind) level() slog.Level {
	switch k {
	case PathDown, PathSuspected, PathMarginal, NoPath, FenceRaised, CommandTimedOut, AbortFailed, UnitReset, FeatureLost, CapacityChanged, PortGroupsSet,
		CacheDoubted, ProtectionChanged:
		return slog.LevelWarn
	case CacheLost, PathQuarantined, NoPathExpired, RequestFailed, ReservationLost:
		return slog.LevelError
	case PathChanged, Retried:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// emit logs e and tells the owner. Never on the hot path.
func (d *Device) emit(e Event) {
	e.At = d.loop.Now()
	d.record(e)
	if d.cfg.OnEvent != nil {
		d.cfg.OnEvent(e)
	}
}

// muted keeps events that come with every command from flooding the log: one a
// second is told, with the number of those since the last.
type muted struct {
	n    int
	next int64
}

// tell emits e about p, or counts it for later.
func (p *path) tell(m *muted, e Event) {
	m.n++
	now := p.dev.loop.Now()
	if now < m.next {
		return
	}
	e.Path, e.State, e.Count = p.cfg.ID, p.state, m.n
	m.n, m.next = 0, now+1e9
	p.dev.emit(e)
}

// counted puts a number before a noun: "1 write", "3 writes".
func counted[N int | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
