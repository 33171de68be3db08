package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// cell is a contestant in a job of a scenario.
type cell struct{ scenario, job, who string }

// row is the medians of the rounds of a cell.
type row struct {
	cell
	text              string
	rounds, errors    int
	mbps, of, last    float64 // of: share of the sum of the lines, 0: they have no limit
	p50, p99, longest time.Duration
}

// rows takes medians; of errors the sum and of the longest times the longest.
func rows(results []result) []row {
	var order []cell
	sets := map[cell][]result{}
	for _, r := range results {
		c := cell{r.scenario.name, r.job, r.who}
		if sets[c] == nil {
			order = append(order, c)
		}
		sets[c] = append(sets[c], r)
	}
	list := make([]row, 0, len(order))
	for _, c := range order {
		set := sets[c]
		s := set[0].scenario
		out := row{cell: c, text: s.text, rounds: len(set)}
		out.mbps = median(set, func(r result) float64 { return r.mbps() })
		out.p50 = median(set, func(r result) time.Duration { return r.p50 })
		out.p99 = median(set, func(r result) time.Duration { return r.p99 })
		out.last = median(set, func(r result) float64 { return r.last })
		for _, r := range set {
			out.errors += r.errors
			out.longest = max(out.longest, r.longest)
		}
		if sum := s.sum(); sum > 0 {
			out.of = out.mbps * 1e6 / float64(sum)
		}
		list = append(list, out)
	}
	return list
}

// median is the middle value, the lower one of two.
func median[T cmp.Ordered](set []result, of func(result) T) T {
	values := make([]T, len(set))
	for i, r := range set {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// writeTables prints a Markdown table for each job of each scenario: figures, and how many times the first contestant's they are.
func writeTables(w io.Writer, list []row) (errors int) {
	var first row
	for _, r := range list {
		if r.scenario != first.scenario || r.job != first.job {
			first = r
			fmt.Fprintf(w, "\n%s (%s), %ss, %d rounds\n\n", r.scenario, r.text, r.job, r.rounds)
			fmt.Fprintln(w, "| | MB/s | p50 ms | p99 ms | longest ms | last path | x MB/s | x p99 |\n|---|---|---|---|---|---|---|---|")
		}
		mbps := fmt.Sprintf("%.1f", r.mbps)
		if r.of > 0 {
			mbps += fmt.Sprintf(" (%.2f of the sum)", r.of)
		}
		fmt.Fprintf(w, "| %s | %s | %.2f | %.2f | %.0f | %.0f %% | %.2f | %.2f |\n", r.who, mbps, milli(r.p50), milli(r.p99), milli(r.longest), 100*r.last,
			ratio(r.mbps, first.mbps), ratio(float64(r.p99), float64(first.p99)))
		errors += r.errors
	}
	return errors
}

func milli(d time.Duration) float64 { return d.Seconds() * 1e3 }

// ratio is a/b, 0 where there is no b.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
