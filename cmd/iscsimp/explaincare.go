package main

import (
	"fmt"
	"strings"

	"github.com/iscsimp/iscsimp/initiator"
)

// hedgeStatus is what hedging did since the start.
type hedgeStatus struct {
	Budget float64 `json:"budget"` // share of the reads that may be sent twice; 0: off
	Hedges uint64  `json:"hedges"` // reads sent over a second path too
	Wins   uint64  `json:"wins"`   // ... which answered first
	Denied uint64  `json:"denied"` // reads that were old enough while the budget was used up
}

// pathHealth is what speaks against a path, and what becomes of a marginal one.
type pathHealth struct {
	Relapses        int     `json:"relapses"`     // times it became marginal, or did not pass, with little between
	RestSecondsLeft float64 `json:"rest_seconds"` // until it is tried with probes; 0: it is now, or not marginal
	Sampling        bool    `json:"sampling"`     // it is being tried
	Sampled         int     `json:"sampled"`      // probes of this try, and how many failed
	SampleFailed    int     `json:"sample_failed"`
	Trial           bool    `json:"trial"`          // the others are watched for whether they cope without it
	NeededSeconds   float64 `json:"needed_seconds"` // they did not: for so long its latency is no reason
	Faults          int     `json:"faults"`         // losses within --marginal-path-double-failed-time, 8 at most
	Stalls          int     `json:"stalls"`         // stalls in the last 10 s, 8 at most
	ErrorRate       float64 `json:"error_rate"`     // of its commands in the last seconds, 0..1
}

func newHedgeStatus(s *initiator.Snapshot) hedgeStatus {
	return hedgeStatus{Budget: s.HedgeBudget, Hedges: s.Hedges, Wins: s.HedgeWins, Denied: s.HedgesDenied}
}

func newPathHealth(p *initiator.PathSnapshot) pathHealth {
	h := &p.Health
	return pathHealth{
		Relapses: h.Relapses, RestSecondsLeft: h.RestLeft, Sampling: h.Sampling, Sampled: h.Sampled, SampleFailed: h.SampleFailed,
		Trial: h.Trial, NeededSeconds: h.NeededFor, Faults: h.Faults, Stalls: h.Stalls, ErrorRate: h.ErrorRate,
	}
}

// hedgeFact tells what hedging did.
func hedgeFact(d deviceStatus) []string {
	h := d.Hedging
	if h.Hedges == 0 && h.Denied == 0 {
		return nil
	}
	s := fmt.Sprintf("Hedged: since the start %s too old for what another path takes, and sent there as well; there %d of them were answered first.",
		plural(h.Hedges, "read was", "reads were"), h.Wins)
	if h.Denied > 0 {
		s += fmt.Sprintf(" For %d more the budget was used up (--%s, %s of the reads).", h.Denied, flagHedgeBudget, formatShare(h.Budget))
	}
	return []string{s}
}

// healthFact tells what becomes of a marginal path, and what is held against another.
func healthFact(p pathStatus) string {
	h := p.Health
	var s []string
	switch {
	case h.Sampling:
		s = append(s, fmt.Sprintf("It is being tried with probes: %d of %d failed so far.", h.SampleFailed, h.Sampled))
	case h.Trial:
		s = append(s, "The others are watched: if they do not cope it comes back at once.")
	case h.RestSecondsLeft > 0:
		s = append(s, fmt.Sprintf("It rests, and is tried with probes in %s.", formatSoon(h.RestSecondsLeft)))
	case h.NeededSeconds > 0:
		s = append(s, fmt.Sprintf("It is slower than the others, but they do not cope without it: it stays, for %s at least.", formatAge(h.NeededSeconds)))
	}
	if p.State == "marginal" && h.Relapses > 1 {
		s = append(s, fmt.Sprintf("It has come to this %d times with little between, and each rest is twice as long as the one before.", h.Relapses))
	}
	if p.Hedged > 0 {
		s = append(s, fmt.Sprintf("Since the start %s sent over another path too.", plural(p.Hedged, "read on it was", "reads on it were")))
	}
	return strings.Join(s, " ")
}
