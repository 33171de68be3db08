package mpio_test

import (
	"bytes"
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// wire is a device over real sessions to a target in this process, in virtual time.
type wire struct {
	t   *testing.T
	l   loop.Loop
	d   *mpio.Device
	tgt *iscsitest.Target
	// impostor is what answers at the address of portal 1 instead, if it is set.
	impostor atomic.Pointer[iscsitest.Target]
}

// newWire makes a device with a path to each of n portals and waits until all are up.
func newWire(t *testing.T, n int, quirks iscsitest.Quirks, change func(*mpio.Config)) *wire {
	w := newWireTo(t, n, iscsitest.Config{Quirks: quirks}, change)
	w.until(func(s mpio.Snapshot) bool { return s.PathsUp == n })
	return w
}

// newWireTo makes a device with a path to each of n portals of a target, and
// waits for nothing.
func newWireTo(t *testing.T, n int, target iscsitest.Config, change func(*mpio.Config)) *wire {
	target.Portals = make([]iscsitest.Portal, n)
	for i := range target.Portals {
		target.Portals[i].Addr = "-" // no listener: a real socket would stop virtual time
	}
	tgt, err := iscsitest.NewTarget(target)
	require.NoError(t, err)
	return startHost(t, tgt, "host", change)
}

// newHost makes a device of one host with a path to each portal of a target, and
// waits until all are up.
func newHost(t *testing.T, tgt *iscsitest.Target, host string, change func(*mpio.Config)) *wire {
	t.Helper()
	w := startHost(t, tgt, host, change)
	w.until(func(s mpio.Snapshot) bool { return s.PathsUp == len(tgt.Addrs()) })
	return w
}

// startHost is newHost that waits for nothing.
func startHost(t *testing.T, tgt *iscsitest.Target, host string, change func(*mpio.Config)) *wire {
	t.Helper()
	n := len(tgt.Addrs())
	w := &wire{t: t, l: loop.NewPortable(), tgt: tgt}
	cfg := mpio.Config{Target: tgt.Name()}
	var err error
	cfg.NewSession = func(pc mpio.PathConfig, obs session.Observer) (mpio.Session, error) {
		drv := session.NewDriver(w.l, func(_ context.Context, _, address string) (net.Conn, error) {
			portal, err := strconv.Atoi(address)
			require.NoError(t, err)
			if other := w.impostor.Load(); other != nil && portal == 1 {
				return other.Dial(0)
			}
			return tgt.Dial(portal)
		})
		s, err := session.New(session.Config{
			InitiatorName: "iqn.2026-01.test.iscsimp:" + host, TargetName: pc.Target,
			Portal: pc.Portal, TPGT: pc.TPGT, ISID: pc.ISID,
		}, drv, obs)
		if err == nil {
			drv.Bind(s)
		}
		return s, err
	}
	if change != nil {
		change(&cfg)
	}
	w.on(func() {
		w.d, err = mpio.New(cfg, w.l)
		require.NoError(t, err)
		for i := range n {
			require.NoError(t, w.d.AddPath(mpio.PathConfig{
				ID: string(rune('a' + i)), Portal: strconv.Itoa(i), TPGT: -1, ISID: session.DeriveISID(host, strconv.Itoa(i)),
			}))
		}
		w.d.Relate("0", "1", "2", "3")
		w.d.Start()
	})
	return w
}

func (w *wire) close() {
	assert.NoError(w.t, w.leave())
	w.tgt.Close()
	assert.Empty(w.t, w.tgt.Violations())
}

// leave closes the device and leaves the target alone.
func (w *wire) leave() error {
	closed := make(chan error, 1)
	w.on(func() { w.d.Close(false, func(err error) { closed <- err }) })
	err := <-closed
	w.l.Close()
	return err
}

// on runs fn on the loop and waits for it.
func (w *wire) on(fn func()) {
	done := make(chan struct{})
	require.True(w.t, w.l.Post(func() { defer close(done); fn() }))
	<-done
}

func (w *wire) snapshot() (s mpio.Snapshot) {
	w.on(func() { s = w.d.Snapshot() })
	return s
}

// until lets time pass until the snapshot is as wanted, and says how much.
func (w *wire) until(ok func(mpio.Snapshot) bool) time.Duration {
	w.t.Helper()
	start := time.Now()
	for !ok(w.snapshot()) {
		require.Less(w.t, time.Since(start), 5*time.Minute, "%+v", w.snapshot())
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

type reply chan error

func (c reply) RequestDone(r *block.Request) { c <- r.Err }

// submit starts a request of one block.
func (w *wire) submit(op block.Op, lba int, data []byte) reply {
	c := make(reply, 1)
	w.on(func() {
		w.d.Submit(&block.Request{Op: op, Offset: uint64(lba) * 512, Length: uint64(len(data)), Data: data, Owner: c})
	})
	return c
}

// onlyA sends everything over path a as long as it is up.
func (w *wire) onlyA() {
	w.on(func() {
		require.NoError(w.t, w.d.SetPath("b", mpio.PathOp{Kind: mpio.OpPriority, Value: 2}))
	})
}

// TestStaleWriteOnTheWire: the target hangs with a write, the path dies, the
// write is re-sent over another path and answered, a newer write to the block is
// issued, and then the target wakes up and executes what it held.
func TestStaleWriteOnTheWire(t *testing.T) {
	for name, c := range map[string]struct {
		quirks iscsitest.Quirks
		unsafe bool
		stale  bool // the older data must be seen in the end
	}{
		"reinstatement settles":      {},
		"time settles":               {quirks: iscsitest.Quirks{TSIHZero: true, NoReinstatement: true}},
		"without the fence it fails": {quirks: iscsitest.Quirks{TSIHZero: true, NoReinstatement: true}, unsafe: true, stale: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire(t, 2, c.quirks, func(cfg *mpio.Config) { cfg.UnsafeNoFence = c.unsafe })
				defer w.close()
				w.onlyA()
				hold := iscsitest.NewHold(iscsitest.HoldHung)
				w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Writes(), iscsitest.First(1)), iscsitest.HoldWrite(hold))

				older := w.submit(block.OpWrite, 7, bytes.Repeat([]byte{1}, 512))
				require.NoError(t, hold.WaitHeld(t.Context(), 1))
				w.tgt.CutConnections(iscsitest.ByPortal(0))
				require.NoError(t, <-older, "answered over the other path")
				newer := w.submit(block.OpWrite, 7, bytes.Repeat([]byte{2}, 512))
				time.Sleep(50 * time.Second)
				hold.Release()
				require.NoError(t, <-newer)
				time.Sleep(20 * time.Second)

				got := make([]byte, 512)
				require.NoError(t, <-w.submit(block.OpRead, 7, got))
				want := byte(2)
				if c.stale {
					want = 1
				}
				assert.Equal(t, want, got[0])
				assert.Zero(t, w.snapshot().FencedCount)
			})
		})
	}
}

// TestSilenceOnTheWire: a portal stops answering without closing anything.
func TestSilenceOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2, iscsitest.Quirks{}, nil)
		defer w.close()
		w.onlyA()
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Dir(iscsitest.FromInitiator)), iscsitest.Drop())
		start := time.Now()
		read, write := w.submit(block.OpRead, 1, make([]byte, 512)), w.submit(block.OpWrite, 2, make([]byte, 512))
		require.NoError(t, <-read)
		assert.Less(t, time.Since(start), 300*time.Millisecond, "reads leave a silent path")
		require.NoError(t, <-write)
		assert.Less(t, time.Since(start), 500*time.Millisecond, "writes whose data has left do, too")
		w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 1 })
		assert.Less(t, time.Since(start), 3*time.Second, "and it is declared down")
	})
}

func TestUnitAttentionOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2, iscsitest.Quirks{}, nil)
		defer w.close()
		require.NoError(t, w.tgt.UnitAttention(0, scsi.ASCReportedLUNsChanged))
		require.NoError(t, <-w.submit(block.OpRead, 1, make([]byte, 512)))
		w.until(func(s mpio.Snapshot) bool { return s.PathsUp == 2 })
	})
}

// TestHungWriteIsAbortedOnTheWire: the target hangs with a write on a path that is
// alive; the write is aborted, sent again elsewhere without a ghost, and does not
// happen late.
func TestHungWriteIsAbortedOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t, 2, iscsitest.Quirks{}, nil)
		defer w.close()
		w.onlyA()
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		w.tgt.Inject(iscsitest.And(iscsitest.OnPortal(0), iscsitest.Writes()), iscsitest.HoldWrite(hold))
		start := time.Now()
		older := w.submit(block.OpWrite, 7, bytes.Repeat([]byte{1}, 512))
		require.NoError(t, <-older)
		assert.InDelta(t, 30, time.Since(start).Seconds(), 1)
		s := w.snapshot()
		assert.Equal(t, uint64(1), s.Paths[0].Aborts)
		assert.Zero(t, s.Paths[0].Losses, "the session lives on")
		assert.Zero(t, s.FencesRaised)
		hold.Release()
		require.NoError(t, <-w.submit(block.OpWrite, 7, bytes.Repeat([]byte{2}, 512)))
		time.Sleep(time.Minute)
		got := make([]byte, 512)
		require.NoError(t, <-w.submit(block.OpRead, 7, got))
		assert.Equal(t, byte(2), got[0])
	})
}
