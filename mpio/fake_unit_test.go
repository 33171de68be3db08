package mpio

import (
	"encoding/binary"

	"github.com/iscsimp/iscsimp/scsi"
)

// fakeUnit is a logical unit in memory that answers what a check asks and what
// the device sends.
type fakeUnit struct {
	inquiry      scsi.InquiryData
	serial       string
	designators  []scsi.Designator
	capacity     scsi.Capacity
	limits       scsi.BlockLimits
	provisioning scsi.Provisioning
	mode         scsi.ModeData
	noVPD        bool
	data         []byte

	refuse  map[scsi.Opcode]bool // answered "invalid operation code"
	counts  map[scsi.Opcode]int
	written func(lba uint64, data []byte) // called before data is replaced
}

const testBlock = 512

func newFakeUnit(blocks int) *fakeUnit {
	return &fakeUnit{
		inquiry: scsi.InquiryData{Version: 6, CmdQue: true, Vendor: "TESTVEND", Product: "DISK", Revision: "0001"},
		serial:  "SN0001",
		designators: []scsi.Designator{{
			CodeSet: scsi.CodeSetBinary, Association: scsi.AssociationUnit, Type: scsi.DesignatorNAA,
			ID: []byte{0x60, 0x01, 0x40, 0x51, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13},
		}},
		capacity: scsi.Capacity{LastLBA: uint64(blocks - 1), BlockSize: testBlock},
		mode:     scsi.ModeData{DPOFUA: true},
		data:     make([]byte, blocks*testBlock),
		refuse:   map[scsi.Opcode]bool{},
		counts:   map[scsi.Opcode]int{},
	}
}

// answer is what a unit says to a command.
type answer struct {
	status   scsi.Status
	sense    []byte
	received int
	under    bool
	over     bool
	residual uint32
}

func sense(key scsi.SenseKey, code scsi.ASC) answer {
	return answer{status: scsi.CheckCondition, sense: scsi.AppendFixedSense(nil, key, code)}
}

var good = answer{}

// do executes a command; data is the buffer it reads into or the bytes written.
func (u *fakeUnit) do(cdb scsi.CDB, data []byte) answer {
	op := cdb.Opcode()
	u.counts[op]++
	if u.refuse[op] {
		return sense(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode)
	}
	switch op {
	case scsi.OpTestUnitReady, scsi.OpSyncCache10, scsi.OpSyncCache16:
		return good
	case scsi.OpInquiry:
		return u.doInquiry(cdb, data)
	case scsi.OpReadCapacity10:
		return deliver(data, u.capacity.AppendTo10(nil))
	case scsi.OpServiceActionIn16:
		return deliver(data, u.capacity.AppendTo16(nil))
	case scsi.OpModeSense6:
		return deliver(data, u.mode.AppendTo6(nil))
	case scsi.OpRead10, scsi.OpRead16:
		b := u.blocks(cdb.LBA(), uint64(cdb.Blocks()))
		if b == nil {
			return sense(scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange)
		}
		return deliver(data, b)
	case scsi.OpWrite10, scsi.OpWrite16:
		return u.write(cdb.LBA(), data)
	case scsi.OpUnmap:
		return u.doUnmap(data)
	case scsi.OpWriteSame16:
		for i := range uint64(cdb.Blocks()) {
			u.write(cdb.LBA()+i, data)
		}
		return good
	}
	return sense(scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode)
}

func (u *fakeUnit) blocks(lba, n uint64) []byte {
	size := uint64(u.capacity.BlockSize)
	if lba+n > u.capacity.Blocks() || (lba+n)*size > uint64(len(u.data)) {
		return nil
	}
	return u.data[lba*size : (lba+n)*size]
}

func (u *fakeUnit) write(lba uint64, data []byte) answer {
	b := u.blocks(lba, uint64(len(data))/uint64(u.capacity.BlockSize))
	if b == nil {
		return sense(scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange)
	}
	if u.written != nil {
		u.written(lba, data)
	}
	copy(b, data)
	return good
}

func (u *fakeUnit) doUnmap(data []byte) answer {
	lba, n := binary.BigEndian.Uint64(data[8:]), uint64(binary.BigEndian.Uint32(data[16:]))
	b := u.blocks(lba, n)
	if b == nil {
		return sense(scsi.KeyIllegalRequest, scsi.ASCLBAOutOfRange)
	}
	if u.written != nil {
		u.written(lba, make([]byte, len(b)))
	}
	clear(b)
	return good
}

func (u *fakeUnit) doInquiry(cdb scsi.CDB, data []byte) answer {
	page, vpd := cdb.VPDPage()
	switch {
	case !vpd:
		return deliver(data, u.inquiry.AppendTo(nil))
	case u.noVPD:
	case page == scsi.VPDSupportedPages:
		return deliver(data, scsi.AppendVPD(nil, 0, 0, []byte{0, 0x80, 0x83, 0xb0, 0xb2}))
	case page == scsi.VPDSerial:
		return deliver(data, scsi.AppendVPD(nil, 0, page, []byte(u.serial)))
	case page == scsi.VPDDesignators:
		return deliver(data, scsi.AppendVPD83(nil, 0, u.designators))
	case page == scsi.VPDBlockLimits:
		return deliver(data, u.limits.AppendTo(nil))
	case page == scsi.VPDProvisioning:
		return deliver(data, u.provisioning.AppendTo(nil))
	}
	return sense(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInCDB)
}

// deliver places src in data, as the transport does.
func deliver(data, src []byte) answer {
	n := copy(data, src)
	a := answer{received: n}
	switch {
	case len(src) < len(data):
		a.under, a.residual = true, uint32(len(data)-len(src))
	case len(src) > len(data):
		a.over, a.residual = true, uint32(len(src)-len(data))
	}
	return a
}
