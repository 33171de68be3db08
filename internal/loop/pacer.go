package loop

import "time"

// With many commands in flight and peers that hand over one request or one
// answer at a time, a quick loop wakes for each of them: two reads, two writes
// and two waits for one command. The same work costs a third if the loop lets a
// few events come together first, as network cards do with their interrupts.
//
// pacer decides when to pause, and for how long. It never does so with few
// commands in flight, nor when events are rare: one that comes alone is handled
// at once. A pause is the time in which a sixth of the commands in flight moves,
// so it adds no more than about that much to their latency (Little's law), and
// gives it back wherever a processor was short.
const (
	paceInFlight = 12 // with fewer commands in flight nothing is gained by waiting
	paceBatch    = 4  // a round with a fourth of them was large enough
	paceShare    = 6  // a pause lets a sixth of them come,
	paceEvents   = 2  // ... or does not pay if that is fewer
	paceMin      = 10 * time.Microsecond
	paceMax      = 40 * time.Microsecond
)

// What the rate of events is taken over, and when it says nothing of now.
const (
	paceWindow = time.Millisecond
	paceStale  = 100 * paceWindow
)

// A pause that took paceLate was no pause of ours: after so many in a row, the
// kernel's timers are too coarse or the processors too few, and there is none
// for paceOff.
const (
	paceLate     = time.Millisecond
	paceLateMost = 8
	paceOff      = 2 * time.Second
)

type pacer struct {
	Load
	seen     uint64 // events at the last decision
	from     int64  // the window: its beginning,
	atFrom   uint64 // events then
	perEvent int64  // ns between events in the window before, 0 = not known
	late     int    // pauses in a row that took too long
	offUntil int64
}

// pause says how long the loop should let events gather before it looks for
// them; 0 is not at all.
func (p *pacer) pause(now int64) time.Duration {
	round := p.events - p.seen
	p.seen = p.events
	p.measure(now)
	if p.inFlight < paceInFlight || int64(round)*paceBatch >= p.inFlight || p.perEvent == 0 || now < p.offUntil {
		return 0
	}
	d := min(max(time.Duration(p.inFlight*p.perEvent/paceShare), paceMin), paceMax)
	if d < time.Duration(paceEvents*p.perEvent) {
		return 0
	}
	return d
}

// measure keeps the rate of events.
func (p *pacer) measure(now int64) {
	age := now - p.from
	if age < int64(paceWindow) {
		return
	}
	n := int64(p.events - p.atFrom)
	p.perEvent = 0
	if n > 0 && age < int64(paceStale) {
		p.perEvent = max(age/n, 1)
	}
	p.from, p.atFrom = now, p.events
}

// paused tells how long a pause really took.
func (p *pacer) paused(now int64, took time.Duration) {
	if took < paceLate {
		p.late = 0
		return
	}
	if p.late++; p.late >= paceLateMost {
		p.late, p.offUntil = 0, now+int64(paceOff)
	}
}
