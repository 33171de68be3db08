package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// goodThroughput is the share of the best throughput that makes a policy a
// choice at all: one that does less has no claim to the best latency.
const goodThroughput = 0.95

// verdict compares the first policy of a table with the others.
type verdict struct {
	throughput float64 // of the best of all
	p99        float64 // of the best among those with good throughput
	anyP99     float64 // of the best of all, whatever its throughput
	best, fast string  // the policies compared with
}

// bestRate is the best throughput of all policies.
func (t *table) bestRate() float64 {
	best := 0.0
	for _, r := range t.results {
		best = max(best, r.Rate)
	}
	return best
}

// bestP99 is the best p99 of the policies with good throughput.
func (t *table) bestP99() time.Duration {
	best, least := time.Duration(0), goodThroughput*t.bestRate()
	for _, r := range t.results {
		if r.Rate >= least && (best == 0 || r.P99 < best) {
			best = r.P99
		}
	}
	return best
}

func (t *table) verdict() verdict {
	own, rate, good := t.results[0], t.bestRate(), t.bestP99()
	v := verdict{throughput: own.Rate / rate, p99: ratio(own.P99, good)}
	low := own.P99
	for _, r := range t.results {
		low = min(low, r.P99)
		if r.Rate == rate {
			v.best = r.Policy
		}
		if r.P99 == good && r.Rate >= goodThroughput*rate {
			v.fast = r.Policy
		}
	}
	v.anyP99 = ratio(own.P99, low)
	return v
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(max(b, 1)) }

// meets reports whether the first policy is within 5 % of the best throughput
// and within 10 % of the best p99.
func (v verdict) meets() bool { return v.throughput >= goodThroughput && v.p99 <= 1.1 }

func writeBrief(w io.Writer, tables []table) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "scenario\t%s: requests/s\tof the best\t\tp99\tto the best\t\tto any\t\n", tables[0].results[0].Policy)
	bad := 0
	for _, t := range tables {
		v, own := t.verdict(), t.results[0]
		mark := ""
		if !v.meets() {
			mark = "MISSED"
			bad++
		}
		fmt.Fprintf(tw, "%s\t%.0f\t%.3f\t%s\t%s\t%.2f\t%s\t%.2f\t%s\n", t.Name, own.Rate, v.throughput, v.best, short(own.P99), v.p99, v.fast, v.anyP99, mark)
	}
	tw.Flush()
	fmt.Fprintf(w, "%d of %d within 5 %% of the best throughput and 10 %% of the best p99\n", len(tables)-bad, len(tables))
}
