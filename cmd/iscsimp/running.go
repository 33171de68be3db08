package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/iscsimp/iscsimp/initiator"
)

// status implements controlled: the device as it is now. It never waits for
// I/O; before the device is ready there is little to tell.
func (r *runner) status(ctx context.Context) (deviceStatus, error) {
	r.mu.Lock()
	dev, exports, closing := r.dev, r.exports, r.closing
	r.mu.Unlock()
	st := r.skeleton(exports)
	if dev != nil {
		s, err := dev.Snapshot(ctx)
		switch {
		case errors.Is(err, initiator.ErrClosed):
			closing = true
		case err != nil:
			return st, err
		default:
			fillStatus(&st, s, time.Now())
			geometry := dev.Geometry()
			st.ReadOnly = geometry.ReadOnly
		}
	}
	if closing {
		st.State = "closing"
	}
	return st, nil
}

// skeleton is what is known without a device.
func (r *runner) skeleton(exports []string) deviceStatus {
	cfg := &r.options.cfg
	st := deviceStatus{
		Name: r.options.name, Target: cfg.Target, LUN: lunJSON(cfg.LUN), State: "starting",
		InitiatorName: cfg.InitiatorName, ReadOnly: cfg.ReadOnly, Shared: cfg.Shared, Policy: cfg.Policy, Failback: initiator.FailbackName(cfg.Failback),
		Exports: append([]string{}, exports...), Fenced: []fencedRange{}, Paths: []pathStatus{},
		Limits: limitsOf(cfg),
	}
	st.stampProcess()
	return st
}

// fillStatus takes over a snapshot.
func fillStatus(st *deviceStatus, s initiator.Snapshot, now time.Time) {
	st.State, st.Policy, st.Failback, st.FailbackPending = s.State, s.Policy, s.Failback, s.FailbackPending
	if s.FailbackPending && s.FailbackLeft >= 0 {
		st.FailbackSecondsLeft = &s.FailbackLeft
	}
	st.SizeBytes, st.BlockSize = s.Size, s.BlockSize
	st.Identity, st.Vendor, st.Product = s.Unit, s.Vendor, s.Product
	st.PathsUp, st.PathsTotal = s.PathsUp, len(s.Paths)
	st.InFlight, st.Queued, st.Requests, st.Failed = s.InFlight, s.Queued, s.Requests, s.Failed
	st.LastError = s.LastError
	if s.Key != 0 {
		st.Key, st.Reserved, st.Preempted = initiator.KeyText(s.Key), s.Reserved.Short(), s.Preempted
	}
	if s.NoPathFor > 0 && s.NoPathLeft >= 0 {
		st.NoPathSecondsLeft = &s.NoPathLeft
	}
	portals := make(map[string]string, len(s.Paths))
	for _, p := range s.Paths {
		portals[p.ID] = p.Portal
		st.Paths = append(st.Paths, newPathStatus(p, now))
	}
	st.FencedTotal = s.FencedCount
	st.Hedging = newHedgeStatus(&s)
	st.Fences = fenceCounts{Raised: s.FencesRaised, Settled: s.FencesSettled, TimedOut: s.FencesTimedOut, Waits: s.FencedWaits}
	for _, f := range s.Fenced {
		st.Fenced = append(st.Fenced, fencedRange{
			Path: f.Path, Portal: portals[f.Path], Op: f.Op, OffsetBytes: f.Offset, LengthBytes: f.Length,
			SinceSeconds: f.Age, SecondsLeft: f.Left, Moved: f.Moved,
		})
	}
}

func newPathStatus(p initiator.PathSnapshot, now time.Time) pathStatus {
	return pathStatus{
		ID: p.ID, Portal: p.Portal, State: p.State.String(), Active: p.Active, HeldBack: p.HeldBack,
		Since:        formatTime(now.Add(-time.Duration(p.Since * float64(time.Second)))),
		SinceSeconds: p.Since, Reason: strings.TrimPrefix(p.Reason, p.Portal+": "), Priority: p.Priority, Weight: p.Weight,
		Share: p.Share, ShareTotal: p.ShareTotal, IOs: p.IOs, Bytes: p.Bytes, IOPS: p.IOPS, MBps: p.MBps,
		P50Seconds: p.P50, P99Seconds: p.P99, InFlight: p.InFlight, OldestSeconds: p.OldestAge,
		Retries: p.Retries, Errors: p.Errors, Timeouts: p.Timeouts, Aborts: p.Aborts, Resets: p.Resets, Moved: p.Moved, Probes: p.Probes,
		Logins: p.Logins, Losses: p.Losses, LastError: p.LastError,
		ISID: hex.EncodeToString(p.Session.ISID[:]), TPGT: p.Session.TPGT, ALUAState: p.ALUAState, ALUAGroup: p.ALUAGroup, ALUAPreferred: p.ALUAPreferred, ALUASinceSeconds: p.ALUASince, LocalAddress: p.Session.LocalAddr,
		Connections: p.Session.Connections, RetrySeconds: p.Link.RetryIn, LoggingIn: p.Link.LoggingIn, SentTo: p.Session.SentTo, ConnectionList: connectionList(p.Session.Conns),
		Hedged: p.Hedged, Polls: p.Polls, Health: newPathHealth(&p),
		LastLoss:   lastLoss(&p),
		LastReject: newTargetNotice(p.Session.LastReject, p.Link.RejectAge),
		LastAsync:  newTargetNotice(p.Session.LastAsync, p.Link.AsyncAge),
		Cost: pathCost{
			TotalSeconds: p.Cost.Total, LatencySeconds: p.Cost.Latency, WriteSeconds: p.Cost.Write, OldestSeconds: p.Cost.Age,
			LateSeconds: p.Cost.Late, QueueSeconds: p.Cost.Queue, EachSeconds: p.Cost.PerCommand,
			InFlight: p.Cost.InFlight, QueuedBytes: p.Cost.Queued, BytesPerSecond: p.Cost.Bandwidth,
			Limit: p.Cost.Limit, Ramp: p.Cost.Ramp, Known: p.Cost.Known,
		},
	}
}

func connectionList(conns []initiator.ConnStats) []connectionStatus {
	var list []connectionStatus
	for _, c := range conns {
		list = append(list, connectionStatus{
			CID: int(c.CID), State: c.State, LocalAddress: c.LocalAddr, OutstandingBytes: c.Outstanding,
			LatencySeconds: c.Latency, Silent: c.Silent, RetrySeconds: c.RetryIn,
		})
	}
	return list
}

// lastLoss tells how the session was lost last, nil if it never was.
func lastLoss(p *initiator.PathSnapshot) *targetNotice {
	if p.Link.Lost == "" {
		return nil
	}
	return &targetNotice{Text: strings.TrimPrefix(p.Link.Lost, p.Portal+": "), Count: p.Losses, SinceSeconds: p.Link.LostAge}
}

func newTargetNotice(n initiator.Notice, age float64) *targetNotice {
	if n.Count == 0 {
		return nil
	}
	return &targetNotice{Text: n.Text, Count: n.Count, SinceSeconds: age}
}

// limitsOf gives the limits as they are in force.
func limitsOf(cfg *initiator.Config) deviceLimits {
	l := deviceLimits{
		CommandSeconds: cfg.CommandTimeout.Seconds(), LUNReset: cfg.LUNReset && !cfg.Shared,
		FenceSeconds: cfg.FenceTimeout.Seconds(), NoPathSeconds: cfg.NoPathTimeout.Seconds(),
	}
	if cfg.NoPathTimeout == initiator.Forever {
		l.NoPathSeconds = -1
	}
	if cfg.FailFast {
		l.NoPathSeconds = 0
	}
	return l
}

// steer implements controlled.
func (r *runner) steer(ctx context.Context, cmd pathCommand) error {
	var op initiator.PathOp
	err := error(nil)
	if isDeviceAction(cmd.Action) {
		err = cmd.checkDevice()
	} else {
		op, err = cmd.op()
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	dev := r.dev
	r.mu.Unlock()
	if dev == nil {
		return failf(exitError, "device %s is not running yet, or not any more; try again", r.options.name)
	}
	if isDeviceAction(cmd.Action) {
		if err := cmd.steerDevice(ctx, dev); err != nil {
			return err
		}
		r.log.Info("device steered by hand", "action", cmd.Action, "value", cmd.Value)
		return nil
	}
	if err := dev.SetPath(ctx, cmd.Path, op); errors.Is(err, initiator.ErrNoSuchPath) {
		return err // it names the path
	} else if err != nil {
		return fmt.Errorf("path %s: %w", cmd.Path, err)
	}
	r.log.Info("path steered by hand", "path", cmd.Path, "action", cmd.Action, "value", cmd.Value)
	return nil
}
