// Command demo shows what iscsimp is for, in less than a minute and without privileges: one disk behind three portals, written and read under load by a program
// that checks every byte, while one path gets slow and another is cut.
//
//	go run ./cmd/demo        (from the folder test), or: make demo
//
// It starts the gotgt target in a process of its own, puts a proxy in front of each portal, runs the real iscsimp binary, and ends with a verdict line; the exit
// status says the same.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/iscsimp/iscsimp/test/peer"
)

// plan is what the demo does and what it accepts.
type plan struct {
	warmUp     time.Duration // load on healthy paths
	slowFactor int           // latency of path 2 while it is slow, as a multiple
	slowFor    time.Duration // at most, from when its share was measured
	cutFor     time.Duration
	shedLimit  time.Duration // share of the slow path under shedShare within this
	shedShare  float64
	backLimit  time.Duration // cut path up again within this
	seed       uint64
}

func main() {
	p := plan{
		warmUp: 8 * time.Second, slowFactor: 20, slowFor: 11 * time.Second, cutFor: 5 * time.Second,
		shedLimit: 5 * time.Second, shedShare: 0.05, backLimit: 15 * time.Second,
	}
	flag.Uint64Var(&p.seed, "seed", rand.Uint64(), "seed of the load's random choices")
	flag.DurationVar(&p.warmUp, "warm-up", p.warmUp, "load on healthy paths before the first fault")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{plan: p, out: os.Stdout, started: time.Now()}
	err := d.run(ctx)
	if errRemove := peer.RemoveBuilt(); errRemove != nil {
		fmt.Fprintln(os.Stderr, errRemove)
	}
	if !d.verdict(err) {
		os.Exit(1)
	}
}
