package scsi

// Mode pages (SPC-4, SBC-3).
const (
	ModePageCaching uint8 = 0x08
	ModePageControl uint8 = 0x0a
	ModePageAll     uint8 = 0x3f
)

// ModeSubpagesAll asks for all subpages too.
const ModeSubpagesAll uint8 = 0xff

// ModeData is the answer to MODE SENSE of a disk.
type ModeData struct {
	MediumType       uint8
	WriteProtected   bool   // the medium cannot be written
	DPOFUA           bool   // READ and WRITE take the DPO and FUA bits
	BlockDescriptors []byte // raw; points into the parsed data
	Pages            []byte // the mode pages; points into the parsed data
}

// ParseModeSense6 reads the data of MODE SENSE(6) (SPC-4). The result
// points into b. Pages cut short by the allocation length are kept.
//
//	0  mode data length (n-0)   1  medium type   2  WP … DPOFUA   3  block descriptor length
func ParseModeSense6(b []byte) (ModeData, error) {
	const what, header = "MODE SENSE(6) data", 4
	if len(b) < header {
		return ModeData{}, short(what, len(b), header)
	}
	b = b[:min(len(b), max(1+int(b[0]), header))]
	return parseModeBody(what, b[1], b[2], b[header:], int(b[3]))
}

// ParseModeSense10 reads the data of MODE SENSE(10); see ParseModeSense6.
//
//	0-1  mode data length (n-1)   2  medium type   3  WP … DPOFUA   6-7  block descriptor length
func ParseModeSense10(b []byte) (ModeData, error) {
	const what, header = "MODE SENSE(10) data", 8
	if len(b) < header {
		return ModeData{}, short(what, len(b), header)
	}
	b = b[:min(len(b), max(2+int(be.Uint16(b)), header))]
	return parseModeBody(what, b[2], b[3], b[header:], int(be.Uint16(b[6:])))
}

// parseModeBody splits what follows the header.
func parseModeBody(what string, medium, specific uint8, body []byte, descriptors int) (ModeData, error) {
	if descriptors > len(body) {
		return ModeData{}, short(what, len(body), descriptors)
	}
	return ModeData{
		MediumType:       medium,
		WriteProtected:   specific&0x80 != 0,
		DPOFUA:           specific&0x10 != 0,
		BlockDescriptors: body[:descriptors:descriptors],
		Pages:            body[descriptors:],
	}, nil
}

// Page returns a mode page with its header, or false if the unit did not send
// it. The page may be shorter than it says if the data was cut.
//
//	0  PS SPF page code   1  length (n-1)                           SPF 0
//	0  PS SPF page code   1  subpage code   2-3  length (n-3)       SPF 1
func (m ModeData) Page(page, sub uint8) ([]byte, bool) {
	for b := m.Pages; len(b) >= 2; {
		code, subcode, n := b[0]&0x3f, uint8(0), 2+int(b[1])
		if b[0]&0x40 != 0 {
			if len(b) < 4 {
				return nil, false
			}
			subcode, n = b[1], 4+int(be.Uint16(b[2:]))
		}
		n = min(n, len(b))
		if code == page && subcode == sub {
			return b[:n:n], true
		}
		b = b[n:]
	}
	return nil, false
}

// CachingPage is mode page 0x08 (SBC-3).
type CachingPage struct {
	WCE bool // write cache enabled: a finished WRITE may be lost at power loss until SYNCHRONIZE CACHE
	RCD bool // read cache disabled
}

// Caching returns the caching page; false if the unit has none.
func (m ModeData) Caching() (CachingPage, bool) {
	p, ok := m.Page(ModePageCaching, 0)
	if !ok || len(p) < 3 {
		return CachingPage{}, false
	}
	return CachingPage{WCE: p[2]&0x04 != 0, RCD: p[2]&0x01 != 0}, true
}

// AppendTo appends the page with its header.
func (c CachingPage) AppendTo(dst []byte) []byte {
	p := [20]byte{0: ModePageCaching, 1: 18}
	if c.WCE {
		p[2] |= 0x04
	}
	if c.RCD {
		p[2] |= 0x01
	}
	return append(dst, p[:]...)
}

// ControlPage is mode page 0x0A (SPC-4).
type ControlPage struct {
	DescriptorSense bool // sense data comes in descriptor format
	SoftwareWP      bool // write protected by software
	TaskAborted     bool // aborted commands end with TASK ABORTED
}

// Control returns the control page; false if the unit has none.
func (m ModeData) Control() (ControlPage, bool) {
	p, ok := m.Page(ModePageControl, 0)
	if !ok || len(p) < 6 {
		return ControlPage{}, false
	}
	return ControlPage{
		DescriptorSense: p[2]&0x04 != 0,
		SoftwareWP:      p[4]&0x08 != 0,
		TaskAborted:     p[5]&0x40 != 0,
	}, true
}

// AppendTo appends the page with its header.
func (c ControlPage) AppendTo(dst []byte) []byte {
	p := [12]byte{0: ModePageControl, 1: 10}
	if c.DescriptorSense {
		p[2] |= 0x04
	}
	if c.SoftwareWP {
		p[4] |= 0x08
	}
	if c.TaskAborted {
		p[5] |= 0x40
	}
	return append(dst, p[:]...)
}

// specific is the device specific parameter of the header.
func (m ModeData) specific() (b byte) {
	if m.WriteProtected {
		b |= 0x80
	}
	if m.DPOFUA {
		b |= 0x10
	}
	return b
}

// AppendTo6 appends the data of MODE SENSE(6). Block descriptors and pages must
// fit into 252 bytes; what does not is cut.
func (m ModeData) AppendTo6(dst []byte) []byte {
	descriptors := m.BlockDescriptors[:min(len(m.BlockDescriptors), 252)]
	pages := m.Pages[:min(len(m.Pages), 252-len(descriptors))]
	dst = append(dst, byte(3+len(descriptors)+len(pages)), m.MediumType, m.specific(), byte(len(descriptors)))
	return append(append(dst, descriptors...), pages...)
}

// AppendTo10 appends the data of MODE SENSE(10); what passes 65529 bytes is cut.
func (m ModeData) AppendTo10(dst []byte) []byte {
	const room = 0xffff - 6
	descriptors := m.BlockDescriptors[:min(len(m.BlockDescriptors), room)]
	pages := m.Pages[:min(len(m.Pages), room-len(descriptors))]
	dst = be.AppendUint16(dst, uint16(6+len(descriptors)+len(pages)))
	dst = append(dst, m.MediumType, m.specific(), 0, 0)
	dst = be.AppendUint16(dst, uint16(len(descriptors)))
	return append(append(dst, descriptors...), pages...)
}
