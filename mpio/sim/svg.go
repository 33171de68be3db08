package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// plotted are the scenarios that are in the plots; all would be too many to read.
var plotted = []string{
	"equal-4/qd32", "equal-64/qd256", "slow-2/qd1", "slow-4/qd32", "slow-4/open80",
	"far-2/qd32", "far-4/qd32", "far-4/open50", "lines-2/qd32", "lines-4/qd128",
	"jitter-4/qd32", "jittery-4/qd32", "stall-2/qd32", "stall-4/qd32", "flap-4/qd32",
	"mixed-4/qd32", "mixed-lines-2/qd32", "ladder-8/open60", "quarter-64/qd256",
}

// colors of the policies, in their order.
var colors = []string{"#000000", "#d62728", "#ff9896", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b"}

// Sizes of a plot in pixels.
const (
	plotLeft  = 150
	plotWidth = 580
	plotRow   = 22
	plotTop   = 64
)

// plot is a dot plot: a row for each scenario, a dot for each policy.
type plot struct {
	title string
	ticks []float64
	label func(float64) string
	value func(t table, r Result) float64
	log   bool
}

// writePlots writes the plots into dir.
func writePlots(dir string, tables []table) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, p := range map[string]plot{
		"throughput.svg": {
			title: "Requests per second, as a share of the best policy's",
			ticks: []float64{0, 0.25, 0.5, 0.75, 1},
			label: func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) },
			value: func(t table, r Result) float64 { return r.Rate / t.bestRate() },
		},
		"p99.svg": {
			title: "p99 latency, as a multiple of the best policy's (policies within 5 % of the best throughput)",
			ticks: []float64{0.5, 1, 2, 5, 10, 20, 50, 100},
			label: func(v float64) string { return fmt.Sprintf("%g×", v) },
			value: func(t table, r Result) float64 { return ratio(r.P99, t.bestP99()) },
			log:   true,
		},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(p.draw(tables)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// at is the x coordinate of a value, at the edge if it is beyond.
func (p *plot) at(v float64) float64 {
	low, high := p.ticks[0], p.ticks[len(p.ticks)-1]
	v = min(max(v, low), high)
	if p.log {
		v, low, high = math.Log(v), math.Log(low), math.Log(high)
	}
	return plotLeft + plotWidth*(v-low)/(high-low)
}

func (p *plot) draw(tables []table) string {
	var rows []table
	for _, name := range plotted {
		for _, t := range tables {
			if t.Name == name {
				rows = append(rows, t)
			}
		}
	}
	if len(rows) == 0 {
		rows = tables
	}
	height := plotTop + plotRow*len(rows) + 12
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11">`+"\n", plotLeft+plotWidth+35, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text x="8" y="16" font-size="13">%s</text>`+"\n", p.title)
	for i, r := range rows[0].results {
		x := 14 + 92*float64(i)
		if i > 2 {
			x += 40 // the third name is long
		}
		fmt.Fprintf(&b, `<circle cx="%.0f" cy="32" r="4" fill="%s"/><text x="%.0f" y="36">%s</text>`+"\n", x, colors[i%len(colors)], x+7, r.Policy)
	}
	for _, v := range p.ticks {
		x := p.at(v)
		fmt.Fprintf(&b, `<path d="M%.0f %dV%d" stroke="#ddd"/><text x="%.0f" y="%d" text-anchor="middle" fill="#666">%s</text>`+"\n", x, plotTop-8, height-12, x, plotTop-11, p.label(v))
	}
	for i, t := range rows {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotLeft-12, plotTop+plotRow*i+12, t.Name)
	}
	for j := len(rows[0].results) - 1; j >= 0; j-- { // the first on top
		fmt.Fprintf(&b, `<path fill="none" stroke="%s" stroke-width="%d" stroke-linecap="round" stroke-opacity=".8" d="`, colors[j%len(colors)], 9-min(j, 2))
		for i, t := range rows {
			fmt.Fprintf(&b, "M%.0f %dh0", p.at(p.value(t, t.results[j])), plotTop+plotRow*i+8)
		}
		b.WriteString("\"/>\n")
	}
	return b.String() + "</svg>\n"
}
