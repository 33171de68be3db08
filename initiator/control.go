package initiator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/session"
)

// Snapshot is the state of a device and its paths at one moment.
type Snapshot = mpio.Snapshot

// OpOfEarlierRun marks a fence that an earlier process left.
const OpOfEarlierRun = mpio.OpOfEarlierRun

// PathSnapshot is the state of one path.
type PathSnapshot = mpio.PathSnapshot

// ConnStats is the state of one connection of a path's session.
type ConnStats = session.ConnStats

// Notice is something a target said on its own.
type Notice = session.Notice

// PathOp is what SetPath does to a path.
type PathOp = mpio.PathOp

// The kinds of PathOp.
const (
	// PathUp takes a path back into use, and tries at once to log in if it is
	// lost. Where Config.Failback keeps I/O away from it, I/O returns.
	PathUp = mpio.OpUp
	// PathDown takes a path out of use. Reads move to other paths, writes in
	// flight finish. The session stays logged in.
	PathDown = mpio.OpDown
	// PathPriority sets the group of a path, PathOp.Value, 1 or more: only the
	// group with the lowest number that has a usable path carries I/O.
	PathPriority = mpio.OpPriority
	// PathWeight sets the weight of a path, PathOp.Value, 1 or more: under
	// round-robin its share of commands, under least-bytes that of bytes in flight;
	// under weighted what it costs, of which the lowest is used first.
	PathWeight = mpio.OpWeight
)

// ErrNoSuchPath is the error of SetPath for a path the device does not have.
var ErrNoSuchPath = mpio.ErrNoSuchPath

// Snapshot describes the device. It never waits for I/O: it takes as long as
// the loop needs for what is due before it. It fails only when ctx ends or the
// device is closed.
func (d *Device) Snapshot(ctx context.Context) (Snapshot, error) {
	taken := make(chan Snapshot, 1)
	if err := d.call(ctx, func() error {
		taken <- d.mp.Snapshot()
		return nil
	}); err != nil {
		return Snapshot{}, err
	}
	return <-taken, nil
}

// SetPath steers one path by hand, until the device is closed. path is its ID
// or its portal, as Snapshot shows them. It never waits for I/O.
func (d *Device) SetPath(ctx context.Context, path string, op PathOp) error {
	return d.call(ctx, func() error {
		err := d.mp.SetPath(d.pathID(path), op)
		if errors.Is(err, ErrNoSuchPath) {
			return &Error{Kind: KindInvalid, Err: err, Hint: "`iscsimp paths` lists them"}
		}
		return err
	})
}

// pathID finds a path by its portal; anything else is taken for an ID.
func (d *Device) pathID(path string) string {
	if portal, err := ParsePortal(path); err == nil {
		if i := slices.IndexFunc(d.starter.paths, func(p *startingPath) bool { return p.portal == portal }); i >= 0 {
			return d.starter.paths[i].id
		}
	}
	return path
}

// SetPolicy changes the policy of the running device. See Policies.
func (d *Device) SetPolicy(ctx context.Context, policy string) error {
	if !slices.Contains(Policies(), policy) {
		return invalidf("the policies are "+listWords(Policies()), "there is no policy %q", policy)
	}
	return d.call(ctx, func() error { return d.mp.SetPolicy(policy) })
}

// SetFailback changes Config.Failback of the running device.
func (d *Device) SetFailback(ctx context.Context, after time.Duration) error {
	if after < 0 && after != FailbackManual {
		return invalidf("use 0, FailbackManual or a time", "Failback is %v", after)
	}
	return d.call(ctx, func() error { return d.mp.SetFailback(after) })
}

// call runs fn on the loop and waits for its result, or for the end of ctx; fn
// then still runs.
func (d *Device) call(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	if !d.loop.Post(func() { done <- fn() }) {
		return fmt.Errorf("device %s: %w", d.cfg.Name, block.ErrClosed)
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
