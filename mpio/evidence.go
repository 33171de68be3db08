package mpio

import (
	"fmt"
	"slices"
)

// evidence is what speaks against a path. It is gathered as things happen, and
// weighed once a second against the same of the other paths: what befalls all
// of them is not the fault of one.
type evidence struct {
	faults moments // losses of the session, and failures of the unit behind it
	stalls moments
	// stallEnd is when the last stall ended: what was in flight by then belongs
	// to it.
	stallEnd int64

	errors                            uint64 // commands that failed in a way that speaks against the path
	seenErrors, seenIOs, seenTimeouts uint64
	failed, tried                     float64 // fading counts

	slow int64 // loop time since when it is an outlier by latency, 0 = it is not
	bad  int64 // loop time since when the latest verdict on its latency holds

	// Of the last 1 to 2 s, by direction.
	count  [2]uint64
	median [2]float64
	p99    [2]float64
}

// moments are the latest of some events.
type moments struct {
	list [8]moment
	n    int // of all
}

// moment is when something happened, and for how long.
type moment struct{ at, long int64 }

func (m *moments) add(now, long int64) {
	m.list[m.n%len(m.list)] = moment{max(now, 1), long}
	m.n++
}

// last makes the latest one end now.
func (m *moments) last(now, long int64) {
	if m.n > 0 {
		x := &m.list[(m.n-1)%len(m.list)]
		x.at, x.long = now, max(x.long, long)
	}
}

// since counts those at t or later that were at least so long, as far as they
// are remembered; worst is the longest, span the time from the first to the last.
func (m *moments) since(t, long int64) (n int, worst, span int64) {
	first, last := int64(0), int64(0)
	for _, x := range m.list {
		if x.at == 0 || x.at < t || x.long < long {
			continue
		}
		if n++; n == 1 || x.at < first {
			first = x.at
		}
		last, worst = max(last, x.at), max(worst, x.long)
	}
	return n, worst, last - first
}

// fault notes that the path was lost, or failed its check.
func (p *path) fault() {
	if h := &p.health; h.wasUp && !p.dev.closing {
		h.wasUp = false
		h.faults.add(p.dev.loop.Now(), 0)
	}
}

// stalled notes that a command waited for so long. Commands that waited together
// make one stall.
func (p *path) stalled(now, waited int64) {
	h := &p.health
	if now-waited >= h.stallEnd {
		h.stalls.add(now, waited)
	} else {
		h.stalls.last(now, waited)
	}
	h.stallEnd = now
}

// stalledSince reports whether a command that waited for long on p was answered, or
// given up, after t.
func (p *path) stalledSince(t int64) bool {
	return p.health.stallEnd != 0 && p.health.stallEnd > t
}

// measure takes the figures of the last seconds.
func (d *Device) measure(now int64) {
	d.averages.measure(d)
	for _, p := range d.paths {
		h := &p.health
		for dir := range h.count {
			times := p.stat.times(now, dir)
			h.count[dir], h.median[dir], h.p99[dir] = times.count(), times.quantile(0.5), times.quantile(0.99)
		}
		ios, timeouts := p.stat.ios, p.stat.timeouts
		failed := float64(h.errors - h.seenErrors)
		if !d.hangsElsewhere(p, now) {
			failed += timeoutWeight * float64(timeouts-h.seenTimeouts)
		}
		h.failed = h.failed*errorMemory + failed
		h.tried = h.tried*errorMemory + failed + float64(ios-h.seenIOs)
		h.seenErrors, h.seenIOs, h.seenTimeouts = h.errors, ios, timeouts
	}
	median := max(d.medianOf(nil, func(p *path) (float64, bool) { return p.typical(0) }),
		d.medianOf(nil, func(p *path) (float64, bool) { return p.typical(1) }))
	d.stallLimit = int64(max(stallFloor, stallFactor*median))
}

// hungTogether is how many times a command may take its time on one path after the other
// while the unit hangs: what one path had aborted hangs on the next.
const hungTogether = 4

// hangsElsewhere reports whether commands hang on other paths, too, so that p is not
// to blame for its own: it is the unit that hangs. The paths find out one after the
// other, so half of the time that a command may take is enough.
func (d *Device) hangsElsewhere(p *path, now int64) bool {
	limit := int64(d.cfg.CommandTimeout)
	for _, q := range d.paths {
		if q == p {
			continue
		}
		if at := q.health.timedOut; at != 0 && now-at < hungTogether*limit {
			return true
		}
		if o := q.transfer.head; o != nil && now-o.sentAt >= limit/2 {
			return true
		}
	}
	return false
}

// typical is the median latency of a path that has enough samples.
func (p *path) typical(dir int) (ns float64, ok bool) {
	h := &p.health
	return h.median[dir], h.count[dir] >= slowSamples
}

// medianOf is the median of a figure over the paths that are up, but for p; 0 without any.
func (d *Device) medianOf(p *path, of func(*path) (float64, bool)) float64 {
	var room [maxPaths]float64
	list := room[:0]
	for _, q := range d.paths {
		if q == p || q.state != StateUp {
			continue
		}
		if v, ok := of(q); ok {
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	if n := len(list); n%2 == 0 {
		return (list[n/2-1] + list[n/2]) / 2
	}
	return list[len(list)/2]
}

// failing says why p is worse than the others in what it does at all; "" if it is not.
func (p *path) failing(now int64) string {
	if why := p.flapping(now); why != "" {
		return why
	}
	return p.erring()
}

// flapping is about sessions that are lost and come back.
func (p *path) flapping(now int64) string {
	span := p.dev.cfg.Marginal.DoubleFailedTime
	count := func(q *path) (float64, bool) {
		n, _, _ := q.health.faults.since(now-int64(span), 0)
		return float64(n), true
	}
	n, _ := count(p)
	if others := p.dev.medianOf(p, count); n >= 2 && n > 1+others {
		return fmt.Sprintf("it was lost %.0f times in %.0f s, the others %s", n, span.Seconds(), times(others))
	}
	return ""
}

func times(n float64) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	}
	return fmt.Sprintf("%.1f times", n)
}

// erring is about commands that fail.
func (p *path) erring() string {
	rate := func(q *path) (float64, bool) {
		if q.health.tried < 1 {
			return 0, true
		}
		return 1000 * q.health.failed / q.health.tried, true
	}
	h := &p.health
	mine, _ := rate(p)
	others := p.dev.medianOf(p, rate)
	if h.failed >= errorsAtLeast && mine > float64(p.dev.cfg.Marginal.ErrRateThreshold) && mine > othersFactor*others {
		return fmt.Sprintf("%.1f %% of its commands failed in the last seconds, against %.1f %% on the others", mine/10, others/10)
	}
	return ""
}

// slower says why p holds commands up where the others do not; "" if it does not.
// A path out of the group that carries I/O cannot be compared, and of a group
// half has to be left.
func (p *path) slower(now int64) string {
	d, h := p.dev, &p.health
	in, out := 0, 1
	for _, q := range d.paths {
		if q.cfg.Priority == p.cfg.Priority && q.access.rank() == p.access.rank() && q.usable() {
			in++
			if q.state == StateMarginal {
				out++
			}
		}
	}
	if d.trial.p != nil || 2*out > in || now < h.neededUntil || !p.isActive() {
		h.slow = 0
		return ""
	}
	if why := p.stalling(now); why != "" {
		return why
	}
	return p.outlier(now)
}

// stalling is about a path that stops now and then.
func (p *path) stalling(now int64) string {
	d, h := p.dev, &p.health
	n, worst, span := h.stalls.since(now-stallSpan, d.stallLimit)
	others, compared := 0.0, false
	others = d.medianOf(p, func(q *path) (float64, bool) {
		n, _, _ := q.health.stalls.since(now-stallSpan, d.stallLimit)
		busy := q.health.count[0]+q.health.count[1] >= slowSamples
		compared = compared || busy
		return float64(n), busy
	})
	h.bad = now - span - 1e9
	// Paths that did nothing did not stall, which says nothing.
	if !compared || n < stallsAtLeast || float64(n) <= 2+2*others || span < stallRecurs {
		return ""
	}
	for dir := range h.median {
		if _, _, slow := p.against(dir); slow {
			return "" // it is slow throughout, which is another matter
		}
	}
	h.against = d.medianOf(p, func(q *path) (float64, bool) { return q.typical(0) })
	return fmt.Sprintf("it stalled %d times in %.0f s, for up to %s; p99 of the others %s", n, stallSpan/1e9, words(float64(worst)),
		words(d.medianOf(p, func(q *path) (float64, bool) {
			return max(q.health.p99[0], q.health.p99[1]), q.health.count[0]+q.health.count[1] > 0
		})))
}

// outlier is about a path that is slow throughout. One that carries its part all
// the same is left alone where the policy sees to it that it gets no more.
func (p *path) outlier(now int64) string {
	d, h := p.dev, &p.health
	if d.cfg.Policy == PolicyLatency && p.part() > slowShare {
		h.slow = 0
		return ""
	}
	for dir := range h.median {
		mine, others, slow := p.against(dir)
		if !slow {
			continue
		}
		if h.slow == 0 {
			h.slow = now
		}
		if now-h.slow < slowFor {
			return ""
		}
		h.against, h.bad = others, h.slow
		return fmt.Sprintf("half of its %s took more than %s, against %s on the others, for %.0f s; it carried %.1f %% of the commands",
			[...]string{"reads", "writes"}[dir], words(mine), words(others), float64(now-h.slow)/1e9, 100*p.part())
	}
	h.slow = 0
	return ""
}

// against compares the median latency of p with the others'.
func (p *path) against(dir int) (mine, others float64, slow bool) {
	mine, ok := p.typical(dir)
	others = p.dev.medianOf(p, func(q *path) (float64, bool) {
		return q.health.median[dir], q.health.count[dir] >= 4*slowSamples
	})
	return mine, others, ok && others > 0 && mine >= slowFactor*others && mine >= others+slowFloor
}

// part is the share of the commands that p carried lately.
func (p *path) part() float64 {
	var all, mine uint64
	for _, q := range p.dev.paths {
		n := q.health.count[0] + q.health.count[1]
		all += n
		if q == p {
			mine = n
		}
	}
	return share(mine, all)
}

// averages has what commands took, second by second.
type averages struct {
	seconds  [10]average
	n        int // of all
	took     int64
	commands uint64 // as measured last, since the start
}

type average struct {
	took     int64
	commands uint64
}

// measure adds what was done since it was called last.
func (a *averages) measure(d *Device) {
	var took int64
	var commands uint64
	for _, p := range d.paths {
		took, commands = took+p.stat.took, commands+p.stat.timed
	}
	a.seconds[a.n%len(a.seconds)] = average{took - a.took, commands - a.commands}
	a.n++
	a.took, a.commands = took, commands
}

// of gives the average over so many of the last seconds, and of how many commands.
// Stalls and the like come now and then, so that one second tells little.
func (a *averages) of(seconds int) (ns float64, commands uint64) {
	took := int64(0)
	for i := range min(seconds, a.n, len(a.seconds)) {
		s := a.seconds[(a.n-1-i)%len(a.seconds)]
		took, commands = took+s.took, commands+s.commands
	}
	return float64(took) / float64(max(commands, 1)), commands
}
