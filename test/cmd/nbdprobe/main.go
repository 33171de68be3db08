// Command nbdprobe reads or writes 4 KiB blocks of an NBD server one at a time and reports when I/O stalls or fails: a stopwatch for failovers.
//
//	nbdprobe -sock PATH [-export NAME] [-write] [-every 10ms] [-for 60s] [-stall 200ms]
//
// One line per event, with the seconds since the start: "stalled" when an I/O has been outstanding for -stall, "stall over" when it ends, "error" with the
// server's answer, "end" with totals. With -write the probed blocks are overwritten with zeros.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"time"

	"github.com/iscsimp/iscsimp/test/nbdload"
)

type probe struct {
	client *nbdload.Client
	write  bool
	stall  time.Duration
	start  time.Time

	operations, errors, stalls int
	longest                    time.Duration
}

func main() {
	p := probe{}
	sock := flag.String("sock", "", "unix socket of the server")
	export := flag.String("export", "", "export name")
	flag.BoolVar(&p.write, "write", false, "write zeros instead of reading")
	every := flag.Duration("every", 10*time.Millisecond, "pause between I/Os")
	length := flag.Duration("for", time.Minute, "run time")
	flag.DurationVar(&p.stall, "stall", 200*time.Millisecond, "report I/Os slower than this")
	flag.Parse()
	log.SetFlags(0)
	client, err := nbdload.Dial(context.Background(), "unix", *sock, *export)
	if err != nil {
		log.Fatal(err)
	}
	p.client, p.start = client, time.Now()
	err = p.run(*every, *length)
	p.event("end: %d I/Os, %d errors, %d stalls, longest %.3f s", p.operations, p.errors, p.stalls, p.longest.Seconds())
	if err != nil || p.errors > 0 {
		os.Exit(1)
	}
	_ = client.Close()
}

// run probes until the time is over or the connection is lost.
func (p *probe) run(every, length time.Duration) error {
	block := make([]byte, nbdload.BlockSize)
	for time.Since(p.start) < length {
		offset := rand.Uint64N(p.client.Size/nbdload.BlockSize) * nbdload.BlockSize
		began := time.Now()
		notice := time.AfterFunc(p.stall, func() { p.event("stalled") })
		var err error
		if p.write {
			clear(block)
			err = p.client.Write(block, offset, false)
		} else {
			err = p.client.Read(block, offset)
		}
		notice.Stop()
		took := time.Since(began)
		p.longest = max(p.longest, took)
		if errors.Is(err, nbdload.ErrConnectionLost) {
			p.event("%v", err)
			return err
		}
		p.operations++
		if err != nil {
			p.errors++
			p.event("error after %.3f s: %v", took.Seconds(), err)
		}
		if took > p.stall {
			p.stalls++
			p.event("stall over: I/O issued at %.3f took %.3f s", began.Sub(p.start).Seconds(), took.Seconds())
		}
		time.Sleep(every)
	}
	return nil
}

func (p *probe) event(format string, args ...any) {
	fmt.Printf("%8.3f %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}
