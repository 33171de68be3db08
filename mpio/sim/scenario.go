package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Scenario is some paths and a load.
type Scenario struct {
	Name  string
	Text  string
	Paths []Route
	Load  Load
}

// capacity is what the paths can do together, in requests per second.
func (s *Scenario) capacity() float64 {
	sum := 0.0
	for i := range s.Paths {
		sum += s.Paths[i].capacity(s.Load.meanBytes())
	}
	return sum
}

// optimum is a bound of the requests per second that no policy can beat. In an
// open loop it is what arrives, if the paths can do it. In a closed loop each path
// does at most its capacity, and at most what the requests it has in flight allow
// when none waits for another; the requests are handed to the fastest path first.
func (s *Scenario) optimum() float64 {
	if s.Load.Depth == 0 {
		return min(s.Load.Rate, 1) * s.capacity()
	}
	bytes := s.Load.meanBytes()
	order := slices.Clone(s.Paths)
	slices.SortFunc(order, func(a, b Route) int { return cmp.Compare(a.empty(bytes), b.empty(bytes)) })
	left, sum := float64(s.Load.Depth), 0.0
	for i := range order {
		r := &order[i]
		want := r.capacity(bytes) * r.empty(bytes) / 1e9 // requests in flight that fill it
		n := min(left, want)
		sum += n / r.empty(bytes) * 1e9
		left -= n
	}
	return sum
}

// enough requests are answered in a scenario that stays the same all the time.
const enough = 100_000

// longer is how many times the time to be measured may be exceeded for that.
const longer = 10

// spans gives warm-up and measuring the time that enough requests take, in a
// scenario in which nothing happens from time to time: less where the rate is
// high, and more measuring where it is low, since a p99 of few requests is chance.
func (s *Scenario) spans(o options) (warmUp, measure time.Duration) {
	if slices.ContainsFunc(s.Paths, func(r Route) bool { return r.Period > 0 }) {
		return o.warmUp, o.measure
	}
	takes := time.Duration(enough / s.optimum() * 1e9)
	return min(o.warmUp, max(takes, 400*ms)), min(longer*o.measure, max(takes, 100*ms))
}

const ms = time.Millisecond

// array is a path to a storage array as they are: 0.2 ms of network, a controller
// that does 20,000 commands a second, a line of 10 Gbit/s.
var array = Route{Latency: 200 * time.Microsecond, Service: 100 * time.Microsecond, Servers: 2, MBps: 1100, Spread: 0.3}

// paths gives n paths like array, changed by each of the functions.
func paths(n int, change ...func(i int, r *Route)) []Route {
	list := slices.Repeat([]Route{array}, n)
	for i := range list {
		for _, fn := range change {
			fn(i, &list[i])
		}
	}
	return list
}

// last changes only the last of n paths.
func last(n int, fn func(r *Route)) func(int, *Route) {
	return func(i int, r *Route) {
		if i == n-1 {
			fn(r)
		}
	}
}

func slower(by int) func(*Route) {
	return func(r *Route) {
		r.Latency, r.Service, r.MBps = r.Latency*time.Duration(by), r.Service*time.Duration(by), r.MBps/float64(by)
	}
}

func farther(by time.Duration) func(*Route) { return func(r *Route) { r.Latency += by } }

func stalling(r *Route) { r.Period, r.Stalls, r.Offset = time.Second, 200*ms, 1500*ms }

func flapping(r *Route) { r.Period, r.Lost, r.Offset = 1500*ms, 500*ms, 1500*ms }

var (
	small = []Size{{4 << 10, 1}}
	large = []Size{{64 << 10, 1}}
	mixed = []Size{{4 << 10, 0.9}, {1 << 20, 0.1}}
	broad = []Size{{4 << 10, 0.5}, {16 << 10, 0.2}, {64 << 10, 0.2}, {256 << 10, 0.07}, {1 << 20, 0.03}}
)

// topology is a set of paths that is put under several loads.
type topology struct {
	name, text string
	paths      []Route
	sizes      []Size
	depths     []int
	rates      []float64 // open loop, as a share of what the paths can do
	writes     float64
}

var topologies = []topology{
	{"equal-2", "two equal paths", paths(2), small, []int{1, 8, 32, 256}, []float64{0.7}, 0},
	{"equal-4", "four equal paths", paths(4), small, []int{1, 32, 256}, []float64{0.7, 0.9}, 0.3},
	{"equal-16", "16 equal paths", paths(16), small, []int{32, 256}, nil, 0},
	{"equal-64", "64 equal paths", paths(64), small, []int{256}, []float64{0.5}, 0},
	{"slow-2", "two paths, one ten times slower", paths(2, last(2, slower(10))), small, []int{1, 8, 32, 256}, []float64{0.5}, 0},
	{"slow-4", "four paths, one ten times slower", paths(4, last(4, slower(10))), small, []int{1, 8, 32, 256}, []float64{0.5, 0.8}, 0.3},
	{"far-2", "two paths, one 20 ms farther", paths(2, last(2, farther(20*ms))), small, []int{1, 8, 32, 256}, []float64{0.3}, 0},
	{"far-4", "four paths, one 20 ms farther", paths(4, last(4, farther(20*ms))), small, []int{1, 8, 32, 256}, []float64{0.5}, 0.3},
	{"lines-2", "lines of 100 and 400 MB/s, 64 KiB", paths(2, func(i int, r *Route) { r.MBps = []float64{100, 400}[i] }), large, []int{1, 8, 32, 128}, []float64{0.6, 0.9}, 0},
	{"lines-4", "lines of 100, 100, 400 and 400 MB/s, 64 KiB", paths(4, func(i int, r *Route) { r.MBps = []float64{100, 100, 400, 400}[i] }), large, []int{32, 128}, nil, 0.5},
	{"jitter-4", "four equal paths with much jitter: one command in 50 takes 20 times as long", paths(4, func(_ int, r *Route) { r.Spread, r.Tail, r.TailBy = 1, 0.02, 20 }), small, []int{1, 32, 256}, []float64{0.6}, 0},
	{"jittery-4", "four paths, one with much jitter", paths(4, last(4, func(r *Route) { r.Spread, r.Tail, r.TailBy = 1, 0.05, 20 })), small, []int{1, 32}, []float64{0.6}, 0},
	{"stall-2", "two paths, one stalls for 200 ms every second", paths(2, last(2, stalling)), small, []int{1, 8, 32, 128}, []float64{0.4}, 0},
	{"stall-4", "four paths, one stalls for 200 ms every second", paths(4, last(4, stalling)), small, []int{8, 32, 128}, []float64{0.5}, 0.3},
	{"flap-2", "two paths, one is lost for 500 ms every 1.5 s", paths(2, last(2, flapping)), small, []int{8, 32}, []float64{0.4}, 0},
	{"flap-4", "four paths, one is lost for 500 ms every 1.5 s", paths(4, last(4, flapping)), small, []int{32, 128}, []float64{0.5}, 0.3},
	{"mixed-4", "four equal paths, 4 KiB and one in ten 1 MiB", paths(4), mixed, []int{8, 32, 128}, []float64{0.5, 0.8}, 0},
	{"mixed-lines-2", "lines of 100 and 400 MB/s, 4 KiB to 1 MiB", paths(2, func(i int, r *Route) { r.MBps = []float64{100, 400}[i] }), broad, []int{8, 32}, []float64{0.6}, 0.3},
	{"ladder-8", "eight paths, each half as far again as the one before", paths(8, func(i int, r *Route) {
		for range i {
			r.Latency, r.Service = r.Latency*3/2, r.Service*3/2
		}
	}), small, []int{1, 32, 256}, []float64{0.6}, 0},
	{"quarter-64", "64 paths, a quarter of them three times slower", paths(64, func(i int, r *Route) {
		if i%4 == 3 {
			slower(3)(r)
		}
	}), small, []int{64, 256}, []float64{0.5}, 0},
}

// under is the topology under a load.
func (t *topology) under(name, text string, l Load) *Scenario {
	l.Sizes, l.Writes = t.sizes, t.writes
	return &Scenario{t.name + "/" + name, t.text + ", " + text, t.paths, l}
}

// scenarios lists every topology with each of its loads.
func scenarios() []*Scenario {
	var list []*Scenario
	for _, t := range topologies {
		for _, q := range t.depths {
			list = append(list, t.under(
				fmt.Sprintf("qd%d", q), fmt.Sprintf("queue depth %d", q), Load{Depth: q},
			))
		}
		for _, r := range t.rates {
			list = append(list, t.under(
				fmt.Sprintf("open%.0f", r*100), fmt.Sprintf("%.0f %% of what they can do arrives", r*100), Load{Rate: r},
			))
		}
	}
	return list
}

// find gives the scenarios that are named: by name, by topology, or "all".
func find(names string) ([]*Scenario, error) {
	var list []*Scenario
	for name := range strings.SplitSeq(names, ",") {
		n := len(list)
		for _, s := range scenarios() {
			topo, _, _ := strings.Cut(s.Name, "/")
			if name == "all" || name == s.Name || name == topo {
				list = append(list, s)
			}
		}
		if len(list) == n {
			return nil, fmt.Errorf("sim: there is no scenario %q; -list shows them", name)
		}
	}
	return list, nil
}
