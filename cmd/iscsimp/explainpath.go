package main

import (
	"fmt"
	"strings"
)

// explainPath says what one path does and why. best is what carries the I/O.
func explainPath(d deviceStatus, p pathStatus, best string) string {
	if !p.Active {
		return explainIdle(d, p, best)
	}
	s := fmt.Sprintf("carries I/O: %s of the device's in the last seconds, %s in flight; %s for %s: %s.",
		formatShare(p.Share), plural(uint64(max(p.InFlight, 0)), "command", "commands"), p.State, formatAge(p.SinceSeconds), p.Reason)
	if p.Share == 0 && p.InFlight == 0 && p.IOPS == 0 {
		s = fmt.Sprintf("carries I/O, though there was none in the last seconds; %s for %s: %s.", p.State, formatAge(p.SinceSeconds), p.Reason)
	}
	switch c := p.Cost; {
	case goesByWeight(d.Policy):
		s += fmt.Sprintf(" Weight %d.", p.Weight)
	case d.Policy != "latency":
	case c.Known:
		s += explainCost(p)
	default:
		s += " Nothing was measured yet: it is taken to be as fast as the fastest."
	}
	return s
}

// explainIdle is explainPath for a path that carries nothing.
func explainIdle(d deviceStatus, p pathStatus, best string) string {
	switch {
	case best == "" || p.State != "up" && p.State != "suspect":
		return fmt.Sprintf("carries nothing: it has been %s for %s: %s.", p.State, formatAge(p.SinceSeconds), p.Reason)
	case p.State == "suspect":
		return fmt.Sprintf("carries nothing: it has been suspect for %s: %s; %s comes first.", formatAge(p.SinceSeconds), p.Reason, best)
	case p.HeldBack:
		return fmt.Sprintf("carries nothing: it is better than the paths in use and has been up for %s, but I/O stays with those for now (failback %s).",
			formatAge(p.SinceSeconds), d.Failback)
	case d.Policy == "failover" && best == rank(p):
		return "carries nothing: it is as good as the path in use, but comes after it."
	}
	return fmt.Sprintf("carries nothing: it has been up for %s with priority %d, and %s comes first.", formatAge(p.SinceSeconds), p.Priority, best)
}

// peakFactor is how far above the 99th percentile the latency that the policy
// counts with must be to be called a peak.
const peakFactor = 2

// explainCost takes the cost of a read of 4 KiB apart.
func explainCost(p pathStatus) string {
	c := p.Cost
	own := max(c.LatencySeconds, c.LateSeconds)
	s := fmt.Sprintf(" A read of 4 KiB costs %s: %s for itself", formatLatency(c.TotalSeconds), formatLatency(own))
	switch {
	case c.LateSeconds > c.LatencySeconds:
		s += " (so much is the oldest command overdue)"
	case p.P99Seconds > 0 && own > peakFactor*p.P99Seconds:
		s += " (a peak of the last seconds, which fades; half of all commands take " + formatLatency(p.P50Seconds) + " now)"
	}
	if c.QueueSeconds > 0 {
		s += fmt.Sprintf(", and twice the %s of what is before it", formatLatency(c.QueueSeconds))
	}
	if c.BytesPerSecond > 0 {
		s += fmt.Sprintf(", at %s MB/s", formatRate(c.BytesPerSecond/1e6))
	}
	if c.WriteSeconds > 0 {
		s += fmt.Sprintf("; a write on an empty path takes %s", formatLatency(c.WriteSeconds))
	}
	return s + "."
}

func queueFullFact(p pathStatus) string {
	if n := p.Cost.Limit; p.Active && n > 0 {
		return fmt.Sprintf("At most %d commands: the target said its queue was full.", n)
	}
	return ""
}

func rampFact(p pathStatus) string {
	if n := p.Cost.Ramp; p.Active && n > 0 {
		return fmt.Sprintf("At most %d commands for now: it came up, and earns more with each success.", n)
	}
	return ""
}

func retryFact(p pathStatus) string {
	switch {
	case p.RetrySeconds > 0:
		return fmt.Sprintf("It logs in again in %s.", formatSoon(p.RetrySeconds))
	case p.LoggingIn && p.State == "down":
		return "It is logging in now."
	}
	return ""
}

// sentToFact tells where the session of a portal really is.
func sentToFact(p pathStatus) string {
	if p.SentTo == "" {
		return ""
	}
	return fmt.Sprintf("The portal sends logins on to %s.", p.SentTo)
}

// connectionsFact tells of the connections of a session that has several.
func connectionsFact(p pathStatus) string {
	if len(p.ConnectionList) < 2 {
		return ""
	}
	parts := make([]string, 0, len(p.ConnectionList))
	for _, c := range p.ConnectionList {
		part := fmt.Sprintf("%d %s", c.CID, c.State)
		switch {
		case c.Silent:
			part += " but silent"
		case c.RetrySeconds > 0:
			part += ", dialed again in " + formatSoon(c.RetrySeconds)
		case c.State == "up":
			part += fmt.Sprintf(" with %s under way", formatSize(uint64(max(c.OutstandingBytes, 0))))
		}
		parts = append(parts, part)
	}
	return fmt.Sprintf("%d of its %d connections are up: %s.", p.Connections, len(parts), strings.Join(parts, "; "))
}

func timeoutsFact(p pathStatus) string {
	if p.Timeouts == 0 {
		return ""
	}
	s := fmt.Sprintf("Since the start %s too old on it; %s asked for", plural(p.Timeouts, "command grew", "commands grew"), plural(p.Aborts, "abort was", "aborts were"))
	if p.Resets > 0 {
		s += ", and " + plural(p.Resets, "reset", "resets") + " of the unit"
	}
	return s + "."
}

// troubleFact tells what the path has cost so far.
func troubleFact(p pathStatus) string {
	var parts []string
	if p.Retries > 0 {
		parts = append(parts, plural(p.Retries, "command was", "commands were")+" sent again because of it")
	}
	if p.Moved > 0 {
		parts = append(parts, plural(p.Moved, "command", "commands")+" moved away while it was silent")
	}
	if p.Losses > 0 {
		s := "its session was lost " + plural(p.Losses, "time", "times")
		if l := p.LastLoss; l != nil {
			s += fmt.Sprintf(", last %s ago", formatAge(l.SinceSeconds))
			if !strings.Contains(p.Reason, l.Text) {
				s += ": " + l.Text
			}
		}
		parts = append(parts, s)
	}
	if len(parts) == 0 {
		return ""
	}
	return "Since the start " + strings.Join(parts, ", ") + "."
}

func rejectFact(p pathStatus) string {
	if n := p.LastReject; n != nil {
		return fmt.Sprintf("The target rejected %s, the last one %s ago: %s.", plural(n.Count, "request", "requests"), formatAge(n.SinceSeconds), n.Text)
	}
	return ""
}

func asyncFact(p pathStatus) string {
	if n := p.LastAsync; n != nil {
		return fmt.Sprintf("The target sent %s, the last one %s ago: %s.", plural(n.Count, "message of its own", "messages of its own"), formatAge(n.SinceSeconds), n.Text)
	}
	return ""
}

// lastErrorFact tells the last error unless it is the reason anyway.
func lastErrorFact(p pathStatus) string {
	e := strings.TrimSuffix(strings.TrimPrefix(p.LastError, p.Portal+": "), ".")
	if e == "" || strings.Contains(p.Reason, e) || p.LastLoss != nil && strings.Contains(p.LastLoss.Text, e) {
		return ""
	}
	return fmt.Sprintf("Last error: %s.", e)
}

// plural is n with the right words after it.
func plural(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
