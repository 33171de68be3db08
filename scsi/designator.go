package scsi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
)

// Association says what a designator names (SPC-4).
type Association uint8

// The associations.
const (
	AssociationUnit   Association = 0 // the logical unit: the same on every path
	AssociationPort   Association = 1 // the target port it was asked through
	AssociationDevice Association = 2 // the SCSI target device
)

// DesignatorType says how an identifier is formed (SPC-4).
type DesignatorType uint8

// The designator types.
const (
	DesignatorVendor       DesignatorType = 0x0 // anything
	DesignatorT10          DesignatorType = 0x1 // 8 characters of vendor, then anything
	DesignatorEUI64        DesignatorType = 0x2 // 8, 12 or 16 bytes
	DesignatorNAA          DesignatorType = 0x3 // 8 or 16 bytes
	DesignatorRelativePort DesignatorType = 0x4 // 4 bytes, number of the port in the last 2
	DesignatorPortGroup    DesignatorType = 0x5 // 4 bytes, target port group in the last 2
	DesignatorUnitGroup    DesignatorType = 0x6 // 4 bytes, logical unit group in the last 2
	DesignatorMD5          DesignatorType = 0x7 // 16 bytes
	DesignatorName         DesignatorType = 0x8 // SCSI name string: iqn…, eui…, naa…
	DesignatorProtocol     DesignatorType = 0x9
	DesignatorUUID         DesignatorType = 0xa // 18 bytes, the UUID in the last 16
)

// Code sets of a designator (SPC-4).
const (
	CodeSetBinary uint8 = 1
	CodeSetASCII  uint8 = 2
	CodeSetUTF8   uint8 = 3
)

// Designator is one descriptor of VPD page 0x83 (SPC-4).
type Designator struct {
	ProtocolID  uint8 // 5 is iSCSI; only with PIV
	CodeSet     uint8 // see CodeSetBinary
	PIV         bool  // ProtocolID is valid
	Association Association
	Type        DesignatorType
	ID          []byte // the identifier, at most 255 bytes
}

// designatorHeader is the length of what precedes the identifier.
const designatorHeader = 4

// ParseDesignators reads page 0x83, the device identification. The identifiers
// are copies. A page cut short is an error that wraps ErrShort: half a list is
// no basis for an identity.
//
//	0  protocol identifier | code set         2  reserved
//	1  PIV | association | designator type    3  length    4…  identifier
func ParseDesignators(b []byte) ([]Designator, error) {
	body, err := vpdWhole(VPDDesignators, b)
	if err != nil {
		return nil, err
	}
	body = bytes.Clone(body)
	var list []Designator
	for len(body) > 0 {
		if len(body) < designatorHeader || len(body) < designatorHeader+int(body[3]) {
			// Some units fill the page up with zeros.
			if len(bytes.Trim(body, "\x00")) == 0 {
				break
			}
			return nil, malformed(vpdName(VPDDesignators), "designator %d passes the end of the page", len(list)+1)
		}
		end := designatorHeader + int(body[3])
		d := Designator{
			ProtocolID:  body[0] >> 4,
			CodeSet:     body[0] & 0x0f,
			PIV:         body[1]&0x80 != 0,
			Association: Association(body[1] >> 4 & 0x03),
			Type:        DesignatorType(body[1] & 0x0f),
			ID:          body[designatorHeader:end:end],
		}
		if len(d.ID) > 0 {
			list = append(list, d)
		}
		body = body[end:]
	}
	return list, nil
}

// AppendTo appends one descriptor; an ID of more than 255 bytes is cut there.
func (d Designator) AppendTo(dst []byte) []byte {
	id := d.ID[:min(len(d.ID), 255)]
	second := byte(d.Association&0x03)<<4 | byte(d.Type&0x0f)
	if d.PIV {
		second |= 0x80
	}
	dst = append(dst, d.ProtocolID<<4|d.CodeSet&0x0f, second, 0, byte(len(id)))
	return append(dst, id...)
}

// AppendVPD83 appends the whole page 0x83 of a unit of the given device type.
func AppendVPD83(dst []byte, deviceType uint8, list []Designator) []byte {
	var body []byte
	for _, d := range list {
		body = d.AppendTo(body)
	}
	return AppendVPD(dst, deviceType, VPDDesignators, body)
}

// Equal reports whether a and b are the same identifier: type, association and bytes.
func (d Designator) Equal(e Designator) bool {
	return d.Type == e.Type && d.Association == e.Association && bytes.Equal(d.ID, e.ID)
}

// String is the identifier as tools write it: "naa.600140512345…",
// "eui.0025385…", "uuid.…", the name string itself, "t10.VENDOR  text".
func (d Designator) String() string {
	switch d.Type {
	case DesignatorNAA:
		return "naa." + hex.EncodeToString(d.ID)
	case DesignatorEUI64:
		return "eui." + hex.EncodeToString(d.ID)
	case DesignatorUUID:
		if len(d.ID) == uuidLen {
			u := d.ID[2:]
			return fmt.Sprintf("uuid.%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
		}
	case DesignatorName:
		return cleanString(d.ID)
	case DesignatorT10:
		return "t10." + cleanString(d.ID)
	case DesignatorMD5:
		return "md5." + hex.EncodeToString(d.ID)
	case DesignatorRelativePort, DesignatorPortGroup, DesignatorUnitGroup:
		if n, ok := d.Number(); ok {
			return fmt.Sprintf("%s.%d", groupNames[d.Type], n)
		}
	case DesignatorVendor:
		if d.CodeSet != CodeSetBinary {
			return "vendor." + cleanString(d.ID)
		}
		return "vendor." + hex.EncodeToString(d.ID)
	}
	return fmt.Sprintf("type%d.%x", d.Type, d.ID)
}

// groupNames are the prefixes of the numbered designators.
var groupNames = map[DesignatorType]string{
	DesignatorRelativePort: "port",
	DesignatorPortGroup:    "group",
	DesignatorUnitGroup:    "unitgroup",
}

// Number is the number in a relative target port, target port group or logical
// unit group designator; false for any other.
func (d Designator) Number() (uint16, bool) {
	switch d.Type {
	case DesignatorRelativePort, DesignatorPortGroup, DesignatorUnitGroup:
		if len(d.ID) == 4 {
			return be.Uint16(d.ID[2:]), true
		}
	}
	return 0, false
}

// PortGroup returns the target port group and relative target port the
// designators were asked through (SPC-4), which say which entry of
// REPORT TARGET PORT GROUPS is about this path.
func PortGroup(list []Designator) (group, port uint16, ok bool) {
	for _, d := range list {
		if d.Association != AssociationPort {
			continue
		}
		n, valid := d.Number()
		switch {
		case valid && d.Type == DesignatorPortGroup:
			group, ok = n, true
		case valid && d.Type == DesignatorRelativePort:
			port = n
		}
	}
	return group, port, ok
}

// uuidLen is the length of a UUID designator.
const uuidLen = 18

// strong reports whether d is globally unique by the rules of a registry and
// filled in with sense: the identifier of a company, and not one that software
// leaves at its default.
func (d Designator) strong() bool {
	if d.Association != AssociationUnit {
		return false
	}
	switch d.Type {
	case DesignatorNAA:
		return strongNAA(d.ID)
	case DesignatorEUI64:
		return strongEUI(d.ID)
	case DesignatorUUID:
		return len(d.ID) == uuidLen && d.ID[0]>>4 == 1 && !uniform(d.ID[2:])
	case DesignatorName:
		return strongName(cleanString(d.ID))
	}
	return false
}

// strongNAA judges an NAA designator (SPC-4): IEEE extended (2), IEEE
// registered (5) or registered extended (6) with a company's number and
// something after it. NAA 3 is locally assigned and so proves nothing. tgt
// forms its NAA 6 with company 0 from target and LUN number: equal for
// different disks of different hosts.
func strongNAA(id []byte) bool {
	if len(id) < 8 {
		return false
	}
	var company uint32
	var rest []byte
	switch naa := id[0] >> 4; {
	case naa == 2 && len(id) == 8:
		// vendor specific id A: 12 bits, company: 24 bits, id B: 24 bits
		company = be.Uint32(id[1:]) & 0xffffff
		rest = append([]byte{id[0] & 0x0f, id[1]}, id[5:]...)
	case naa == 5 && len(id) == 8, naa == 6 && len(id) == 16:
		// company: 24 bits after the first nibble
		company = be.Uint32(id[0:]) >> 4 & 0xffffff
		rest = append([]byte{id[3] & 0x0f}, id[4:]...)
	default:
		return false
	}
	return company != 0 && company != 0xffffff && !zeroBytes(rest)
}

// strongEUI judges an EUI-64 based designator (SPC-4): 8 bytes from the
// company on, 12 with a directory after it, 16 with an extension before it.
func strongEUI(id []byte) bool {
	switch len(id) {
	case 8, 12:
	case 16:
		id = id[8:]
	default:
		return false
	}
	company := be.Uint32(id) >> 8
	return company != 0 && company != 0xffffff && !uniform(id[3:])
}

// strongName judges a SCSI name string: "eui." and "naa." as the binary forms,
// "iqn." if it goes on to name a unit, as SPC-4 wants, and not just a
// target that may have many.
func strongName(s string) bool {
	prefix, rest, _ := strings.Cut(s, ".")
	switch strings.ToLower(prefix) {
	case "iqn":
		return strings.Contains(rest, ",L,0x")
	case "eui":
		id, err := hex.DecodeString(rest)
		return err == nil && strongEUI(id)
	case "naa":
		id, err := hex.DecodeString(rest)
		return err == nil && strongNAA(id)
	}
	return false
}

// zeroBytes reports whether every byte is zero.
func zeroBytes(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// uniform reports whether all bytes are equal: all zeros, all ones.
func uniform(b []byte) bool {
	for _, c := range b {
		if c != b[0] {
			return false
		}
	}
	return true
}
