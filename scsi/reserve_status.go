package scsi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
)

// ReservationTypes lists every type, in the order of their codes.
func ReservationTypes() []ReservationType {
	return []ReservationType{
		WriteExclusive, ExclusiveAccess, WriteExclusiveRegistrantsOnly,
		ExclusiveRegistrantsOnly, WriteExclusiveAllRegistrants, ExclusiveAllRegistrants,
	}
}

// Valid reports whether t is one of the types of the standard.
func (t ReservationType) Valid() bool { return t <= 8 && 1<<t&0b1_1110_1010 != 0 && t != 0 }

// ExcludesReads reports whether reads of those without access conflict too.
func (t ReservationType) ExcludesReads() bool {
	return t == ExclusiveAccess || t == ExclusiveRegistrantsOnly || t == ExclusiveAllRegistrants
}

// Registrants reports whether everybody who is registered has access; otherwise
// only the one I_T nexus that reserved has.
func (t ReservationType) Registrants() bool { return t >= WriteExclusiveRegistrantsOnly }

// ForRegistrants is the type that gives to everybody who is registered what t gives
// to a single I_T nexus; t itself if it does so already.
func (t ReservationType) ForRegistrants() ReservationType {
	switch t {
	case WriteExclusive:
		return WriteExclusiveRegistrantsOnly
	case ExclusiveAccess:
		return ExclusiveRegistrantsOnly
	}
	return t
}

// AllHold reports whether everybody who is registered holds the reservation.
func (t ReservationType) AllHold() bool { return t >= WriteExclusiveAllRegistrants }

// reservationShort are the abbreviations that the standard's bit names and other
// tools use.
var reservationShort = map[string]ReservationType{
	"we": WriteExclusive, "ea": ExclusiveAccess,
	"wero": WriteExclusiveRegistrantsOnly, "earo": ExclusiveRegistrantsOnly,
	"wear": WriteExclusiveAllRegistrants, "eaar": ExclusiveAllRegistrants,
}

// Short is the abbreviation of t: we, ea, wero, earo, wear or eaar; "" for a type
// that is none.
func (t ReservationType) Short() string {
	for s, x := range reservationShort {
		if x == t {
			return s
		}
	}
	return ""
}

// ParseReservationType reads a type as Short gives it, or its code (1, 3, 5 to 8).
func ParseReservationType(s string) (ReservationType, error) {
	if t, ok := reservationShort[strings.ToLower(s)]; ok {
		return t, nil
	}
	if len(s) == 1 && s[0] >= '0' && s[0] <= '9' {
		if t := ReservationType(s[0] - '0'); t.Valid() {
			return t, nil
		}
	}
	return 0, fmt.Errorf("scsi: reservation type %q is none of we, ea, wero, earo, wear, eaar (1, 3, 5, 6, 7, 8)", s)
}

// ReserveCapabilities is the answer to PERSISTENT RESERVE IN REPORT CAPABILITIES
// (SPC-4 §6.15.4).
type ReserveCapabilities struct {
	PersistCapable bool // PTPL_C: registrations can outlive a loss of power
	PersistActive  bool // PTPL_A: they do now
	AllPorts       bool // ATP_C: the ALL_TG_PT bit is supported
	SpecifyPorts   bool // SIP_C: the SPEC_I_PT bit is supported
	CompatibleHold bool // CRH: RESERVE(6) and RELEASE(6) are tolerated
	AllowCommands  uint8
	// TypesKnown (TMV) says that Types means something.
	TypesKnown bool
	Types      []ReservationType // supported, by rising code
}

// reserveCapabilitiesLen is the length of REPORT CAPABILITIES data.
const reserveCapabilitiesLen = 8

// typeBit is where the type mask of REPORT CAPABILITIES has a type: byte and bit.
func typeBit(t ReservationType) (at int, bit byte) {
	if t == ExclusiveAllRegistrants {
		return 5, 0x01
	}
	return 4, 1 << t
}

// ParseReserveCapabilities reads the data of REPORT CAPABILITIES:
//
//	0-1  length (8)   2  RLR_C . . CRH SIP_C ATP_C . PTPL_C
//	3  TMV ALLOW COMMANDS(6-4) PTPL_A   4-5  type mask
func ParseReserveCapabilities(b []byte) (ReserveCapabilities, error) {
	const what = "REPORT CAPABILITIES data"
	if len(b) < reserveCapabilitiesLen {
		return ReserveCapabilities{}, short(what, len(b), reserveCapabilitiesLen)
	}
	if n := be.Uint16(b); n < reserveCapabilitiesLen {
		return ReserveCapabilities{}, malformed(what, "length %d", n)
	}
	c := ReserveCapabilities{
		PersistCapable: b[2]&0x01 != 0, AllPorts: b[2]&0x04 != 0, SpecifyPorts: b[2]&0x08 != 0,
		CompatibleHold: b[2]&0x10 != 0,
		TypesKnown:     b[3]&0x80 != 0, AllowCommands: b[3] >> 4 & 0x07, PersistActive: b[3]&0x01 != 0,
	}
	for _, t := range ReservationTypes() {
		if at, bit := typeBit(t); b[at]&bit != 0 {
			c.Types = append(c.Types, t)
		}
	}
	return c, nil
}

// AppendTo appends the data of REPORT CAPABILITIES.
func (c ReserveCapabilities) AppendTo(dst []byte) []byte {
	d := [reserveCapabilitiesLen]byte{1: reserveCapabilitiesLen, 3: c.AllowCommands & 0x07 << 4}
	for _, f := range []struct {
		set bool
		at  int
		bit byte
	}{
		{c.PersistCapable, 2, 0x01},
		{c.AllPorts, 2, 0x04},
		{c.SpecifyPorts, 2, 0x08},
		{c.CompatibleHold, 2, 0x10},
		{c.TypesKnown, 3, 0x80},
		{c.PersistActive, 3, 0x01},
	} {
		if f.set {
			d[f.at] |= f.bit
		}
	}
	for _, t := range c.Types {
		if t.Valid() {
			at, bit := typeBit(t)
			d[at] |= bit
		}
	}
	return append(dst, d[:]...)
}

// Registration is one registered I_T nexus, as READ FULL STATUS lists it
// (SPC-4 §6.15.5).
type Registration struct {
	Key      uint64
	Holder   bool            // holds the reservation
	Type     ReservationType // of the reservation, if Holder
	AllPorts bool            // on all target ports; Port does not count then
	Port     uint16          // relative target port identifier
	// TransportID names the initiator port (SPC-4 §7.6.4).
	TransportID []byte
}

// registrationHeader is the length of a READ FULL STATUS descriptor without its
// TransportID.
const registrationHeader = 24

// ParseFullStatus reads the data of PERSISTENT RESERVE IN READ FULL STATUS. Data
// cut short is an error that wraps ErrShort. The TransportIDs alias b.
//
//	0-7  key   12  ALL_TG_PT(1) R_HOLDER(0)   13  scope, type   18-19  target port
//	20-23  length of the TransportID, which follows
func ParseFullStatus(b []byte) (generation uint32, list []Registration, err error) {
	const what = "READ FULL STATUS data"
	generation, body, err := reserveBody(what, b)
	if err != nil {
		return 0, nil, err
	}
	for len(body) > 0 {
		if len(body) < registrationHeader {
			return 0, nil, malformed(what, "descriptor of %d bytes", len(body))
		}
		n := uint64(be.Uint32(body[20:]))
		if n > uint64(len(body)-registrationHeader) {
			return 0, nil, malformed(what, "TransportID of %d bytes where %d are left", n, len(body)-registrationHeader)
		}
		r := Registration{
			Key: be.Uint64(body), AllPorts: body[12]&0x02 != 0, Holder: body[12]&0x01 != 0,
			Port: be.Uint16(body[18:]), TransportID: body[registrationHeader : registrationHeader+n],
		}
		if r.Holder {
			r.Type = ReservationType(body[13] & 0x0f)
		}
		list = append(list, r)
		body = body[registrationHeader+n:]
	}
	return generation, list, nil
}

// AppendFullStatus appends the data of READ FULL STATUS.
func AppendFullStatus(dst []byte, generation uint32, list []Registration) []byte {
	start := len(dst)
	dst = be.AppendUint32(dst, generation)
	dst = be.AppendUint32(dst, 0)
	for _, r := range list {
		var d [registrationHeader]byte
		be.PutUint64(d[:], r.Key)
		if r.AllPorts {
			d[12] |= 0x02
		}
		if r.Holder {
			d[12] |= 0x01
			d[13] = byte(r.Type & 0x0f)
		}
		be.PutUint16(d[18:], r.Port)
		be.PutUint32(d[20:], uint32(len(r.TransportID)))
		dst = append(append(dst, d[:]...), r.TransportID...)
	}
	be.PutUint32(dst[start+4:], uint32(len(dst)-start-reserveHeader))
	return dst
}

// transportISCSI is the protocol identifier of iSCSI (SPC-4 table 477).
const transportISCSI = 5

// isidSeparator stands between name and ISID of an initiator port (RFC 7143 §4.2.7.2).
const isidSeparator = ",i,0x"

// AppendISCSITransportID appends the TransportID of an iSCSI initiator port
// (SPC-4 §7.6.4.6, format 01b).
func AppendISCSITransportID(dst []byte, name string, isid [6]byte) []byte {
	id := name + isidSeparator + hex.EncodeToString(isid[:])
	n := max((len(id)+1+3)/4*4, 20)
	dst = append(dst, 0x40|transportISCSI, 0, byte(n>>8), byte(n))
	dst = append(dst, id...)
	return append(dst, make([]byte, n-len(id))...)
}

// ParseISCSITransportID reads the TransportID of an iSCSI initiator. isid is zero,
// and port false, if it names the initiator as a whole. Data for another
// transport is an error that wraps ErrMalformed.
func ParseISCSITransportID(b []byte) (name string, isid [6]byte, port bool, err error) {
	const what = "TransportID"
	if len(b) < 4 {
		return "", isid, false, short(what, len(b), 4)
	}
	if b[0]&0x0f != transportISCSI {
		return "", isid, false, malformed(what, "protocol %d is not iSCSI", b[0]&0x0f)
	}
	n := 4 + int(be.Uint16(b[2:]))
	if n > len(b) {
		return "", isid, false, short(what, len(b), n)
	}
	text, _, ended := bytes.Cut(b[4:n], []byte{0})
	switch {
	case !ended || len(text) == 0:
		return "", isid, false, malformed(what, "no name that ends with a zero")
	case b[0]>>6 == 0:
		return string(text), isid, false, nil
	case b[0]>>6 != 1:
		return "", isid, false, malformed(what, "format %d", b[0]>>6)
	}
	name, digits, ok := strings.Cut(string(text), isidSeparator)
	if !ok || name == "" || len(digits) != 12 {
		return "", isid, false, malformed(what, "name %q of an initiator port has no ISID", text)
	}
	if _, err := hex.Decode(isid[:], []byte(digits)); err != nil {
		return "", isid, false, malformed(what, "ISID %q", digits)
	}
	return name, isid, true, nil
}
