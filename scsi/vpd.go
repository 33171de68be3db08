package scsi

import "fmt"

// Pages of vital product data (SPC-4, SBC-3).
const (
	VPDSupportedPages       uint8 = 0x00
	VPDSerial               uint8 = 0x80
	VPDDesignators          uint8 = 0x83
	VPDBlockLimits          uint8 = 0xb0
	VPDBlockCharacteristics uint8 = 0xb1
	VPDProvisioning         uint8 = 0xb2
)

// vpdHeaderLen is the length of the header of every page.
const vpdHeaderLen = 4

// vpdBody checks the header of a page and returns what follows it, cut at the
// page's length; whole says that nothing is missing.
//
//	0  qualifier | type   1  page code   2-3  page length (n-3)   4…  page
func vpdBody(page uint8, b []byte) (body []byte, whole bool, err error) {
	if len(b) < vpdHeaderLen {
		return nil, false, short(vpdName(page), len(b), vpdHeaderLen)
	}
	if b[1] != page {
		return nil, false, malformed(vpdName(page), "the data is of page 0x%02x", b[1])
	}
	n := int(be.Uint16(b[2:]))
	body = b[vpdHeaderLen:]
	return body[:min(n, len(body))], n <= len(body), nil
}

// vpdWhole is vpdBody for pages of which every byte is needed.
func vpdWhole(page uint8, b []byte) ([]byte, error) {
	body, whole, err := vpdBody(page, b)
	if err == nil && !whole {
		err = short(vpdName(page), len(b), vpdHeaderLen+int(be.Uint16(b[2:])))
	}
	return body, err
}

// vpdFixed is vpdBody for pages of fixed fields: at least need bytes have to be
// there, up to size are copied into a zeroed array, for units of an older
// standard send a shorter page.
func vpdFixed(page uint8, b []byte, need, size int) ([]byte, error) {
	body, _, err := vpdBody(page, b)
	if err != nil {
		return nil, err
	}
	if len(body) < need {
		return nil, short(vpdName(page), len(b), vpdHeaderLen+need)
	}
	d := make([]byte, size)
	copy(d, body)
	return d, nil
}

// vpdName names a page in errors.
func vpdName(page uint8) string { return fmt.Sprintf("VPD page 0x%02x", page) }

// AppendVPD appends a page of vital product data: header and body. The body of
// at most 65535 bytes is cut there.
func AppendVPD(dst []byte, deviceType, page uint8, body []byte) []byte {
	body = body[:min(len(body), 0xffff)]
	dst = append(dst, deviceType&0x1f, page, byte(len(body)>>8), byte(len(body)))
	return append(dst, body...)
}

// ParseVPDPages reads page 0x00, the list of supported pages (SPC-4).
func ParseVPDPages(b []byte) ([]uint8, error) {
	body, err := vpdWhole(VPDSupportedPages, b)
	if err != nil {
		return nil, err
	}
	return append([]uint8(nil), body...), nil
}

// ParseSerial reads page 0x80, the unit serial number, trimmed (SPC-4).
// A unit may have an empty one.
func ParseSerial(b []byte) (string, error) {
	body, err := vpdWhole(VPDSerial, b)
	if err != nil {
		return "", err
	}
	return cleanString(body), nil
}

// BlockLimits is page 0xB0 (SBC-3). Lengths are in logical blocks; 0
// means that the unit does not say.
type BlockLimits struct {
	WSNZ                 bool   // WRITE SAME with zero blocks is refused
	MaxCompareAndWrite   uint8  // 0: COMPARE AND WRITE is not supported
	OptimalGranularity   uint16 // transfers are best multiples of this
	MaxTransfer          uint32 // of READ, WRITE, VERIFY…
	OptimalTransfer      uint32
	MaxPrefetch          uint32
	MaxUnmapBlocks       uint32 // of one UNMAP in all; 0xffffffff is no limit, 0 no UNMAP
	MaxUnmapDescriptors  uint32 // of one UNMAP; 0xffffffff is no limit, 0 no UNMAP
	UnmapGranularity     uint32 // requests are best multiples of this
	UnmapAlignment       uint32 // LBA of the first whole granule; only with UnmapAlignmentValid
	UnmapAlignmentValid  bool
	MaxWriteSame         uint64 // 0: the unit does not say
	MaxAtomic            uint32 // WRITE ATOMIC(16)
	AtomicAlignment      uint32
	AtomicGranularity    uint32
	MaxAtomicBoundary    uint32
	MaxAtomicBoundaryLen uint32
}

// blockLimitsLen is the body of page 0xB0 since SBC-4; SBC-2 had 12 bytes.
const blockLimitsLen = 60

// ParseBlockLimits reads page 0xB0. Fields an older unit does not send are 0.
func ParseBlockLimits(b []byte) (BlockLimits, error) {
	d, err := vpdFixed(VPDBlockLimits, b, 12, blockLimitsLen)
	if err != nil {
		return BlockLimits{}, err
	}
	return BlockLimits{
		WSNZ:                 d[0]&0x01 != 0,
		MaxCompareAndWrite:   d[1],
		OptimalGranularity:   be.Uint16(d[2:]),
		MaxTransfer:          be.Uint32(d[4:]),
		OptimalTransfer:      be.Uint32(d[8:]),
		MaxPrefetch:          be.Uint32(d[12:]),
		MaxUnmapBlocks:       be.Uint32(d[16:]),
		MaxUnmapDescriptors:  be.Uint32(d[20:]),
		UnmapGranularity:     be.Uint32(d[24:]),
		UnmapAlignment:       be.Uint32(d[28:]) & 0x7fffffff,
		UnmapAlignmentValid:  d[28]&0x80 != 0,
		MaxWriteSame:         be.Uint64(d[32:]),
		MaxAtomic:            be.Uint32(d[40:]),
		AtomicAlignment:      be.Uint32(d[44:]),
		AtomicGranularity:    be.Uint32(d[48:]),
		MaxAtomicBoundary:    be.Uint32(d[52:]),
		MaxAtomicBoundaryLen: be.Uint32(d[56:]),
	}, nil
}

// AppendTo appends the whole page 0xB0 of a disk.
func (l BlockLimits) AppendTo(dst []byte) []byte {
	var d [blockLimitsLen]byte
	if l.WSNZ {
		d[0] = 1
	}
	d[1] = l.MaxCompareAndWrite
	be.PutUint16(d[2:], l.OptimalGranularity)
	be.PutUint32(d[4:], l.MaxTransfer)
	be.PutUint32(d[8:], l.OptimalTransfer)
	be.PutUint32(d[12:], l.MaxPrefetch)
	be.PutUint32(d[16:], l.MaxUnmapBlocks)
	be.PutUint32(d[20:], l.MaxUnmapDescriptors)
	be.PutUint32(d[24:], l.UnmapGranularity)
	be.PutUint32(d[28:], l.UnmapAlignment&0x7fffffff)
	if l.UnmapAlignmentValid {
		d[28] |= 0x80
	}
	be.PutUint64(d[32:], l.MaxWriteSame)
	be.PutUint32(d[40:], l.MaxAtomic)
	be.PutUint32(d[44:], l.AtomicAlignment)
	be.PutUint32(d[48:], l.AtomicGranularity)
	be.PutUint32(d[52:], l.MaxAtomicBoundary)
	be.PutUint32(d[56:], l.MaxAtomicBoundaryLen)
	return AppendVPD(dst, TypeDisk, VPDBlockLimits, d[:])
}

// RotationNonRotating is the RotationRate of a solid state unit.
const RotationNonRotating uint16 = 1

// BlockCharacteristics is page 0xB1 (SBC-3).
type BlockCharacteristics struct {
	RotationRate uint16 // revolutions per minute; 0 is not said, 1 solid state
	ProductType  uint8
	FormFactor   uint8 // nominal, 0 to 15
	FUAB         bool  // SYNCHRONIZE CACHE and FUA reach non-volatile cache at least
	VBULS        bool  // VERIFY of unmapped blocks with byte check works
}

// blockCharacteristicsLen is the body of page 0xB1.
const blockCharacteristicsLen = 60

// ParseBlockCharacteristics reads page 0xB1; four bytes of body suffice.
func ParseBlockCharacteristics(b []byte) (BlockCharacteristics, error) {
	d, err := vpdFixed(VPDBlockCharacteristics, b, 4, blockCharacteristicsLen)
	if err != nil {
		return BlockCharacteristics{}, err
	}
	return BlockCharacteristics{
		RotationRate: be.Uint16(d[0:]),
		ProductType:  d[2],
		FormFactor:   d[3] & 0x0f,
		FUAB:         d[4]&0x02 != 0,
		VBULS:        d[4]&0x01 != 0,
	}, nil
}

// AppendTo appends the whole page 0xB1 of a disk.
func (c BlockCharacteristics) AppendTo(dst []byte) []byte {
	var d [blockCharacteristicsLen]byte
	be.PutUint16(d[0:], c.RotationRate)
	d[2] = c.ProductType
	d[3] = c.FormFactor & 0x0f
	if c.FUAB {
		d[4] |= 0x02
	}
	if c.VBULS {
		d[4] |= 0x01
	}
	return AppendVPD(dst, TypeDisk, VPDBlockCharacteristics, d[:])
}

// Values of Provisioning.Type.
const (
	ProvisioningUnknown  uint8 = 0 // not said, or fully provisioned
	ProvisioningResource uint8 = 1 // every block has its place reserved
	ProvisioningThin     uint8 = 2 // writes may fail for want of space
)

// Provisioning is page 0xB2, logical block provisioning (SBC-3).
type Provisioning struct {
	ThresholdExponent uint8 // thresholds count in 2^this blocks, 0 if there are none
	LBPU              bool  // UNMAP works
	LBPWS             bool  // WRITE SAME(16) with UNMAP works
	LBPWS10           bool  // WRITE SAME(10) with UNMAP works
	LBPRZ             uint8 // 1: unmapped blocks read as zeros, 2: as the provisioning initialisation pattern
	AncSup            bool  // anchored blocks
	DP                bool  // a provisioning group descriptor follows
	Type              uint8 // see ProvisioningThin
}

// UnmapsToZero reports whether unmapped blocks read as zeros.
func (p Provisioning) UnmapsToZero() bool { return p.LBPRZ&1 != 0 }

// ParseProvisioning reads page 0xB2.
func ParseProvisioning(b []byte) (Provisioning, error) {
	d, err := vpdFixed(VPDProvisioning, b, 2, 4)
	if err != nil {
		return Provisioning{}, err
	}
	return Provisioning{
		ThresholdExponent: d[0],
		LBPU:              d[1]&0x80 != 0,
		LBPWS:             d[1]&0x40 != 0,
		LBPWS10:           d[1]&0x20 != 0,
		LBPRZ:             d[1] >> 2 & 0x07,
		AncSup:            d[1]&0x02 != 0,
		DP:                d[1]&0x01 != 0,
		Type:              d[2] & 0x07,
	}, nil
}

// AppendTo appends the whole page 0xB2 of a disk, without a group descriptor.
func (p Provisioning) AppendTo(dst []byte) []byte {
	d := [4]byte{0: p.ThresholdExponent, 1: p.LBPRZ & 0x07 << 2, 2: p.Type & 0x07}
	for _, bit := range []struct {
		set  bool
		mask byte
	}{{p.LBPU, 0x80}, {p.LBPWS, 0x40}, {p.LBPWS10, 0x20}, {p.AncSup, 0x02}, {p.DP, 0x01}} {
		if bit.set {
			d[1] |= bit.mask
		}
	}
	return AppendVPD(dst, TypeDisk, VPDProvisioning, d[:])
}
