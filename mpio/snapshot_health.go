package mpio

// Health is what speaks against a path, and what becomes of it while it is
// marginal. Durations are in seconds.
type Health struct {
	// Relapses is how often the path became marginal or failed its probation
	// with little between: each doubles the rest.
	Relapses int `json:"relapses"`
	// RestLeft is until the path is tried with probes; Sampling tells that it is
	// now, with Sampled probes answered or given up, SampleFailed of them failed.
	RestLeft     float64 `json:"rest_left"`
	Sampling     bool    `json:"sampling"`
	Sampled      int     `json:"sampled"`
	SampleFailed int     `json:"sample_failed"`
	// Trial tells that the others are watched for whether they cope without it.
	Trial bool `json:"trial"`
	// NeededFor is how long the path's latency is no reason to take it out, since
	// the others did not cope.
	NeededFor float64 `json:"needed_for"`
	// Faults are losses within MarginalConfig.DoubleFailedTime, Stalls waits in
	// the last 10 s; at most 8 of each are known. ErrorRate is the share of
	// commands that failed on it in the last seconds.
	Faults    int     `json:"faults"`
	Stalls    int     `json:"stalls"`
	ErrorRate float64 `json:"error_rate"`
}

// healthNow fills in Health.
func (p *path) healthNow(now int64) Health {
	h, d := &p.health, p.dev
	s := Health{Relapses: h.relapses, Trial: h.marginal && d.trial.p == p, NeededFor: max(0, seconds(h.neededUntil-now))}
	if h.marginal {
		s.Sampling = h.sampling
		if h.sampling {
			s.Sampled, s.SampleFailed = h.test.sent, h.test.failed
		} else {
			s.RestLeft = max(0, seconds(h.until-now))
		}
	}
	s.Faults, _, _ = h.faults.since(now-int64(d.cfg.Marginal.DoubleFailedTime), 0)
	s.Stalls, _, _ = h.stalls.since(now-stallSpan, d.stallLimit)
	if h.tried >= 1 {
		s.ErrorRate = h.failed / h.tried
	}
	return s
}
