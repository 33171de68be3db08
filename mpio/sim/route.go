package main

import (
	"math"
	"math/rand/v2"
	"time"
)

// Route is the model of a path: a network that delays, a controller that works
// on some commands at a time, and a line that carries the data of one command
// after the other.
type Route struct {
	Latency time.Duration // of the network, both ways, for each command
	Service time.Duration // the controller's mean time for a command
	Servers int           // commands the controller works on at a time
	MBps    float64       // of the line, 10^6 bytes per second; 0: no limit
	Spread  float64       // standard deviation of the service time, as a share of the mean (log-normal)
	Tail    float64       // share of commands that take TailBy times as long
	TailBy  float64
	Period  time.Duration // of stalls or losses, 0: none
	Stalls  time.Duration // for how long in each period nothing comes through
	Lost    time.Duration // for how long in each period there is no connection
	Offset  time.Duration // of the first period's trouble
}

// trouble gives the end of the stall or loss that lasts at time t, 0 if there is none.
func (r *Route) trouble(t int64, lasts time.Duration) int64 {
	if lasts == 0 || r.Period == 0 || t < int64(r.Offset) {
		return 0
	}
	into := (t - int64(r.Offset)) % int64(r.Period)
	if into < int64(lasts) {
		return t - into + int64(lasts)
	}
	return 0
}

// available is the share of the time in which the path works.
func (r *Route) available() float64 {
	if r.Period == 0 {
		return 1
	}
	return 1 - float64(r.Stalls+r.Lost)/float64(r.Period)
}

// meanService is the mean time of a command in the controller, tail included, in ns.
func (r *Route) meanService() float64 {
	return float64(r.Service) * (1 + r.Tail*(max(r.TailBy, 1)-1))
}

// capacity is how many commands of so many bytes on average the path can do per second.
func (r *Route) capacity(bytes float64) float64 {
	c := float64(max(r.Servers, 1)) * 1e9 / max(r.meanService(), 1)
	if r.MBps > 0 {
		c = min(c, r.MBps*1e6/bytes)
	}
	return c * r.available()
}

// empty is what a command takes on average when nothing else is under way, in ns.
func (r *Route) empty(bytes float64) float64 {
	t := float64(r.Latency) + r.meanService()
	if r.MBps > 0 {
		t += bytes / r.MBps * 1e3
	}
	return t
}

// wire is a Route with commands on it.
type wire struct {
	Route
	c    *clock
	rnd  *rand.Rand
	free []int64 // when each server of the controller is free again
	line int64   // when the line is free again
	mu   float64 // of the log-normal distribution
	dev  float64
}

func newWire(r Route, c *clock, rnd *rand.Rand) *wire {
	w := &wire{Route: r, c: c, rnd: rnd, free: make([]int64, max(r.Servers, 1))}
	v := math.Log(1 + r.Spread*r.Spread)
	w.mu, w.dev = -v/2, math.Sqrt(v)
	return w
}

// serve gives the time when the controller is done with a command that reached it now.
func (w *wire) serve() int64 {
	first := 0
	for i, t := range w.free {
		if t < w.free[first] {
			first = i
		}
	}
	took := float64(w.Service)
	if w.Spread > 0 {
		took *= math.Exp(w.mu + w.dev*w.rnd.NormFloat64())
	}
	if w.Tail > 0 && w.rnd.Float64() < w.Tail {
		took *= w.TailBy
	}
	w.free[first] = w.resume(max(w.free[first], w.c.now)) + int64(took)
	return w.free[first]
}

// carry gives the time when the line has carried data that is ready now.
func (w *wire) carry(bytes int) int64 {
	w.line = max(w.line, w.c.now)
	if w.MBps > 0 {
		w.line += int64(float64(bytes) / w.MBps * 1e3)
	}
	return w.line
}

// resume is t, or the end of the stall t falls into.
func (w *wire) resume(t int64) int64 { return max(t, w.trouble(t, w.Stalls)) }
