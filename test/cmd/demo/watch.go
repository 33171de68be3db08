package main

import (
	"context"
	"fmt"
	"time"

	"github.com/iscsimp/iscsimp/test/peer"
)

// sampleEvery is the window over which the share of a path is taken. The share that iscsimp reports is that of the last seconds, too lazy for a stopwatch;
// differences of its I/O counters are exact.
const sampleEvery = 100 * time.Millisecond

// steadySamples in a row must be below the limit, so that a lucky window does not end the measurement.
const steadySamples = 3

// timeUntilShed measures how long the path through portal goes on carrying more than shedShare of the I/O.
func (d *demo) timeUntilShed(ctx context.Context, portal string) (time.Duration, error) {
	start := time.Now()
	previous, err := d.device.Status(ctx)
	if err != nil {
		return 0, err
	}
	var first time.Duration // end of the first window of the present row below the limit
	below := 0
	share := 1.0
	for time.Since(start) < d.shedLimit+steadySamples*sampleEvery {
		if err := pause(ctx, sampleEvery); err != nil {
			return 0, err
		}
		now, err := d.device.Status(ctx)
		if err != nil {
			return 0, err
		}
		share = shareBetween(previous, now, portal)
		previous = now
		if share >= d.shedShare {
			below = 0
			continue
		}
		if below++; below == 1 {
			first = time.Since(start)
		}
		if below == steadySamples {
			return first, nil
		}
	}
	return 0, fmt.Errorf("the slow path still carries %.1f %% of the I/O after %v, not less than %.0f %%", share*100, d.shedLimit, d.shedShare*100)
}

// waitShown lets the path stay slow until the share that iscsimp itself reports, an average over the last seconds, shows it too.
func (d *demo) waitShown(ctx context.Context, portal string) error {
	for began := time.Now(); time.Since(began) < d.slowFor; {
		status, err := d.device.Status(ctx)
		if err != nil {
			return err
		}
		if status.Path(portal).Share < d.shedShare {
			return nil
		}
		if err := pause(ctx, sampleEvery); err != nil {
			return err
		}
	}
	return nil
}

// shareBetween is the part of the I/O between two statuses that the path through portal carried, 0 to 1. No I/O at all counts as 1: nothing was shed.
func shareBetween(before, after peer.DeviceStatus, portal string) float64 {
	var of, all float64
	for _, path := range after.Paths {
		n := float64(path.IOs) - float64(before.Path(path.Portal).IOs)
		all += n
		if path.Portal == portal {
			of = n
		}
	}
	if all <= 0 {
		return 1
	}
	return of / all
}

// pause waits, unless the demo is interrupted.
func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(length):
		return nil
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
