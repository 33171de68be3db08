package main

import (
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// unit is the logical unit behind all paths. It answers what a device asks to
// find out what it is, and moves no data.
type unit struct {
	inquiry, pages, designators, capacity, mode []byte
}

const unitBlocks = 1 << 26 // of 4096 bytes: 256 GiB

func newUnit() *unit {
	inquiry := scsi.InquiryData{Version: 6, CmdQue: true, Vendor: "SIM", Product: "DISK", Revision: "1"}
	size := scsi.Capacity{LastLBA: unitBlocks - 1, BlockSize: 4096}
	mode := scsi.ModeData{DPOFUA: true}
	return &unit{
		inquiry: inquiry.AppendTo(nil),
		pages:   scsi.AppendVPD(nil, 0, 0, []byte{0, scsi.VPDDesignators}),
		designators: scsi.AppendVPD83(nil, 0, []scsi.Designator{{
			CodeSet: scsi.CodeSetBinary, Association: scsi.AssociationUnit, Type: scsi.DesignatorNAA,
			ID: []byte{0x60, 0x01, 0x40, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
		}}),
		capacity: size.AppendTo16(nil),
		mode:     mode.AppendTo6(nil),
	}
}

// answer fills in the target's answer to c.
func (u *unit) answer(c *session.Command) {
	var data []byte
	switch c.CDB.Opcode() {
	case scsi.OpRead10, scsi.OpRead16:
		c.Received = len(c.Data)
		return
	case scsi.OpWrite10, scsi.OpWrite16, scsi.OpTestUnitReady, scsi.OpSyncCache10, scsi.OpSyncCache16:
		return
	case scsi.OpInquiry:
		switch page, vpd := c.CDB.VPDPage(); {
		case !vpd:
			data = u.inquiry
		case page == scsi.VPDSupportedPages:
			data = u.pages
		case page == scsi.VPDDesignators:
			data = u.designators
		}
	case scsi.OpServiceActionIn16:
		data = u.capacity
	case scsi.OpModeSense6:
		data = u.mode
	}
	if data == nil {
		c.Status = scsi.CheckCondition
		c.Sense = scsi.AppendFixedSense(nil, scsi.KeyIllegalRequest, scsi.ASCInvalidOpcode)
		return
	}
	c.Received = copy(c.Data, data)
	if c.Received < len(c.Data) {
		c.Underflow, c.Residual = true, uint32(len(c.Data)-c.Received)
	}
}
