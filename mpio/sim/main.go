package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/iscsimp/iscsimp/mpio"
)

func main() {
	if err := command(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	policies        []string
	seed            uint64
	seeds           int // runs, from seed on: their median counts
	warmUp, measure time.Duration
	jobs            int
	whole           bool
}

func command(args []string, w io.Writer) error {
	f := flag.NewFlagSet("sim", flag.ContinueOnError)
	scenario := f.String("scenario", "all", "`NAMES` of scenarios or topologies, with commas; all")
	policy := f.String("policy", strings.Join(mpio.Policies(), ","), "`NAMES` of policies, with commas")
	list := f.Bool("list", false, "list the scenarios")
	brief := f.Bool("brief", false, "only compare the first policy with the best of all, per scenario")
	results := f.String("results", "", "take the results from `FILE`, which -json wrote, and simulate nothing")
	svg := f.String("svg", "", "write plots into the folder `DIR`")
	asJSON := f.Bool("json", false, "print the results as JSON")
	var o options
	f.Uint64Var(&o.seed, "seed", 1, "where chance begins")
	f.IntVar(&o.seeds, "seeds", 1, "run with so `MANY` seeds, from -seed on, and take the median of each figure")
	f.DurationVar(&o.warmUp, "warmup", 2*time.Second, "virtual time before measuring")
	f.DurationVar(&o.measure, "measure", 3*time.Second, "virtual time measured")
	f.IntVar(&o.jobs, "jobs", runtime.GOMAXPROCS(0), "simulations at a time")
	f.BoolVar(&o.whole, "whole", false, "with all that else the device does about slow paths: hedged reads, marginal paths")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, s := range scenarios() {
			fmt.Fprintf(w, "%-24s %s\n", s.Name, s.Text)
		}
		return nil
	}
	o.policies = strings.Split(*policy, ",")
	tables, err := obtain(*results, *scenario, o)
	if err != nil {
		return err
	}
	if *svg != "" {
		if err := writePlots(*svg, tables); err != nil {
			return err
		}
	}
	if *asJSON {
		return writeJSON(w, tables)
	}
	if *brief {
		writeBrief(w, tables)
		return nil
	}
	for _, t := range tables {
		writeTable(w, t)
	}
	return nil
}

// obtain reads results, or simulates.
func obtain(file, scenario string, o options) ([]table, error) {
	if file != "" {
		return readJSON(file)
	}
	set, err := find(scenario)
	if err != nil {
		return nil, err
	}
	return runAll(set, o)
}

// table is the results of all policies in one scenario.
type table struct {
	*Scenario
	results []Result
}

// runAll runs every policy through every scenario, several at a time.
func runAll(set []*Scenario, o options) ([]table, error) {
	o.seeds = max(o.seeds, 1)
	tables := make([]table, len(set))
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	slots := make(chan struct{}, max(o.jobs, 1))
	for i, s := range set {
		tables[i] = table{s, make([]Result, len(o.policies))}
		for j, policy := range o.policies {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				r, err := runSeeds(s, policy, o)
				tables[i].results[j] = r
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return tables, failed
}

// writeJSON prints one object per scenario and policy, a line each.
func writeJSON(w io.Writer, tables []table) error {
	enc := json.NewEncoder(w)
	for _, t := range tables {
		for _, r := range t.results {
			if err := enc.Encode(struct {
				Scenario string
				Result
			}{t.Name, r}); err != nil {
				return err
			}
		}
	}
	return nil
}

// readJSON reads what writeJSON wrote.
func readJSON(file string) ([]table, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var tables []table
	for dec := json.NewDecoder(f); dec.More(); {
		var line struct {
			Scenario string
			Result
		}
		if err := dec.Decode(&line); err != nil {
			return nil, fmt.Errorf("sim: %s: %w", file, err)
		}
		if n := len(tables); n == 0 || tables[n-1].Name != line.Scenario {
			set, err := find(line.Scenario)
			if err != nil {
				return nil, err
			}
			tables = append(tables, table{Scenario: set[0]})
		}
		last := &tables[len(tables)-1]
		last.results = append(last.results, line.Result)
	}
	if len(tables) == 0 {
		return nil, fmt.Errorf("sim: there are no results in %s", file)
	}
	return tables, nil
}

func writeTable(w io.Writer, t table) {
	fmt.Fprintf(w, "%s: %s. At best %.0f requests/s.\n", t.Name, t.Text, t.optimum())
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "policy\trequests/s\tof optimum\tp50\tp99\tp99.9\tshares of the paths\t")
	for _, r := range t.results {
		fmt.Fprintf(tw, "%s\t%.0f\t%.1f %%\t%s\t%s\t%s\t%s\t\n", r.Policy, r.Rate, 100*r.Share, short(r.P50), short(r.P99), short(r.P999), shares(r.Paths))
	}
	tw.Flush()
	fmt.Fprintln(w)
}

func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1e3)
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// shares prints the shares of paths; of many only the least and the most.
func shares(list []float64) string {
	if len(list) > 8 {
		low, high := list[0], list[0]
		for _, s := range list {
			low, high = min(low, s), max(high, s)
		}
		return fmt.Sprintf("%.2f to %.2f %%", 100*low, 100*high)
	}
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, " %.1f", 100*s)
	}
	return b.String() + " %"
}
