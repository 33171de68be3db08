package mpio

import (
	"time"
)

// What is done without being asked for: once a second every path is looked at,
// and ten times a second while one is on probation. Nothing of it is on the way
// of a command.
const (
	careEvery  = time.Second
	careSample = 100 * time.Millisecond // pause between the probes of a sample, as multipathd's 10 Hz
	pollJitter = 10                     // percent of PollingInterval, either way
)

// startCare begins the rounds.
func (d *Device) startCare() {
	if d.cfg.PollingInterval < 0 && d.cfg.Marginal.Off {
		return
	}
	d.loop.SetTimer(&d.careTimer, d.loop.Now()+int64(careEvery))
}

// onCareTimer is one round.
func (d *Device) onCareTimer() {
	if d.closeSent {
		return
	}
	now := d.loop.Now()
	if now >= d.nextCare {
		d.nextCare = now + int64(careEvery)
		for _, p := range d.paths {
			p.probe.overdue(now)
			p.poll(now)
		}
		d.judgeHealth(now)
		d.tellFlaps(now)
	}
	next := d.nextCare
	for _, p := range d.paths {
		if p.health.sampling {
			p.sample(now)
			next = min(next, now+int64(careSample))
		}
	}
	d.loop.SetTimer(&d.careTimer, next)
}

// poll sends TEST UNIT READY over a path that nothing was heard of for
// PollingInterval. A unit that is not ready any more is thus noticed before it is
// needed: the answer makes the path checked, which fails, and is repeated until it passes.
func (p *path) poll(now int64) {
	d, b := p.dev, &p.probe
	if d.cfg.PollingInterval < 0 || p.inflight > 0 || !p.usable() || p.silent {
		return
	}
	if b.pause == 0 {
		b.pause = d.pollPause()
	}
	if now-max(p.est[0].last, p.est[1].last, b.lastAt, p.since) >= b.pause && b.send(probeReady) {
		b.pause = d.pollPause()
	}
}

// pollPause is PollingInterval with jitter, so that many hosts do not ask at once.
func (d *Device) pollPause() int64 {
	every := int64(d.cfg.PollingInterval)
	return every + every*int64(d.rnd.below(2*pollJitter+1)-pollJitter)/100
}
