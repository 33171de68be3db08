package mpio

// serviceTime takes the path whose outstanding commands and this one will take
// the least service time together:
//
//	cost = service time · (1 + inflight)
//
// The service time of a command counts from the answer before it, if that came
// after the command was sent: a busy path is judged by its pace. This follows
// Linux's historical-service-time selector, including its average, in which a
// long service time counts for more than a short one, and the single command
// that an idle path gets whose figure has become old. Size does not count.
type serviceTime struct{}

// Constants of the average, those of the kernel: the weight of what was known
// is 0.95^(1+n) with n of 16.8 ms steps in the new sample.
const (
	serviceStep  = 24 // log2 of ns
	serviceKeep  = 972.0 / 1024
	serviceSteps = 64
	serviceStale = 64  // a figure is old after so many service times without a new one ...
	serviceOld   = 1e9 // ns: ... and after this
)

var serviceWeights = func() (w [serviceSteps]float64) {
	w[0] = serviceKeep
	for i := 1; i < serviceSteps; i++ {
		w[i] = w[i-1] * serviceKeep
	}
	return w
}()

// service is what the policy knows of a path.
type service struct {
	time   float64 // ns, 0 = no sample yet
	finish int64   // loop time of the last answer
}

// add takes a sample: a command sent then was answered now.
func (s *service) add(now, sentAt int64) {
	took := now - max(sentAt, s.finish)
	old := s.old(sentAt)
	s.finish = now
	if s.time == 0 || old && float64(took) < s.time {
		s.time = float64(max(took, 1))
		return
	}
	w := serviceWeights[min(took>>serviceStep, serviceSteps-1)]
	s.time = s.time*w + float64(took)*(1-w)
}

// late takes a sample of a read that was hedged and answered in the end, where it was
// sent to see whether an old figure still holds; a fresh one needs none.
func (s *service) late(now, took int64) {
	if s.old(now - took) {
		s.add(now, now-took)
	}
}

// old reports whether what is known is too old to go by.
func (s *service) old(now int64) bool {
	return float64(now-s.finish) > min(serviceStale*s.time, serviceOld)
}

func (serviceTime) reach() reach { return reachGroup }

// leastService is the least service time of any path: what one without a sample is taken for.
func leastService(cands []*path) float64 {
	least := 0.0
	for _, p := range cands {
		if t := p.service.time; t > 0 && (least == 0 || t < least) {
			least = t
		}
	}
	return least
}

func (serviceTime) pick(d *Device, cands []*path, _ *io) *path {
	now := d.loop.Now()
	var chosen *path
	best, n := 0.0, 1
	base := leastService(cands)
	for _, p := range cands {
		s := &p.service
		if p.inflight == 0 && p.hedge.unseen == 0 && s.old(now) {
			return p
		}
		cost := max(s.time, base) * float64(1+p.inflight)
		switch {
		case chosen == nil || cost < best:
			chosen, best, n = p, cost, 1
		case cost == best && d.fewer(p, chosen, &n):
			chosen = p
		}
	}
	return chosen
}
