package initiator_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestReadAtTakesAnyRange(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		for _, blockSize := range []uint32{512, 4096} {
			const size = 1 << 20
			tgt := target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: size, BlockSize: blockSize}}})
			content := make([]byte, size)
			_, _ = rand.Read(content)
			_, err := tgt.Medium(0).WriteAt(content, 0)
			require.NoError(t, err)
			cfg := config(tgt)
			cfg.Portable = portable
			dev := open(t, cfg)
			require.Equal(t, blockSize, dev.BlockSize())
			require.Equal(t, uint64(size), dev.Size())
			rnd := mathrand.New(mathrand.NewPCG(1, uint64(blockSize)))
			for range 200 {
				off := rnd.Int64N(size)
				p := make([]byte, 1+rnd.Int64N(min(size-off, 3*int64(blockSize))))
				n, err := dev.ReadAt(p, off)
				require.NoError(t, err)
				require.Equal(t, len(p), n)
				require.True(t, bytes.Equal(content[off:off+int64(n)], p), "%d bytes at %d", n, off)
			}
			whole := make([]byte, size)
			n, err := dev.ReadAt(whole, 0)
			require.NoError(t, err)
			require.Equal(t, size, n)
			require.True(t, bytes.Equal(content, whole))
		}
	})
}

func TestReadAtTheEnd(t *testing.T) {
	leak.Check(t)
	const size = 1 << 20
	dev := open(t, config(target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: size}}})))
	p := make([]byte, 1024)
	n, err := dev.ReadAt(p, size-700)
	assert.Equal(t, 700, n)
	assert.Equal(t, io.EOF, err)
	n, err = dev.ReadAt(p, size)
	assert.Zero(t, n)
	assert.Equal(t, io.EOF, err)
	n, err = dev.ReadAt(nil, size)
	assert.Zero(t, n)
	assert.NoError(t, err)
	_, err = dev.ReadAt(p, -1)
	assert.ErrorIs(t, err, initiator.ErrRange)
}

// What could not be read does not count as read: io.ReadFull, for one, ignores the
// error of a read that claims to have filled the buffer.
func TestReadAtThatFailsClaimsNothing(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: 1 << 20}}})
	dev := open(t, config(tgt))
	tgt.Inject(iscsitest.SCSI(scsi.OpRead10, scsi.OpRead16), iscsitest.FailSense(scsi.KeyMediumError, scsi.ASCUnrecoveredReadError))
	for name, c := range map[string]struct {
		length int
		off    int64
	}{"whole blocks": {4096, 0}, "part of a block": {100, 10}, "both": {4096, 100}, "to the end": {4096, 1<<20 - 1024}} {
		n, err := dev.ReadAt(make([]byte, c.length), c.off)
		assert.ErrorIs(t, err, initiator.ErrIO, name)
		assert.Zero(t, n, name)
	}
	_, err := io.ReadFull(io.NewSectionReader(dev, 0, 1<<20), make([]byte, 4096))
	require.ErrorIs(t, err, initiator.ErrIO)
}

func TestWriteAtFlushAndFriends(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		memory := iscsitest.NewMemory(1 << 20)
		tgt := target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Medium: memory, BlockSize: 4096}}})
		cfg := config(tgt)
		cfg.Portable = portable
		dev := open(t, cfg)
		data := bytes.Repeat([]byte{0xa5}, 8192)
		n, err := dev.WriteAt(data, 4096)
		require.NoError(t, err)
		assert.Equal(t, len(data), n)
		before := memory.Syncs()
		require.NoError(t, dev.Flush(t.Context()))
		assert.Greater(t, memory.Syncs(), before)
		got := make([]byte, 16384)
		_, err = memory.ReadAt(got, 0)
		require.NoError(t, err)
		want := append(append(make([]byte, 4096), data...), make([]byte, 4096)...)
		assert.True(t, bytes.Equal(want, got))

		require.NoError(t, dev.WriteZeroes(t.Context(), 4096, 4096))
		require.NoError(t, dev.Discard(t.Context(), 8192, 4096))
		_, err = dev.ReadAt(got, 0)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(make([]byte, 8192), got[:8192]))
	})
}

func TestWritesThatAreRefused(t *testing.T) {
	leak.Check(t)
	const size = 1 << 20
	dev := open(t, config(target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{Size: size, BlockSize: 4096}}})))
	block := make([]byte, 4096)
	for name, c := range map[string]struct {
		p   []byte
		off int64
		is  error
	}{
		"length": {block[:512], 0, initiator.ErrAlign},
		"offset": {block, 512, initiator.ErrAlign},
		"end":    {block, size, initiator.ErrRange},
		"before": {block, -4096, initiator.ErrRange},
	} {
		n, err := dev.WriteAt(c.p, c.off)
		assert.ErrorIs(t, err, c.is, name)
		assert.Zero(t, n)
	}
	_, err := dev.WriteAt(block[:512], 0)
	assert.Contains(t, err.Error(), "4096", "it must say what would do")
	assert.ErrorIs(t, dev.Discard(t.Context(), 1, 4096), initiator.ErrAlign)
	assert.ErrorIs(t, dev.WriteZeroes(t.Context(), 0, 2*size), initiator.ErrRange)
	n, err := dev.WriteAt(nil, 0)
	assert.Zero(t, n)
	assert.NoError(t, err)
}

func TestReadOnly(t *testing.T) {
	for name, c := range map[string]struct{ lun, asked bool }{"the LUN is": {true, false}, "asked for": {false, true}} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			cfg := config(target(t, iscsitest.Config{LUNs: []iscsitest.LUN{{ReadOnly: c.lun}}}))
			cfg.ReadOnly = c.asked
			dev := open(t, cfg)
			assert.True(t, dev.Geometry().ReadOnly)
			_, err := dev.WriteAt(make([]byte, 512), 0)
			assert.ErrorIs(t, err, initiator.ErrReadOnly)
			_, err = dev.ReadAt(make([]byte, 512), 0)
			assert.NoError(t, err)
			assert.NoError(t, dev.Close(t.Context()))
		})
	}
}

// chain submits its next request from the completion of the one before.
type chain struct {
	dev  *initiator.Device
	left int
	end  chan error
}

func (c *chain) RequestDone(r *initiator.Request) {
	if c.left--; r.Err != nil || c.left == 0 {
		c.end <- r.Err
		return
	}
	r.Offset = (r.Offset + 4096) % (1 << 20)
	c.dev.Submit(r)
}

func TestSubmitFromManyGoroutinesAndFromCompletions(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(2), LUNs: []iscsitest.LUN{{Size: 1 << 20}}})
		cfg := config(tgt)
		cfg.Portable = portable
		dev := open(t, cfg)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				c := &chain{dev: dev, left: 50, end: make(chan error, 1)}
				dev.Submit(&initiator.Request{Op: initiator.OpRead, Length: 4096, Data: make([]byte, 4096), Owner: c})
				assert.NoError(t, <-c.end)
			})
		}
		wg.Wait()
	})
}

func TestSurvivesLostPaths(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{Portals: portals(3)})
		cfg := config(tgt)
		cfg.Wait, cfg.Portable = initiator.WaitAll, portable
		dev := open(t, cfg)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for w := range 4 {
			wg.Go(func() {
				block := bytes.Repeat([]byte{byte(w + 1)}, 4096)
				got := make([]byte, 4096)
				for off := int64(w) * 4096; ; off = (off + 4*4096) % (1 << 20) {
					select {
					case <-stop:
						return
					default:
					}
					_, err := dev.WriteAt(block, off)
					if !assert.NoError(t, err) {
						return
					}
					_, err = dev.ReadAt(got, off)
					if !assert.NoError(t, err) || !assert.True(t, bytes.Equal(block, got), "at %d", off) {
						return
					}
				}
			})
		}
		for i := range 3 {
			tgt.StopPortal(i)
			snapshotUntil(t, dev, "a path down", func(s initiator.Snapshot) bool { return s.PathsUp < 3 })
			require.NoError(t, tgt.StartPortal(i))
			snapshotUntil(t, dev, "all back", func(s initiator.Snapshot) bool { return s.PathsUp == 3 })
		}
		close(stop)
		wg.Wait()
		require.NoError(t, dev.Close(t.Context()))
	})
}

func TestFailFastAndTheWaitForAPath(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{})
	cfg := config(tgt)
	cfg.NoPathTimeout = 200 * time.Millisecond
	dev := open(t, cfg)
	tgt.StopPortal(0)
	snapshotUntil(t, dev, "no path", func(s initiator.Snapshot) bool { return s.PathsUp == 0 })
	_, err := dev.ReadAt(make([]byte, 512), 0)
	require.ErrorIs(t, err, initiator.ErrIO)
	require.NoError(t, tgt.StartPortal(0))
	snapshotUntil(t, dev, "the path is back", func(s initiator.Snapshot) bool { return s.PathsUp == 1 })
	_, err = dev.ReadAt(make([]byte, 512), 0)
	require.NoError(t, err)
}

func TestFlushEndsWithItsContextAndGoesOn(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{})
	dev := open(t, config(tgt))
	hold := iscsitest.NewHold(iscsitest.HoldStrict)
	tgt.Inject(iscsitest.SCSI(scsi.OpSyncCache10, scsi.OpSyncCache16), iscsitest.Hang(hold))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- dev.Flush(ctx) }()
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	cancel()
	require.ErrorIs(t, <-result, context.Canceled)
	hold.Release()
	snapshotUntil(t, dev, "the flush is over", func(s initiator.Snapshot) bool { return s.Open == 0 })
	require.NoError(t, dev.Close(t.Context()))
}

func TestCloseDrainsAndAbortDoesNot(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{})
	dev := open(t, config(tgt))
	hold := iscsitest.NewHold(iscsitest.HoldStrict)
	injection := tgt.Inject(iscsitest.SCSI(scsi.OpWrite10, scsi.OpWrite16), iscsitest.Hang(hold))
	written := make(chan error)
	go func() {
		_, err := dev.WriteAt(make([]byte, 512), 0)
		written <- err
	}()
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	closed := make(chan error)
	go func() { closed <- dev.Close(t.Context()) }()
	snapshotUntil(t, dev, "closing", func(s initiator.Snapshot) bool { return s.State == "closing" })
	_, err := dev.ReadAt(make([]byte, 512), 0)
	require.ErrorIs(t, err, initiator.ErrClosed, "new requests are refused at once")
	hold.Release()
	require.NoError(t, <-written, "what was under way completes")
	require.NoError(t, <-closed)
	injection.Remove()

	dev = open(t, config(tgt))
	hold = iscsitest.NewHold(iscsitest.HoldStrict)
	tgt.Inject(iscsitest.SCSI(scsi.OpWrite10, scsi.OpWrite16), iscsitest.Hang(hold))
	go func() {
		_, err := dev.WriteAt(make([]byte, 512), 0)
		written <- err
	}()
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, dev.Close(ctx), context.DeadlineExceeded)
	require.ErrorIs(t, <-written, initiator.ErrClosed)
}

func TestEverythingAfterClose(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		cfg := config(target(t, iscsitest.Config{}))
		cfg.Portable = portable
		dev := open(t, cfg)
		require.NoError(t, dev.Close(t.Context()))
		require.NoError(t, dev.Close(t.Context()), "again")
		dev.Abort()
		_, err := dev.ReadAt(make([]byte, 512), 0)
		require.ErrorIs(t, err, initiator.ErrClosed)
		_, err = dev.WriteAt(make([]byte, 512), 0)
		require.ErrorIs(t, err, initiator.ErrClosed)
		require.ErrorIs(t, dev.Flush(t.Context()), initiator.ErrClosed)
		_, err = dev.Snapshot(t.Context())
		require.ErrorIs(t, err, initiator.ErrClosed)
		require.ErrorIs(t, dev.SetPath(t.Context(), "1", initiator.PathOp{Kind: initiator.PathDown}), initiator.ErrClosed)
		require.ErrorIs(t, dev.SetPolicy(t.Context(), "failover"), initiator.ErrClosed)
	})
}

func TestSteering(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{Portals: portals(2)})
	cfg := config(tgt)
	cfg.Wait = initiator.WaitAll
	dev := open(t, cfg)
	require.NoError(t, dev.SetPath(t.Context(), "1", initiator.PathOp{Kind: initiator.PathDown}))
	require.NoError(t, dev.SetPath(t.Context(), tgt.Addr(1), initiator.PathOp{Kind: initiator.PathPriority, Value: 3}))
	require.NoError(t, dev.SetPolicy(t.Context(), "round-robin"))
	require.NoError(t, dev.SetFailback(t.Context(), initiator.FailbackManual))
	assert.Equal(t, initiator.KindInvalid, initiator.KindOf(dev.SetFailback(t.Context(), -7)))
	s, err := dev.Snapshot(t.Context())
	require.NoError(t, err)
	byPortal := map[string]initiator.PathSnapshot{}
	for _, p := range s.Paths {
		byPortal[p.Portal] = p
	}
	assert.Equal(t, "round-robin", s.Policy)
	assert.Equal(t, "manual", s.Failback)
	assert.Equal(t, 3, byPortal[tgt.Addr(1)].Priority)
	assert.Equal(t, "offline", s.Paths[0].State.String())
	err = dev.SetPath(t.Context(), "9", initiator.PathOp{Kind: initiator.PathUp})
	assert.ErrorIs(t, err, initiator.ErrNoSuchPath)
	assert.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
	assert.Equal(t, initiator.KindInvalid, initiator.KindOf(dev.SetPolicy(t.Context(), "fastest")))
}

func TestEventsAndTrace(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{})
	cfg := config(tgt)
	events := make(chan initiator.Event, 100)
	cfg.OnEvent = func(e initiator.Event) { events <- e }
	var mu sync.Mutex
	seen := map[pdu.Opcode]int{}
	cfg.Trace = func(portal string, _ bool, bhs pdu.BHS) {
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, tgt.Addr(0), portal)
		seen[bhs.Opcode()]++
	}
	dev := open(t, cfg)
	require.NoError(t, dev.Close(t.Context()))
	close(events) // Close has ended the deliveries
	kinds := map[string]int{}
	for e := range events {
		kinds[e.Kind.String()]++
	}
	assert.Equal(t, 1, kinds["path-up"])
	assert.Equal(t, 1, kinds["device-ready"])
	assert.Equal(t, 1, kinds["device-closed"])
	mu.Lock()
	defer mu.Unlock()
	assert.NotZero(t, seen[pdu.OpText], "discovery is traced")
	assert.NotZero(t, seen[pdu.OpLogoutResponse])
}

func TestASlowListenerHoldsNothingUp(t *testing.T) {
	leak.Check(t)
	tgt := target(t, iscsitest.Config{})
	cfg := config(tgt)
	release := make(chan struct{})
	cfg.OnEvent = func(initiator.Event) { <-release }
	dev := open(t, cfg)
	_, err := dev.ReadAt(make([]byte, 512), 0)
	require.NoError(t, err)
	close(release)
	require.NoError(t, dev.Close(t.Context()))
}
