package iscsitest

import (
	"encoding/binary"

	"github.com/iscsimp/iscsimp/scsi"
)

// infoCommands are the commands about the unit.
func infoCommands() []*command {
	const (
		always    = cmdAnyType | cmdNoMedium
		reachable = always | cmdDespiteUA | cmdUnavailable
		settings  = always | cmdStandby
	)
	return []*command{
		{op: scsi.OpTestUnitReady, sa: -1, flags: cmdAnyType, run: func(*execution) result { return result{} }, usage: scsi.CDB{0: 0x00, 5: 0x04}},
		{op: scsi.OpInquiry, sa: -1, flags: reachable, run: inquiry, usage: scsi.CDB{0x12, 0x01, 0xff, 0xff, 0xff, 0x04}},
		{op: scsi.OpReportLuns, sa: -1, flags: reachable, run: reportLuns, usage: scsi.CDB{0xa0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x04}},
		{op: scsi.OpRequestSense, sa: -1, flags: reachable, run: requestSense, usage: scsi.CDB{0x03, 0x01, 0, 0, 0xff, 0x04}},
		{op: scsi.OpReadCapacity10, sa: -1, flags: cmdCapacity, run: readCapacity10, usage: scsi.CDB{0: 0x25, 9: 0x04}},
		{op: scsi.OpServiceActionIn16, sa: int(scsi.SAReadCapacity16), flags: cmdCapacity, run: readCapacity16, usage: scsi.CDB{0x9e, 0x1f, 10: 0xff, 0xff, 0xff, 0xff, 0, 0x04}},
		{op: scsi.OpModeSense6, sa: -1, flags: settings, run: modeSense, usage: scsi.CDB{0x1a, 0x08, 0xff, 0xff, 0xff, 0x04}},
		{op: scsi.OpModeSense10, sa: -1, flags: settings, run: modeSense, usage: scsi.CDB{0x5a, 0x08, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0x04}},
		{op: scsi.OpModeSelect6, sa: -1, flags: settings, run: modeSelect, out: paramLen, usage: scsi.CDB{0x15, 0x11, 0, 0, 0xff, 0x04}},
		{op: scsi.OpModeSelect10, sa: -1, flags: settings, run: modeSelect, out: paramLen, usage: scsi.CDB{0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff, 0x04}},
		{op: scsi.OpMaintenanceIn, sa: int(scsi.SAReportSupportedOpcodes), flags: always, run: reportOpcodes, usage: scsi.CDB{0xa3, 0x1f, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x04}},
	}
}

// cut gives data as far as the CDB's allocation length lets it.
func (x *execution) cut(data []byte) result {
	if n, ok := x.cdb.AllocationLength(); ok && uint64(n) < uint64(len(data)) {
		data = data[:n]
	}
	return result{data: data}
}

// invalidField is ILLEGAL REQUEST, INVALID FIELD IN CDB with a pointer to the byte
// of the CDB (SPC-4 §4.5.2.4.2).
func (x *execution) invalidField(at byte) result { return *invalidField(at) }

func invalidField(at byte) *result {
	const valid, inCDB = 0x80, 0x40
	s := scsi.Sense{Key: scsi.KeyIllegalRequest, Code: scsi.ASCInvalidFieldInCDB, Specific: [3]byte{valid | inCDB, 0, at}}
	return &result{status: scsi.CheckCondition, sense: s.AppendFixed(nil)}
}

// Version descriptors of INQUIRY: SAM-5, SPC-4, SBC-3, iSCSI (SPC-4 table 185).
var versionDescriptors = []uint16{0x00a0, 0x0460, 0x04c0, 0x0960}

func inquiry(x *execution) result {
	page, vpd := x.cdb.VPDPage()
	if !vpd {
		if x.cdb[2] != 0 {
			return x.invalidField(2)
		}
		return x.cut(standardInquiry(x.u, x.task.c.portal))
	}
	if x.u == nil {
		return x.invalidField(1)
	}
	data, ok := x.vpd(page)
	if !ok {
		return x.invalidField(2)
	}
	return x.cut(data)
}

// standardInquiry is the data for a unit through a portal, or for a LUN that does not exist.
func standardInquiry(u *lun, p *portal) []byte {
	d := scsi.InquiryData{
		PeripheralQualifier: scsi.QualifierNotPossible, DeviceType: scsi.TypeUnknown,
		Version: 6, CmdQue: true, Vendor: "ISCSIMP",
	}
	if u != nil {
		d.PeripheralQualifier, d.DeviceType = u.qualifier(p), u.cfg.DeviceType
		d.TPGS = u.tpgs()
		d.Vendor, d.Product, d.Revision = u.cfg.Vendor, u.cfg.Product, u.cfg.Revision
	}
	b := d.AppendTo(nil)
	b = append(b, make([]byte, 96-len(b))...)
	for i, v := range versionDescriptors {
		binary.BigEndian.PutUint16(b[58+2*i:], v)
	}
	b[4] = byte(len(b) - 5)
	return b
}

// vpd is a page of vital product data.
func (x *execution) vpd(page uint8) ([]byte, bool) {
	u, kind := x.u, x.u.cfg.DeviceType
	disk := kind == scsi.TypeDisk
	switch {
	case page == scsi.VPDSupportedPages:
		pages := []byte{scsi.VPDSupportedPages, scsi.VPDSerial, scsi.VPDDesignators}
		if disk {
			pages = append(pages, scsi.VPDBlockLimits, scsi.VPDBlockCharacteristics, scsi.VPDProvisioning)
		}
		return scsi.AppendVPD(nil, kind, page, pages), true
	case page == scsi.VPDSerial:
		u.mu.Lock()
		defer u.mu.Unlock()
		return scsi.AppendVPD(nil, kind, page, []byte(u.serial)), true
	case page == scsi.VPDDesignators:
		return scsi.AppendVPD83(nil, kind, u.designators(x.s.node.name, x.task.c.portal)), true
	case page == scsi.VPDBlockLimits && disk:
		return u.blockLimits().AppendTo(nil), true
	case page == scsi.VPDBlockCharacteristics && disk:
		return scsi.BlockCharacteristics{RotationRate: scsi.RotationNonRotating}.AppendTo(nil), true
	case page == scsi.VPDProvisioning && disk:
		p := scsi.Provisioning{Type: scsi.ProvisioningUnknown}
		if !u.cfg.NoUnmap {
			p = scsi.Provisioning{LBPU: true, LBPWS: true, LBPWS10: true, LBPRZ: 1, Type: scsi.ProvisioningThin}
		}
		return p.AppendTo(nil), true
	}
	return nil, false
}

func (u *lun) blockLimits() scsi.BlockLimits {
	l := scsi.BlockLimits{
		MaxCompareAndWrite: maxCompareAndWrite,
		OptimalGranularity: 1 << u.cfg.PhysicalExponent,
		MaxTransfer:        u.cfg.MaxTransfer / u.cfg.BlockSize,
		MaxWriteSame:       uint64(u.cfg.MaxWriteSame),
	}
	if !u.cfg.NoUnmap {
		l.MaxUnmapBlocks, l.MaxUnmapDescriptors, l.UnmapGranularity = u.cfg.MaxUnmapBlocks, maxUnmapDescriptors, 1
	}
	return l
}

func reportLuns(x *execution) result {
	// SELECT REPORT: 0 and 2 are all units, 1 the well-known ones, of which
	// there are none.
	if x.cdb[2] > 2 {
		return x.invalidField(2)
	}
	var luns []scsi.LUN
	if x.cdb[2] != 1 && x.s.node != nil {
		for _, u := range x.s.node.luns {
			luns = append(luns, scsi.MakeLUN(u.number))
		}
	}
	return x.cut(scsi.AppendReportLuns(nil, luns))
}

// requestSense reports a pending UNIT ATTENTION, or that all is well.
func requestSense(x *execution) result {
	if x.u == nil {
		return x.cut(x.sense(scsi.KeyIllegalRequest, scsi.ASCLUNNotSupported))
	}
	if asc, ok := x.s.takeAttention(x.u); ok {
		return x.cut(x.sense(scsi.KeyUnitAttention, asc))
	}
	return x.cut(x.sense(scsi.KeyNoSense, scsi.ASCNone))
}

// sense is sense data as parameter data; bit DESC of the CDB picks the format.
func (x *execution) sense(key scsi.SenseKey, asc scsi.ASC) []byte {
	fixed := scsi.AppendFixedSense(nil, key, asc)
	if x.cdb[1]&1 == 0 {
		return fixed
	}
	s, _ := scsi.ParseSense(fixed)
	return s.AppendDescriptor(nil)
}

func readCapacity10(x *execution) result {
	return result{data: x.u.capacity().AppendTo10(nil)}
}

func readCapacity16(x *execution) result {
	return x.cut(x.u.capacity().AppendTo16(nil))
}

func paramLen(_ *lun, c scsi.CDB) uint64 {
	n, _ := c.ParameterLength()
	return uint64(n)
}

// Values of the PC field of MODE SENSE.
const (
	modeCurrent    = 0
	modeChangeable = 1
	modeDefault    = 2
)

// modePages are the pages with the values that the PC field asks for.
func (u *lun) modePages(control uint8) (caching, ctrl []byte) {
	switch control {
	case modeChangeable:
		caching = scsi.CachingPage{}.AppendTo(nil)
		return caching, scsi.ControlPage{DescriptorSense: true, SoftwareWP: true}.AppendTo(nil)
	case modeDefault:
		return scsi.CachingPage{WCE: !u.cfg.NoWriteCache}.AppendTo(nil), scsi.ControlPage{}.AppendTo(nil)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	caching = scsi.CachingPage{WCE: !u.cfg.NoWriteCache}.AppendTo(nil)
	return caching, scsi.ControlPage{DescriptorSense: u.dsense, SoftwareWP: u.swp}.AppendTo(nil)
}

func modeSense(x *execution) result {
	page, sub, control := x.cdb[2]&0x3f, x.cdb[3], x.cdb[2]>>6
	if control > modeDefault {
		return checkCondition(scsi.KeyIllegalRequest, scsi.MakeASC(0x39, 0x00)) // saving is not supported
	}
	if sub != 0 && sub != scsi.ModeSubpagesAll {
		return x.invalidField(3)
	}
	caching, ctrl := x.u.modePages(control)
	m := scsi.ModeData{WriteProtected: x.u.writeProtect() != 0, DPOFUA: true}
	switch page {
	case scsi.ModePageCaching:
		m.Pages = caching
	case scsi.ModePageControl:
		m.Pages = ctrl
	case scsi.ModePageAll:
		m.Pages = append(caching, ctrl...)
	default:
		return x.invalidField(2)
	}
	if x.cdb[1]&0x08 == 0 { // DBD: a block descriptor is wanted (SBC-3 §6.4.2)
		var d [8]byte
		binary.BigEndian.PutUint32(d[0:], uint32(min(x.u.blocks(), 0xffffffff)))
		binary.BigEndian.PutUint32(d[4:], x.u.cfg.BlockSize)
		m.BlockDescriptors = d[:]
	}
	if x.cdb.Opcode() == scsi.OpModeSense6 {
		return x.cut(m.AppendTo6(nil))
	}
	return x.cut(m.AppendTo10(nil))
}

// modeSelect changes the D_SENSE and SWP bits of the control page; everything
// else must be as it is.
func modeSelect(x *execution) result {
	if len(x.data) == 0 {
		return result{}
	}
	parse, op := scsi.ParseModeSense6, scsi.OpModeSelect6
	if x.cdb.Opcode() != op {
		parse = scsi.ParseModeSense10
	}
	if want, _ := x.cdb.ParameterLength(); uint32(len(x.data)) < want || x.cdb[1]&0x11 != 0x10 {
		return x.invalidField(1)
	}
	// The mode data length is reserved here, but the parser goes by it.
	data := append([]byte(nil), x.data...)
	if op == x.cdb.Opcode() {
		data[0] = byte(len(data) - 1)
	} else if len(data) >= 2 {
		binary.BigEndian.PutUint16(data, uint16(len(data)-2))
	}
	invalid := checkCondition(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInParameters)
	m, err := parse(data)
	if err != nil {
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCParameterListLength)
	}
	c, ok := m.Control()
	if _, hasCaching := m.Page(scsi.ModePageCaching, 0); !ok || hasCaching {
		return invalid
	}
	page, _ := m.Page(scsi.ModePageControl, 0)
	if allowed := (scsi.ControlPage{DescriptorSense: c.DescriptorSense, SoftwareWP: c.SoftwareWP}).AppendTo(nil); string(allowed[2:]) != string(page[2:]) {
		return invalid
	}
	x.u.mu.Lock()
	x.u.dsense, x.u.swp = c.DescriptorSense, c.SoftwareWP
	x.u.mu.Unlock()
	x.s.t.attention(x.u, scsi.ASCModeParametersChanged, x.s)
	return result{}
}

// reportOpcodes is REPORT SUPPORTED OPERATION CODES (SPC-4 §6.35).
func reportOpcodes(x *execution) result {
	timeouts := x.cdb[2]&0x80 != 0
	op, sa := scsi.Opcode(x.cdb[3]), int(binary.BigEndian.Uint16(x.cdb[4:]))
	switch x.cdb[2] & 0x07 {
	case scsi.ReportAllOpcodes:
		return x.cut(x.u.allOpcodes(timeouts))
	case scsi.ReportOpcode:
		if opcodesWithAction[op] {
			return x.invalidField(2)
		}
		return x.cut(x.u.oneOpcode(op, -1, timeouts))
	case scsi.ReportOpcodeAction:
		if !opcodesWithAction[op] {
			return x.invalidField(2)
		}
		return x.cut(x.u.oneOpcode(op, sa, timeouts))
	case scsi.ReportOpcodeActionAuto:
		if !opcodesWithAction[op] {
			if sa != 0 {
				return x.cut(scsi.AppendSupportedOpcode(nil, scsi.SupportNone, scsi.CDB{}))
			}
			sa = -1
		}
		return x.cut(x.u.oneOpcode(op, sa, timeouts))
	}
	return x.invalidField(2)
}

// timeoutDescriptor says that nothing is known about timeouts.
var timeoutDescriptor = []byte{0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

func (u *lun) allOpcodes(timeouts bool) []byte {
	b := make([]byte, 4)
	for _, c := range commandList {
		if !u.has(c) {
			continue
		}
		d := [8]byte{0: byte(c.op), 7: byte(c.usage.Len())}
		if c.sa >= 0 {
			binary.BigEndian.PutUint16(d[2:], uint16(c.sa))
			d[5] |= 0x01
		}
		if timeouts {
			d[5] |= 0x02
		}
		b = append(b, d[:]...)
		if timeouts {
			b = append(b, timeoutDescriptor...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func (u *lun) oneOpcode(op scsi.Opcode, sa int, timeouts bool) []byte {
	c := commandTable[commandKey(op, sa)]
	if c == nil || !u.has(c) {
		return scsi.AppendSupportedOpcode(nil, scsi.SupportNone, scsi.CDB{})
	}
	usage := c.usage
	usage[0] = byte(op)
	b := scsi.AppendSupportedOpcode(nil, scsi.SupportStandard, usage)
	if timeouts {
		b[1] |= 0x80
		b = append(b, timeoutDescriptor...)
	}
	return b
}
