package session

import (
	"cmp"
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/scsi"
)

const hostName = "iqn.2026-01.test:host"

// place is where a session meets its target.
type place struct {
	newLoop func(t *testing.T) loop.Loop
	pipe    bool // over net.Pipe instead of TCP
	raw     bool // on raw sockets
}

func newPortable(*testing.T) loop.Loop { return loop.NewPortable() }

func newReactor(t *testing.T) loop.Loop {
	l, err := loop.NewReactor()
	require.NoError(t, err)
	return l
}

// onDrivers runs fn on both drivers over TCP, in real time.
func onDrivers(t *testing.T, fn func(t *testing.T, at place)) {
	drivers := map[string]func(*testing.T) loop.Loop{"portable": newPortable}
	if runtime.GOOS == "linux" {
		drivers["reactor"] = newReactor
	}
	for name, newLoop := range drivers {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			fn(t, place{newLoop: newLoop, raw: name == "reactor"})
		})
	}
}

// inBubble runs fn on the portable driver over net.Pipe, in virtual time.
func inBubble(t *testing.T, fn func(t *testing.T, at place)) {
	t.Run("virtual", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { fn(t, place{newLoop: newPortable, pipe: true}) })
	})
}

func everywhere(t *testing.T, fn func(t *testing.T, at place)) {
	onDrivers(t, fn)
	inBubble(t, fn)
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// news is one call of the observer.
type news struct {
	kind    string
	at      time.Time
	up      Up
	err     *Error
	retryAt int64
}

// live is a session on a loop, with a target that keeps a list of the rules it breaks.
type live struct {
	Uninterested
	t        *testing.T
	tgt      *iscsitest.Target
	loop     loop.Loop
	driver   *Driver
	s        *Session
	news     chan news
	onUp     func() // on the loop
	onChange func() // on the loop

	mu    sync.Mutex
	conns []net.Conn // as dialed
}

func (l *live) tell(n news) {
	n.at = time.Now()
	select {
	case l.news <- n:
	default:
		l.t.Error("the observer is called without end")
	}
}

func (l *live) SessionUp(_ *Session, up Up) {
	l.tell(news{kind: "up", up: up})
	if l.onUp != nil {
		l.onUp()
	}
}

func (l *live) SessionDown(_ *Session, err *Error, retryAt int64) {
	l.tell(news{kind: "down", err: err, retryAt: retryAt})
}
func (l *live) SessionSilent(*Session) { l.tell(news{kind: "silent"}) }
func (l *live) SessionAlive(*Session)  { l.tell(news{kind: "alive"}) }
func (l *live) SessionChanged(*Session) {
	if l.onChange != nil {
		l.onChange()
	}
}
func (l *live) SessionClosed(*Session) { l.tell(news{kind: "closed"}) }

// newTarget makes a target that lives as long as the test.
func newTarget(t *testing.T, at place, cfg iscsitest.Config) *iscsitest.Target {
	if at.pipe {
		if cfg.Portals == nil {
			cfg.Portals = []iscsitest.Portal{{}}
		}
		for i := range cfg.Portals {
			cfg.Portals[i].Addr = "-"
		}
	}
	tgt, err := iscsitest.NewTarget(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		tgt.Close()
		for _, v := range tgt.Violations() {
			t.Errorf("violation: %v", v)
		}
	})
	return tgt
}

// newLive makes a session with tgt, not started yet, that ends with the test.
func newLive(t *testing.T, at place, tgt *iscsitest.Target, cfg Config) *live {
	l := &live{t: t, tgt: tgt, loop: at.newLoop(t), news: make(chan news, 4096)}
	var dial DialFunc
	if at.pipe {
		time.Sleep(1) // loop time 0 means "never"
		dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return tgt.DialContext(ctx, network, addr)
		}
	}
	l.driver = NewDriver(l.loop, dial)
	cfg.InitiatorName, cfg.TPGT = hostName, -1
	if cfg.Portal == "" {
		cfg.Portal = tgt.Addr(0)
	}
	if !cfg.Discovery {
		cfg.TargetName = tgt.Name()
	}
	if cfg.ISID == [6]byte{} {
		cfg.ISID = DeriveISID(t.Name())
	}
	if !at.pipe { // a busy machine can keep a target in it from answering for long
		cfg.NoopTimeout = cmp.Or(cfg.NoopTimeout, patience)
		cfg.LoginTimeout = cmp.Or(cfg.LoginTimeout, patience)
		cfg.SuspectAfter = cmp.Or(cfg.SuspectAfter, patience)
	}
	s, err := New(cfg, l.driver, l)
	require.NoError(t, err)
	l.s = s
	l.driver.Bind(s)
	t.Cleanup(l.stop)
	return l
}

// logIn starts the session and waits until it is up.
func logIn(t *testing.T, at place, tgt *iscsitest.Target, cfg Config) *live {
	l := newLive(t, at, tgt, cfg)
	l.do(l.s.Start)
	l.await("up")
	return l
}

// do runs fn on the loop and waits for its end.
func (l *live) do(fn func()) {
	done := make(chan struct{})
	require.True(l.t, l.loop.Post(func() { fn(); close(done) }))
	<-done
}

// await waits for a call of the observer; what comes before it is passed over.
func (l *live) await(kind string) news {
	l.t.Helper()
	return l.next(kind, "up", "down", "silent", "alive", "closed")
}

// next waits for a call of the observer of which only some others may come first.
func (l *live) next(kind string, before ...string) news {
	l.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case n := <-l.news:
			if n.kind == kind {
				return n
			}
			require.Contains(l.t, before, n.kind, "while waiting for %s: %v", kind, n.err)
		case <-timeout:
			l.t.Fatalf("no call %q came", kind)
		}
	}
}

// close ends the session in good order and returns when the observer knows.
func (l *live) close() {
	l.do(l.s.Close)
	l.await("closed")
}

func (l *live) stop() {
	closed := make(chan bool, 1)
	l.loop.Post(func() {
		closed <- l.s.State() == StateClosed
		l.s.Close()
	})
	if !<-closed {
		l.await("closed")
	}
	l.loop.Close()
	select {
	case n := <-l.news:
		l.t.Errorf("the observer is called after the end: %v", n)
	default:
	}
}

// op is a command that can be waited for.
type op struct {
	Command
	done  chan struct{}
	times atomic.Int32
}

func newOp(dir Direction, lba uint64, data []byte) *op {
	o := &op{done: make(chan struct{})}
	o.Owner, o.Dir, o.Data = o, dir, data
	blocks := uint32(len(data) / 512)
	switch dir {
	case DirRead:
		o.CDB = scsi.Read16(lba, blocks, 0)
	case DirWrite:
		o.CDB = scsi.Write16(lba, blocks, 0)
	}
	return o
}

func (o *op) CommandDone(*Command) {
	if o.times.Add(1) == 1 {
		close(o.done)
	}
}

func (o *op) wait(t *testing.T) {
	t.Helper()
	select {
	case <-o.done:
	case <-time.After(patience):
		t.Fatal("a command was never completed")
	}
}

// submit hands commands to the session, which must have room for them.
func (l *live) submit(ops ...*op) {
	l.t.Helper()
	var taken int
	l.do(func() {
		for _, o := range ops {
			if l.s.Submit(&o.Command) {
				taken++
			}
		}
	})
	require.Equal(l.t, len(ops), taken, "no room")
}

// run submits one command and waits until the target has answered it well.
func (l *live) run(o *op) {
	l.t.Helper()
	l.submit(o)
	o.wait(l.t)
	if o.Err != nil {
		require.NoError(l.t, o.Err)
	}
	require.Equal(l.t, scsi.Good, o.Status)
}

// content reads the whole medium of the target behind the initiator's back.
func content(t *testing.T, tgt *iscsitest.Target) []byte {
	m := tgt.Medium(0)
	b := make([]byte, m.Size())
	_, err := m.ReadAt(b, 0)
	require.NoError(t, err)
	return b
}

// inject adds a rule that ends with the test.
func inject(t *testing.T, tgt *iscsitest.Target, when iscsitest.Predicate, actions ...iscsitest.Action) *iscsitest.Injection {
	i := tgt.Inject(when, actions...)
	t.Cleanup(i.Remove)
	return i
}
