package mpio

import "math/bits"

// Latency histograms have eight buckets for each power of two of nanoseconds,
// from about a microsecond to a minute: an error of six percent at most.
const (
	histSub    = 3
	histLow    = 10 // 2^10 ns
	histHigh   = 36
	histLength = (histHigh - histLow) << histSub
)

type histogram [histLength]uint32

// bucket is the index for a duration.
func bucket(ns int64) int {
	if ns < 1<<histLow {
		return 0
	}
	e := bits.Len64(uint64(ns)) - 1
	if e >= histHigh {
		return histLength - 1
	}
	return (e-histLow)<<histSub | int(ns>>(e-histSub))&(1<<histSub-1)
}

// bucketTop is the upper end of a bucket in ns.
func bucketTop(i int) float64 {
	e := i>>histSub + histLow
	return float64(uint64(1<<histSub+i&(1<<histSub-1)+1) << (e - histSub))
}

// add puts the counts of other on top.
func (h *histogram) add(other *histogram) {
	for i := range h {
		h[i] += other[i]
	}
}

// count is the number of samples.
func (h *histogram) count() (n uint64) {
	for _, c := range h {
		n += uint64(c)
	}
	return n
}

// quantile is the duration in ns below which the share q lies, 0 without samples.
func (h *histogram) quantile(q float64) float64 {
	total := h.count()
	if total == 0 {
		return 0
	}
	rest := min(uint64(q*float64(total)), total-1)
	for i, c := range h {
		if uint64(c) > rest {
			return bucketTop(i)
		}
		rest -= uint64(c)
	}
	return bucketTop(histLength - 1)
}

// windowLength is half of what "recent" means: figures cover the last 1 to 2 s.
const windowLength = int64(1e9)

// window is what was done in one stretch of time.
type window struct {
	start int64
	ios   uint64
	bytes uint64
	hist  [2]histogram // service times by direction, as io.dir
}

// pathStats counts what a path did.
type pathStats struct {
	ios, bytes     uint64
	retries        uint64 // commands that had to be sent again because of this path
	errors         uint64 // answers that were errors of path or command
	timeouts       uint64 // commands that were too old
	aborts, resets uint64 // ABORT TASKs and LUN resets sent for these
	moved          uint64 // commands taken away while the path was silent
	probes         uint64
	logins, losses uint64
	timed          uint64 // commands in took
	took           int64  // ns, the sum of their service times
	lastError      error

	now, before window
}

// roll starts a new window when the current one is over.
func (s *pathStats) roll(now int64) {
	if now-s.now.start < windowLength {
		return
	}
	s.before = s.now
	if now-s.now.start >= 2*windowLength {
		s.before = window{start: now - windowLength}
	}
	s.now = window{start: now}
}

// done counts a command that was answered well.
func (s *pathStats) done(o *io, now, took int64) {
	s.roll(now)
	s.ios++
	s.now.ios++
	if o.kind.slow() {
		return
	}
	s.bytes += uint64(o.bytes)
	s.now.bytes += uint64(o.bytes)
	s.timed++
	s.took += took
	s.now.hist[o.dir()][bucket(took)]++
}

// late counts the service time of a read that was answered after it had been taken back.
func (s *pathStats) late(now, took int64) {
	s.roll(now)
	s.now.hist[0][bucket(took)]++
}

// times gives the service times of the last 1 to 2 s in one direction.
func (s *pathStats) times(now int64, dir int) histogram {
	s.roll(now)
	h := s.now.hist[dir]
	h.add(&s.before.hist[dir])
	return h
}

// recent gives commands, bytes and seconds of the two windows.
func (s *pathStats) recent(now int64) (ios, bytes uint64, seconds float64) {
	s.roll(now)
	return s.now.ios + s.before.ios, s.now.bytes + s.before.bytes, float64(now-s.before.start) / 1e9
}

// deviceStats counts what concerns the device as a whole.
type deviceStats struct {
	requests       uint64
	failed         uint64
	fencesRaised   uint64
	fencesSettled  uint64
	fencesTimedOut uint64
	fencedWaits    uint64 // commands that had to wait for a ghost
}
