package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
)

// twoPortals makes a target with portals 0 and 1, in groups 1 and tpgt.
func twoPortals(t *testing.T, at place, tpgt uint16, quirks iscsitest.Quirks) *iscsitest.Target {
	cfg := diskOf(1 << 20)
	cfg.Portals = []iscsitest.Portal{{}, {TPGT: tpgt}}
	cfg.Quirks = quirks
	return newTarget(t, at, cfg)
}

// heldWrite has a write of block 0 that hangs in the target, whose portal 0 dies.
func heldWrite(t *testing.T, l *live) *iscsitest.Hold {
	hold := iscsitest.NewHold(iscsitest.HoldHung)
	t.Cleanup(hold.Release) // before the target is closed
	inject(t, l.tgt, iscsitest.And(iscsitest.Writes(), iscsitest.First(1)), iscsitest.HoldWrite(hold))
	o := newOp(DirWrite, 0, []byte{0: 1, 511: 1})
	l.submit(o)
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	l.tgt.StopPortal(0)
	o.wait(t)
	require.True(t, o.Sent())
	l.await("down")
	return hold
}

func (l *live) detour(tpgt int) (began bool) {
	l.do(func() { began = l.s.Detour(l.tgt.Addr(1), tpgt) })
	return began
}

// TestDetourEndsTheOldSession: a login through another portal of the group ends
// what was lost with the first, and the session goes back to its own portal.
func TestDetourEndsTheOldSession(t *testing.T) {
	for _, connections := range []int{1, 2} {
		onDrivers(t, func(t *testing.T, at place) {
			tgt := twoPortals(t, at, 1, iscsitest.Quirks{})
			cfg := eager()
			cfg.Connections = connections
			l := logIn(t, at, tgt, cfg)
			require.False(t, l.detour(1), "not while logged in")
			hold := heldWrite(t, l)
			require.True(t, l.detour(1))
			up := l.await("up").up
			assert.True(t, up.Reinstated)
			assert.True(t, up.Conclusive)
			assert.Equal(t, tgt.Addr(1), up.Via)
			hold.Release()
			back := newOp(DirRead, 0, make([]byte, 512))
			l.run(back)
			assert.Zero(t, back.Data[0], "the held write is dead")

			l.do(l.s.Leave)
			down := l.next("down")
			assert.Equal(t, KindClosed, down.err.Kind)
			assert.Contains(t, down.err.Error(), tgt.Addr(1))
			require.NoError(t, tgt.StartPortal(0))
			up = l.await("up").up
			assert.Empty(t, up.Via)
			assert.True(t, up.Reinstated)
			require.Len(t, tgt.Sessions(), 1)
			l.run(newOp(DirRead, 0, make([]byte, 512)))
		})
	}
}

// TestDetourProvesNothing: what must not be taken for the end of the old session.
func TestDetourProvesNothing(t *testing.T) {
	for name, tt := range map[string]struct {
		tpgt   uint16
		quirks iscsitest.Quirks
		refuse bool // no login at all
	}{
		"another group": {tpgt: 2, refuse: true},
		"TSIH 0":        {tpgt: 1, quirks: iscsitest.Quirks{TSIHZero: true}},
		"no group tag":  {tpgt: 1, quirks: iscsitest.Quirks{NoPortalGroupTag: true}},
	} {
		t.Run(name, func(t *testing.T) {
			onDrivers(t, func(t *testing.T, at place) {
				tgt := twoPortals(t, at, tt.tpgt, tt.quirks)
				l := logIn(t, at, tgt, eager())
				heldWrite(t, l)
				require.True(t, l.detour(1))
				if tt.refuse {
					down := l.next("down", "down")
					for range 9 {
						if down.err.Portal == tgt.Addr(1) {
							break
						}
						down = l.next("down")
					}
					assert.Equal(t, KindProtocol, down.err.Kind, "%v", down.err)
					assert.Len(t, tgt.Sessions(), 0)
					require.NoError(t, tgt.StartPortal(0))
					assert.Empty(t, l.await("up").up.Via)
					return
				}
				up := l.await("up").up
				assert.False(t, up.Reinstated)
				assert.False(t, up.Conclusive)
				assert.NotEmpty(t, up.Via)
			})
		})
	}
}

// TestDetourDuringLogin: a login to the own portal that hangs gives way, and is
// not taken up again when its portal wakes up.
func TestDetourDuringLogin(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := twoPortals(t, at, 1, iscsitest.Quirks{})
		l := logIn(t, at, tgt, eager())
		silent := inject(t, tgt, iscsitest.And(iscsitest.OnPortal(0), iscsitest.Dir(iscsitest.FromInitiator)), iscsitest.Drop())
		l.do(func() { l.s.Drop(nil) })
		l.await("down")
		time.Sleep(time.Second)
		l.do(func() { require.Equal(t, StateLogin, l.s.State()) })
		require.True(t, l.detour(1))
		require.True(t, l.next("up").up.Reinstated)
		silent.Remove()
		time.Sleep(time.Second)
		l.do(func() { require.Equal(t, StateLoggedIn, l.s.State()) })
		l.do(l.s.Leave)
		l.next("down")
		require.Empty(t, l.next("up").up.Via)
	})
}

// TestDetourThatHangs is bounded, and the own portal is dialed afterwards.
func TestDetourThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, at place) {
		tgt := twoPortals(t, at, 1, iscsitest.Quirks{})
		l := logIn(t, at, tgt, eager())
		inject(t, tgt, iscsitest.And(iscsitest.OnPortal(1), iscsitest.Dir(iscsitest.FromInitiator)), iscsitest.Drop())
		l.do(func() {
			l.s.Drop(nil)
		})
		l.await("down")
		start := time.Now()
		require.True(t, l.detour(1))
		down := l.next("down")
		assert.Equal(t, KindTimeout, down.err.Kind)
		assert.InDelta(t, detourTimeout.Seconds(), time.Since(start).Seconds(), 0.1)
		require.Empty(t, l.next("up").up.Via)
		assert.Less(t, time.Since(start), detourTimeout+time.Second)
		l.do(func() { l.s.Close() })
		l.await("closed")
		require.False(t, l.detour(1), "not after the end")
	})
}
