package scsi

// Extent is a range of logical blocks.
type Extent struct {
	LBA    uint64
	Blocks uint32
}

// Lengths in UNMAP and GET LBA STATUS data.
const (
	unmapHeader  = 8
	extentLen    = 16
	lbaStatusHdr = 8
)

// MaxUnmapExtents is how many extents the parameter list of one UNMAP can hold,
// whatever BlockLimits.MaxUnmapDescriptors says.
const MaxUnmapExtents = (0xffff - unmapHeader) / extentLen

// AppendUnmapDescriptors appends the whole parameter list of UNMAP (SBC-3):
// header and one descriptor for each extent; UnmapLen bytes. It panics
// if there are more than MaxUnmapExtents: dropping some in silence would leave
// blocks the caller believes to be unmapped.
//
//	0-1  data length (n-1)   2-3  descriptors' length   4-7  reserved   8…  descriptors
func AppendUnmapDescriptors(dst []byte, extents []Extent) []byte {
	if len(extents) > MaxUnmapExtents {
		panic("scsi: more extents than one UNMAP can hold")
	}
	n := extentLen * len(extents)
	dst = be.AppendUint16(dst, uint16(n+unmapHeader-2))
	dst = be.AppendUint16(dst, uint16(n))
	dst = be.AppendUint32(dst, 0)
	for _, e := range extents {
		dst = be.AppendUint64(dst, e.LBA)
		dst = be.AppendUint32(dst, e.Blocks)
		dst = be.AppendUint32(dst, 0)
	}
	return dst
}

// UnmapLen is the length of the parameter list for so many extents.
func UnmapLen(extents int) int { return unmapHeader + extentLen*extents }

// ParseUnmapDescriptors reads the parameter list of UNMAP; a descriptor that is
// not whole does not count, as the standard wants. An empty list is valid.
func ParseUnmapDescriptors(b []byte) ([]Extent, error) {
	const what = "UNMAP parameter list"
	if len(b) < unmapHeader {
		return nil, short(what, len(b), unmapHeader)
	}
	n := int(be.Uint16(b[2:]))
	if n > len(b)-unmapHeader {
		return nil, short(what, len(b), unmapHeader+n)
	}
	extents := make([]Extent, 0, n/extentLen)
	for d := b[unmapHeader : unmapHeader+n]; len(d) >= extentLen; d = d[extentLen:] {
		extents = append(extents, Extent{LBA: be.Uint64(d), Blocks: be.Uint32(d[8:])})
	}
	return extents, nil
}

// LBAProvisioning is the state of an extent (SBC-3).
type LBAProvisioning uint8

// The provisioning states. Others count as mapped.
const (
	LBAMapped      LBAProvisioning = 0 // has a place, or the unit does not know
	LBADeallocated LBAProvisioning = 1
	LBAAnchored    LBAProvisioning = 2 // has a place reserved, no data
)

// LBAExtent is one descriptor of GET LBA STATUS.
type LBAExtent struct {
	LBA          uint64
	Blocks       uint32
	Provisioning LBAProvisioning
}

// ParseLBAStatus reads the data of GET LBA STATUS (SBC-3): the whole
// descriptors that are there, which may be fewer than the unit has. Each is
// checked to follow the one before without a gap and not to be empty, so that a
// caller who walks a disk with it always gets on.
//
//	0-3  parameter data length (n-3)   4-7  reserved   8…  descriptors
func ParseLBAStatus(b []byte) ([]LBAExtent, error) {
	const what = "GET LBA STATUS data"
	if len(b) < lbaStatusHdr+extentLen {
		return nil, short(what, len(b), lbaStatusHdr+extentLen)
	}
	end := min(uint64(len(b)), uint64(be.Uint32(b))+4)
	if end < lbaStatusHdr+extentLen {
		return nil, malformed(what, "no descriptor")
	}
	d := b[lbaStatusHdr:end]
	extents := make([]LBAExtent, 0, len(d)/extentLen)
	for ; len(d) >= extentLen; d = d[extentLen:] {
		e := LBAExtent{LBA: be.Uint64(d), Blocks: be.Uint32(d[8:]), Provisioning: LBAProvisioning(d[12] & 0x0f)}
		if e.Blocks == 0 || e.LBA+uint64(e.Blocks) < e.LBA {
			return nil, malformed(what, "extent of %d blocks at %d", e.Blocks, e.LBA)
		}
		if n := len(extents); n > 0 && extents[n-1].LBA+uint64(extents[n-1].Blocks) != e.LBA {
			return nil, malformed(what, "the extent at %d does not follow the one before", e.LBA)
		}
		extents = append(extents, e)
	}
	return extents, nil
}

// AppendLBAStatus appends the data of GET LBA STATUS.
func AppendLBAStatus(dst []byte, extents []LBAExtent) []byte {
	dst = be.AppendUint32(dst, uint32(lbaStatusHdr-4+extentLen*len(extents)))
	dst = be.AppendUint32(dst, 0)
	for _, e := range extents {
		dst = be.AppendUint64(dst, e.LBA)
		dst = be.AppendUint32(dst, e.Blocks)
		dst = append(dst, byte(e.Provisioning&0x0f), 0, 0, 0)
	}
	return dst
}
