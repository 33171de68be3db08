package initiator

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/internal/asynclog"
	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/mpio"
)

// Device is one LUN over all its paths. Its methods may be called from any
// goroutine; from RequestDone and TraceFunc only Submit, Geometry, Size and
// BlockSize, because the others wait for the loop these run on.
type Device struct {
	cfg     Config
	loop    loop.Loop
	mp      *mpio.Device // loop only, but for Geometry
	queue   *submitQueue
	starter *starter // loop only, but for its result
	log     *slog.Logger
	stopLog func()
	events  *eventQueue
	state   *stateFile // nil: nothing is noted

	// What goes on besides the loop: looking for paths.
	background context.Context
	cancel     context.CancelFunc
	helpers    sync.WaitGroup
	// Used by findPaths and then by one helper only.
	haveAddress map[string]bool
	pathCount   int

	closeOnce sync.Once
	closed    chan struct{} // everything has ended
}

// newDevice makes a device without paths.
func newDevice(cfg Config) (*Device, error) {
	d := &Device{cfg: cfg, haveAddress: make(map[string]bool), closed: make(chan struct{})}
	d.log, d.stopLog = asynclog.New(cfg.Logger)
	d.log = d.log.With("device", cfg.Name)
	d.cfg.Logger = d.log
	d.events = newEventQueue(cfg.OnEvent)
	d.starter = newStarter(cfg)
	d.background, d.cancel = context.WithCancel(context.Background())
	d.loop = newLoop(cfg.Portable)
	inherited, remember, err := d.openState()
	if err != nil {
		d.release()
		return nil, err
	}
	mp, err := mpio.New(mpio.Config{
		Inherited:       inherited,
		Remember:        remember,
		Name:            cfg.Name,
		Target:          cfg.Target,
		LUN:             cfg.LUN,
		Policy:          cfg.Policy,
		Failback:        cfg.Failback,
		HedgeBudget:     cfg.HedgeBudget,
		PollingInterval: cfg.PollingInterval,
		Marginal:        cfg.Marginal,
		ReadOnly:        cfg.ReadOnly,
		Shared:          cfg.Shared,
		NoPathTimeout:   cfg.NoPathTimeout,
		FailFast:        cfg.FailFast,
		FenceTimeout:    cfg.FenceTimeout,
		CommandTimeout:  cfg.CommandTimeout,
		LUNReset:        cfg.LUNReset,
		RetryTimeout:    cfg.RetryTimeout,
		WaitTimeout:     cfg.WaitTimeout,
		MaxTransfer:     cfg.MaxTransfer,
		NewSession:      d.newSession,
		OnEvent:         d.onEvent,
		Logger:          d.log,
		Seed:            uint64(time.Now().UnixNano()) | 1,

		IdentifyTimeout: cfg.IdentifyTimeout,
	}, d.loop)
	if err != nil {
		d.release()
		return nil, &Error{Kind: KindInvalid, Msg: "configuration", Err: err}
	}
	d.mp = mp
	d.queue = newSubmitQueue(d.loop, mp.Submit)
	return d, nil
}

// onEvent runs on the loop.
func (d *Device) onEvent(e Event) {
	d.starter.event(e)
	d.events.push(e)
}

// onLoop runs fn on the loop and waits for it, which takes no longer than the
// loop needs for what is due before it: nothing on a loop waits. It reports
// whether fn ran; it does not once the device is closed.
func (d *Device) onLoop(fn func()) bool {
	done := make(chan struct{})
	if !d.loop.Post(func() {
		defer close(done)
		fn()
	}) {
		return false
	}
	<-done
	return true
}

// Geometry says how large the device is and what it can do.
func (d *Device) Geometry() Geometry { return d.mp.Geometry() }

// Size is the device's size in bytes.
func (d *Device) Size() uint64 { return min(d.Geometry().Size, math.MaxInt64) }

// BlockSize is the size of a logical block in bytes, a power of two: what writes
// must be aligned to.
func (d *Device) BlockSize() uint32 { return d.Geometry().BlockSize }

// Block is the device as the front ends of this module see it. Its Submit
// may be called on its loop only.
func (d *Device) Block() block.Device { return d.mp }

// Close drains the device: it waits for the requests that were submitted, makes
// everything durable (SYNCHRONIZE CACHE), logs out of every path and ends all
// goroutines. Requests submitted from now on fail with ErrClosed. When ctx ends
// first, what is still under way fails, as with Abort. The error tells of data
// that may not be durable. Calling it again waits for the end.
func (d *Device) Close(ctx context.Context) error {
	d.cancel()
	drained := make(chan error, 1)
	if !d.loop.Post(func() { d.mp.Close(false, func(err error) { drained <- err }) }) {
		<-d.closed
		return nil
	}
	select {
	case err := <-drained:
		d.release()
		return err
	case <-ctx.Done():
		d.Abort()
		return context.Cause(ctx)
	}
}

// Abort closes the device without waiting for I/O: requests under way fail with
// ErrClosed, and whether their data reached the medium is not known. It waits
// for the logouts, which Config.LogoutTimeout bounds.
func (d *Device) Abort() {
	d.cancel()
	left := make(chan struct{})
	if d.loop.Post(func() { d.mp.Close(true, func(error) { close(left) }) }) {
		<-left
	}
	d.release()
}

// release ends everything but the sessions, which have ended.
func (d *Device) release() {
	d.closeOnce.Do(func() {
		inUse.close(d)
		d.cancel()
		d.helpers.Wait()
		d.loop.Close()
		if d.state != nil {
			d.state.release()
		}
		d.events.stop()
		d.stopLog()
		close(d.closed)
	})
	<-d.closed
}
