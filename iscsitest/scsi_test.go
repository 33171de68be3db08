package iscsitest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

func testContext(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

func TestUnitsSayWhatTheyAre(t *testing.T) {
	medium := NewMemory(1 << 30)
	luns := []LUN{
		{Medium: medium, BlockSize: 4096, Serial: "SERIAL1", Vendor: "ACME", Product: "ROCKET", Revision: "7"},
		{Number: 5, DeviceType: scsi.TypeController},
		{Number: 300, NoUnmap: true, NoDesignators: true},
	}
	tgt := startTarget(t, Config{LUNs: luns, Portals: []Portal{{}, {TPGT: 2}}})
	c := loggedIn(t, tgt)

	list, err := scsi.ParseReportLuns(c.run(0, scsi.ReportLuns(1024), 1024).data)
	require.NoError(t, err)
	assert.Equal(t, []scsi.LUN{scsi.MakeLUN(0), scsi.MakeLUN(5), scsi.MakeLUN(300)}, list)

	inq, err := scsi.ParseInquiry(c.run(0, scsi.Inquiry(96), 96).data)
	require.NoError(t, err)
	assert.Equal(t, []string{"ACME", "ROCKET", "7"}, []string{inq.Vendor, inq.Product, inq.Revision})
	inq, err = scsi.ParseInquiry(c.run(5, scsi.Inquiry(96), 96).data)
	require.NoError(t, err)
	assert.Equal(t, scsi.TypeController, inq.DeviceType)
	inq, err = scsi.ParseInquiry(c.run(9, scsi.Inquiry(96), 96).data)
	require.NoError(t, err)
	assert.Equal(t, scsi.QualifierNotPossible, inq.PeripheralQualifier)

	serial, err := scsi.ParseSerial(c.run(0, scsi.InquiryVPD(scsi.VPDSerial, 255), 255).data)
	require.NoError(t, err)
	assert.Equal(t, "SERIAL1", serial)
	capacity, err := scsi.ParseReadCapacity16(c.run(0, scsi.ReadCapacity16(32), 32).data)
	require.NoError(t, err)
	assert.Equal(t, scsi.Capacity{LastLBA: 1<<18 - 1, BlockSize: 4096, LBPME: true, LBPRZ: true}, capacity)

	assert.Equal(t, scsi.ASCInvalidOpcode, c.run(5, scsi.Read(0, 1, 0), 512).sense.Code, "no disk")
	assert.Equal(t, scsi.ASCLUNNotSupported, c.run(9, scsi.TestUnitReady(), 0).sense.Code)
}

func TestDesignatorsAreTheSameOnEveryPath(t *testing.T) {
	medium := NewMemory(1 << 20)
	unit := func(tgt *Target, portal int) ([]scsi.Designator, uint16) {
		c := connect(t, tgt, portal)
		c.isid[5] = byte(portal)
		c.login()
		list, err := scsi.ParseDesignators(c.run(0, scsi.InquiryVPD(scsi.VPDDesignators, 1024), 1024).data)
		require.NoError(t, err)
		_, port, ok := scsi.PortGroup(list)
		require.True(t, ok)
		return scsi.UnitDesignators(list), port
	}
	a := startTarget(t, Config{LUNs: []LUN{{Medium: medium, Serial: "X"}}, Portals: []Portal{{}, {}}})
	b := startTarget(t, Config{LUNs: []LUN{{Medium: medium, Serial: "X"}}})
	first, port := unit(a, 0)
	second, otherPort := unit(a, 1)
	third, _ := unit(b, 0)
	assert.NotEmpty(t, first)
	assert.Equal(t, first, second)
	assert.Equal(t, first, third)
	assert.NotEqual(t, port, otherPort)
	require.NoError(t, a.SetSerial(0, "Y"))
	fourth, _ := unit(a, 0)
	assert.NotEqual(t, first, fourth)
}

func TestThinProvisioning(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	medium := tgt.Medium(0).(*Memory)
	require.Equal(t, scsi.Good, c.write(100, pattern(64<<10, 1)).status)
	assert.EqualValues(t, 64<<10, medium.Allocated())

	params := scsi.AppendUnmapDescriptors(nil, []scsi.Extent{{LBA: 110, Blocks: 10}, {LBA: 200, Blocks: 1}})
	c.send(c.command(0, scsi.Unmap(uint16(len(params))), uint32(len(params)), false, true), params)
	require.Equal(t, scsi.Good, c.await().status)
	assert.True(t, isZero(c.read(110, 10)))
	assert.EqualValues(t, (128-11)*512, medium.Allocated())

	status, err := scsi.ParseLBAStatus(c.run(0, scsi.GetLBAStatus(100, 512), 512).data)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(status), 4)
	assert.Equal(t, scsi.LBAExtent{LBA: 100, Blocks: 10}, status[0])
	assert.Equal(t, scsi.LBAExtent{LBA: 110, Blocks: 10, Provisioning: scsi.LBADeallocated}, status[1])
	assert.Equal(t, scsi.LBAExtent{LBA: 200, Blocks: 1, Provisioning: scsi.LBADeallocated}, status[3])

	// WRITE SAME: with data, and with UNMAP and no data at all.
	block := pattern(512, 9)
	c.send(c.command(0, scsi.WriteSame16(300, 20, false, false), 512, false, true), block)
	require.Equal(t, scsi.Good, c.await().status)
	assert.Equal(t, block, c.read(319, 1))
	c.send(c.command(0, scsi.WriteSame16(300, 20, true, true), 0, false, false), nil)
	require.Equal(t, scsi.Good, c.await().status)
	assert.True(t, isZero(c.read(300, 20)))
	assert.Empty(t, tgt.Violations())
}

func TestRefusals(t *testing.T) {
	tgt := startTarget(t, Config{LUNs: []LUN{{Size: 1 << 20, MaxTransfer: 64 << 10}, {Number: 1, ReadOnly: true, NoUnmap: true}}})
	c := loggedIn(t, tgt)
	for _, tc := range []struct {
		name string
		lun  uint16
		cdb  scsi.CDB
		key  scsi.SenseKey
		code scsi.ASC
	}{
		{"past the end", 0, scsi.Read(2048, 1, 0), scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange},
		{"across the end", 0, scsi.Read(2047, 2, 0), scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange},
		{"address that wraps", 0, scsi.Read16(^uint64(0), 2, 0), scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange},
		{"too long", 0, scsi.Read(0, 129, 0), scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB},
		{"unknown opcode", 0, scsi.CDB{0xc0}, scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode},
		{"unknown service action", 0, scsi.CDB{0x9e, 0x1e}, scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB},
		{"unknown page", 0, scsi.InquiryVPD(0xc7, 64), scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB},
		{"protection information", 0, scsi.CDB{0x28, 0x20, 8: 1}, scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB},
		{"read only", 1, scsi.Write(0, 1, 0), scsi.KeyDataProtect, scsi.ASCWriteProtected},
		{"no such unit", 2, scsi.Read(0, 1, 0), scsi.KeyIllegalRequest, scsi.ASCLUNNotSupported},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := c.run(tc.lun, tc.cdb, 512)
			assert.Equal(t, scsi.CheckCondition, o.status)
			assert.Equal(t, []any{tc.key, tc.code}, []any{o.sense.Key, o.sense.Code})
		})
	}
	m, err := scsi.ParseModeSense6(c.run(1, scsi.ModeSense6(scsi.ModePageAll, 0, false, 255), 255).data)
	require.NoError(t, err)
	assert.True(t, m.WriteProtected)
	caching, ok := m.Caching()
	assert.True(t, ok && caching.WCE)
}

func TestChangesAreReportedByUnitAttention(t *testing.T) {
	tgt := startTarget(t, Config{LUNs: []LUN{{PowerOnUA: true}}})
	c := loggedIn(t, tgt)
	expect := func(key scsi.SenseKey, code scsi.ASC) {
		t.Helper()
		o := c.run(0, scsi.TestUnitReady(), 0)
		require.Equal(t, scsi.CheckCondition, o.status)
		assert.Equal(t, []any{key, code}, []any{o.sense.Key, o.sense.Code})
	}
	require.Equal(t, scsi.Good, c.run(0, scsi.Inquiry(36), 36).status, "INQUIRY does not report it")
	expect(scsi.KeyUnitAttention, scsi.ASCPowerOnOrReset)
	require.Equal(t, scsi.Good, c.run(0, scsi.TestUnitReady(), 0).status)

	require.NoError(t, tgt.SetSize(0, 32<<20))
	expect(scsi.KeyUnitAttention, scsi.ASCCapacityChanged)
	capacity, err := scsi.ParseReadCapacity10(c.run(0, scsi.ReadCapacity10(), 8).data)
	require.NoError(t, err)
	assert.EqualValues(t, 32<<20, capacity.Bytes())
	require.NoError(t, tgt.SetSerial(0, "other"))
	expect(scsi.KeyUnitAttention, scsi.ASCInquiryDataChanged)
	require.NoError(t, tgt.UnitAttention(0, scsi.ASCReportedLUNsChanged))
	sense, ok := scsi.ParseSense(c.run(0, scsi.RequestSense(18), 18).data)
	require.True(t, ok)
	assert.Equal(t, scsi.ASCReportedLUNsChanged, sense.Code, "REQUEST SENSE takes it")
	require.NoError(t, tgt.SetNotReady(0, scsi.ASCALUATransition))
	expect(scsi.KeyNotReady, scsi.ASCALUATransition)
	require.NoError(t, tgt.SetNotReady(0, 0))
	require.NoError(t, tgt.SetReadOnly(0, true))
	assert.Equal(t, scsi.ASCWriteProtected, c.write(0, pattern(512, 1)).sense.Code)

	require.Error(t, tgt.SetSize(9, 1<<20))
	require.Error(t, tgt.SetSize(0, 1))
}

// brokenMedium fails, or blocks until told.
type brokenMedium struct {
	*Memory
	wait chan struct{}
	err  error
}

func (b *brokenMedium) ReadAt(p []byte, off int64) (int, error) {
	<-b.wait
	if b.err != nil {
		return 0, b.err
	}
	return b.Memory.ReadAt(p, off)
}

func TestMediumMayBlockOrFail(t *testing.T) {
	m := &brokenMedium{Memory: NewMemory(1 << 20), wait: make(chan struct{}), err: errors.New("head crash")}
	tgt := startTarget(t, Config{LUNs: []LUN{{Medium: m}}})
	c := loggedIn(t, tgt)
	c.send(c.command(0, scsi.Read(0, 1, 0), 512, true, false), nil)
	c.ping() // the connection is served all the while
	close(m.wait)
	o := c.await()
	assert.Equal(t, scsi.Sense{Key: scsi.KeyMediumError, Code: scsi.ASCUnrecoveredReadError}, o.sense)
}

func TestFUAReachesTheMedium(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	medium := tgt.Medium(0).(*Memory)
	c.write(0, pattern(512, 1))
	assert.Zero(t, medium.Syncs())
	c.send(c.command(0, scsi.Write(0, 1, scsi.FUA), 512, false, true), pattern(512, 1))
	require.Equal(t, scsi.Good, c.await().status)
	assert.Equal(t, 1, medium.Syncs())
	require.Equal(t, scsi.Good, c.run(0, scsi.SyncCache16(0, 0), 0).status)
	assert.Equal(t, 2, medium.Syncs())
}
