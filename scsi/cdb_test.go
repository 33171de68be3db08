package scsi

import (
	"math"
	"testing"
	"testing/quick"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// cdbGolden has every builder with the bytes the standard wants and the text of
// the trace.
var cdbGolden = []struct {
	name string
	cdb  CDB
	want string // Len bytes
	text string
}{
	{"tur", TestUnitReady(), "00 00 00 00 00 00", "TEST UNIT READY"},
	{"inquiry", Inquiry(0x1234), "12 00 00 12 34 00", "INQUIRY alloc=4660"},
	{"vpd", InquiryVPD(0x83, 252), "12 01 83 00 fc 00", "INQUIRY page=0x83 alloc=252"},
	{"report luns", ReportLuns(0x01020304), "a0 00 00 00 00 00 01 02 03 04 00 00", "REPORT LUNS alloc=16909060"},
	{"capacity10", ReadCapacity10(), "25 00 00 00 00 00 00 00 00 00", "READ CAPACITY(10)"},
	{"capacity16", ReadCapacity16(32), "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00", "READ CAPACITY(16) alloc=32"},
	{
		"lba status", GetLBAStatus(0x0102030405060708, 24), "9e 12 01 02 03 04 05 06 07 08 00 00 00 18 00 00",
		"GET LBA STATUS lba=72623859790382856 alloc=24",
	},
	{"read10", Read10(0x01020304, 0x0506, 0), "28 00 01 02 03 04 00 05 06 00", "READ(10) lba=16909060 blocks=1286"},
	{"read10 fua dpo", Read10(64, 8, FUA|DPO), "28 18 00 00 00 40 00 00 08 00", "READ(10) lba=64 blocks=8 FUA DPO"},
	{
		"read16", Read16(0x0102030405060708, 0x090a0b0c, DPO), "88 10 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
		"READ(16) lba=72623859790382856 blocks=151653132 DPO",
	},
	{"write10", Write10(0x01020304, 0x0506, FUA), "2a 08 01 02 03 04 00 05 06 00", "WRITE(10) lba=16909060 blocks=1286 FUA"},
	{
		"write16", Write16(1<<32, 65536, FUA), "8a 08 00 00 00 01 00 00 00 00 00 01 00 00 00 00",
		"WRITE(16) lba=4294967296 blocks=65536 FUA",
	},
	{"sync10", SyncCache10(1, 2), "35 00 00 00 00 01 00 00 02 00", "SYNCHRONIZE CACHE(10) lba=1 blocks=2"},
	{"sync all", SyncCache10(0, 0), "35 00 00 00 00 00 00 00 00 00", "SYNCHRONIZE CACHE(10) lba=0 blocks=0"},
	{
		"sync16", SyncCache16(1<<40, 2), "91 00 00 00 01 00 00 00 00 00 00 00 00 02 00 00",
		"SYNCHRONIZE CACHE(16) lba=1099511627776 blocks=2",
	},
	{"unmap", Unmap(24), "42 00 00 00 00 00 00 00 18 00", "UNMAP param=24"},
	{"same10", WriteSame10(9, 7, false, false), "41 00 00 00 00 09 00 00 07 00", "WRITE SAME(10) lba=9 blocks=7"},
	{"same10 unmap", WriteSame10(9, 7, true, false), "41 08 00 00 00 09 00 00 07 00", "WRITE SAME(10) lba=9 blocks=7 UNMAP"},
	{
		"same10 ndob", WriteSame10(9, 7, false, true), "93 01 00 00 00 00 00 00 00 09 00 00 00 07 00 00",
		"WRITE SAME(16) lba=9 blocks=7 NDOB",
	},
	{
		"same16", WriteSame16(9, 7, true, true), "93 09 00 00 00 00 00 00 00 09 00 00 00 07 00 00",
		"WRITE SAME(16) lba=9 blocks=7 UNMAP NDOB",
	},
	{"sense", RequestSense(252), "03 00 00 00 fc 00", "REQUEST SENSE alloc=252"},
	{"mode6", ModeSense6(0x08, 0, true, 192), "1a 08 08 00 c0 00", "MODE SENSE(6) page=0x08 alloc=192"},
	{"mode10", ModeSense10(0x3f, 0xff, false, 0x0203), "5a 00 3f ff 00 00 00 02 03 00", "MODE SENSE(10) page=0x3f alloc=515"},
	{
		"opcodes", ReportSupportedOpcodes(ReportOpcodeAction, OpServiceActionIn16, 0x12, 64), "a3 0c 02 9e 00 12 00 00 00 40 00 00",
		"REPORT SUPPORTED OPERATION CODES alloc=64",
	},
	{"groups", ReportTargetPortGroups(false, 512), "a3 0a 00 00 00 00 00 00 02 00 00 00", "REPORT TARGET PORT GROUPS alloc=512"},
	{"groups extended", ReportTargetPortGroups(true, 512), "a3 2a 00 00 00 00 00 00 02 00 00 00", "REPORT TARGET PORT GROUPS alloc=512"},
	{"set groups", SetTargetPortGroups(8), "a4 0a 00 00 00 00 00 00 00 08 00 00", "SET TARGET PORT GROUPS param=8"},
	{"read keys", PersistentReserveIn(SAReadKeys, 520), "5e 00 00 00 00 00 00 02 08 00", "PERSISTENT RESERVE IN READ KEYS alloc=520"},
	{
		"preempt", PersistentReserveOut(SAPreemptAndAbort, WriteExclusiveRegistrantsOnly), "5f 05 05 00 00 00 00 00 18 00",
		"PERSISTENT RESERVE OUT PREEMPT AND ABORT param=24",
	},
}

func TestBuildersMakeTheStandardsBytes(t *testing.T) {
	for _, tt := range cdbGolden {
		t.Run(tt.name, func(t *testing.T) {
			want := unhex(t, tt.want)
			require.Equal(t, len(want), tt.cdb.Len(), "length by group code")
			assert.Equal(t, want, tt.cdb[:tt.cdb.Len()])
			for _, b := range tt.cdb[tt.cdb.Len():] {
				assert.Zero(t, b, "padding")
			}
			assert.Equal(t, tt.text, tt.cdb.String())
		})
	}
}

func TestReadAndWriteChooseTheShorterForm(t *testing.T) {
	tests := []struct {
		name   string
		lba    uint64
		blocks uint32
		ten    bool
	}{
		{"nothing", 0, 0, true},
		{"most blocks", 0, 65535, true},
		{"too many blocks", 0, 65536, false},
		{"last block below 2^32", math.MaxUint32, 1, true},
		{"passes 2^32", math.MaxUint32, 2, false},
		{"ends at 2^32", 1<<32 - 65535, 65535, true},
		{"beyond", 1 << 32, 1, false},
		{"sum wraps around", math.MaxUint64, 65535, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			long := map[bool][4]Opcode{
				true:  {OpRead10, OpWrite10, OpSyncCache10, OpWriteSame10},
				false: {OpRead16, OpWrite16, OpSyncCache16, OpWriteSame16},
			}[tt.ten]
			for i, c := range []CDB{
				Read(tt.lba, tt.blocks, FUA), Write(tt.lba, tt.blocks, FUA),
				SyncCache10(tt.lba, tt.blocks), WriteSame10(tt.lba, tt.blocks, true, false),
			} {
				assert.Equal(t, long[i], c.Opcode())
				assert.Equal(t, tt.lba, c.LBA(), c.Opcode())
				assert.Equal(t, tt.blocks, c.Blocks(), c.Opcode())
			}
			assert.Equal(t, Read(tt.lba, tt.blocks, 0), Read10(tt.lba, tt.blocks, 0))
			assert.Equal(t, Write(tt.lba, tt.blocks, 0), Write10(tt.lba, tt.blocks, 0))
		})
	}
}

func TestBlocksAndFlagsSurviveTheCDB(t *testing.T) {
	same := func(lba uint64, blocks uint32, flags RWFlags) bool {
		flags &= FUA | DPO
		for _, at := range []uint64{lba, lba >> 32, lba >> 33} {
			for _, n := range []uint32{blocks, blocks >> 16} {
				for _, c := range []CDB{Read(at, n, flags), Write(at, n, flags), Read16(at, n, flags), Write16(at, n, flags)} {
					if c.LBA() != at || c.Blocks() != n || c.Flags() != flags {
						return false
					}
				}
			}
		}
		return true
	}
	require.NoError(t, quick.Check(same, nil))
}

func TestBuildersIgnoreForeignBits(t *testing.T) {
	assert.Equal(t, Read10(1, 1, FUA|DPO), Read10(1, 1, 0xff), "only FUA and DPO reach the CDB: no protection bits")
	assert.Equal(t, Write16(1, 1, 0), Write16(1, 1, 0xe7))
	assert.Equal(t, ModeSense6(0x08, 0, false, 4), ModeSense6(0xc8, 0, false, 4), "always current values")
}

func TestFieldsOfCommandsOfATarget(t *testing.T) {
	tests := []struct {
		name   string
		cdb    string
		lba    uint64
		blocks uint32
		flags  RWFlags
		length int
	}{
		{"read6", "08 01 02 03 04 00", 0x010203, 4, 0, 6},
		{"read6 reserved bits", "08 ff 02 03 04 00", 0x1f0203, 4, 0, 6},
		{"write6 of 256", "0a 1f ff ff 00 00", 0x1fffff, 256, 0, 6},
		{"read12", "a8 08 01 02 03 04 05 06 07 08 00 00", 0x01020304, 0x05060708, FUA, 12},
		{"write12", "aa 10 00 00 00 01 00 00 00 02 00 00", 1, 2, DPO, 12},
		{"verify10", "2f 1a 00 00 00 01 00 00 02 00", 1, 2, DPO, 10},
		{"verify16", "8f 02 00 00 00 00 00 00 00 01 00 00 00 02 00 00", 1, 2, 0, 16},
		{"write and verify10", "2e 00 00 00 00 01 00 00 02 00", 1, 2, 0, 10},
		{"compare and write", "89 08 00 00 00 00 00 00 01 00 ff ff ff 03 00 00", 256, 3, FUA, 16},
		{"write atomic", "9c 00 00 00 00 00 00 00 01 00 ff ff 00 08 00 00", 256, 8, 0, 16},
		{"orwrite", "8b 00 00 00 00 00 00 00 01 00 00 00 00 08 00 00", 256, 8, 0, 16},
		{"prefetch10", "34 00 00 00 00 05 00 00 06 00", 5, 6, 0, 10},
		{"prefetch16", "90 00 00 00 00 00 00 00 01 00 00 00 00 08 00 00", 256, 8, 0, 16},
		{"not about blocks", "12 01 83 00 ff 00", 0, 0, 0, 6},
		{"read capacity16 has no lba", "9e 10 ff ff ff ff ff ff ff ff 00 00 00 20 00 00", 0, 0, 0, 16},
		{"vendor group", "c1 00 00 00 00 01 00 00 02 00", 0, 0, 0, 16},
		{"variable length", "7f 00 00 00 00 00 00 18 00 09", 0, 0, 0, 16},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c CDB
			copy(c[:], unhex(t, tt.cdb))
			assert.Equal(t, tt.lba, c.LBA())
			assert.Equal(t, tt.blocks, c.Blocks())
			assert.Equal(t, tt.flags, c.Flags())
			assert.Equal(t, tt.length, c.Len())
		})
	}
}

func TestTargetReadsWhatBuildersWrite(t *testing.T) {
	page, ok := InquiryVPD(0xb0, 64).VPDPage()
	assert.True(t, ok)
	assert.Equal(t, VPDBlockLimits, page)
	_, ok = Inquiry(64).VPDPage()
	assert.False(t, ok)

	for _, tt := range []struct {
		cdb   CDB
		alloc uint32
		in    bool
		param uint32
		out   bool
	}{
		{cdb: TestUnitReady()},
		{cdb: Read10(0, 1, 0)},
		{cdb: Inquiry(0xfffe), alloc: 0xfffe, in: true},
		{cdb: RequestSense(18), alloc: 18, in: true},
		{cdb: ModeSense6(8, 0, true, 4), alloc: 4, in: true},
		{cdb: ModeSense10(8, 0, true, 400), alloc: 400, in: true},
		{cdb: ReportLuns(1 << 20), alloc: 1 << 20, in: true},
		{cdb: ReadCapacity10(), alloc: 8, in: true},
		{cdb: ReadCapacity16(32), alloc: 32, in: true},
		{cdb: GetLBAStatus(7, 1<<16), alloc: 1 << 16, in: true},
		{cdb: ReportTargetPortGroups(true, 77), alloc: 77, in: true},
		{cdb: PersistentReserveIn(SAReadKeys, 300), alloc: 300, in: true},
		{cdb: Unmap(4000), param: 4000, out: true},
		{cdb: PersistentReserveOut(SAClear, 0), param: 24, out: true},
		{cdb: SetTargetPortGroups(12), param: 12, out: true},
		{cdb: CDB{0: byte(OpModeSelect6), 4: 24}, param: 24, out: true},
		{cdb: CDB{0: byte(OpModeSelect10), 7: 1}, param: 256, out: true},
	} {
		n, ok := tt.cdb.AllocationLength()
		assert.Equal(t, tt.in, ok, tt.cdb)
		assert.Equal(t, tt.alloc, n, tt.cdb)
		n, ok = tt.cdb.ParameterLength()
		assert.Equal(t, tt.out, ok, tt.cdb)
		assert.Equal(t, tt.param, n, tt.cdb)
	}
}

func TestEveryCommandHasAName(t *testing.T) {
	assert.Equal(t, "opcode 0xc1", Opcode(0xc1).String())
	assert.Equal(t, "SERVICE ACTION IN(16) action 0x1f", CDB{0: byte(OpServiceActionIn16), 1: 0x1f}.String()[:33])
	assert.Equal(t, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", CDB{0: byte(OpMaintenanceIn), 1: SAReportSupportedTMF}.Name())
	assert.Equal(t, SAGetLBAStatus, GetLBAStatus(0, 0).ServiceAction())
	assert.Zero(t, Read10(0, 1, FUA).ServiceAction(), "there byte 1 has other bits")
	for op := range 256 {
		for sa := range 32 {
			assert.NotEmpty(t, CDB{0: byte(op), 1: byte(sa)}.String())
		}
	}
	for sa := range uint8(4) {
		assert.NotContains(t, PersistentReserveIn(sa, 0).Name(), "action")
	}
	for sa := range uint8(8) {
		assert.NotContains(t, PersistentReserveOut(sa, 0).Name(), "action")
	}
}

var sinkCDB CDB

func TestBuildersAllocateNothing(t *testing.T) {
	var lba uint64
	n := testing.AllocsPerRun(100, func() {
		lba += 1 << 30
		sinkCDB = Read(lba, 8, FUA)
		sinkCDB = Write(lba, 8, 0)
		sinkCDB = Read16(lba, 8, 0)
		sinkCDB = Write16(lba, 8, 0)
		sinkCDB = SyncCache10(lba, 0)
		sinkCDB = SyncCache16(lba, 0)
		sinkCDB = WriteSame16(lba, 8, true, true)
		sinkCDB = Unmap(24)
		lba ^= sinkCDB.LBA() + uint64(sinkCDB.Blocks()) + uint64(sinkCDB.Len())
	})
	require.Zero(t, n)
}

func BenchmarkRead(b *testing.B) {
	var lba uint64
	for b.Loop() {
		lba += 8
		sinkCDB = Read(lba, 8, 0)
	}
}

func FuzzCDBFields(f *testing.F) {
	for _, tt := range cdbGolden {
		f.Add(tt.cdb[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c CDB
		copy(c[:], b)
		require.Contains(t, []int{6, 10, 12, 16}, c.Len())
		require.NotEmpty(t, c.String())
		if c.mediumLayout() == layoutNone {
			require.Zero(t, c.LBA())
			require.Zero(t, c.Blocks())
		}
		c.AllocationLength()
		c.ParameterLength()
	})
}
