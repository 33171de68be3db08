package mpio

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

func TestUnitsThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*fakeUnit)
		err    error
		says   string
	}{
		{"no such LUN", func(u *fakeUnit) { u.inquiry.PeripheralQualifier, u.inquiry.DeviceType = 3, 0x1f }, ErrNoSuchLUN, "iscsimp luns"},
		{"nothing connected", func(u *fakeUnit) { u.inquiry.PeripheralQualifier = 1 }, ErrNoSuchLUN, "access list"},
		{"controller", func(u *fakeUnit) { u.inquiry.DeviceType = scsi.TypeController }, ErrController, "LUN 1"},
		{"processor", func(u *fakeUnit) { u.inquiry.DeviceType = scsi.TypeProcessor }, ErrNotDisk, "choose a disk"},
		{"odd blocks", func(u *fakeUnit) { u.capacity.BlockSize = 520 }, ErrBlockSize, "reformat"},
		{"huge blocks", func(u *fakeUnit) { u.capacity.BlockSize = 1 << 20 }, ErrBlockSize, "reformat"},
		{"no capacity", func(u *fakeUnit) {
			u.refuse[scsi.OpReadCapacity10], u.refuse[scsi.OpServiceActionIn16] = true, true
		}, nil, "READ CAPACITY"},
		{"INQUIRY refused", func(u *fakeUnit) { u.refuse[scsi.OpInquiry] = true }, ErrNoSuchLUN, "LUN 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 1, nil)
			c.change(r.unit)
			r.d.Start()
			r.l.run(sec)
			assert.Equal(t, StateDown, r.state(0))
			assert.False(t, r.d.Ready())
			e := r.event(PathDown)
			if c.err != nil {
				assert.ErrorIs(t, e.Err, c.err)
			}
			assert.Contains(t, e.Text, c.says)

			// It is looked at again, and may be right by then.
			fixed := newFakeUnit(16)
			*r.unit = *fixed
			r.l.run(recheckAfter.Nanoseconds() + sec)
			assert.Equal(t, StateUp, r.state(0))
			assert.True(t, r.d.Ready())
		})
	}
}

func TestPoorUnitsAreUsed(t *testing.T) {
	r := newRig(t, 2, nil)
	r.unit.noVPD = true
	r.unit.refuse[scsi.OpServiceActionIn16] = true
	r.unit.refuse[scsi.OpModeSense6] = true
	r.unit.serial, r.unit.designators = "", nil
	r.up()
	assert.False(t, r.d.Geometry().CanTrim)
	assert.False(t, r.d.caps.fua)
	assert.Equal(t, StateUp, r.state(1), "same target name and LUN is the second proof")
}

func TestWaitsForTheUnit(t *testing.T) {
	r := newRig(t, 1, nil)
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() == scsi.OpTestUnitReady && r.l.now < 20*sec {
			return sense(scsi.KeyNotReady, scsi.ASCBecomingReady), true
		}
		return answer{}, false
	}
	r.d.Start()
	r.l.run(5 * sec)
	assert.Equal(t, StateChecking, r.state(0))
	assert.Contains(t, r.d.paths[0].reason, "becoming ready")
	r.l.run(20 * sec)
	assert.Equal(t, StateUp, r.state(0))
}

func TestNeverReady(t *testing.T) {
	for name, code := range map[string]scsi.ASC{"becoming ready": scsi.ASCBecomingReady, "standby": scsi.ASCALUAStandby} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, func(c *Config) { c.WaitTimeout = 5 * time.Second })
			r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
				return sense(scsi.KeyNotReady, code), cdb.Opcode() == scsi.OpTestUnitReady
			}
			r.d.Start()
			r.l.run(8 * sec)
			assert.Equal(t, StateDown, r.state(0))
		})
	}
}

func TestUnitAttentionsWithoutEnd(t *testing.T) {
	r := newRig(t, 1, nil)
	n := 0
	r.s[0].intercept = func(scsi.CDB) (answer, bool) {
		n++
		return sense(scsi.KeyUnitAttention, scsi.ASCPowerOn), true
	}
	r.d.Start()
	r.l.run(5 * sec)
	assert.Equal(t, StateDown, r.state(0))
	assert.Equal(t, maxAttentions+1, n)
}

func TestCheckTimesOut(t *testing.T) {
	r := newRig(t, 1, func(c *Config) { c.IdentifyTimeout = 2 * time.Second })
	r.s[0].hold = true
	r.d.Start()
	r.l.run(2500 * msec)
	assert.Equal(t, 1, r.s[0].drops)
	assert.Contains(t, r.event(PathDown).Text, "INQUIRY was not answered")
	r.s[0].release()
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(0))
}

func TestCheckSurvivesFullWindow(t *testing.T) {
	r := newRig(t, 1, nil)
	r.s[0].room = 0
	r.d.Start()
	r.l.run(sec)
	r.s[0].room = 1
	r.l.run(sec)
	assert.Equal(t, StateUp, r.state(0))
}

func TestCheckSurvivesLossAtEveryStep(t *testing.T) {
	for step := range 12 {
		r := newRig(t, 2, nil)
		n := 0
		r.s[0].intercept = func(scsi.CDB) (answer, bool) {
			if n++; n == step+1 {
				r.l.after(0, func() { r.s[0].cut(100 * msec) })
			}
			return answer{}, false
		}
		r.d.Start()
		r.l.run(sec)
		require.Equal(t, StateUp, r.state(0), step)
	}
}

// otherUnit is another unit of the same kind.
func otherUnit() *fakeUnit {
	u := newFakeUnit(4096)
	u.serial = "SN0002"
	u.designators[0].ID = slices.Clone(u.designators[0].ID)
	u.designators[0].ID[15]++
	return u
}

func TestOtherUnitIsQuarantined(t *testing.T) {
	for name, change := range map[string]func(*fakeUnit){
		"designator": func(u *fakeUnit) { *u = *otherUnit() },
		"smaller":    func(u *fakeUnit) { u.capacity.LastLBA-- },
		"block size": func(u *fakeUnit) { u.capacity.BlockSize = 4096 },
		"only the serial is alike": func(u *fakeUnit) {
			u.designators = otherUnit().designators
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, nil)
			other := newFakeUnit(4096)
			change(other)
			r.s[1].unit = other
			r.s[1].loginTakes = 50 * msec
			r.d.Start()
			r.l.run(sec)
			require.Equal(t, StateQuarantined, r.state(1))
			e := r.event(PathQuarantined)
			assert.ErrorIs(t, e.Err, ErrOtherUnit)
			for i := range 50 {
				r.read(i, 1)
				r.write(i, 1, 1)
			}
			r.l.run(sec)
			r.s[0].cut(1000 * sec)
			q := r.read(0, 1)
			r.l.run(sec)
			assert.False(t, q.done, "not even when nothing else is left")
			assert.Zero(t, other.counts[scsi.OpRead10]+other.counts[scsi.OpWrite10])

			r.s[1].unit = r.unit // repaired
			require.NoError(t, r.d.SetPath("b", PathOp{Kind: OpUp}))
			r.l.run(sec)
			assert.Equal(t, StateUp, r.state(1))
			assert.True(t, q.done)
			r.requireIdle()
		})
	}
}

func TestOtherTargetNameNeedsProof(t *testing.T) {
	r := newRig(t, 1, nil)
	require.NoError(t, r.d.AddPath(PathConfig{ID: "b", Target: "iqn.2026-01.test:other"}))
	r.unit.designators = nil
	r.s[1].loginTakes = 50 * msec
	r.d.Start()
	r.l.run(sec)
	assert.Equal(t, StateQuarantined, r.state(1), "an equal serial number is not enough")

	r = newRig(t, 1, nil)
	require.NoError(t, r.d.AddPath(PathConfig{ID: "b", Target: "iqn.2026-01.test:other"}))
	r.up()
}

func TestSwapDuringAnOutage(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.s[0].cut(sec)
	other := otherUnit()
	r.s[0].unit = other
	r.l.run(3 * sec)
	assert.Equal(t, StateQuarantined, r.state(0))
	for i := range 20 {
		r.write(i, 1, 1)
	}
	r.l.run(sec)
	assert.Zero(t, other.counts[scsi.OpWrite10])
}

// The target says that its LUNs changed: what is in flight on the path is not
// trusted, and new commands avoid it until the unit was looked at.
func TestDoubt(t *testing.T) {
	for _, code := range []scsi.ASC{scsi.ASCReportedLUNsChanged, scsi.ASCInquiryDataChanged, scsi.ASCPowerOnOrReset, scsi.ASCNexusLoss, scsi.ASCCapacityChanged, scsi.ASCMediumMayHaveChanged} {
		t.Run(code.String(), func(t *testing.T) {
			r := newRig(t, 2, nil).up()
			r.only(0)
			other := otherUnit()
			copy(other.data, stamp(99, 10))
			n := 0
			r.s[0].serial = true
			r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
				if n++; n == 1 {
					r.s[0].unit = other
					return sense(scsi.KeyUnitAttention, code), true
				}
				return answer{}, false
			}
			first, second := r.read(0, 1), r.read(1, 1)
			r.l.run(100 * usec)
			assert.Equal(t, StateChecking, r.state(0))
			third := r.read(2, 1)
			r.l.run(100 * msec)
			for _, q := range []*result{first, second, third} {
				require.True(t, q.done)
				require.NoError(t, q.Err)
				assert.Equal(t, stamp(0, 1), q.Data, "never another unit's data")
			}
			assert.Equal(t, StateQuarantined, r.state(0))
			assert.Equal(t, 1, other.counts[scsi.OpRead10], "what was on its way already")
		})
	}
}

func TestVanishedLUN(t *testing.T) {
	r := newRig(t, 2, nil).up()
	r.only(0)
	r.s[0].intercept = func(scsi.CDB) (answer, bool) {
		return sense(scsi.KeyIllegalRequest, scsi.ASCLUNNotSupported), true
	}
	q := r.read(0, 1)
	r.l.run(sec)
	assert.True(t, q.done)
	assert.NoError(t, q.Err)
	assert.Equal(t, StateDown, r.state(0))
	assert.ErrorIs(t, r.event(PathDown).Err, ErrNoSuchLUN)
}

func TestLimitOfALaterPath(t *testing.T) {
	r := newRig(t, 2, nil)
	narrow := *r.unit
	narrow.limits.MaxTransfer = 8
	r.s[1].unit = &narrow
	r.s[1].loginTakes = 50 * msec
	r.d.Start()
	r.l.run(20 * msec)
	assert.Equal(t, uint32(maxTransferCap), r.d.Geometry().MaxTransfer)
	r.l.run(sec)
	assert.Equal(t, uint32(8*512), r.d.Geometry().MaxTransfer)
}

func TestQuirks(t *testing.T) {
	for _, c := range []struct {
		vendor, product, revision string
		want                      []string
	}{
		{"GOSTOR", "GOTGT", "0.1", []string{"write-same", "unproven-reinstatement"}},
		{"IET", "VIRTUAL-DISK", "0001", []string{"compare-and-write"}},
		{"IET", "VIRTUAL", "0001", nil},
		{"TESTVEND", "DISK", "0001", nil},
		{"", "", "", nil},
	} {
		assert.Equal(t, c.want, quirksOf(c.vendor, c.product, c.revision).Names())
	}
}

func TestSessionCannotBeMade(t *testing.T) {
	r := newRig(t, 0, func(c *Config) {
		c.NewSession = func(PathConfig, session.Observer) (Session, error) { return nil, block.ErrNotSup }
	})
	assert.ErrorIs(t, r.d.AddPath(PathConfig{ID: "a"}), block.ErrNotSup)
	assert.Empty(t, r.d.paths)
}
