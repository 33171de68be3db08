package mpio

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/scsi"
)

func TestReadAndWrite(t *testing.T) {
	r := newRig(t, 2, nil).up()
	g := r.d.Geometry()
	assert.Equal(t, uint64(4096*testBlock), g.Size)
	assert.Equal(t, uint32(testBlock), g.BlockSize)
	assert.Equal(t, DeviceReady, r.event(DeviceReady).Kind)

	w := r.write(10, 3, 7)
	assert.False(t, w.done)
	r.l.run(msec)
	require.True(t, w.done)
	require.NoError(t, w.Err)
	rd := r.read(9, 5)
	r.l.run(msec)
	require.True(t, rd.done)
	require.NoError(t, rd.Err)
	assert.Equal(t, append(append(stamp(0, 1), stamp(7, 3)...), stamp(0, 1)...), rd.Data)
	r.requireIdle()
}

func TestRefused(t *testing.T) {
	r := newRig(t, 1, nil)
	early := r.read(0, 1)
	assert.ErrorIs(t, early.Err, block.ErrIO, "before the device is ready")
	r.up()
	size := r.d.Geometry().Size
	for _, c := range []struct {
		name string
		req  block.Request
		want error
	}{
		{"past the end", block.Request{Op: block.OpRead, Offset: size - 512, Length: 1024, Data: make([]byte, 1024)}, block.ErrRange},
		{"far past the end", block.Request{Op: block.OpTrim, Offset: 1 << 63, Length: 1 << 63}, block.ErrRange},
		{"length wraps", block.Request{Op: block.OpWriteZeroes, Offset: 512, Length: ^uint64(0) - 511}, block.ErrRange},
		{"odd offset", block.Request{Op: block.OpRead, Offset: 1, Length: 512, Data: make([]byte, 512)}, block.ErrAlign},
		{"odd length", block.Request{Op: block.OpWrite, Length: 100, Data: make([]byte, 100)}, block.ErrAlign},
		{"buffer too small", block.Request{Op: block.OpRead, Length: 1024, Data: make([]byte, 512)}, block.ErrRange},
		{"unknown operation", block.Request{Op: 99}, block.ErrNotSup},
		{"nothing to do", block.Request{Op: block.OpRead, Offset: size}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := r.submit(c.req)
			require.True(t, q.done)
			assert.ErrorIs(t, q.Err, c.want)
		})
	}
	r.requireIdle()
}

func TestReadOnly(t *testing.T) {
	for _, byMode := range []bool{false, true} {
		r := newRig(t, 1, func(c *Config) { c.ReadOnly = !byMode })
		r.unit.mode.WriteProtected = byMode
		r.up()
		assert.True(t, r.d.Geometry().ReadOnly)
		for _, op := range []block.Op{block.OpTrim, block.OpWriteZeroes} {
			assert.ErrorIs(t, r.submit(block.Request{Op: op, Length: 512}).Err, block.ErrReadOnly)
		}
		assert.ErrorIs(t, r.write(0, 1, 1).Err, block.ErrReadOnly)
		q := r.read(0, 1)
		r.l.run(msec)
		assert.True(t, q.done)
		assert.NoError(t, q.Err)
	}
}

func TestSplitting(t *testing.T) {
	r := newRig(t, 2, nil)
	r.unit.limits.MaxTransfer = 8
	r.up()
	w := r.write(1, 1000, 5)
	assert.LessOrEqual(t, r.d.live, maxChildren, "the commands of one request are bounded")
	r.l.run(sec)
	require.True(t, w.done)
	require.NoError(t, w.Err)
	assert.Equal(t, 125, r.unit.counts[scsi.OpWrite10])
	rd := r.read(0, 1002)
	r.l.run(sec)
	require.True(t, rd.done)
	assert.Equal(t, append(append(stamp(0, 1), stamp(5, 1000)...), stamp(0, 1)...), rd.Data)
	r.requireIdle()
}

func TestFirstErrorWins(t *testing.T) {
	r := newRig(t, 1, nil)
	r.unit.limits.MaxTransfer = 8
	r.up()
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() == scsi.OpRead10 && cdb.LBA() == 16 {
			return sense(scsi.KeyMediumError, scsi.ASCUnrecoveredReadError), true
		}
		return answer{}, false
	}
	q := r.read(0, 800)
	r.l.run(sec)
	require.True(t, q.done)
	require.ErrorIs(t, q.Err, block.ErrIO)
	assert.Contains(t, q.Err.Error(), "127.0.0.1:3260")
	assert.Contains(t, q.Err.Error(), "MEDIUM ERROR")
	assert.Less(t, r.unit.counts[scsi.OpRead10], 40, "nothing is started after an error")
	r.requireIdle()
}

func TestFlushAndFUA(t *testing.T) {
	r := newRig(t, 1, nil)
	r.unit.mode.DPOFUA = false
	r.up()
	q := r.submit(block.Request{Op: block.OpFlush})
	r.l.run(msec)
	require.True(t, q.done)
	assert.NoError(t, q.Err)
	assert.Equal(t, 1, r.unit.counts[scsi.OpSyncCache10])

	w := r.submit(block.Request{Op: block.OpWrite, FUA: true, Length: 512, Data: stamp(1, 1)})
	r.l.run(50 * usec)
	assert.Equal(t, 1, r.unit.counts[scsi.OpSyncCache10])
	r.l.run(msec)
	require.True(t, w.done)
	assert.Equal(t, 2, r.unit.counts[scsi.OpSyncCache10], "without the FUA bit a flush follows the write")
	r.requireIdle()
}

func TestFUABit(t *testing.T) {
	r := newRig(t, 1, nil).up()
	var flags scsi.RWFlags
	r.s[0].intercept = func(cdb scsi.CDB) (answer, bool) {
		if cdb.Opcode() == scsi.OpWrite10 {
			flags = cdb.Flags()
			if flags&scsi.FUA != 0 && cdb.LBA() == 9 {
				return sense(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB), true
			}
		}
		return answer{}, false
	}
	w := r.submit(block.Request{Op: block.OpWrite, FUA: true, Length: 512, Data: stamp(1, 1)})
	r.l.run(msec)
	require.True(t, w.done)
	assert.Equal(t, scsi.FUA, flags)
	assert.Zero(t, r.unit.counts[scsi.OpSyncCache10])

	w = r.submit(block.Request{Op: block.OpWrite, FUA: true, Offset: 9 * 512, Length: 512, Data: stamp(2, 1)})
	r.l.run(msec)
	require.True(t, w.done)
	require.NoError(t, w.Err, "a target that refuses the bit after all")
	assert.Equal(t, uint64(2), r.at(9))
	assert.Equal(t, 1, r.unit.counts[scsi.OpSyncCache10])
	r.requireIdle()
}

func TestNoFlushCommand(t *testing.T) {
	for _, none := range []bool{false, true} {
		r := newRig(t, 1, nil)
		r.unit.refuse[scsi.OpSyncCache10] = true
		r.unit.refuse[scsi.OpSyncCache16] = none
		r.up()
		for range 2 {
			require.NoError(t, r.waitFor(r.flush()))
		}
		tries := 2 // the 16-byte form is tried
		if none {
			tries = 1 // then it is known that nothing is cached
		}
		assert.Equal(t, tries, r.unit.counts[scsi.OpSyncCache16])
		assert.Equal(t, 1, r.unit.counts[scsi.OpSyncCache10])
		r.requireIdle()
	}
}

func TestTrim(t *testing.T) {
	r := newRig(t, 1, nil)
	r.unit.limits.MaxUnmapBlocks, r.unit.limits.MaxUnmapDescriptors = 100, 1
	r.unit.limits.UnmapGranularity, r.unit.limits.UnmapAlignment, r.unit.limits.UnmapAlignmentValid = 8, 3, true
	r.unit.provisioning.LBPU = true
	r.up()
	assert.True(t, r.d.Geometry().CanTrim)
	w := r.write(0, 400, 1)
	r.l.run(msec)
	require.True(t, w.done)
	q := r.submit(block.Request{Op: block.OpTrim, Offset: 1 * 512, Length: 300 * 512})
	r.l.run(msec)
	require.True(t, q.done)
	require.NoError(t, q.Err)
	assert.Equal(t, uint64(1), r.at(2), "before the first whole granule")
	assert.Equal(t, uint64(0), r.at(3))
	assert.Equal(t, uint64(0), r.at(298))
	assert.Equal(t, uint64(1), r.at(299), "after the last whole granule")
	assert.Equal(t, 4, r.unit.counts[scsi.OpUnmap])

	small := r.submit(block.Request{Op: block.OpTrim, Offset: 4 * 512, Length: 512})
	assert.True(t, small.done, "less than a granule: nothing to do")
	r.unit.refuse[scsi.OpUnmap] = true
	q = r.submit(block.Request{Op: block.OpTrim, Length: 64 * 512})
	r.l.run(msec)
	require.True(t, q.done)
	assert.NoError(t, q.Err, "a hint that is refused is no error")
	assert.False(t, r.d.Geometry().CanTrim)
	r.requireIdle()
}

func TestWriteZeroes(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*fakeUnit)
		canZero bool
		same    int
	}{
		{"plain writes", func(*fakeUnit) {}, false, 0},
		{"offloaded", func(u *fakeUnit) { u.limits.MaxWriteSame = 1000 }, true, 3},
		{"provisioned", func(u *fakeUnit) { u.provisioning.LBPWS = true }, true, 1},
		{"announced but refused", func(u *fakeUnit) {
			u.provisioning.LBPWS = true
			u.refuse[scsi.OpWriteSame16] = true
		}, false, 1},
		{"a target known to lie", func(u *fakeUnit) {
			u.limits.MaxWriteSame = 1000
			u.inquiry.Vendor, u.inquiry.Product = "GOSTOR", "GOTGT"
		}, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 2, func(cfg *Config) { cfg.MaxTransfer = minTransferCap })
			c.change(r.unit)
			r.up()
			w := r.write(0, 4000, 1)
			r.l.run(sec)
			require.True(t, w.done)
			q := r.submit(block.Request{Op: block.OpWriteZeroes, Offset: 512, Length: 3000 * 512})
			r.l.run(sec)
			require.True(t, q.done)
			require.NoError(t, q.Err)
			for lba := range 4000 {
				if want := uint64(1); lba >= 1 && lba <= 3000 {
					require.Zero(t, r.at(lba), lba)
				} else {
					require.Equal(t, want, r.at(lba), lba)
				}
			}
			assert.Equal(t, c.canZero, r.d.Geometry().CanZero)
			assert.Equal(t, c.same, r.unit.counts[scsi.OpWriteSame16])
			r.requireIdle()
		})
	}
}

func TestLargeBlocks(t *testing.T) {
	r := newRig(t, 1, nil)
	r.unit.capacity = scsi.Capacity{LastLBA: 511, BlockSize: 4096}
	r.up()
	assert.Equal(t, uint32(4096), r.d.Geometry().BlockSize)
	assert.ErrorIs(t, r.read(1, 8).Err, block.ErrAlign)
	q := r.read(8, 8)
	r.l.run(msec)
	assert.True(t, q.done)
	assert.NoError(t, q.Err)
}

// The second path takes less in one command than the first: zeros keep to that, too.
func TestZeroesKeepToTheLeastTransfer(t *testing.T) {
	r := newRig(t, 2, nil)
	r.s[1].loginTakes = sec
	r.d.Start()
	r.l.run(100 * msec)
	require.True(t, r.d.ready)
	small := *r.unit
	small.limits.MaxTransfer = 8
	r.s[1].unit = &small
	r.l.run(2 * sec)
	require.Equal(t, StateUp, r.state(1))
	r.s[1].intercept = func(cdb scsi.CDB) (answer, bool) {
		return sense(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB), cdb.Opcode() == scsi.OpWrite10 && cdb.Blocks() > 8
	}
	r.only(1)
	require.NoError(t, r.waitFor(r.submit(block.Request{Op: block.OpWriteZeroes, Length: 100 * testBlock})))
	require.NoError(t, r.waitFor(r.write(0, 100, 1)))
	r.requireIdle()
}
