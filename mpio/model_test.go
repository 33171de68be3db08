package mpio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// The steps of model/fence.pml in Go, for any number of blocks, writes, paths and
// logins. A recorder takes the steps that a device and its fake targets really
// take, and holds each against what the model allows. model/README.md says
// which function takes which step.

// modelKey names a copy of a write, and the ghost of one.
type modelKey struct {
	w    uint64
	path int
	gen  uint64
}

func (k modelKey) String() string { return fmt.Sprintf("%d over %s/%d", k.w, pathID(k.path), k.gen) }

// modelWrite is a write that is neither acknowledged nor failed.
type modelWrite struct {
	lo, hi   int
	sent     bool // else it is open
	at       modelKey
	answered bool // well, since it was sent last
	// passed: a newer one was sent. The device lets go what waits a moment before it
	// tells the caller: acknowledge or fail has to come next, and no other send.
	passed bool
}

// modelPath is what the model knows of a path.
type modelPath struct {
	gen, chain uint64
	logged, up bool
}

// fenceModel is the state of model/fence.pml.
type fenceModel struct {
	shared        bool
	medium, acked []uint64
	ranges        map[uint64][2]int // of all writes
	writes        map[uint64]*modelWrite
	paths         []modelPath
	copies        map[modelKey]int // which the target has not executed
	ghosts        map[modelKey]int
}

func newFenceModel(blocks, paths int, shared bool) *fenceModel {
	return &fenceModel{
		shared: shared, medium: make([]uint64, blocks), acked: make([]uint64, blocks), paths: make([]modelPath, paths),
		ranges: map[uint64][2]int{}, writes: map[uint64]*modelWrite{}, copies: map[modelKey]int{}, ghosts: map[modelKey]int{},
	}
}

func (m *fenceModel) overlap(a, b uint64) bool {
	return m.ranges[a][0] < m.ranges[b][1] && m.ranges[b][0] < m.ranges[a][1]
}

// invariant: no acknowledged write is replaced by an older one.
func (m *fenceModel) invariant() error {
	for b := range m.medium {
		if m.medium[b] < m.acked[b] {
			return fmt.Errorf("block %d holds write %d, although %d was acknowledged", b, m.medium[b], m.acked[b])
		}
	}
	return nil
}

func (m *fenceModel) submit(w uint64, lo, n int) error {
	m.ranges[w] = [2]int{lo, lo + n}
	m.writes[w] = &modelWrite{lo: lo, hi: lo + n}
	return nil
}

func (m *fenceModel) send(w uint64, p int, gen uint64) error {
	x := m.writes[w]
	switch {
	case x == nil || x.sent || x.passed:
		return fmt.Errorf("it is not open")
	case !m.paths[p].up || m.paths[p].gen != gen:
		return fmt.Errorf("path %s carries no I/O", pathID(p))
	}
	for v, older := range m.writes {
		if v < w && m.overlap(v, w) {
			if older.sent {
				return fmt.Errorf("write %d to the same blocks is under way", v)
			}
			older.passed = true
		}
	}
	for g := range m.ghosts {
		if g.w < w && m.overlap(g.w, w) || m.shared && g.w == w {
			return fmt.Errorf("the ghost of %v is not settled", g)
		}
	}
	k := modelKey{w, p, gen}
	x.sent, x.answered, x.at = true, false, k
	m.copies[k]++
	return nil
}

// still gives an error if a write that was passed is not over.
func (m *fenceModel) still() error {
	for w, x := range m.writes {
		if x.passed {
			return fmt.Errorf("write %d is open still, although a newer one to the same blocks was sent", w)
		}
	}
	return nil
}

// drop takes a copy away from the target.
func (m *fenceModel) drop(k modelKey) error {
	if m.copies[k] == 0 {
		return fmt.Errorf("the target has no such copy")
	}
	if m.copies[k]--; m.copies[k] == 0 {
		delete(m.copies, k)
	}
	return nil
}

// execute is execute or executeLate, and the answer, if that still arrives.
func (m *fenceModel) execute(k modelKey, arrives bool) error {
	if err := m.drop(k); err != nil {
		return err
	}
	for b := m.ranges[k.w][0]; b < m.ranges[k.w][1]; b++ {
		m.medium[b] = k.w
	}
	if x := m.writes[k.w]; arrives && x != nil && x.sent && x.at == k {
		x.sent, x.answered = false, true
	}
	return m.invariant()
}

// again is an answer other than success, or an abort: the copy is over.
func (m *fenceModel) again(k modelKey) error {
	if x := m.writes[k.w]; x != nil && x.sent && x.at == k {
		x.sent = false
	}
	return m.drop(k)
}

func (m *fenceModel) acknowledge(w uint64) error {
	x := m.writes[w]
	if x == nil || x.sent || !x.answered {
		return fmt.Errorf("the target has not answered it")
	}
	delete(m.writes, w)
	for b := x.lo; b < x.hi; b++ {
		m.acked[b] = max(m.acked[b], w)
	}
	return m.invariant()
}

func (m *fenceModel) fail(w uint64) error {
	if x := m.writes[w]; x == nil || x.sent {
		return fmt.Errorf("it is not open")
	}
	delete(m.writes, w)
	return nil
}

// lose ends a session. What was not sent yet has no copy.
func (m *fenceModel) lose(p int, sent bool) error {
	if !m.paths[p].logged {
		return fmt.Errorf("there is no session")
	}
	gen := m.paths[p].gen
	m.paths[p].logged, m.paths[p].up = false, false
	if !sent {
		for k := range m.copies {
			if k.path == p && k.gen == gen {
				delete(m.copies, k)
			}
		}
	}
	for w, x := range m.writes {
		if x.sent && x.at.path == p {
			x.sent = false
			if sent {
				m.ghosts[modelKey{w, p, gen}]++
			}
		}
	}
	return nil
}

// move takes a write from a silent path: its copy there becomes a ghost.
func (m *fenceModel) move(k modelKey) error {
	x := m.writes[k.w]
	if x == nil || !x.sent || x.at != k {
		return fmt.Errorf("it is not with that path")
	}
	x.sent = false
	m.ghosts[k]++
	return nil
}

func (m *fenceModel) login(p int, proves bool) error {
	x := &m.paths[p]
	if x.logged {
		return fmt.Errorf("it is logged in")
	}
	if proves {
		for k := range m.copies {
			if k.path == p && k.gen == x.gen {
				delete(m.copies, k)
			}
		}
	}
	x.logged = true
	x.gen++
	if !proves {
		x.chain = x.gen
	}
	return nil
}

func (m *fenceModel) check(p int) error {
	if !m.paths[p].logged {
		return fmt.Errorf("there is no session")
	}
	m.paths[p].up = true
	return nil
}

// leave ends a detour.
func (m *fenceModel) leave(p int) error {
	for _, x := range m.writes {
		if x.sent && x.at.path == p {
			return fmt.Errorf("a write was sent over a detour")
		}
	}
	m.paths[p].logged, m.paths[p].up = false, false
	return nil
}

// settle lays a ghost for one of three reasons.
func (m *fenceModel) settle(k modelKey, why string) error {
	if m.ghosts[k] == 0 {
		return fmt.Errorf("there is no such ghost")
	}
	p := m.paths[k.path]
	switch why {
	case "login":
		if !p.logged || !p.up || k.gen < p.chain || k.gen >= p.gen {
			return fmt.Errorf("the logins of the path prove nothing about it: %+v", p)
		}
	case "answer", "time":
		if why == "time" && p.logged && p.gen == k.gen {
			return fmt.Errorf("the session lives in which the target has it: %+v", p)
		}
		// A write that was moved may have gone over the same path again.
		most := m.ghosts[k] - 1
		if x := m.writes[k.w]; x != nil && x.sent && x.at == k {
			most++
		}
		if m.copies[k] > most {
			return fmt.Errorf("the target may still execute it")
		}
	default:
		return fmt.Errorf("for no reason that counts: %s", why)
	}
	if m.ghosts[k]--; m.ghosts[k] == 0 {
		delete(m.ghosts, k)
	}
	return nil
}

// recorder holds the steps of a rig against the model. A nil one does nothing.
type recorder struct {
	m     *fenceModel
	d     *Device
	ids   map[*ghost]modelKey
	steps []string
	count map[string]int
	err   error // the first step that the model does not allow
}

// record has the rig's steps recorded from now on, before Start.
func (r *rig) record(blocks int) *recorder {
	rec := &recorder{
		m: newFenceModel(blocks, len(r.s), r.d.cfg.Shared), d: r.d,
		ids: map[*ghost]modelKey{}, count: map[string]int{},
	}
	r.rec, r.d.watch = rec, rec
	for i, s := range r.s {
		s.rec, s.index = rec, i
	}
	return rec
}

// took takes the verdict on a step.
func (r *recorder) took(err error, step string, about any) {
	r.count[step]++
	r.steps = append(r.steps, fmt.Sprintf("%s %v", step, about))
	if len(r.steps) > 60 {
		r.steps = slices.Delete(r.steps, 0, 1)
	}
	switch step {
	case "submit", "execute", "executeLate", "again", "lose", "login", "move":
		err = errors.Join(r.m.still(), err)
	}
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("the model does not allow the last of these steps: %w:\n  %s", err, strings.Join(r.steps, "\n  "))
	}
}

// writeOf tells which write a command carries.
func writeOf(cdb scsi.CDB, data []byte) (w uint64, ok bool) {
	if op := cdb.Opcode(); op != scsi.OpWrite10 && op != scsi.OpWrite16 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(data), true
}

func (r *recorder) submitted(w uint64, lo, n int) {
	if r != nil {
		r.took(r.m.submit(w, lo, n), "submit", w)
	}
}

func (r *recorder) done(w uint64, err error) {
	switch {
	case r == nil || w == 0:
	case err == nil:
		r.took(r.m.acknowledge(w), "acknowledge", w)
	default:
		r.took(r.m.fail(w), "fail", w)
	}
}

// flew follows a command of path p.
func (r *recorder) flew(p int, f *flight, step string) {
	if r == nil || f.data == nil {
		return
	}
	w, ok := writeOf(f.cdb, f.data)
	if !ok {
		return
	}
	k := modelKey{w, p, uint64(f.gen)}
	switch step {
	case "send":
		r.took(r.m.send(w, p, k.gen), step, k)
	case "execute":
		r.took(r.m.execute(k, true), step, k)
	case "executeLate":
		r.took(r.m.execute(k, false), step, k)
	case "again":
		r.took(r.m.again(k), step, k)
	case "drop":
		r.took(r.m.drop(k), step, k)
	}
}

func (r *recorder) lost(p int, sent bool) {
	if r != nil && r.m.paths[p].logged { // else it was left
		r.took(r.m.lose(p, sent), "lose", fmt.Sprintf("%s sent=%v", pathID(p), sent))
	}
}

func (r *recorder) loggedIn(p int, proves bool) {
	if r != nil {
		r.took(r.m.login(p, proves), "login", fmt.Sprintf("%s proves=%v", pathID(p), proves))
	}
}

// raised implements fenceWatch.
func (r *recorder) raised(g *ghost) {
	k := modelKey{binary.LittleEndian.Uint64(g.io.data), slices.Index(r.d.paths, g.path), g.gen}
	r.ids[g] = k
	if x := r.m.writes[k.w]; x != nil && x.sent {
		r.took(r.m.move(k), "move", k)
	} else if r.m.ghosts[k] == 0 {
		r.took(fmt.Errorf("nothing was lost"), "raise", k)
	}
}

// checked implements fenceWatch.
func (r *recorder) checked(p *path) {
	i := slices.Index(r.d.paths, p)
	r.took(r.m.check(i), "check", pathID(i))
}

// settled implements fenceWatch.
func (r *recorder) settled(list []*ghost, by settledBy) {
	for _, g := range list {
		k := r.ids[g]
		delete(r.ids, g)
		r.took(r.m.settle(k, string(by)), "settle", fmt.Sprintf("%v by %s", k, by))
	}
}

// left implements fenceWatch.
func (r *recorder) left(p *path) {
	i := slices.Index(r.d.paths, p)
	r.took(r.m.leave(i), "leave", pathID(i))
}

// finish compares what is left in the end.
func (r *recorder) finish() error {
	if r.err == nil && len(r.ids) != len(r.d.ghosts) {
		return fmt.Errorf("%d ghosts instead of %d", len(r.d.ghosts), len(r.ids))
	}
	n := 0
	for _, c := range r.m.ghosts {
		n += c
	}
	if r.err == nil && n != len(r.d.ghosts) {
		return fmt.Errorf("%d ghosts instead of %d: %v", len(r.d.ghosts), n, r.m.ghosts)
	}
	return r.err
}

// TestModelRejects plays steps that break one rule each.
func TestModelRejects(t *testing.T) {
	up := func(m *fenceModel) {
		for p := range m.paths {
			require.NoError(t, m.login(p, true))
			require.NoError(t, m.check(p))
		}
		require.NoError(t, m.submit(1, 0, 2))
		require.NoError(t, m.submit(2, 1, 2))
		require.NoError(t, m.submit(3, 9, 1))
		require.NoError(t, m.send(1, 0, 1))
		require.NoError(t, m.send(3, 0, 1), "elsewhere")
	}
	one := modelKey{1, 0, 1}
	// resent is write 1 lost on path 0 and acknowledged over path 1.
	resent := func(m *fenceModel) {
		up(m)
		require.NoError(t, m.lose(0, true))
		require.NoError(t, m.send(1, 1, 1))
		require.NoError(t, m.execute(modelKey{1, 1, 1}, true))
		require.NoError(t, m.acknowledge(1))
	}
	for name, c := range map[string]struct {
		shared bool
		play   func(m *fenceModel) error
	}{
		"past an older write": {play: func(m *fenceModel) error { up(m); return m.send(2, 1, 1) }},
		"past an older one that is open still": {play: func(m *fenceModel) error {
			up(m)
			_ = m.again(one)
			_ = m.send(2, 1, 1)
			return m.still()
		}},
		"again after a newer one": {play: func(m *fenceModel) error {
			up(m)
			_ = m.again(one)
			_ = m.send(2, 1, 1)
			return m.send(1, 0, 1)
		}},
		"twice":                           {play: func(m *fenceModel) error { up(m); return m.send(1, 1, 1) }},
		"over a path that is not checked": {play: func(m *fenceModel) error { _ = m.login(0, true); _ = m.submit(1, 0, 1); return m.send(1, 0, 1) }},
		"acknowledged without an answer":  {play: func(m *fenceModel) error { up(m); return m.acknowledge(1) }},
		"past a ghost":                    {play: func(m *fenceModel) error { resent(m); return m.send(2, 1, 1) }},
		"with its own ghost, shared": {shared: true, play: func(m *fenceModel) error {
			up(m)
			_ = m.lose(0, true)
			return m.send(1, 1, 1)
		}},
		"settled before the check": {play: func(m *fenceModel) error {
			resent(m)
			_ = m.login(0, true)
			return m.settle(one, "login")
		}},
		"settled by a login that proves nothing": {play: func(m *fenceModel) error {
			resent(m)
			_ = m.login(0, false)
			_ = m.check(0)
			return m.settle(one, "login")
		}},
		"settled past a login that proved nothing": {play: func(m *fenceModel) error {
			resent(m)
			_ = m.login(0, false)
			_ = m.lose(0, true)
			_ = m.login(0, true)
			_ = m.check(0)
			return m.settle(one, "login")
		}},
		"settled by the login it was sent with": {play: func(m *fenceModel) error {
			up(m)
			_ = m.move(one)
			return m.settle(one, "login")
		}},
		"settled by time while its session lives": {play: func(m *fenceModel) error {
			up(m)
			_ = m.move(one)
			_ = m.drop(one)
			return m.settle(one, "time")
		}},
		"settled by time while there is a copy": {play: func(m *fenceModel) error { resent(m); return m.settle(one, "time") }},
		"settled for nothing":                   {play: func(m *fenceModel) error { resent(m); return m.settle(one, "hope") }},
		"the medium goes back": {play: func(m *fenceModel) error {
			resent(m)
			delete(m.ghosts, one) // what the fence is for
			_ = m.send(2, 1, 1)
			_ = m.execute(modelKey{2, 1, 1}, true)
			_ = m.acknowledge(2)
			return m.execute(one, false)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Error(t, c.play(newFenceModel(10, 2, c.shared)))
		})
	}
	m := newFenceModel(10, 2, false)
	resent(m)
	require.NoError(t, m.login(0, true))
	require.NoError(t, m.check(0))
	require.NoError(t, m.settle(one, "login"))
	require.NoError(t, m.send(2, 1, 1))
	require.Error(t, m.execute(one, false), "the copy is gone")
}

// TestModelSeesEveryStep: without the fence the model finds fault with a step in
// nearly every schedule, long before data is harmed.
func TestModelSeesEveryStep(t *testing.T) {
	first, _ := seeds(t)
	found, harmed := 0, 0
	for seed := first; seed < first+20; seed++ {
		c := newChaos(t, seed, func(cfg *Config) { cfg.UnsafeNoFence = true })
		c.run()
		if c.rec.finish() != nil {
			found++
		}
		if c.failure != "" {
			harmed++
		}
	}
	t.Logf("of 20 schedules without the fence the model rejects %d, data was harmed in %d", found, harmed)
	require.Greater(t, found, 10)
}
