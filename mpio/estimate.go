package mpio

import "math"

// Constants of the estimates.
const (
	estimateFall   = 1e9       // ns: time constant with which a latency estimate falls
	slopeMemory    = 256       // samples a bandwidth estimate remembers
	slopeSpread    = 8 << 10   // bytes: sizes must vary by this much to tell anything
	slopeFloor     = 1.0 / 100 // ns per byte: 100 GB/s
	slopeCeiling   = 1000.0    // ns per byte: 1 MB/s
	slopeWarmUp    = 16        // samples before outliers are clipped
	slopeClip      = 8         // an outlier counts as this many times the mean
	latencyMinimum = 1e3       // ns
)

// estimate is what is known of a path's speed in one direction: the time of a
// command of no length, and the time per byte on top of it.
//
// lat is a peak-EWMA: it rises to a sample that is higher at once, so that one
// slow answer sheds the path, and falls with time, not with the number of
// samples, so that a busy path does not forget faster than an idle one.
type estimate struct {
	lat   float64 // ns, 0 = no sample yet
	last  int64   // loop time of the last sample
	slope slope
}

// add takes a sample: a command of so many bytes took so long.
func (e *estimate) add(now, took int64, bytes int) {
	t := max(float64(took), latencyMinimum)
	e.slope.add(float64(bytes), t)
	t = max(t-float64(bytes)*e.slope.perByte, t/64, latencyMinimum)
	switch dt := float64(now - e.last); {
	case e.lat == 0 || t >= e.lat:
		e.lat = t
	case dt < estimateFall/16:
		e.lat += (t - e.lat) * dt / estimateFall // e^-x ≈ 1-x
	default:
		e.lat = t + (e.lat-t)*math.Exp(-dt/estimateFall)
	}
	e.last = now
}

// atLeast raises the estimate to what a command in flight has waited already.
func (e *estimate) atLeast(now, waited int64) {
	if w := float64(waited); w > e.lat && e.lat > 0 {
		e.lat, e.last = w, now
	}
}

// slope is an exponentially weighted least-squares fit of t = a + bytes·perByte.
// Only a mix of sizes can tell the two apart; without it perByte stays 0 and
// lat carries all, which ranks paths just as well for commands of one size.
type slope struct {
	n              float64
	x, y, xx, xy   float64 // weighted means
	perByte        float64 // ns, 0 = not known
	sinceRefreshed int
}

func (s *slope) add(x, y float64) {
	if s.n >= slopeWarmUp {
		y = min(y, slopeClip*s.y)
	}
	s.n = min(s.n+1, slopeMemory)
	w := 1 / s.n
	s.x += w * (x - s.x)
	s.y += w * (y - s.y)
	s.xx += w * (x*x - s.xx)
	s.xy += w * (x*y - s.xy)
	if s.sinceRefreshed++; s.sinceRefreshed < 8 {
		return
	}
	s.sinceRefreshed = 0
	spread := s.xx - s.x*s.x
	if spread < slopeSpread*slopeSpread || s.n < slopeWarmUp {
		s.perByte = 0
		return
	}
	if k := (s.xy - s.x*s.y) / spread; k > slopeFloor {
		s.perByte = min(k, slopeCeiling)
	} else {
		s.perByte = 0
	}
}
