package mpio

import (
	"fmt"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

// ReservationInfo is what the unit says about its reservations, and what this host
// has to do with them.
type ReservationInfo struct {
	// Registered says that this host is registered, with Key; see Registration for
	// PerPath. Lost, if not nil, says why every request fails now: ErrPreempted.
	Registered bool
	Key        uint64
	PerPath    bool
	Lost       error

	// Generation counts the changes of registrations, at the target.
	Generation uint32
	// Keys of all that are registered, one for each I_T nexus.
	Keys []uint64
	// Held says that there is a reservation, of Type, by the key Holder, which is 0
	// with the all-registrants types. Ours says that this host holds it.
	Held   bool
	Type   scsi.ReservationType
	Holder uint64
	Ours   bool

	// Nexuses is who is registered in detail; nil if the target does not tell (READ
	// FULL STATUS). Capabilities is what it can do; nil likewise.
	Nexuses      []scsi.Registration
	Capabilities *scsi.ReserveCapabilities

	// Paths are the paths of this host, in the order of their making.
	Paths []PathRegistration
}

// PathRegistration is what is known of the registration of one path.
type PathRegistration struct {
	ID, Portal string
	State      State
	Key        uint64 // registered over it, 0: none as far as known
}

// ReadReservations asks the unit over whichever path is usable, and calls done on
// the loop, perhaps at once.
func (d *Device) ReadReservations(done func(ReservationInfo, error)) {
	switch {
	case d.closing:
		done(ReservationInfo{}, fmt.Errorf("read reservations: %w", block.ErrClosed))
	default:
		(&reserveReader{d: d, done: done}).start()
	}
}

// reserveReader reads all there is to know, and begins anew over another path when
// one is lost.
type reserveReader struct {
	d     *Device
	tries int
	info  ReservationInfo
	done  func(ReservationInfo, error)
}

func (x *reserveReader) fail(err error) {
	x.done(ReservationInfo{}, fmt.Errorf("read reservations: %w", err))
}

func (x *reserveReader) start() {
	d := x.d
	paths := d.reservePaths(nil)
	x.tries++
	if len(paths) == 0 || x.tries > 2*len(d.paths) {
		x.fail(fmt.Errorf("%w: no usable path", block.ErrIO))
		return
	}
	p := paths[0]
	d.readReservations(p, func(v reserveView, lost bool, err error) {
		switch {
		case lost:
			x.start()
		case err != nil:
			x.fail(err)
		default:
			x.more(p, v)
		}
	})
}

// more asks for what not every target tells.
func (x *reserveReader) more(p *path, v reserveView) {
	r := &x.d.rsv
	x.info = ReservationInfo{
		Registered: r.on && r.lost == nil, Key: r.reg.Key, PerPath: r.reg.PerPath, Lost: r.lost,
		Generation: v.res.Generation, Keys: v.keys,
		Held: v.res.Held, Type: v.res.Type, Holder: v.res.Key, Ours: r.on && v.heldByUs(r),
	}
	if !r.on {
		x.info.Key = 0
	}
	p.reserveIn(scsi.SAReadFullStatus, func(reply reserveReply) {
		if reply.err == nil {
			if _, list, err := scsi.ParseFullStatus(reply.data); err == nil {
				x.info.Nexuses = list
			}
		}
		p.reserveIn(scsi.SAReportCapabilities, func(reply reserveReply) {
			if reply.err == nil {
				if c, err := scsi.ParseReserveCapabilities(reply.data); err == nil {
					x.info.Capabilities = &c
				}
			}
			x.finish()
		})
	})
}

func (x *reserveReader) finish() {
	for _, p := range x.d.paths {
		x.info.Paths = append(x.info.Paths, PathRegistration{ID: p.cfg.ID, Portal: p.cfg.Portal, State: p.state, Key: p.rsv.key})
	}
	x.done(x.info, nil)
}
