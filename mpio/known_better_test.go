package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

// nameless is a view of a unit's medium that tells less of what it is.
func (r *rig) nameless(i int, hide func(*fakeUnit)) *fakeUnit {
	u := *r.unit
	hide(&u)
	u.counts = map[scsi.Opcode]int{}
	r.s[i].unit = &u
	return &u
}

// A path comes back and shows no contradiction, but less of the unit's identity than is
// known: a controller that is not done starting, or another unit. It is not used, and
// looked at again.
func TestPathThatTellsLess(t *testing.T) {
	for name, c := range map[string]struct{ before, hide func(*fakeUnit) }{
		"no pages at all":      {func(*fakeUnit) {}, func(u *fakeUnit) { u.noVPD = true }},
		"no designators":       {func(*fakeUnit) {}, func(u *fakeUnit) { u.designators = nil }},
		"no serial, no others": {func(u *fakeUnit) { u.designators = nil }, func(u *fakeUnit) { u.serial = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil)
			c.before(r.unit)
			r.up()
			u := r.nameless(1, c.hide)
			r.s[1].cut(msec)
			r.l.run(sec)
			assert.Equal(t, StateDown, r.state(1))
			assert.Contains(t, r.d.paths[1].reason, "less of its identity")
			require.NoError(t, r.waitFor(r.write(3, 1, 9)))
			r.s[0].cut(30 * sec)
			write := r.write(4, 1, 10)
			r.l.run(sec)
			assert.False(t, write.done, "not even when nothing else is left")
			assert.Zero(t, u.counts[scsi.OpRead10]+u.counts[scsi.OpWrite10])
			r.s[1].unit = r.unit
			r.l.run(2 * recheckAfter.Nanoseconds())
			assert.Equal(t, StateUp, r.state(1))
			assert.True(t, write.done)
			r.l.run(20 * sec)
			assert.Equal(t, StateUp, r.state(0))
			r.requireIdle()
		})
	}
}

// The first path does not show what the unit is called; others do, and not the same. What is
// learned of the unit later counts, too, so that no two units are taken for one.
func TestPathsThatTellMore(t *testing.T) {
	r := newRig(t, 3, nil)
	r.nameless(0, func(u *fakeUnit) { u.designators = nil })
	other := r.nameless(2, func(u *fakeUnit) { u.designators = otherUnit().designators })
	r.s[1].loginTakes, r.s[2].loginTakes = 20*msec, 40*msec
	r.d.Start()
	r.l.run(10 * msec)
	assert.Equal(t, StateUp, r.state(0), "as long as nothing better is known")
	r.l.run(sec)
	assert.Equal(t, []State{StateDown, StateUp, StateQuarantined}, []State{r.state(0), r.state(1), r.state(2)})
	assert.Equal(t, scsi.Strong, r.d.Identity().Strength())
	r.nameless(0, func(*fakeUnit) {})
	r.l.run(2 * recheckAfter.Nanoseconds())
	assert.Equal(t, StateUp, r.state(0))
	assert.Zero(t, other.counts[scsi.OpRead10]+other.counts[scsi.OpWrite10])
}

// The order of designators, and more of them, say nothing.
func TestDesignatorsInAnotherOrder(t *testing.T) {
	r := newRig(t, 2, nil)
	naa := r.unit.designators[0]
	t10 := scsi.Designator{CodeSet: scsi.CodeSetASCII, Type: scsi.DesignatorT10, ID: []byte("TESTVENDdisk 1")}
	eui := scsi.Designator{CodeSet: scsi.CodeSetBinary, Type: scsi.DesignatorEUI64, ID: []byte{0, 1, 0x40, 5, 6, 7, 8, 9}}
	r.unit.designators = []scsi.Designator{naa, t10}
	r.up()
	r.nameless(1, func(u *fakeUnit) { u.designators = []scsi.Designator{eui, t10, naa} })
	r.s[1].cut(msec)
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(1))
}
