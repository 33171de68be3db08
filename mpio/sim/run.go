package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Result is what one policy did in one scenario.
type Result struct {
	Policy   string
	Rate     float64 // requests per second
	MBps     float64
	Share    float64 // of the optimum
	P50      time.Duration
	P99      time.Duration
	P999     time.Duration
	Paths    []float64 // share of the commands, per path
	Requests int
	Errors   int
	Hedges   uint64 `json:",omitempty"` // since the start, warm-up included
	Wins     uint64 `json:",omitempty"` // of these
}

// runSeeds is run with one seed after the other, and the median of each figure.
func runSeeds(s *Scenario, policy string, o options) (Result, error) {
	list := make([]Result, o.seeds)
	for i := range list {
		var err error
		if list[i], err = run(s, policy, o); err != nil {
			return Result{}, err
		}
		o.seed++
	}
	return median(list), nil
}

// median takes each figure from the result in whose middle it is; of errors it
// has all.
func median(list []Result) Result {
	r := list[0]
	r.Rate = middle(list, func(r *Result) float64 { return r.Rate })
	r.MBps = middle(list, func(r *Result) float64 { return r.MBps })
	r.Share = middle(list, func(r *Result) float64 { return r.Share })
	r.P50 = middle(list, func(r *Result) time.Duration { return r.P50 })
	r.P99 = middle(list, func(r *Result) time.Duration { return r.P99 })
	r.P999 = middle(list, func(r *Result) time.Duration { return r.P999 })
	r.Requests = middle(list, func(r *Result) int { return r.Requests })
	r.Paths = slices.Clone(r.Paths)
	for i := range r.Paths {
		r.Paths[i] = middle(list, func(r *Result) float64 { return r.Paths[i] })
	}
	r.Hedges = middle(list, func(r *Result) uint64 { return r.Hedges })
	r.Wins = middle(list, func(r *Result) uint64 { return r.Wins })
	r.Errors = 0
	for i := range list {
		r.Errors += list[i].Errors
	}
	return r
}

// middle is the median of a figure of the results, the lower one of two.
func middle[T cmp.Ordered](list []Result, figure func(*Result) T) T {
	all := make([]T, len(list))
	for i := range list {
		all[i] = figure(&list[i])
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// run puts a policy through a scenario.
func run(s *Scenario, policy string, o options) (Result, error) {
	c, u := newClock(), newUnit()
	n := uint64(0)
	stream := func() *rand.Rand { n++; return rand.New(rand.NewPCG(o.seed, n)) }
	load := stream()
	cfg := mpio.Config{Name: s.Name, Target: "iqn.2026-01.sim:disk", LUN: scsi.MakeLUN(0), Policy: policy, Seed: o.seed}
	if !o.whole { // what the policies make of a bad path is the question
		cfg.HedgeBudget, cfg.Marginal.Off = -1, true
	}
	cfg.NewSession = func(pc mpio.PathConfig, obs session.Observer) (mpio.Session, error) {
		return newSession(c, newWire(s.Paths[pc.TPGT-1], c, stream()), u, obs), nil
	}
	d, err := mpio.New(cfg, c)
	if err != nil {
		return Result{}, err
	}
	for i := range s.Paths {
		if err := d.AddPath(mpio.PathConfig{ID: fmt.Sprint(i + 1), Portal: fmt.Sprintf("192.0.2.%d:3260", i+1), TPGT: i + 1}); err != nil {
			return Result{}, err
		}
	}
	d.Start()
	c.run(c.now + int64(200*time.Millisecond))
	if !d.Ready() {
		return Result{}, fmt.Errorf("sim: %s: no path came up", s.Name)
	}
	o.warmUp, o.measure = s.spans(o)
	all := startClients(s.Load, s.Load.Rate*s.capacity(), d, c, load)
	c.run(c.now + int64(o.warmUp))
	before := d.Snapshot()
	all.count = true
	c.run(c.now + int64(o.measure))
	return s.result(policy, all, before, d.Snapshot(), o.measure), nil
}

func (s *Scenario) result(policy string, all *clients, before, after mpio.Snapshot, measure time.Duration) Result {
	r := Result{Policy: policy, Requests: len(all.took), Errors: all.errors, Hedges: after.Hedges, Wins: after.HedgeWins}
	r.Rate = float64(len(all.took)) / measure.Seconds()
	r.MBps = float64(all.bytes) / measure.Seconds() / 1e6
	r.Share = r.Rate / s.optimum()
	slices.Sort(all.took)
	at := func(q float64) time.Duration {
		if len(all.took) == 0 {
			return 0
		}
		return time.Duration(all.took[int(q*float64(len(all.took)-1))])
	}
	r.P50, r.P99, r.P999 = at(0.5), at(0.99), at(0.999)
	total := 0.0
	for i := range after.Paths {
		n := float64(after.Paths[i].IOs - before.Paths[i].IOs)
		r.Paths = append(r.Paths, n)
		total += n
	}
	for i := range r.Paths {
		r.Paths[i] /= max(total, 1)
	}
	return r
}
