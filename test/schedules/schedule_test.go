package schedules

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/test/nbdload"
)

// step is something that is to happen later in a schedule.
type step struct {
	at time.Time
	do func()
}

func (r *rig) upTo(d time.Duration) time.Duration { return time.Duration(1 + r.rnd.Int64N(int64(d))) }

func (r *rig) later(d time.Duration, do func()) {
	r.steps = append(r.steps, step{time.Now().Add(d), do})
}

func (r *rig) mode(p int, m iscsitest.Mode, d time.Duration) {
	require.NoError(r.t, r.proxies[p].SetMode(m))
	r.later(d, func() { require.NoError(r.t, r.proxies[p].SetMode(iscsitest.ModeGo)) })
}

func (r *rig) hold(scope iscsitest.HoldScope) *iscsitest.Hold {
	h := iscsitest.NewHold(scope)
	r.holds = append(r.holds, h)
	r.later(r.upTo(holdMost), h.Release)
	return h
}

func (r *rig) inject(when iscsitest.Predicate, what iscsitest.Action) {
	r.rules = append(r.rules, r.tgt.Inject(when, what))
}

// play lets faults happen for a while, one every now and then, and the steps they brought about in their time.
func (r *rig) play() {
	next := time.Now()
	for end := time.Now().Add(faultTime); ; {
		at, which := next, -1
		for i, s := range r.steps {
			if s.at.Before(at) {
				at, which = s.at, i
			}
		}
		if at.After(end) {
			return
		}
		time.Sleep(time.Until(at))
		if which >= 0 {
			do := r.steps[which].do
			r.steps = append(r.steps[:which], r.steps[which+1:]...)
			do()
			continue
		}
		f, p := r.faults[r.rnd.IntN(len(r.faults))], r.rnd.IntN(len(r.proxies))
		r.note("%v: %s on path %d", faultTime-time.Until(end), f.name, p+1)
		f.do(r, p)
		next = time.Now().Add(r.upTo(700 * time.Millisecond))
	}
}

// outcome is what one schedule brought to light.
type outcome struct {
	history    nbdload.History
	err        error
	violations []string
	done       []string
}

// run plays the schedule of a seed.
func run(t *testing.T, seed uint64, with setting) (o outcome) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, seed, with)
		stop := make(chan struct{})
		var playing sync.WaitGroup
		playing.Go(func() {
			defer close(stop)
			r.play()
			r.heal()
			time.Sleep(fenceTimeout + holdMost)
		})
		recorded := make(chan struct{})
		go func() {
			defer close(recorded)
			o.history, o.err = nbdload.Record(nbdload.Recording{
				Disks: []nbdload.Disk{disk{r}}, Blocks: 4, Workers: 4, Span: 2, Zeroes: true, Think: 120 * time.Millisecond, Seed: seed,
			}, stop)
		}()
		playing.Wait()
		stuck := ""
		select {
		case <-recorded:
		case <-time.After(patience):
			s, _ := json.MarshalIndent(r.snapshot(), "", " ")
			stuck = fmt.Sprintf("requests hang %v after everything was well again: %s", patience, s)
		}
		err := r.close(stuck != "")
		<-recorded
		switch {
		case stuck != "":
			o.err = errors.New(stuck)
		case err != nil && o.err == nil:
			o.err = fmt.Errorf("closing: %w", err)
		}
		for _, v := range r.tgt.Violations() {
			o.violations = append(o.violations, fmt.Sprint(v))
		}
		o.done = r.done
	})
	return o
}

// linearizable tells whether one disk, doing one thing after another, could have answered so.
func (o *outcome) linearizable() bool {
	return len(o.history.Damaged) == 0 &&
		porcupine.CheckOperationsTimeout(nbdload.Registers, o.history.Operations, time.Minute) == porcupine.Ok
}

// schedules is how many to play, and the first seed.
func schedules(t *testing.T, otherwise int) (n int, seed uint64) {
	n, seed = otherwise, rand.Uint64()
	if v := os.Getenv("SCHEDULES"); v != "" {
		var err error
		n, err = strconv.Atoi(v)
		require.NoError(t, err, "SCHEDULES")
	}
	if v := os.Getenv("ISCSIMP_SEED"); v != "" {
		var err error
		n = 1
		seed, err = strconv.ParseUint(v, 0, 64)
		require.NoError(t, err, "ISCSIMP_SEED")
	}
	t.Logf("%d schedules from seed %d", n, seed)
	return n, seed
}

// each plays n schedules, as many at a time as there are processors.
func each(t *testing.T, n int, seed uint64, with setting, judge func(t *testing.T, seed uint64, o *outcome)) {
	t.Run("seeds", func(t *testing.T) {
		for i := range n {
			s := seed + uint64(i)
			t.Run(strconv.FormatUint(s, 10), func(t *testing.T) {
				t.Parallel()
				o := run(t, s, with)
				judge(t, s, &o)
			})
		}
	})
}

func TestFence(t *testing.T) {
	t.Run("on", func(t *testing.T) {
		n, seed := schedules(t, 40)
		var mu sync.Mutex
		operations := 0
		each(t, n, seed, setting{}, func(t *testing.T, seed uint64, o *outcome) {
			ok := assert.NoError(t, o.err) && assert.NoError(t, o.history.FirstError, "the lines were always healed in time") &&
				assert.Empty(t, o.history.Damaged) && assert.Empty(t, o.violations) && assert.True(t, o.linearizable(), "not linearizable")
			if !ok {
				t.Logf("again: ISCSIMP_SEED=%d\n%s", seed, strings.Join(o.done, "\n"))
			}
			mu.Lock()
			defer mu.Unlock()
			operations += len(o.history.Operations)
		})
		t.Logf("%d operations on blocks", operations)
		assert.Greater(t, operations, n*200, "too little was done to prove anything")
	})
	t.Run("off", func(t *testing.T) {
		n, seed := schedules(t, 0)
		var mu sync.Mutex
		found, played := 0, 0
		judge := func(_ *testing.T, _ uint64, o *outcome) {
			mu.Lock()
			defer mu.Unlock()
			played++
			if !o.linearizable() {
				found++
			}
		}
		if n > 0 {
			each(t, n, seed, setting{noFence: true}, judge)
		}
		const batch, most = 16, 320 // about one in ten finds something
		for ; n == 0 && found == 0 && played < most; seed += batch {
			each(t, batch, seed, setting{noFence: true}, judge)
		}
		t.Logf("without the fence %d of %d schedules end with older data over newer", found, played)
		assert.NotZero(t, found, "the campaign cannot fail")
	})
}
