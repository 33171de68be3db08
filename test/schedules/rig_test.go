package schedules

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Times of a schedule, all virtual. What was held or stalled is let go before the fence times out: after that nothing is promised.
const (
	faultTime    = 8 * time.Second
	fenceTimeout = 30 * time.Second
	holdMost     = 20 * time.Second
	patience     = 10 * time.Minute       // for what still hangs when everything is well again
	lineDelay    = 200 * time.Microsecond // so that time passes at all
)

// rig is one schedule's world.
type rig struct {
	t       *testing.T
	rnd     *rand.Rand
	tgt     *iscsitest.Target
	proxies []*iscsitest.FaultProxy
	l       loop.Loop
	d       *mpio.Device
	alua    bool
	cache   *cachedMedium // nil: nothing is volatile
	faults  []fault
	count   atomic.Uint32 // requests that may take one of two forms
	holds   []*iscsitest.Hold
	rules   []*iscsitest.Injection
	steps   []step
	done    []string // what was done, for the report
}

// setting is what a schedule is made of besides its seed.
type setting struct {
	noFence bool
	cached  bool // the target has a volatile cache, and may lose power
}

func newRig(t *testing.T, seed uint64, with setting) *rig {
	r := &rig{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), l: loop.NewPortable(), faults: faults}
	paths := 2 + r.rnd.IntN(3)
	if with.cached {
		r.cache = newCachedMedium(1 << 20)
		r.faults = slices.Concat(withoutHolds(faults), powerFaults)
	}
	r.startTarget(paths)
	cfg := mpio.Config{
		Target: r.tgt.Name(), FenceTimeout: fenceTimeout, NoPathTimeout: -1, CommandTimeout: 5 * time.Second,
		UnsafeNoFence: with.noFence, Policy: mpio.Policies()[r.rnd.IntN(len(mpio.Policies()))],
		Shared: r.rnd.IntN(8) == 0, Seed: seed | 1, NewSession: r.newSession(1 + r.rnd.IntN(2)*r.rnd.IntN(3)),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	r.note("%d paths, policy %s, shared %v, ALUA %v", paths, cfg.Policy, cfg.Shared, r.alua)
	r.on(func() {
		var err error
		r.d, err = mpio.New(cfg, r.l)
		require.NoError(t, err)
		for i := range paths {
			require.NoError(t, r.d.AddPath(mpio.PathConfig{
				ID: strconv.Itoa(i + 1), Portal: strconv.Itoa(i), TPGT: -1, ISID: session.DeriveISID("host", strconv.Itoa(i)),
			}))
		}
		r.d.Relate("0", "1", "2", "3")
		r.d.Start()
	})
	for r.snapshot().PathsUp == 0 {
		time.Sleep(time.Millisecond)
	}
	return r
}

func (r *rig) startTarget(paths int) {
	portals := make([]iscsitest.Portal, paths)
	for i := range portals {
		portals[i].Addr = "-"
	}
	// Without a write cache a power-on loses nothing, so that no flush has to fail.
	lun := iscsitest.LUN{Size: 1 << 20, PowerOnUA: r.rnd.IntN(2) == 0, NoWriteCache: true}
	// Requests of one command, or of several; zeros by one WRITE SAME, or if that is refused by several writes.
	lun.BlockSize, lun.MaxWriteSame = []uint32{512, 4096}[r.rnd.IntN(2)], 1<<10
	lun.MaxTransfer = []uint32{0, 0, 4096, 8192}[r.rnd.IntN(4)]
	lun.NoUnmap = r.rnd.IntN(2) == 0
	if r.cache != nil {
		lun.NoWriteCache, lun.Medium = false, r.cache
	}
	if r.alua = r.rnd.IntN(3) == 0; r.alua {
		groups := []iscsitest.PortGroup{{ID: 1}, {ID: 2, State: scsi.AccessNonOptimized}}
		for i := range portals {
			g := &groups[i%2]
			g.Portals = append(g.Portals, i)
		}
		lun.ALUA = &iscsitest.ALUA{TPGS: scsi.TPGSImplicit, Groups: groups}
	}
	var quirks iscsitest.Quirks
	if r.rnd.IntN(3) == 0 {
		quirks = iscsitest.Quirks{TSIHZero: true, NoReinstatement: true} // the old session lives: only time settles
	}
	quirks.NoPortalGroupTag = r.rnd.IntN(6) == 0
	var err error
	r.tgt, err = iscsitest.NewTarget(iscsitest.Config{Portals: portals, LUNs: []iscsitest.LUN{lun}, Quirks: quirks})
	require.NoError(r.t, err)
	for i := range portals {
		p, err := iscsitest.NewFaultProxy(iscsitest.ProxyConfig{
			Dial: func() (net.Conn, error) { return r.tgt.Dial(i) }, Listen: "-", Portal: i,
		})
		require.NoError(r.t, err)
		p.SetDelay(lineDelay)
		r.proxies = append(r.proxies, p)
	}
}

func (r *rig) newSession(connections int) func(mpio.PathConfig, session.Observer) (mpio.Session, error) {
	return func(pc mpio.PathConfig, obs session.Observer) (mpio.Session, error) {
		i, err := strconv.Atoi(pc.Portal)
		if err != nil {
			return nil, err
		}
		drv := session.NewDriver(r.l, func(context.Context, string, string) (net.Conn, error) { return r.proxies[i].Dial() })
		cfg := session.Config{
			InitiatorName: "iqn.2026-01.test.iscsimp:host", TargetName: pc.Target, Portal: pc.Portal, TPGT: pc.TPGT, ISID: pc.ISID,
			Connections: connections,
		}
		if r.cache != nil {
			cfg.Trace = func(fromInitiator bool, bhs pdu.BHS) {
				if !fromInitiator && bhs.Opcode() == pdu.OpSCSIResponse {
					r.cache.answered(task{i, bhs.ITT()})
				}
			}
		}
		s, err := session.New(cfg, drv, obs)
		if err == nil {
			drv.Bind(s)
		}
		return s, err
	}
}

// on runs fn on the loop and waits for it.
func (r *rig) on(fn func()) {
	done := make(chan struct{})
	require.True(r.t, r.l.Post(func() { defer close(done); fn() }))
	<-done
}

func (r *rig) snapshot() (s mpio.Snapshot) {
	r.on(func() { s = r.d.Snapshot() })
	return s
}

func (r *rig) note(format string, a ...any) { r.done = append(r.done, fmt.Sprintf(format, a...)) }

// heal ends everything that was done to the lines and the target.
func (r *rig) heal() {
	for _, h := range r.holds {
		h.Release()
	}
	for _, i := range r.rules {
		i.Remove()
	}
	for i, p := range r.proxies {
		require.NoError(r.t, r.tgt.StartPortal(i))
		require.NoError(r.t, p.SetMode(iscsitest.ModeGo))
		p.SetDelay(lineDelay)
	}
	r.on(func() {
		for _, p := range r.d.Snapshot().Paths {
			require.NoError(r.t, r.d.SetPath(p.ID, mpio.PathOp{Kind: mpio.OpUp}))
		}
	})
	if r.alua {
		require.NoError(r.t, r.tgt.SetAccess(0, 1, scsi.AccessOptimized, 0))
		require.NoError(r.t, r.tgt.SetAccess(0, 2, scsi.AccessNonOptimized, 0))
	}
}

func (r *rig) close(force bool) error {
	closed := make(chan error, 1)
	r.on(func() { r.d.Close(force, func(err error) { closed <- err }) })
	err := <-closed
	r.l.Close()
	for _, p := range r.proxies {
		p.Close()
	}
	r.tgt.Close()
	return err
}

// disk is the device as an nbdload.Disk.
type disk struct{ r *rig }

type reply chan error

// RequestDone implements block.Completer.
func (c reply) RequestDone(q *block.Request) { c <- q.Err }

func (d disk) do(q *block.Request) error {
	c := make(reply, 1)
	q.Owner = c
	if !d.r.l.Post(func() { d.r.d.Submit(q) }) {
		return block.ErrClosed
	}
	return <-c
}

// Read implements nbdload.Disk.
func (d disk) Read(p []byte, offset uint64) error {
	return d.do(&block.Request{Op: block.OpRead, Offset: offset, Length: uint64(len(p)), Data: p})
}

// Write implements nbdload.Disk. Where the cache is of no interest some writes have the FUA bit all the same.
func (d disk) Write(p []byte, offset uint64, fua bool) error {
	fua = fua || d.r.cache == nil && d.r.count.Add(1)%8 == 0
	return d.do(&block.Request{Op: block.OpWrite, Offset: offset, Length: uint64(len(p)), Data: p, FUA: fua})
}

// WriteZeroes implements nbdload.Disk. Where a trim does the same it is one, every other time.
func (d disk) WriteZeroes(offset uint64, length uint32) error {
	op := block.OpWriteZeroes
	if d.r.d.Geometry().CanTrim && d.r.count.Add(1)%2 == 0 {
		op = block.OpTrim
	}
	return d.do(&block.Request{Op: op, Offset: offset, Length: uint64(length)})
}
