package mpio

// Constants of the estimates.
const (
	farShare      = 1.0 / 64
	estimateShare = 1.0 / 256 // a sample counts for so much at least
	estimateTime  = 1e9       // ns: ... and for half if it is the first for so long
	usualShare    = 1.0 / 64
	healedRatio   = 0.5 // a sample below this share of the estimate halves it

	fitMemory      = 1024      // samples a fit remembers
	fitWarmUp      = 16        // samples before outliers are clipped and sizes looked at
	fitClip        = 8         // an outlier counts as this many times the mean
	fitEvery       = 8         // samples between two solutions
	fitSizes       = 8 << 10   // bytes: sizes must vary by this much to tell anything
	perByteFloor   = 1.0 / 100 // ns per byte: 100 GB/s
	perByteCeiling = 1000.0    // ns per byte: 1 MB/s
	fitDoubt       = 0.25      // commands²: variance of the queue that tells as much as the guess
	fitRelated     = 16        // samples that tell as much as one, since they follow each other closely
	latencyMinimum = 1e3       // ns
)

// estimate is what is known of a path's speed in one direction: what a command
// takes on an empty path, and what those before it and its length add to that.
//
// lat is an average of what is left of the samples without the latter. A sample
// counts for little, so that noise does not move commands about, but one that is
// out of all proportion moves it at once, and after a pause a sample counts for
// more. It falls faster than it rises: a path that was held up for a moment and
// answers again in time is as good as before.
type estimate struct {
	lat   float64 // ns, 0 = no sample yet
	last  int64   // loop time of the last sample
	farAt int64   // loop time of the last of these
	far   int     // samples in a row that were out of all proportion
	usual float64 // ns: what lat is in the long run, whatever happens in between
	fit   fit
}

// traffic is what a command met on its path when it was sent.
type traffic struct {
	commands int // in flight before it
	before   int // bytes in flight before it, in its direction
	bytes    int // its own
}

// add takes a sample: a command that met l took so long.
func (e *estimate) add(now, took int64, l traffic) {
	t := max(float64(took), latencyMinimum)
	explained := e.fit.of(l)
	if e.fit.n >= fitWarmUp && t > 2*(e.lat+explained) && now-took < e.farAt {
		e.last = now
		return // held up together with the one before: that counted already
	}
	if moved := e.fit.add(l, t); moved != 0 && e.lat > 0 {
		e.lat = max(e.lat-moved, latencyMinimum)
		e.usual = max(e.usual-moved, latencyMinimum)
		explained = e.fit.of(l)
	}
	e.learn(now, max(t-explained, t/64, latencyMinimum), explained)
	e.last = now
}

// predict is what a command that meets l should take, in ns; 0 = not known.
func (e *estimate) predict(l traffic) float64 {
	if e.fit.n < fitWarmUp {
		return e.lat * float64(1+l.commands)
	}
	return e.lat + e.fit.of(l)
}

// learn moves the estimate towards r, what is left of a sample when what the
// queue explains is taken off. One sample out of all proportion hardly moves it
// up, but each further one in a row counts for twice as much.
func (e *estimate) learn(now int64, r, explained float64) {
	if e.lat == 0 {
		e.lat, e.usual = r, r
	}
	e.usual += min(max(r-e.usual, -e.usual), e.usual) * usualShare
	d, expected := r-e.lat, e.lat+explained
	switch {
	case d < -expected*healedRatio:
		e.lat, e.far = max(e.lat-expected*healedRatio, r), 0
	case d <= expected:
		e.lat, e.far = e.lat+d*min(max(estimateShare, float64(now-e.last)/estimateTime, 1/e.fit.n), 1), 0
	default:
		e.farAt = now
		if e.far++; e.far == 1 {
			d = expected
		}
		e.lat += d * min(float64(uint64(1)<<min(e.far, 16))*farShare, 1)
	}
}

// fit is an exponentially weighted least-squares fit of
//
//	t = a + commands·perCommand + (before + bytes)·perByte
//
// Only commands of different sizes can tell what a byte takes; without them
// perByte stays 0 and perCommand has all of it. Where neither commands nor bytes
// in flight vary, both stay 0, and the estimate carries all: as long as nothing
// varies, that is as good.
type fit struct {
	n                      float64
	c, b, t                float64 // weighted means
	cc, cb, bb, ct, bt, tt float64
	size, sizeSquared      float64
	perCommand, perByte    float64 // ns, 0 = not known or none
	sinceSolved            int
}

// of is what l adds to the time of a command.
func (f *fit) of(l traffic) float64 {
	return float64(l.commands)*f.perCommand + float64(l.before+l.bytes)*f.perByte
}

// mean is what the queue and their length add to the usual commands.
func (f *fit) mean() float64 { return f.c*f.perCommand + f.b*f.perByte }

// add takes a sample. When that leads to another solution, moved is by how much
// more the usual commands are explained by it.
func (f *fit) add(l traffic, t float64) (moved float64) {
	if f.n >= fitWarmUp {
		t = min(t, fitClip*f.t*max(1, float64(l.commands+1)/(f.c+1)))
	}
	f.n = min(f.n+1, fitMemory)
	w := 1 / f.n
	c, b, s := float64(l.commands), float64(l.before+l.bytes), float64(l.bytes)
	f.c += w * (c - f.c)
	f.b += w * (b - f.b)
	f.t += w * (t - f.t)
	f.cc += w * (c*c - f.cc)
	f.cb += w * (c*b - f.cb)
	f.bb += w * (b*b - f.bb)
	f.ct += w * (c*t - f.ct)
	f.bt += w * (b*t - f.bt)
	f.tt += w * (t*t - f.tt)
	f.size += w * (s - f.size)
	f.sizeSquared += w * (s*s - f.sizeSquared)
	if f.sinceSolved++; f.sinceSolved >= fitEvery {
		f.sinceSolved = 0
		moved = -f.mean()
		f.solve()
		moved += f.mean()
	}
	return moved
}

// solve finds the two factors, neither of them negative. The less the samples
// tell, the closer the factors stay to what would be if nothing but the queue
// took time: so that paths of which little is known share.
func (f *fit) solve() {
	f.perCommand, f.perByte = 0, 0
	if f.n < fitWarmUp {
		return
	}
	noise := fitRelated * max(f.tt-f.t*f.t, 0) / f.n
	guess := f.t / (f.c + 1)
	cc, ct := f.cc-f.c*f.c, f.ct-f.c*f.t
	if f.sizeSquared-f.size*f.size < fitSizes*fitSizes {
		doubt := noise/(guess*guess) + fitDoubt
		f.perCommand = max((ct+doubt*guess)/(cc+doubt), 0)
		return
	}
	guess /= 2
	guessByte := f.t / f.b / 2
	doubt, doubtByte := noise/(guess*guess)+fitDoubt, noise/(guessByte*guessByte)
	cc, ct = cc+doubt, ct+doubt*guess
	bb, bt := f.bb-f.b*f.b+doubtByte, f.bt-f.b*f.t+doubtByte*guessByte
	cb := f.cb - f.c*f.b
	det := cc*bb - cb*cb // positive: cc is more than the variance
	perCommand, perByte := (ct*bb-bt*cb)/det, (bt*cc-ct*cb)/det
	switch {
	case perByte < perByteFloor:
		perCommand, perByte = ct/cc, 0
	case perCommand < 0:
		perCommand, perByte = 0, bt/bb
	}
	if perByte > perByteFloor {
		f.perByte = min(perByte, perByteCeiling)
	}
	f.perCommand = max(perCommand, 0)
}
