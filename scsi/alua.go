package scsi

import (
	"bytes"
	"fmt"
	"slices"
)

// AccessState is the asymmetric access state of a target port group (SPC-4).
type AccessState uint8

// The access states.
const (
	AccessOptimized     AccessState = 0x0 // use it
	AccessNonOptimized  AccessState = 0x1 // works, but slower
	AccessStandby       AccessState = 0x2 // answers, without access to the medium
	AccessUnavailable   AccessState = 0x3 // answers next to nothing
	AccessLBADependent  AccessState = 0x4 // differs by LBA
	AccessOffline       AccessState = 0xe // not even reachable; only others report it
	AccessTransitioning AccessState = 0xf // between two states
)

// String is the state in words.
func (s AccessState) String() string {
	switch s {
	case AccessOptimized:
		return "active/optimized"
	case AccessNonOptimized:
		return "active/non-optimized"
	case AccessStandby:
		return "standby"
	case AccessUnavailable:
		return "unavailable"
	case AccessLBADependent:
		return "lba-dependent"
	case AccessOffline:
		return "offline"
	case AccessTransitioning:
		return "transitioning"
	}
	return fmt.Sprintf("access state 0x%x", uint8(s))
}

// Ways in which access states change: bits of InquiryData.TPGS (SPC-4).
const (
	TPGSImplicit uint8 = 1 << iota // the target changes them by itself
	TPGSExplicit                   // SET TARGET PORT GROUPS changes them
)

// Usable reports whether reads and writes may be sent to a port in this state.
func (s AccessState) Usable() bool {
	return s == AccessOptimized || s == AccessNonOptimized || s == AccessLBADependent
}

// PortGroupState is one descriptor of REPORT TARGET PORT GROUPS (SPC-4).
type PortGroupState struct {
	Group     uint16      // target port group, as in PortGroup
	State     AccessState // now
	Preferred bool        // the target would rather be used here
	Supported uint8       // states the group can be in: bit n for state n up to 4, bit 6 offline, bit 7 transitioning
	Status    uint8       // why it changed: 0 not said, 1 by SET TARGET PORT GROUPS, 2 by itself
	Ports     []uint16    // relative target ports in the group
}

// CanBecome reports whether the group can be in state s, as far as it says: a
// group that supports nothing at all does not say.
func (g PortGroupState) CanBecome(s AccessState) bool {
	bit := uint8(s)
	switch s {
	case AccessOffline:
		bit = 6
	case AccessTransitioning:
		bit = 7
	}
	return g.Supported == 0 || bit < 8 && g.Supported&(1<<bit) != 0
}

// PortGroups is the answer to REPORT TARGET PORT GROUPS.
type PortGroups struct {
	TransitionSeconds uint8 // how long an implicit transition may take, 0 if not said
	Groups            []PortGroupState
}

// Find returns the group of that number.
func (p PortGroups) Find(group uint16) (PortGroupState, bool) {
	for _, g := range p.Groups {
		if g.Group == group {
			return g, true
		}
	}
	return PortGroupState{}, false
}

// FindPort returns the group that has the relative target port.
func (p PortGroups) FindPort(port uint16) (PortGroupState, bool) {
	for _, g := range p.Groups {
		if slices.Contains(g.Ports, port) {
			return g, true
		}
	}
	return PortGroupState{}, false
}

// extendedHeader is the PARAMETER DATA FORMAT bit of REPORT TARGET PORT GROUPS.
const extendedHeader = 1 << 5

// ReportTargetPortGroups asks for the states of all target port groups (SPC-4).
// extended asks for the transition time too; units older than SPC-4
// refuse it with ILLEGAL REQUEST.
func ReportTargetPortGroups(extended bool, alloc uint32) CDB {
	c := CDB{0: byte(OpMaintenanceIn), 1: SAReportTargetPortGroups}
	if extended {
		c[1] |= extendedHeader
	}
	be.PutUint32(c[6:], alloc)
	return c
}

// portGroupsData names the data in errors.
const portGroupsData = "REPORT TARGET PORT GROUPS data"

// ParseTargetPortGroups reads the data of REPORT TARGET PORT GROUPS with either
// header. Data cut short is an error that wraps ErrShort.
//
//	0-3  return data length (n-3)   [4  format type   5  implicit transition time   6-7  reserved]
//	0  PREF state   1  supported   2-3  group   5  status   7  port count   8…  4 bytes for each port
func ParseTargetPortGroups(b []byte) (PortGroups, error) {
	if len(b) < 4 {
		return PortGroups{}, short(portGroupsData, len(b), 4)
	}
	n := uint64(be.Uint32(b)) + 4
	if n > uint64(len(b)) {
		return PortGroups{}, short(portGroupsData, len(b), clampInt(n))
	}
	b = b[4:n]
	// With the extended header the format type is 1; in a descriptor the same bits
	// are the RTPG format, always 0, and PREF is above them.
	if len(b) < 4 || b[0]&0x70 != 0x10 {
		groups, err := parsePortGroups(b)
		return PortGroups{Groups: groups}, err
	}
	p := PortGroups{TransitionSeconds: b[1]}
	var err error
	if p.Groups, err = parsePortGroups(b[4:]); err != nil {
		// Linux's target (LIO) leaves the extended header out of the length, so that
		// the last four bytes are missing: a port, if the last group has any.
		whole := append(bytes.Clone(b[4:]), 0, 0, 0, 0)
		groups, again := parsePortGroups(whole)
		if again != nil {
			return PortGroups{}, err
		}
		last := &groups[len(groups)-1]
		last.Ports = slices.DeleteFunc(last.Ports, func(port uint16) bool { return port == 0 })
		p.Groups = groups
	}
	return p, nil
}

// parsePortGroups reads the descriptors.
func parsePortGroups(b []byte) ([]PortGroupState, error) {
	const group = 8
	var groups []PortGroupState
	for len(b) > 0 {
		if len(b) < group || len(b) < group+4*int(b[7]) {
			return nil, malformed(portGroupsData, "group %d passes the end", len(groups)+1)
		}
		g := PortGroupState{
			Group:     be.Uint16(b[2:]),
			State:     AccessState(b[0] & 0x0f),
			Preferred: b[0]&0x80 != 0,
			Supported: b[1],
			Status:    b[5],
			Ports:     make([]uint16, b[7]),
		}
		b = b[group:]
		for i := range g.Ports {
			g.Ports[i] = be.Uint16(b[2:])
			b = b[4:]
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// AppendTo appends the data of REPORT TARGET PORT GROUPS. A group has at most
// 255 ports; more are cut.
func (p PortGroups) AppendTo(dst []byte, extended bool) []byte {
	start := len(dst)
	dst = be.AppendUint32(dst, 0)
	if extended {
		dst = append(dst, 0x10, p.TransitionSeconds, 0, 0)
	}
	for _, g := range p.Groups {
		ports := g.Ports[:min(len(g.Ports), 255)]
		first := byte(g.State & 0x0f)
		if g.Preferred {
			first |= 0x80
		}
		dst = append(dst, first, g.Supported)
		dst = be.AppendUint16(dst, g.Group)
		dst = append(dst, 0, g.Status, 0, byte(len(ports)))
		for _, port := range ports {
			dst = be.AppendUint16(dst, 0)
			dst = be.AppendUint16(dst, port)
		}
	}
	be.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

// SetTargetPortGroups asks the target to change access states (SPC-4);
// the parameter list of paramLen bytes comes from AppendSetTargetPortGroups.
func SetTargetPortGroups(paramLen uint32) CDB {
	c := CDB{0: byte(OpMaintenanceOut), 1: SASetTargetPortGroups}
	be.PutUint32(c[6:], paramLen)
	return c
}

// AppendSetTargetPortGroups appends the parameter list of SET TARGET PORT
// GROUPS: group and state of each, 4 bytes of header and 4 for each.
func AppendSetTargetPortGroups(dst []byte, groups []PortGroupState) []byte {
	dst = be.AppendUint32(dst, 0)
	for _, g := range groups {
		dst = append(dst, byte(g.State&0x0f), 0)
		dst = be.AppendUint16(dst, g.Group)
	}
	return dst
}

// setGroupsHeader and setGroupsEntry are the lengths in the parameter list of SET
// TARGET PORT GROUPS.
const (
	setGroupsHeader = 4
	setGroupsEntry  = 4
)

// ParseSetTargetPortGroups reads the parameter list of SET TARGET PORT GROUPS
// (SPC-4): only Group and State are set. A list cut inside a descriptor is an
// error that wraps ErrMalformed.
//
//	0-3  reserved   4…  for each group: 0  state   1  reserved   2-3  group
func ParseSetTargetPortGroups(b []byte) ([]PortGroupState, error) {
	const what = "SET TARGET PORT GROUPS list"
	if len(b) < setGroupsHeader {
		return nil, short(what, len(b), setGroupsHeader)
	}
	b = b[setGroupsHeader:]
	if len(b)%setGroupsEntry != 0 {
		return nil, malformed(what, "it ends inside group %d", len(b)/setGroupsEntry+1)
	}
	groups := make([]PortGroupState, 0, len(b)/setGroupsEntry)
	for ; len(b) > 0; b = b[setGroupsEntry:] {
		groups = append(groups, PortGroupState{Group: be.Uint16(b[2:]), State: AccessState(b[0] & 0x0f)})
	}
	return groups, nil
}
