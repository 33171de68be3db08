// Command hostile runs sessions against lying targets (package hostile) for hours: go run ./cmd/hostile -for 1h
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"

	"github.com/iscsimp/iscsimp/test/hostile"
)

func main() {
	length := flag.Duration("for", time.Minute, "how long to play")
	seed := flag.Uint64("seed", rand.Uint64(), "repeat the decisions of a run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Printf("seed %d, %v\n", *seed, *length)
	report, err := hostile.Run(ctx, *length, *seed)
	fmt.Printf("%+v\n", report)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
