package session

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// eager is a configuration that comes back fast.
func eager() Config {
	return Config{ReconnectMin: time.Millisecond, ReconnectMax: 10 * time.Millisecond, CmdsMax: 32}
}

func diskOf(size int64) iscsitest.Config {
	return iscsitest.Config{LUNs: []iscsitest.LUN{{Size: size}}}
}

// TestPings: both sides ask, both sides answer.
func TestPings(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		rec := &iscsitest.Recorder{}
		cfg := diskOf(1 << 20)
		cfg.Recorder = rec
		tgt := newTarget(t, at, cfg)
		l := logIn(t, at, tgt, Config{})
		require.Equal(t, 1, tgt.SendNOPIn(nil, true))
		require.Equal(t, 1, tgt.SendNOPIn(nil, false))
		time.Sleep(10*time.Second + 500*time.Millisecond)
		require.Zero(t, tgt.Sessions()[0].Pings, "answered")
		out := rec.Count(iscsitest.And(iscsitest.Dir(iscsitest.FromInitiator), iscsitest.Op(pdu.OpNOPOut)))
		require.Equal(t, 1+10, out, "one answer, and a ping in each idle second")
		require.Empty(t, l.news)
	})
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(4<<20))
		l := logIn(t, at, tgt, Config{NoopInterval: 5 * time.Millisecond})
		for range 20 {
			require.Equal(t, 1, tgt.SendNOPIn(nil, true))
		}
		ld := newLoad(l, 1, 2, 30, 64)
		ld.run(t)
		require.Eventually(t, func() bool { return tgt.Sessions()[0].Pings == 0 }, time.Minute, time.Millisecond)
	})
}

// TestPingsWithoutInterval: none are sent to an idle target then, but one that
// owes an answer is asked.
func TestPingsWithoutInterval(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		rec := &iscsitest.Recorder{}
		cfg := diskOf(1 << 20)
		cfg.Recorder = rec
		tgt := newTarget(t, at, cfg)
		l := logIn(t, at, tgt, Config{NoopInterval: -1})
		time.Sleep(time.Hour)
		pings := iscsitest.Op(pdu.OpNOPOut)
		require.Zero(t, rec.Count(pings))
		rule := inject(t, tgt, iscsitest.Reads(), iscsitest.Delay(time.Second))
		l.run(newOp(DirRead, 0, make([]byte, 512)))
		require.Equal(t, 1, rule.Hits())
		n := rec.Count(pings)
		require.GreaterOrEqual(t, n, 5, "half of SuspectAfter apart")
		require.LessOrEqual(t, n, 10)
		require.Empty(t, l.news, "slow is not silent")
	})
}

// TestLossUnderLoad: whatever way the connection ends, all commands are
// completed once, done again on the next session, and the data is right.
func TestLossUnderLoad(t *testing.T) {
	for name, tt := range map[string]struct {
		lose func(l *live)
		kind Kind
	}{
		"cut":            {func(l *live) { l.tgt.CutConnections(nil) }, KindTransport},
		"drop sessions":  {func(l *live) { l.tgt.DropSessions(nil) }, KindTransport},
		"portal down":    {func(l *live) { l.tgt.StopPortal(0); _ = l.tgt.StartPortal(0) }, KindTransport},
		"own drop":       {func(l *live) { l.do(func() { l.s.Drop(l.s.err(KindTimeout, "by hand")) }) }, KindTimeout},
		"own bare drop":  {func(l *live) { l.do(func() { l.s.Drop(nil) }) }, KindClosed},
		"session drop":   {func(l *live) { l.tgt.SendAsync(nil, pdu.Async{AsyncEvent: pdu.AsyncSessionDrop}, nil) }, KindTarget},
		"logout request": {func(l *live) { l.tgt.SendAsync(nil, pdu.Async{AsyncEvent: pdu.AsyncLogoutRequest, Param3: 3}, nil) }, KindTarget},
		"reject of data": {func(l *live) {
			bad := pdu.DataOut{ITT: 0x2000, TTT: 1}
			l.tgt.SendReject(nil, pdu.RejectProtocolError, bad.AppendTo(nil))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(t *testing.T, at place) {
				tgt := newTarget(t, at, diskOf(6<<20))
				l := logIn(t, at, tgt, eager())
				ld := newLoad(l, 5, 4, 80, 256)
				l.do(ld.start)
				for range 3 {
					tt.lose(l)
					if tt.kind == 0 {
						continue
					}
					down := l.await("down")
					assert.Equal(t, tt.kind, down.err.Kind, "%v", down.err)
					up := l.await("up")
					assert.False(t, up.up.First)
					assert.True(t, up.up.Reinstated)
				}
				ld.wait(t)
				assert.Len(t, tgt.Sessions(), 1)
			})
		})
	}
}

// TestReinstatementProof: what a login must have to be taken for the end of the
// session before it.
func TestReinstatementProof(t *testing.T) {
	redirect := []iscsitest.Portal{{}, {TPGT: 1}}
	for name, tt := range map[string]struct {
		quirks  iscsitest.Quirks
		portals []iscsitest.Portal
		proven  bool
	}{
		"honest target": {proven: true},
		"TSIH 0":        {quirks: iscsitest.Quirks{TSIHZero: true}},
		"no group tag":  {quirks: iscsitest.Quirks{NoPortalGroupTag: true}},
		"redirected":    {portals: redirect},
	} {
		t.Run(name, func(t *testing.T) {
			onDrivers(t, func(t *testing.T, at place) {
				portals := append([]iscsitest.Portal(nil), tt.portals...)
				if len(portals) > 0 {
					to := newTarget(t, at, diskOf(1<<20)) // the same name elsewhere
					portals[0].Redirect = &iscsitest.Redirect{Address: to.Addr(0) + ",1"}
				}
				tgt := newTarget(t, at, iscsitest.Config{Quirks: tt.quirks, Portals: portals})
				l := newLive(t, at, tgt, eager())
				l.do(l.s.Start)
				first := l.next("up")
				assert.True(t, first.up.First)
				assert.False(t, first.up.Reinstated)
				for range 2 {
					l.do(func() { l.s.Drop(nil) })
					l.next("down")
					up := l.next("up")
					assert.Equal(t, tt.proven, up.up.Reinstated)
					assert.False(t, up.up.First)
				}
			})
		})
	}
}

// TestHeldWriteDies: a write that the target holds back is dead once a login
// reinstated the session, and never reaches the medium.
func TestHeldWriteDies(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, eager())
		hold := iscsitest.NewHold(iscsitest.HoldHung)
		inject(t, tgt, iscsitest.And(iscsitest.Writes(), iscsitest.First(1)), iscsitest.HoldWrite(hold))
		old := newOp(DirWrite, 0, []byte{0: 1, 511: 1})
		l.submit(old)
		require.NoError(t, hold.WaitHeld(t.Context(), 1))
		tgt.CutConnections(nil)
		old.wait(t)
		require.True(t, old.Sent(), "its outcome is unknown")
		require.False(t, SafeToRetry(old.Err))
		require.True(t, l.await("up").up.Reinstated)
		l.run(newOp(DirWrite, 0, []byte{0: 2, 511: 2}))
		hold.Release()
		back := newOp(DirRead, 0, make([]byte, 512))
		l.run(back)
		require.Equal(t, byte(2), back.Data[0])
	})
}

// TestSilence: a target that says nothing at all any more is suspected within
// 300 ms and given up within 3 s, whatever it was doing.
func TestSilence(t *testing.T) {
	for name, prepare := range map[string]func(l *live) []*op{
		"a read": func(l *live) []*op {
			o := newOp(DirRead, 0, make([]byte, 4096))
			l.submit(o)
			return []*op{o}
		},
		"a long write": func(l *live) []*op {
			o := newOp(DirWrite, 0, make([]byte, 1<<20))
			l.submit(o)
			return []*op{o}
		},
		"many": func(l *live) (ops []*op) {
			for i := range 32 {
				ops = append(ops, newOp(DirRead, uint64(i), make([]byte, 512)))
			}
			l.submit(ops...)
			return ops
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, at place) {
				tgt := newTarget(t, at, diskOf(4<<20))
				l := logIn(t, at, tgt, Config{})
				time.Sleep(1234 * time.Millisecond)
				rule := inject(t, tgt, iscsitest.Any(), iscsitest.Drop())
				start := time.Now()
				ops := prepare(l)
				silent := l.next("silent")
				assert.LessOrEqual(t, silent.at.Sub(start), 300*time.Millisecond)
				assert.GreaterOrEqual(t, silent.at.Sub(start), 200*time.Millisecond)
				down := l.next("down")
				assert.LessOrEqual(t, down.at.Sub(start), 3*time.Second)
				assert.Equal(t, KindTimeout, down.err.Kind)
				for _, o := range ops {
					o.wait(t)
					assert.EqualValues(t, 1, o.times.Load())
					assert.Equal(t, KindTimeout, o.Err.Kind)
					assert.True(t, o.Sent())
				}
				rule.Remove()
				require.True(t, l.next("up").up.Reinstated)
				l.run(newOp(DirRead, 0, make([]byte, 512)))
			})
		})
	}
}

// TestIdleSilence: an idle target that is gone is found out by pings alone.
func TestIdleSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{})
		inject(t, tgt, iscsitest.Any(), iscsitest.Drop())
		start := time.Now()
		silent := l.next("silent")
		assert.LessOrEqual(t, silent.at.Sub(start), 1300*time.Millisecond, "an interval more")
		down := l.next("down")
		assert.LessOrEqual(t, down.at.Sub(start), 4*time.Second)
	})
}

// TestShortSilence: a target that pauses is suspected, and trusted again with
// the first byte.
func TestShortSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{})
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		inject(t, tgt, iscsitest.Op(pdu.OpSCSICommand, pdu.OpNOPOut), iscsitest.Hang(hold))
		o := newOp(DirRead, 0, make([]byte, 512))
		l.submit(o)
		l.next("silent")
		time.Sleep(time.Second)
		hold.Release()
		l.next("alive")
		o.wait(t)
		require.Nil(t, o.Err)
		time.Sleep(10 * time.Second)
		require.Empty(t, l.news)
	})
}

// TestRejectedCommand: it fails alone.
func TestRejectedCommand(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{})
		inject(t, tgt, iscsitest.And(iscsitest.Reads(), iscsitest.OnIndex(1)), iscsitest.RejectPDU(pdu.RejectInvalidField))
		ops := []*op{newOp(DirRead, 0, make([]byte, 512)), newOp(DirRead, 1, make([]byte, 512)), newOp(DirRead, 2, make([]byte, 512))}
		l.submit(ops...)
		for _, o := range ops {
			o.wait(t)
		}
		require.Nil(t, ops[0].Err)
		require.NotNil(t, ops[1].Err)
		assert.Equal(t, KindTarget, ops[1].Err.Kind)
		assert.True(t, ops[1].Sent())
		assert.Contains(t, ops[1].Err.Error(), "rejected")
		require.Nil(t, ops[2].Err)
		require.Empty(t, l.news)
	})
}

// TestCloseInFlight: commands that the target holds are given up by Close, each
// completed once and before SessionClosed.
func TestCloseInFlight(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{})
		hold := iscsitest.NewHold(iscsitest.HoldStrict)
		inject(t, tgt, iscsitest.Op(pdu.OpSCSICommand), iscsitest.Hang(hold))
		var ops []*op
		for i := range 16 {
			ops = append(ops, newOp(Direction(1+i%2), uint64(i), make([]byte, 512)))
		}
		l.submit(ops...)
		require.NoError(t, hold.WaitHeld(t.Context(), 16))
		l.do(l.s.Close)
		l.do(func() { require.Zero(t, l.s.Room()) })
		l.next("closed")
		for _, o := range ops {
			require.EqualValues(t, 1, o.times.Load())
			require.Equal(t, KindClosed, o.Err.Kind)
			require.True(t, o.Sent())
		}
		require.Empty(t, tgt.Sessions())
	})
}

// TestCloseSilent: a target that does not answer the logout is waited for no
// longer than LogoutTimeout.
func TestCloseSilent(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(1<<20))
		l := logIn(t, at, tgt, Config{LogoutTimeout: 3 * time.Second})
		inject(t, tgt, iscsitest.Any(), iscsitest.Drop())
		o := newOp(DirWrite, 0, make([]byte, 512))
		l.submit(o)
		start := time.Now()
		l.do(l.s.Close)
		l.do(l.s.Close)
		require.Equal(t, 3*time.Second, l.next("closed").at.Sub(start))
		require.EqualValues(t, 1, o.times.Load())
	})
}

// TestDetachUnderLoad: reads are taken back at any moment, also in the middle of
// their data, and their buffers given to somebody else at once, who writes to
// them from another goroutine and must find nothing but that.
func TestDetachUnderLoad(t *testing.T) {
	onDrivers(t, func(t *testing.T, at place) {
		tgt := newTarget(t, at, diskOf(16<<20))
		l := logIn(t, at, tgt, Config{MaxRecvDataSegmentLength: 16 << 10, CmdsMax: 64})
		ld := newLoad(l, 9, 4, 100, 256)
		l.do(ld.start)
		rng := rand.New(rand.NewPCG(4, 4))
		junk := bytes.Repeat([]byte{0xEE}, 1<<20)
		detached, answered := 0, 0
		for range 40 {
			var ops []*op
			for range 4 {
				ops = append(ops, newOp(DirRead, uint64(20000+rng.IntN(1000)), make([]byte, 512*(1+rng.IntN(2048)))))
			}
			for _, o := range ops {
				l.do(func() { l.s.Submit(&o.Command) })
			}
			for _, o := range ops {
				pause := rng.IntN(4)
				for range pause {
					l.do(func() {})
				}
				var mine bool
				l.do(func() { mine = l.s.Detach(&o.Command) })
				if !mine {
					if o.slot != 0 || o.times.Load() != 1 {
						continue // there was no room for it
					}
					answered++
					continue
				}
				detached++
				mark := junk[:len(o.Data)]
				copy(o.Data, mark)
				l.do(func() {})
				l.do(func() {})
				if !bytes.Equal(mark, o.Data) {
					t.Fatal("the buffer was touched after Detach")
				}
				require.Zero(t, o.times.Load(), "a detached command is never completed")
			}
		}
		ld.wait(t)
		require.Positive(t, detached)
		t.Logf("%d detached, %d answered before", detached, answered)
	})
}
