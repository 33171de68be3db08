package scsi

// Peripheral device types (SPC-4) that matter here.
const (
	TypeDisk       uint8 = 0x00
	TypeProcessor  uint8 = 0x03
	TypeOptical    uint8 = 0x05
	TypeController uint8 = 0x0c // storage array controller, often LUN 0
	TypeEnclosure  uint8 = 0x0d
	TypeReduced    uint8 = 0x0e // simplified direct access, a disk too
	TypeWellKnown  uint8 = 0x1e
	TypeUnknown    uint8 = 0x1f
)

// Peripheral qualifiers (SPC-4).
const (
	QualifierConnected    uint8 = 0 // a unit is there
	QualifierNotConnected uint8 = 1 // the LUN is possible but nothing is there now
	QualifierNotPossible  uint8 = 3 // there is no such LUN
)

// Inquiry lengths.
const (
	inquiryHeader = 8  // up to and including the flags
	inquiryLen    = 36 // up to and including the revision
)

// InquiryData is what the standard INQUIRY data says (SPC-4).
type InquiryData struct {
	PeripheralQualifier uint8 // 0 to 7, see QualifierConnected
	DeviceType          uint8 // 0 to 31, see TypeDisk
	Version             uint8 // claimed SPC version: 5 is SPC-3, 6 SPC-4, 7 SPC-5
	TPGS                uint8 // asymmetric access: bit 0 implicit, bit 1 explicit
	Removable           bool
	ThirdParty          bool   // third-party copy commands
	Protect             bool   // can be formatted with protection information
	CmdQue              bool   // has a command queue
	Vendor              string // at most 8 characters, trimmed
	Product             string // at most 16 characters, trimmed
	Revision            string // at most 4 characters, trimmed
}

// ParseInquiry reads standard INQUIRY data. Eight bytes suffice; the strings
// come from what is there up to byte 36.
//
//	0  qualifier | type   3  … response format    6  …            8-15  vendor
//	1  RMB                4  additional length    7  … CMDQUE    16-31  product
//	2  version            5  … TPGS 3PC PROTECT                  32-35  revision
func ParseInquiry(b []byte) (InquiryData, error) {
	if len(b) < inquiryHeader {
		return InquiryData{}, short("INQUIRY data", len(b), inquiryHeader)
	}
	var d [inquiryLen]byte
	copy(d[:], b)
	return InquiryData{
		PeripheralQualifier: d[0] >> 5,
		DeviceType:          d[0] & 0x1f,
		Removable:           d[1]&0x80 != 0,
		Version:             d[2],
		TPGS:                d[5] >> 4 & 0x03,
		ThirdParty:          d[5]&0x08 != 0,
		Protect:             d[5]&0x01 != 0,
		CmdQue:              d[7]&0x02 != 0,
		Vendor:              cleanString(d[8:16]),
		Product:             cleanString(d[16:32]),
		Revision:            cleanString(d[32:36]),
	}, nil
}

// AppendTo appends the 36 bytes of standard INQUIRY data.
func (q InquiryData) AppendTo(dst []byte) []byte {
	var d [inquiryLen]byte
	d[0] = q.PeripheralQualifier<<5 | q.DeviceType&0x1f
	if q.Removable {
		d[1] = 0x80
	}
	d[2] = q.Version
	d[3] = 0x12 // HISUP, response data format 2
	d[4] = inquiryLen - 5
	d[5] = q.TPGS & 0x03 << 4
	if q.ThirdParty {
		d[5] |= 0x08
	}
	if q.Protect {
		d[5] |= 0x01
	}
	if q.CmdQue {
		d[7] = 0x02
	}
	putPadded(d[8:16], q.Vendor)
	putPadded(d[16:32], q.Product)
	putPadded(d[32:36], q.Revision)
	return append(dst, d[:]...)
}

// putPadded writes s left-aligned, cut or filled with blanks.
func putPadded(dst []byte, s string) {
	for i := copy(dst, s); i < len(dst); i++ {
		dst[i] = ' '
	}
}

// cleanString makes a string of a field of ASCII text: blanks and NULs around it
// go, and what is not printable ASCII becomes '?', for it ends in logs and terminals.
func cleanString(b []byte) string {
	isPad := func(c byte) bool { return c == ' ' || c == 0 }
	for len(b) > 0 && isPad(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isPad(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	out := make([]byte, len(b))
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		out[i] = c
	}
	return string(out)
}
