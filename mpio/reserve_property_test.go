package mpio_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
)

// reserveModel is what two hosts should see of each other's reservations, whatever
// the paths do meanwhile.
type reserveModel struct {
	t     *testing.T
	r     *reserveRig
	rnd   *rand.Rand
	hosts [2]*modelHost
	story []string
	down  int // portal that is stopped, -1: none
}

type modelHost struct {
	w          *wire
	key        uint64
	registered bool // says Register, and nobody has said otherwise
	fenced     bool
}

func (m *reserveModel) note(format string, args ...any) {
	m.story = append(m.story, fmt.Sprintf(format, args...))
}

// step does something at random.
func (m *reserveModel) step() {
	i := m.rnd.IntN(2)
	h, other := m.hosts[i], m.hosts[1-i]
	name := string(rune('a' + i))
	switch m.rnd.IntN(12) {
	case 0, 1:
		err := h.w.register(mpio.Registration{Key: h.key})
		m.note("%s registers: %v", name, err)
		require.NoError(m.t, err, "%v", m.story)
		h.registered, h.fenced = true, false
	case 2:
		m.reserve(h, name)
	case 3:
		err := h.w.release()
		m.note("%s releases: %v", name, err)
	case 4:
		abort := m.rnd.IntN(2) == 0
		err := h.w.preempt(mpio.Preemption{Key: other.key, Abort: abort})
		m.note("%s preempts, abort=%t: %v", name, abort, err)
		if err == nil || errors.Is(err, mpio.ErrOutcomeUnknown) && slices.Index(m.r.keys(), other.key) < 0 {
			other.fenced = other.registered
		}
		if h.registered && !h.fenced && other.registered && !other.fenced {
			require.NoError(m.t, err, "%v", m.story)
		}
	case 5:
		err := h.w.unregister()
		m.note("%s unregisters: %v", name, err)
		require.Equal(m.t, h.registered, err == nil, "%v: %v", m.story, err)
		h.registered, h.fenced = false, false
	case 6:
		theirs := other.registered && !other.fenced
		err := h.w.clearAll(false)
		m.note("%s clears: %v", name, err)
		if err == nil {
			require.False(m.t, theirs, "another host's keys: %v", m.story)
			h.registered = false
		}
	case 7:
		p := m.rnd.IntN(2)
		m.note("portal %d is cut", p)
		m.r.tgt.CutConnections(iscsitest.ByPortal(p))
	case 8:
		m.togglePortal()
	case 9:
		dir := []iscsitest.Direction{iscsitest.FromInitiator, iscsitest.FromTarget}[m.rnd.IntN(2)]
		m.note("the session of the next PERSISTENT RESERVE OUT is cut, %v", dir)
		m.r.tgt.Inject(iscsitest.And(reserveOuts(dir, 0, 1, 2, 3, 4, 5, 6), iscsitest.First(1)), iscsitest.Reset())
	default:
		m.write(h, name)
	}
	if m.rnd.IntN(3) == 0 {
		time.Sleep(time.Duration(m.rnd.IntN(3000)) * time.Millisecond)
	}
}

func (m *reserveModel) togglePortal() {
	if m.down >= 0 {
		m.note("portal %d is back", m.down)
		require.NoError(m.t, m.r.tgt.StartPortal(m.down))
		m.down = -1
		return
	}
	m.down = m.rnd.IntN(2)
	m.note("portal %d is gone", m.down)
	m.r.tgt.StopPortal(m.down)
}

func (m *reserveModel) reserve(h *modelHost, name string) {
	typ := scsi.ReservationTypes()[2+m.rnd.IntN(4)]
	before := m.r.r.State()
	err := h.w.reserve(typ)
	m.note("%s reserves %s: %v", name, typ.Short(), err)
	switch conflict := new(mpio.ConflictError); {
	case !h.registered:
		require.ErrorIs(m.t, err, mpio.ErrNotRegistered, "%v", m.story)
	case h.fenced:
		require.ErrorIs(m.t, err, mpio.ErrPreempted, "%v", m.story)
	case !before.Held:
		require.NoError(m.t, err, "%v", m.story)
	case errors.As(err, &conflict):
		require.Equal(m.t, before.Key, conflict.Holder, "%v", m.story)
	case err != nil:
		require.ErrorIs(m.t, err, mpio.ErrReserveInvalid, "%v", m.story)
	}
}

func (m *reserveModel) write(h *modelHost, name string) {
	held := m.r.r.State().Held
	err := h.w.write()
	m.note("%s writes: %v", name, err)
	switch conflict := new(mpio.ConflictError); {
	case h.registered && !h.fenced, !h.registered && !held:
		require.NoError(m.t, err, "%v", m.story)
	case h.fenced && held:
		require.ErrorIs(m.t, err, mpio.ErrPreempted, "%v", m.story)
	case held:
		require.ErrorAs(m.t, err, &conflict, "%v", m.story)
	}
}

// check compares the keys at the target with what they should be: one at least for
// a host that is registered, and none for one that is not.
func (m *reserveModel) check() {
	keys := m.r.keys()
	for _, h := range m.hosts {
		require.Equal(m.t, h.registered && !h.fenced, slices.Contains(keys, h.key), "%x: %v", keys, m.story)
	}
}

// TestReservationsUnderFaults plays random schedules of operations by two hosts while
// paths come and go and answers are lost.
func TestReservationsUnderFaults(t *testing.T) {
	seeds := make([]uint64, 12)
	for i := range seeds {
		seeds[i] = rand.Uint64()
	}
	if s, err := strconv.ParseUint(os.Getenv("MPIO_SEED"), 0, 64); err == nil {
		seeds = []uint64{s}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("MPIO_SEED=%d", seed), func(t *testing.T) {
			inReserveRig(t, 2, iscsitest.Quirks{}, true, func(t *testing.T, r *reserveRig) {
				m := &reserveModel{t: t, r: r, rnd: rand.New(rand.NewPCG(seed, 0)), down: -1}
				m.hosts = [2]*modelHost{{w: r.a, key: keyA}, {w: r.b, key: keyB}}
				for range 40 {
					m.step()
					m.check()
				}
				if m.down >= 0 {
					m.togglePortal()
				}
				time.Sleep(time.Minute)
				m.check()
				for i, h := range m.hosts {
					m.write(h, string(rune('a'+i)))
					want := 0
					if h.registered && !h.fenced {
						want = 2
					}
					n := 0
					for _, k := range r.keys() {
						if k == h.key {
							n++
						}
					}
					assert.Equal(t, want, n, "in the end every path is registered, or none: %v", m.story)
				}
			})
		})
	}
}
