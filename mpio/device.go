package mpio

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
)

// Device is one logical unit over many paths. It implements block.Device.
// Except for Geometry and Loop every method must be called on its loop.
type Device struct {
	cfg  Config
	loop loop.Loop
	load *loop.Load                     // what the loop is told of commands in flight
	pub  atomic.Pointer[block.Geometry] // what Geometry returns

	paths    []*path
	active   []*path // the paths that carry I/O now: the best group of the usable ones
	usable   int     // paths commands may be sent over at all
	cands    []*path // scratch of choose
	sel      selector
	failback failback
	rnd      rnd
	scouting scouting

	crowdedSince int64 // loop time since when the latency policy's nearest path has had a long queue; 0 = it has none
	started      bool

	// What the first path that was identified told. Every other must match.
	ready    bool
	identity scsi.Identity
	target   string // the name that path logged in to
	quirks   Quirks
	geo      geometry
	caps     features
	zeros    []byte

	// Commands that wait, each in one list: for a path with room; for a time;
	// for their own first copy to be settled (Config.Shared). Those behind
	// another write are in the list of its extent.
	queue, delayed, settling ioList
	kicking                  bool
	fence                    fence
	hedges                   hedger
	trial                    trial
	averages                 averages
	stallLimit               int64 // ns: a command that takes longer was stalled
	nextCare                 int64 // loop time of the next full round
	activation               activation
	ghosts                   []*ghost // oldest first
	fenceAt                  int64    // what fenceTimer is set to; 0 = it is not
	related                  relations
	memory                   memory
	watch                    fenceWatch // nil but in tests
	failing                  bool       // no path for longer than NoPathTimeout
	noPathSince              int64      // 0 = there is one
	backSince                int64      // loop time since when there is one again
	flaps                    flapLog
	noPathTold               bool
	moveTokens               float64 // reads that may still be taken from silent paths
	tickOn                   bool
	tickAt                   int64

	tick, retryTimer, noPathTimer, fenceTimer, closeTimer, failbackTimer, careTimer loop.Timer

	freeIO     *io
	freeReq    *request
	live, open int // ios and requests not completed

	closing, forced, closeSync, closeSent, closeDone bool
	closeErr                                         error
	onClosed                                         []func(error)

	rsv   reserveState
	cache cacheWatch
	told  map[scsi.ASC]*sighting // changes that were told of

	resetAt int64 // loop time of the last LUN reset that was complete
	stat    deviceStats
	lastErr error
}

// geometry is the unit's layout in the form the hot path wants.
type geometry struct {
	size      uint64
	blockSize uint32
	shift     uint   // log2 of blockSize
	maxBlocks uint64 // of one READ or WRITE
	readOnly  bool
}

var _ block.Device = (*Device)(nil)

// New makes a device without paths. l is the loop everything will run on.
func New(cfg Config, l loop.Loop) (*Device, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if l == nil {
		return nil, errors.New("mpio: no loop")
	}
	d := &Device{cfg: cfg, loop: l, load: loop.LoadOf(l), rnd: rnd(cfg.Seed), moveTokens: moveBurst}
	if d.sel, err = newSelector(cfg.Policy); err != nil {
		return nil, err
	}
	d.pub.Store(&block.Geometry{})
	d.tick.Fn = d.onTick
	d.retryTimer.Fn = d.onRetryTimer
	d.noPathTimer.Fn = d.onNoPathTimer
	d.fenceTimer.Fn = d.onFenceTimer
	d.closeTimer.Fn = d.onCloseTimer
	d.activation.init(d)
	d.failbackTimer.Fn = d.onFailbackTimer
	d.hedges.init(d)
	d.careTimer.Fn = d.onCareTimer
	d.stallLimit = stallFloor
	d.memory.timer.Fn = d.onRelicTimer
	d.cfg.Inherited = slices.Clone(cfg.Inherited)
	return d, nil
}

// Geometry implements block.Device; any goroutine. Size is 0 until DeviceReady.
func (d *Device) Geometry() block.Geometry { return *d.pub.Load() }

// Loop implements block.Device.
func (d *Device) Loop() loop.Loop { return d.loop }

// Ready reports whether a path was identified, so that Geometry is known.
func (d *Device) Ready() bool { return d.ready }

// Identity is what names the unit; zero until DeviceReady.
func (d *Device) Identity() scsi.Identity { return d.identity }

// AddPath adds a path. After Start it is started at once.
func (d *Device) AddPath(pc PathConfig) error {
	pc, err := pc.withDefaults(&d.cfg)
	if err != nil {
		return err
	}
	switch {
	case d.closing:
		return block.ErrClosed
	case len(d.paths) == maxPaths:
		return fmt.Errorf("mpio: a device can have %d paths at most", maxPaths)
	case d.path(pc.ID) != nil:
		return fmt.Errorf("mpio: there is a path %s already", pc.ID)
	}
	p := d.newPath(pc)
	p.bit = 1 << len(d.paths)
	if p.sess, err = d.cfg.NewSession(pc, p); err != nil {
		return fmt.Errorf("mpio: path %s: %w", pc.ID, err)
	}
	d.paths = append(d.paths, p)
	d.regroup()
	if d.started {
		d.takeOver(p)
		p.start()
	}
	return nil
}

// newPath makes a path without a session.
func (d *Device) newPath(pc PathConfig) *path {
	p := &path{dev: d, cfg: pc, state: StateConnecting, reason: "not started", since: d.loop.Now()}
	p.check.init(p)
	p.scout.init(p)
	p.detour.init(p)
	p.probe.p = p
	p.query.init(p)
	p.access.limit = transitionDefault
	return p
}

// Start starts every path. The device is ready once one of them was identified.
func (d *Device) Start() {
	if d.started || d.closing {
		return
	}
	d.started = true
	d.inherit()
	for _, p := range d.paths {
		p.start()
	}
	d.regroup()
	d.startCare()
}

func (p *path) start() {
	p.reason = "connecting"
	p.sess.Start()
}

// path finds a path by ID, nil if there is none.
func (d *Device) path(id string) *path {
	for _, p := range d.paths {
		if p.cfg.ID == id {
			return p
		}
	}
	return nil
}

// PathOp is what SetPath can do to a path.
type PathOp struct {
	Kind  PathOpKind
	Value int // of PathPriority and PathWeight: 1 or more
}

// PathOpKind is the kind of a PathOp.
type PathOpKind uint8

// The kinds of PathOp.
const (
	// OpUp takes a path back into use: it ends OpDown, has a lost session dialed
	// at once, and a quarantined or failed path checked again. Where
	// Config.Failback keeps I/O away from a path that is back, it returns.
	OpUp PathOpKind = iota + 1
	// OpDown takes a path out of use. Reads in flight move to another path,
	// writes in flight finish. The session stays logged in.
	OpDown
	// OpPriority and OpWeight set PathConfig.Priority and PathConfig.Weight.
	OpPriority
	OpWeight
)

// ErrNoSuchPath is what SetPath returns for an ID that AddPath was never given.
var ErrNoSuchPath = errors.New("no such path")

// SetPath steers a path by hand.
func (d *Device) SetPath(id string, op PathOp) error {
	p := d.path(id)
	switch {
	case p == nil:
		return fmt.Errorf("%w: %s", ErrNoSuchPath, id)
	case d.closing:
		return block.ErrClosed
	}
	switch op.Kind {
	case OpUp:
		p.setUp()
	case OpDown:
		p.setDown()
	case OpPriority, OpWeight:
		if op.Value < 1 {
			return fmt.Errorf("mpio: priority and weight must be 1 or more, not %d", op.Value)
		}
		if op.Kind == OpPriority {
			p.cfg.Priority = op.Value
			d.failBack(d.paths...)
		} else {
			p.cfg.Weight = op.Value
		}
	default:
		return fmt.Errorf("mpio: unknown operation %d on path %s", op.Kind, id)
	}
	d.kick()
	return nil
}

func (p *path) setDown() {
	if p.offline {
		return
	}
	p.offline = true
	p.refresh("taken out by hand", nil)
	p.dev.takeCommands(p, true)
}

func (p *path) setUp() {
	wasOffline := p.offline
	p.offline = false
	p.forgive()
	if wasOffline {
		p.ramp = rampStart
		if p.derive() == StateDown && p.linkErr != nil {
			p.refresh(p.linkErr.Error(), p.linkErr)
		} else {
			p.refresh("taken back by hand", nil)
		}
	}
	switch {
	case !p.logged:
		p.sess.RetryNow()
	case !p.verified:
		p.startCheck("asked for by hand")
	default:
		p.dev.failBack(p)
	}
}

// SetPolicy changes the policy of the live device.
func (d *Device) SetPolicy(name string) error {
	s, err := newSelector(name)
	if err != nil {
		return err
	}
	d.sel = s
	d.cfg.Policy = name
	d.regroup()
	d.kick()
	return nil
}

// publish makes the geometry known to other goroutines.
func (d *Device) publish() {
	if !d.ready {
		return
	}
	g := *d.pub.Load()
	g.CanTrim, g.CanZero = d.caps.unmap, d.caps.same
	g.MaxTransfer = uint32(d.geo.maxBlocks << d.geo.shift)
	d.pub.Store(&g)
}

// rnd is a xorshift generator: equal paths are told apart by it. Never zero.
type rnd uint64

// below gives a number in [0, n).
func (r *rnd) below(n int) int {
	x := uint64(*r)
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*r = rnd(x)
	return int((x >> 33) % uint64(n))
}
