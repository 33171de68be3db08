package scsi

// CommandSupport is what a unit says about one command (SPC-4).
type CommandSupport uint8

// The degrees of support.
const (
	SupportUnknown  CommandSupport = 0 // not known now: ask later
	SupportNone     CommandSupport = 1
	SupportStandard CommandSupport = 3 // as the standard says
	SupportVendor   CommandSupport = 5 // in a vendor specific way
)

// String is the support in a word.
func (s CommandSupport) String() string {
	switch s {
	case SupportUnknown:
		return "unknown"
	case SupportNone:
		return "not supported"
	case SupportStandard:
		return "supported"
	case SupportVendor:
		return "vendor specific"
	}
	return "reserved"
}

// ParseSupportedOpcode reads the answer to REPORT SUPPORTED OPERATION CODES
// about one command: how it is supported, and which bits of its CDB the unit
// looks at (zero if it did not say).
//
//	0  reserved   1  CTDP support   2-3  CDB size   4…  CDB usage data
func ParseSupportedOpcode(b []byte) (CommandSupport, CDB, error) {
	const what, header = "REPORT SUPPORTED OPERATION CODES data", 4
	if len(b) < header {
		return SupportUnknown, CDB{}, short(what, len(b), header)
	}
	var usage CDB
	size := int(be.Uint16(b[2:]))
	copy(usage[:], b[header:min(len(b), header+size)])
	return CommandSupport(b[1] & 0x07), usage, nil
}

// AppendSupportedOpcode appends the answer about one command.
func AppendSupportedOpcode(dst []byte, s CommandSupport, usage CDB) []byte {
	if s != SupportStandard && s != SupportVendor {
		return append(dst, 0, byte(s&0x07), 0, 0)
	}
	n := usage.Len()
	dst = append(dst, 0, byte(s&0x07), 0, byte(n))
	return append(dst, usage[:n]...)
}
