package mpio

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// MarginalConfig says when a path counts as marginal: it fails, flaps or stalls
// where the others do not. A marginal path carries I/O only while no path is up;
// it rests, is then tried with probes, and returns when these pass. Names are
// those of multipath.conf where the meaning is the same; there all of it is off
// by default, here it is on.
type MarginalConfig struct {
	// Off leaves every path in use that is not silent or lost.
	Off bool
	// DoubleFailedTime: a path whose session is lost, or whose unit fails, twice
	// within it, and more often than the others', is marginal
	// (marginal_path_double_failed_time). Default 60 s.
	DoubleFailedTime time.Duration
	// ErrRateThreshold is the share of failed commands, in per mille, above which
	// a path is marginal, and does not pass its probation
	// (marginal_path_err_rate_threshold). 1 to 1000, default 10.
	ErrRateThreshold int
	// ErrSampleTime is how long a path is probed on probation, ten times a second
	// (marginal_path_err_sample_time). At least 1 s; default 5 s.
	ErrSampleTime time.Duration
	// ErrRecheckGapTime is the longest rest before a probation
	// (marginal_path_err_recheck_gap_time). The first is a sixtieth of it, each
	// relapse doubles it. At least 1 s; default 300 s.
	ErrRecheckGapTime time.Duration
}

// Bounds of the verdicts; latencies are those of the last 1 to 2 s.
const (
	firstGapShare  = 60   // of ErrRecheckGapTime: the first rest
	errorsAtLeast  = 3    // failed commands that make a rate
	othersFactor   = 3    // ... which has to be that many times the others'
	timeoutWeight  = 3    // a command that had to be aborted counts as so many
	errorMemory    = 0.8  // of the counts is left after each second
	stallSpan      = 10e9 // ns: stalls are counted over so long
	stallsAtLeast  = 3
	stallRecurs    = 2e9  // ns: ... from the first to the last at least
	stallFloor     = 50e6 // ns: a shorter wait is no stall ...
	stallFactor    = 20   // ... nor one below so many times the median latency
	slowFactor     = 5    // a median of so many times the others' median is an outlier ...
	slowFloor      = 5e6  // ns: ... if it is more than this above it, too
	slowFor        = 3e9  // ns: ... for so long
	slowShare      = 0.05 // a path that carries more under a policy that goes by latency is of use
	slowSamples    = 5    // of the path, and four times as many of the others
	trialLooks     = 4    // seconds after which the others have to have coped
	trialTolerance = 1.05 // they have if commands take no longer than this times what they took
	trialSlack     = 20e3 // ns: ... and this
	trialCommands  = 100  // that say anything
	neededFor      = 60e9 // ns: a path that was needed is not judged by its latency for so long, doubling ...
	neededDoubles  = 6    // ... so many times
	sampleStalls   = 2    // slow probes that fail a probation
)

func (c MarginalConfig) withDefaults() (MarginalConfig, error) {
	for _, d := range []struct {
		v    *time.Duration
		def  time.Duration
		min  time.Duration
		name string
	}{
		{&c.DoubleFailedTime, 60 * time.Second, time.Second, "DoubleFailedTime"},
		{&c.ErrSampleTime, 5 * time.Second, time.Second, "ErrSampleTime"},
		{&c.ErrRecheckGapTime, 300 * time.Second, time.Second, "ErrRecheckGapTime"},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < d.min {
			return c, fmt.Errorf("mpio: Marginal.%s is %v, must be at least %v", d.name, *d.v, d.min)
		}
	}
	if c.ErrRateThreshold == 0 {
		c.ErrRateThreshold = 10
	}
	if c.ErrRateThreshold < 0 || c.ErrRateThreshold > 1000 {
		return c, errors.New("mpio: Marginal.ErrRateThreshold must be from 1 to 1000 per mille")
	}
	return c, nil
}

// health is how a path fares against the others.
type health struct {
	evidence
	marginal bool
	told     bool   // ... an event
	why      string // why it is, in words
	latency  bool   // ... and whether that is for its latency only
	against  float64
	relapses int   // times it became marginal, or failed a probation, with little between
	until    int64 // loop time when the rest ends
	back     int64 // loop time when it passed its last probation, 0 = never

	sampling bool
	test     probation

	neededUntil int64 // loop time until when its latency is no reason
	needed      int   // times that was found
	wasUp       bool  // since the last login or failed check
	timedOut    int64 // loop time of the last command that was too old, 0: none; it tells of the unit, too
}

// judgeHealth looks for paths that became marginal, or need not be any more.
func (d *Device) judgeHealth(now int64) {
	if d.cfg.Marginal.Off || !d.ready {
		return
	}
	d.measure(now)
	for _, p := range d.paths {
		switch h := &p.health; {
		case h.marginal:
			p.rest(now)
		case p.state == StateUp && d.others(p) > 0:
			if why := p.failing(now); why != "" {
				p.demote(now, why, false)
			} else if why := p.slower(now); why != "" {
				p.demote(now, why, true)
			}
		}
	}
	d.trial.look(d, now)
}

// others is the number of paths besides p that are up.
func (d *Device) others(p *path) (n int) {
	for _, q := range d.paths {
		if q != p && q.state == StateUp && q.usable() {
			n++
		}
	}
	return n
}

// silences reports whether a change to state s need not be told loudly: the path
// is known to be out of the way.
func (h *health) silences(s State) bool {
	if !h.marginal || s != StateSuspect && s != StateMarginal {
		return false
	}
	known := h.told
	h.told = true
	return known
}

// judgeReturn is for a path that is about to come up after a loss: one that
// keeps getting lost stays out of the way at once.
func (p *path) judgeReturn() {
	d := p.dev
	h := &p.health
	if p.detour.via != "" {
		return
	}
	h.wasUp = true
	if d.cfg.Marginal.Off || h.marginal || d.others(p) == 0 {
		return
	}
	now := d.loop.Now()
	if why := p.flapping(now); why != "" {
		h.mark(p, now, why, false)
	}
}

// demote makes p marginal.
func (p *path) demote(now int64, why string, latency bool) {
	d := p.dev
	if latency {
		d.trial.begin(d, p, now)
	}
	p.health.mark(p, now, why, latency)
	p.refresh(why, nil)
	d.kick()
}

func (h *health) mark(p *path, now int64, why string, latency bool) {
	if h.back != 0 && now-h.back > max(2*h.gap(p), int64(p.dev.cfg.Marginal.DoubleFailedTime)) {
		h.relapses = 0
	}
	h.marginal, h.told, h.why, h.latency, h.sampling = true, false, why, latency, false
	h.relapses++
	h.until = now + h.gap(p)
}

// gap is the length of the rest.
func (h *health) gap(p *path) int64 {
	longest := int64(p.dev.cfg.Marginal.ErrRecheckGapTime)
	return min(longest/firstGapShare<<min(max(h.relapses-1, 0), 16), longest)
}

// cure lets p carry I/O again, little at first.
func (p *path) cure(why string) {
	h := &p.health
	h.marginal, h.sampling, h.back = false, false, p.dev.loop.Now()
	h.evidence = evidence{seenErrors: h.seenErrors, errors: h.errors, seenIOs: p.stat.ios, seenTimeouts: p.stat.timeouts}
	p.ramp = rampStart
	if p.state == StateMarginal {
		p.refresh(why, nil)
		p.dev.kick()
	}
}

// forgive forgets what speaks against p: it is wanted by hand.
func (p *path) forgive() {
	if p.health.marginal {
		p.cure("taken back by hand")
	}
	p.health.faults, p.health.relapses = moments{}, 0
}

// probation is the state of a sample.
type probation struct {
	began        int64
	sent, failed int
	stalls       int
	times        histogram
}

// rest waits until the time for a sample has come, and judges one that is over.
func (p *path) rest(now int64) {
	h := &p.health
	switch {
	case !p.usable():
		if h.sampling && !p.logged {
			p.relapse(now, "its session was lost again")
		}
		h.sampling = false
	case !h.sampling && now >= h.until:
		h.sampling, h.test = true, probation{began: now}
	case h.sampling && now-h.test.began >= int64(p.dev.cfg.Marginal.ErrSampleTime):
		if why := p.sampleFails(now); why != "" {
			p.relapse(now, why)
			return
		}
		p.cure(fmt.Sprintf("passed its probation: %d of %d probes failed, the median took %s", h.test.failed, h.test.sent, words(h.test.times.quantile(0.5))))
	}
}

// sample sends the next probe.
func (p *path) sample(now int64) {
	b := &p.probe
	if p.usable() && now-b.lastAt >= int64(careSample) && b.send(b.n%probeKinds) {
		b.n++
	}
}

// sampled takes the outcome of a probe.
func (h *health) sampled(took int64, failed bool) {
	if !h.sampling {
		return
	}
	h.test.sent++
	if failed {
		h.test.failed++
		return
	}
	h.test.times[bucket(took)]++
	if float64(took) >= stallFloor {
		h.test.stalls++
	}
}

// sampleFails says why a path did not pass; "" if it did.
func (p *path) sampleFails(now int64) string {
	h, cfg := &p.health, &p.dev.cfg.Marginal
	planned := int(cfg.ErrSampleTime / careSample)
	limit := max(slowFactor*max(h.against, p.dev.medianOf(p, func(q *path) (float64, bool) { return q.typical(0) })), slowFloor)
	median := h.test.times.quantile(0.5)
	switch {
	case h.test.failed*1000 > h.test.sent*cfg.ErrRateThreshold:
		return fmt.Sprintf("%d of %d probes failed", h.test.failed, h.test.sent)
	case h.test.sent < planned/4:
		return fmt.Sprintf("%d probes were answered in %v", h.test.sent, cfg.ErrSampleTime)
	case median > limit:
		return fmt.Sprintf("probes took %s, more than %s", words(median), words(limit))
	case h.test.stalls >= sampleStalls && median < stallFloor:
		return fmt.Sprintf("%d of %d probes took more than %s, the slowest %s", h.test.stalls, h.test.sent, words(stallFloor), words(h.test.times.quantile(1)))
	}
	return ""
}

// relapse makes p rest for longer.
func (p *path) relapse(now int64, why string) {
	h := &p.health
	h.sampling = false
	h.relapses++
	h.until = now + h.gap(p)
	reason, _, _ := strings.Cut(h.why, probationWords)
	h.why = reason + probationWords + why
	if p.state == StateMarginal {
		p.refresh(h.why, nil)
	}
}

const probationWords = "; did not pass its probation: "

// trial is the test whether the others cope without a path that was taken out
// only for being slower. What a command takes on average says so, whatever the
// load does: it is the load over the throughput where the load is what is fixed,
// and the price of the others' queues where it is not.
type trial struct {
	p      *path
	since  int64
	before float64 // ns: what a command took on average, with p
}

// begin compares with the time since when the path has been as it is: before that
// it may have been of use.
func (t *trial) begin(d *Device, p *path, now int64) {
	mean, _ := d.averages.of(max(int((now-p.health.bad)/1e9), 1))
	*t = trial{p: p, since: now, before: mean}
}

// look ends the trial once it can be told how it goes: when it goes badly soon,
// well after trialLooks seconds.
func (t *trial) look(d *Device, now int64) {
	if t.p == nil || now-t.since < 3e9 {
		return
	}
	p, h := t.p, &t.p.health
	if !h.marginal || !h.latency {
		*t = trial{}
		return
	}
	// The first second after the change belongs to neither side.
	mean, n := d.averages.of(int((now-t.since)/1e9) - 1)
	over := now-t.since >= trialLooks*1e9
	switch {
	case n >= trialCommands && mean > t.before*trialTolerance+trialSlack:
		h.neededUntil = now + neededFor<<min(h.needed, neededDoubles)
		h.needed++
		p.cure(fmt.Sprintf("it carries its part: without it commands took %s on average, with it %s", words(mean), words(t.before)))
	case over:
		h.needed = 0
	default:
		return
	}
	*t = trial{}
}

// words writes so many ns as people do.
func words(ns float64) string {
	switch {
	case ns >= 9.95e9:
		return fmt.Sprintf("%.0f s", ns/1e9)
	case ns >= 1e9:
		return fmt.Sprintf("%.1f s", ns/1e9)
	case ns >= 9.95e6:
		return fmt.Sprintf("%.0f ms", ns/1e6)
	case ns >= 1e5:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	}
	return fmt.Sprintf("%.0f µs", ns/1e3)
}
