package main

import (
	"context"
	"time"

	"github.com/iscsimp/iscsimp/test/tcpproxy"
)

// base is the delay of every line, each way: much more than what loopback and the proxy take, so that ratios tell of the lines.
const base = time.Millisecond

// scenario is some lines, what befalls the last of them, and the size and number of the requests.
type scenario struct {
	name, text string
	paths      int
	size       int   // bytes of a request
	depth      int   // requests in flight
	rates      []int // bytes per second and direction of each line; nil: no limit
	apart      time.Duration
	trouble    func(ctx context.Context, line *tcpproxy.Proxy) error // befalls the last line until ctx is done; nil: nothing
}

// sum is what the lines carry together, in bytes per second; 0: no limit.
func (s *scenario) sum() (sum int) {
	for _, rate := range s.rates {
		sum += rate
	}
	return sum
}

var scenarios = []scenario{
	{name: "even-2", text: "two equal paths", paths: 2, size: 4 << 10, depth: 8},
	{name: "far-2", text: "two paths, one 20 ms farther", paths: 2, size: 4 << 10, depth: 8, apart: 20 * time.Millisecond},
	{name: "far-4", text: "four paths, one 20 ms farther", paths: 4, size: 4 << 10, depth: 8, apart: 20 * time.Millisecond},
	{name: "rates-2", text: "lines of 20 and 5 MB/s", paths: 2, size: 64 << 10, depth: 16, rates: []int{20e6, 5e6}},
	{name: "stall-2", text: "two paths, one silent for 200 ms in each second", paths: 2, size: 4 << 10, depth: 8, trouble: stalls(time.Second, 200*time.Millisecond)},
	{name: "flaky-2", text: "two paths, one reset every second", paths: 2, size: 4 << 10, depth: 8, trouble: resets(time.Second)},
}

// set makes line i of the scenario what it is without trouble.
func (s *scenario) set(i int, line *tcpproxy.Proxy) error {
	delay := base
	if i == s.paths-1 {
		delay += s.apart / 2
	}
	if s.rates != nil {
		if err := line.Limit(int64(s.rates[i])); err != nil {
			return err
		}
	}
	return line.Delay(delay)
}

// stalls lets the line fall silent at the start of each period.
func stalls(period, lasts time.Duration) func(context.Context, *tcpproxy.Proxy) error {
	return func(ctx context.Context, line *tcpproxy.Proxy) error {
		for pause(ctx, period-lasts) {
			if err := line.Stall(); err != nil {
				return err
			}
			pause(ctx, lasts)
			if err := line.Delay(base); err != nil {
				return err
			}
		}
		return nil
	}
}

// resets breaks the connections of the line once in each period.
func resets(period time.Duration) func(context.Context, *tcpproxy.Proxy) error {
	return func(ctx context.Context, line *tcpproxy.Proxy) error {
		for pause(ctx, period) {
			line.Reset()
		}
		return nil
	}
}

// pause waits; false when ctx is done.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// contestant is iscsimp with some options.
type contestant struct {
	name string
	args []string
}

// contestants: the first is what the others are compared with.
var contestants = []contestant{
	{"latency", nil},
	{"latency, no hedges", []string{"--hedge=off"}},
	{"latency, no marginal", []string{"--marginal=off"}},
	{"latency, neither", []string{"--hedge=off", "--marginal=off"}},
	{"round-robin", []string{"--policy", "round-robin"}},
	{"round-robin, neither", []string{"--policy", "round-robin", "--hedge=off", "--marginal=off"}},
	{"queue-depth", []string{"--policy", "queue-depth"}},
	{"queue-depth, neither", []string{"--policy", "queue-depth", "--hedge=off", "--marginal=off"}},
	{"service-time", []string{"--policy", "service-time"}},
	{"service-time, neither", []string{"--policy", "service-time", "--hedge=off", "--marginal=off"}},
}
