// Command pathbench measures, in real time and without privileges, what iscsimp makes of paths that differ or fail: its policies, with and without hedged reads
// and marginal paths, over tgtd's null store on loopback, each portal behind a line that delays, narrows, stalls or breaks (package tcpproxy), through the NBD socket.
//
//	go run ./cmd/pathbench [-n 3] [-s far-2,stall-2]        (from the folder test), or: make bench-paths
//
// Every contestant has a target and a process of its own; in each round all take their turn. It prints medians of the rounds, and how many times the first
// contestant's they are. The exit status is 1 when something could not be measured or a request failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/iscsimp/iscsimp/test/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if errRemove := peer.RemoveBuilt(); errRemove != nil {
		fmt.Fprintln(os.Stderr, errRemove)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pathbench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, out, progress io.Writer) error {
	f := flag.NewFlagSet("pathbench", flag.ContinueOnError)
	f.SetOutput(progress)
	rounds := f.Int("n", 1, "rounds")
	only := f.String("s", "", "only these `SCENARIOS`, with commas")
	who := f.String("c", "", "only these `CONTESTANTS`, with semicolons")
	take := spans{}
	f.DurationVar(&take.warmUp, "w", 1500*time.Millisecond, "warm-up of each job")
	f.DurationVar(&take.measure, "t", 3*time.Second, "what is measured of each job")
	if err := f.Parse(args); err != nil {
		return err
	}
	chosen, err := pick(scenarios, *only, ",", func(s scenario) string { return s.name })
	if err != nil {
		return err
	}
	rivals, err := pick(contestants, *who, ";", func(c contestant) string { return c.name })
	if err != nil {
		return err
	}
	if _, err := peer.BuildIscsimp(); err != nil {
		return err
	}
	fmt.Fprintf(out, "Load of the machine before: %s\n", machineLoad())
	var results []result
	for round := range *rounds {
		for i := range chosen {
			for _, c := range rivals {
				fmt.Fprintf(progress, "round %d: %s, %s\n", round+1, chosen[i].name, c.name)
				r, err := measure(ctx, &chosen[i], c, take)
				if err != nil {
					return err
				}
				results = append(results, r...)
			}
		}
	}
	list := rows(results)
	sortLike(list, chosen)
	failed := writeTables(out, list)
	fmt.Fprintf(out, "\nLoad of the machine after: %s\n", machineLoad())
	if failed > 0 {
		return fmt.Errorf("%d requests failed", failed)
	}
	return nil
}

// sortLike brings the rows of a job together, in the order of the scenarios.
func sortLike(list []row, chosen []scenario) {
	slices.SortStableFunc(list, func(a, b row) int {
		at := func(r row) int {
			return slices.IndexFunc(chosen, func(s scenario) bool { return s.name == r.scenario })
		}
		if at(a) != at(b) {
			return at(a) - at(b)
		}
		return strings.Compare(a.job, b.job)
	})
}

// pick gives the elements that are named, all when none is.
func pick[T any](all []T, names, separator string, name func(T) string) ([]T, error) {
	if names == "" {
		return all, nil
	}
	var list []T
	for want := range strings.SplitSeq(names, separator) {
		i := slices.IndexFunc(all, func(t T) bool { return name(t) == strings.TrimSpace(want) })
		if i < 0 {
			return nil, fmt.Errorf("there is no %q", want)
		}
		list = append(list, all[i])
	}
	return list, nil
}

// machineLoad is the load average of the last minute: on a busy machine the times say little.
func machineLoad() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(b), " ")
	return load
}
