package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/iscsimp/iscsimp/test/nbdload"
	"github.com/iscsimp/iscsimp/test/peer"
	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

// spans is how long a job warms up and is measured.
type spans struct{ warmUp, measure time.Duration }

// result is what one contestant did in one job.
type result struct {
	scenario *scenario
	who      string
	job      string // read or write
	rate     float64
	p50, p99 time.Duration
	longest  time.Duration
	errors   int
	last     float64 // share of the last path, as iscsimp counts commands
}

// mbps is the throughput in 10^6 bytes per second.
func (r *result) mbps() float64 { return r.rate * float64(r.scenario.size) / 1e6 }

// measure has a contestant do both jobs in a scenario, on a target and with a process of its own.
func measure(ctx context.Context, s *scenario, c contestant, take spans) (results []result, err error) {
	runDir, err := os.MkdirTemp("", "tgtd-") // short: a unix socket's path is limited
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(runDir)
	port, err := peer.FreePort()
	if err != nil {
		return nil, err
	}
	target, err := peer.StartTgtd(ctx, peer.Tgtd{Portals: peer.Portals(s.paths, port), LUNs: []peer.TgtdLUN{{}}}, runDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, target.Stop()) }()
	lines, err := s.open(target.Portals)
	defer func() {
		for _, line := range lines {
			err = errors.Join(err, line.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	login := peer.Login{IQN: target.IQN, LUN: 1, Args: c.args}
	for _, line := range lines {
		login.Portals = append(login.Portals, line.Addr())
	}
	device, err := peer.StartLogin(ctx, login)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, device.Stop()) }()
	if _, err = device.WaitUp(ctx, s.paths); err != nil {
		return nil, err
	}
	stop := s.start(ctx, lines[s.paths-1])
	defer func() { err = errors.Join(err, stop()) }()
	for _, job := range []string{"read", "write"} {
		r, err := load(ctx, s, device, job, take)
		if err != nil {
			return results, fmt.Errorf("%s, %s, %s: %w", s.name, c.name, job, err)
		}
		r.who = c.name
		results = append(results, r)
	}
	return results, nil
}

// open puts a line in front of each portal.
func (s *scenario) open(portals []string) (lines []*tcpproxy.Proxy, err error) {
	for i, portal := range portals {
		host, _, _ := net.SplitHostPort(portal)
		line, err := tcpproxy.Open(net.JoinHostPort(host, "0"), portal)
		if err != nil {
			return lines, err
		}
		lines = append(lines, line)
		if err := s.set(i, line); err != nil {
			return lines, err
		}
	}
	return lines, nil
}

// start lets the trouble begin; the function it returns ends it.
func (s *scenario) start(ctx context.Context, line *tcpproxy.Proxy) func() error {
	if s.trouble == nil {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.trouble(ctx, line) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// load keeps depth requests in flight through the NBD socket.
func load(ctx context.Context, s *scenario, device *peer.Device, job string, take spans) (result, error) {
	client, err := nbdload.Dial(ctx, "unix", device.Socket, "")
	if err != nil {
		return result{}, err
	}
	defer client.Close()
	w := &workers{s: s, client: client, write: job == "write", took: make([][]time.Duration, s.depth)}
	var all sync.WaitGroup
	for i := range s.depth {
		all.Go(func() { w.work(i) })
	}
	pause(ctx, take.warmUp)
	before, err := device.Status(ctx)
	w.counting.Store(true)
	started := time.Now()
	pause(ctx, take.measure)
	w.counting.Store(false)
	lasted := time.Since(started)
	after, errAfter := device.Status(ctx)
	w.stop.Store(true)
	all.Wait()
	r := result{scenario: s, job: job, errors: int(w.errors.Load()), last: lastShare(before, after)}
	r.summarize(slices.Concat(w.took...), lasted)
	return r, errors.Join(err, errAfter, context.Cause(ctx))
}

// summarize takes rate and quantiles from the times of the requests that were answered in a span.
func (r *result) summarize(took []time.Duration, lasted time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	r.rate = float64(len(took)) / lasted.Seconds()
	r.p50, r.p99, r.longest = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
}

// lastShare is what part of the commands between two statuses went over the last path.
func lastShare(before, after peer.DeviceStatus) float64 {
	total, last := 0.0, 0.0
	for i := range min(len(before.Paths), len(after.Paths)) {
		last = float64(after.Paths[i].IOs - before.Paths[i].IOs)
		total += last
	}
	return last / max(total, 1)
}

// workers send requests one after the other, each.
type workers struct {
	s              *scenario
	client         *nbdload.Client
	write          bool
	next           atomic.Uint64 // place of the next write: each block once, so that no write waits for another
	counting, stop atomic.Bool
	errors         atomic.Int64
	took           [][]time.Duration
}

func (w *workers) work(number int) {
	random := rand.New(rand.NewPCG(1, uint64(number)))
	buf := make([]byte, w.s.size)
	places := w.client.Size / uint64(w.s.size)
	for !w.stop.Load() {
		started := time.Now()
		var err error
		if w.write {
			err = w.client.Write(buf, w.next.Add(1)%places*uint64(w.s.size), false)
		} else {
			err = w.client.Read(buf, random.Uint64N(places)*uint64(w.s.size))
		}
		switch {
		case err != nil:
			w.errors.Add(1)
			if errors.Is(err, nbdload.ErrConnectionLost) {
				return
			}
		case w.counting.Load():
			w.took[number] = append(w.took[number], time.Since(started))
		}
	}
}
