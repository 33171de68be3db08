package main

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// formatSize gives a size in bytes in binary units: "10 GiB", "1.5 TiB", "512 B".
func formatSize(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if v >= 1023.95 && i < len(units)-1 { // would be printed as "1024.0"
		v, i = v/1024, i+1
	}
	s := strconv.FormatFloat(v, 'f', 1, 64)
	if s[len(s)-2:] == ".0" {
		s = s[:len(s)-2]
	}
	return s + " " + units[i]
}

// formatLatency gives seconds in the unit a person would choose; "-" for none.
func formatLatency(seconds float64) string {
	switch {
	case !(seconds > 0): // also NaN
		return "-"
	case seconds < 1e-3:
		return fmt.Sprintf("%.0fµs", seconds*1e6)
	case seconds < 0.1:
		return fmt.Sprintf("%.2fms", seconds*1e3)
	case seconds < 1:
		return fmt.Sprintf("%.0fms", seconds*1e3)
	}
	return fmt.Sprintf("%.1fs", seconds)
}

// formatAge gives how long something lasts in at most two units: "5s", "3m12s", "2d4h".
func formatAge(seconds float64) string {
	if !(seconds > 0) {
		return "0s"
	}
	if seconds > 1e15 { // beyond any duration; also infinity
		return "-"
	}
	s := int64(seconds)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

// formatSoon gives a time to wait for: like formatAge, but never nothing.
func formatSoon(seconds float64) string {
	if seconds > 0 && seconds < 1 {
		return "less than 1s"
	}
	return formatAge(seconds)
}

// formatLimit gives a time limit as it was configured: "30s", "2m00s", "0.5s".
func formatLimit(seconds float64) string {
	if seconds > 0 && seconds != math.Trunc(seconds) && seconds < 60 {
		return strconv.FormatFloat(seconds, 'g', 3, 64) + "s"
	}
	return formatAge(seconds)
}

// formatShare gives a fraction as a percentage; "-" for none.
func formatShare(f float64) string {
	if math.IsNaN(f) {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", f*100)
}

// formatRate gives a rate without digits that mean nothing.
func formatRate(v float64) string {
	if !(v > 0) {
		return "0"
	}
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// formatTime is the one form of a point in time in JSON: RFC 3339 with
// milliseconds, UTC; empty for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z07:00")
}
