package mpio

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Times in ns.
const (
	usec = int64(1e3)
	msec = int64(1e6)
	sec  = int64(1e9)
)

// rig is a device on fake sessions.
type rig struct {
	t      testing.TB
	l      *fakeLoop
	d      *Device
	unit   *fakeUnit
	s      []*fakeSession
	events []Event
	rec    *recorder // nil: none
}

// newRig makes a device with n paths to one unit of 4096 blocks, not started.
func newRig(t testing.TB, n int, change func(*Config)) *rig {
	r := &rig{t: t, l: newFakeLoop(), unit: newFakeUnit(4096)}
	cfg := Config{Name: "disk", Target: "iqn.2026-01.test:disk", LUN: scsi.MakeLUN(1)}
	cfg.Marginal.Off = true // tests lose a path as often as they like; see newCareful
	cfg.NewSession = func(pc PathConfig, obs session.Observer) (Session, error) {
		s := &fakeSession{
			l: r.l, unit: r.unit, obs: obs, cfg: pc, room: 64, honest: true,
			loginTakes: msec, delay: func() int64 { return 100 * usec },
		}
		r.s = append(r.s, s)
		return s, nil
	}
	cfg.OnEvent = func(e Event) { r.events = append(r.events, e) }
	if change != nil {
		change(&cfg)
	}
	var err error
	r.d, err = New(cfg, r.l)
	require.NoError(t, err)
	r.d.Relate(portalAt(0), portalAt(1), portalAt(2), portalAt(3), portalAt(4), portalAt(5), portalAt(6))
	for i := range n {
		require.NoError(t, r.d.AddPath(PathConfig{ID: pathID(i), Portal: portalAt(i), TPGT: 1, ISID: [6]byte{0x80, byte(i + 1)}}))
	}
	return r
}

func portalAt(i int) string { return fmt.Sprintf("127.0.0.%d:3260", i+1) }

func pathID(i int) string { return string(rune('a' + i)) }

// up starts the device and waits until every path is up.
func (r *rig) up() *rig {
	r.d.Start()
	r.l.run(100 * msec)
	for _, p := range r.d.paths {
		require.Equal(r.t, StateUp, p.state, p.reason)
	}
	return r
}

// result is a request under way or completed.
type result struct {
	block.Request
	t    testing.TB
	l    *fakeLoop
	done bool
	at   int64
	then func()
	rec  *recorder
	id   uint64 // of a write
}

func (q *result) RequestDone(r *block.Request) {
	assert.False(q.t, q.done, "completed twice")
	q.done, q.at = true, q.l.now
	q.rec.done(q.id, r.Err)
	if q.then != nil {
		q.then()
	}
}

func (r *rig) submit(q block.Request) *result {
	return r.submitAs(0, q)
}

// submitAs submits a write that is known by a number.
func (r *rig) submitAs(id uint64, q block.Request) *result {
	x := &result{Request: q, t: r.t, l: r.l, rec: r.rec, id: id}
	x.Owner = x
	r.d.Submit(&x.Request)
	return x
}

// stamp is n blocks filled with id.
func stamp(id uint64, n int) []byte {
	b := make([]byte, n*testBlock)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], id)
	}
	return b
}

func (r *rig) write(lba, n int, id uint64) *result {
	r.rec.submitted(id, lba, n)
	return r.submitAs(id, block.Request{Op: block.OpWrite, Offset: uint64(lba * testBlock), Length: uint64(n * testBlock), Data: stamp(id, n)})
}

func (r *rig) read(lba, n int) *result {
	return r.submit(block.Request{Op: block.OpRead, Offset: uint64(lba * testBlock), Length: uint64(n * testBlock), Data: make([]byte, n*testBlock)})
}

// at is the stamp the unit holds at lba.
func (r *rig) at(lba int) uint64 { return binary.LittleEndian.Uint64(r.unit.data[lba*testBlock:]) }

func (r *rig) state(i int) State { return r.d.paths[i].state }

// only makes path i the only one that carries I/O, by priority.
func (r *rig) only(i int) {
	for j := range r.d.paths {
		prio := 2
		if i == j {
			prio = 1
		}
		require.NoError(r.t, r.d.SetPath(pathID(j), PathOp{Kind: OpPriority, Value: prio}))
	}
}

// kinds lists the events of some kinds, in order.
func (r *rig) kinds(want ...EventKind) []EventKind {
	var got []EventKind
	for _, e := range r.events {
		for _, k := range want {
			if e.Kind == k {
				got = append(got, k)
			}
		}
	}
	return got
}

// event gives the last event of a kind.
func (r *rig) event(k EventKind) Event {
	for i := len(r.events) - 1; i >= 0; i-- {
		if r.events[i].Kind == k {
			return r.events[i]
		}
	}
	require.Failf(r.t, "no such event", "%v", k)
	return Event{}
}

// requireIdle checks that nothing is left over.
func (r *rig) requireIdle() {
	r.t.Helper()
	require.Zero(r.t, r.d.live, "commands left")
	require.Zero(r.t, r.d.open, "requests left")
	for _, p := range r.d.paths {
		require.Zero(r.t, p.inflight)
		require.Zero(r.t, p.queued[0]+p.queued[1])
		require.Zero(r.t, p.transfer.n+p.other.n)
	}
	require.Len(r.t, r.d.fence.spans, len(r.d.ghosts))
	if len(r.d.ghosts) == 0 {
		require.Zero(r.t, r.d.fence.wide)
		require.Equal(r.t, [fenceCells]uint32{}, r.d.fence.cells)
	}
}
