package scsi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Identity is all that tells one logical unit from another.
type Identity struct {
	Designators []Designator // of VPD page 0x83; only those of the unit itself count
	Serial      string       // of VPD page 0x80, "" if there is none
	Capacity    Capacity     // zero if not yet read
	Vendor      string
	Product     string
	Revision    string // for show only: firmware changes
	DeviceType  uint8
}

// UnitDesignators returns the designators that name the unit itself, which are
// the same on every path.
func UnitDesignators(list []Designator) []Designator {
	var unit []Designator
	for _, d := range list {
		if d.Association == AssociationUnit {
			unit = append(unit, d)
		}
	}
	return unit
}

// Strength says how much an identity proves.
type Strength uint8

// The strengths.
const (
	None   Strength = iota // nothing at all
	Weak                   // something others may have too
	Strong                 // a globally unique designator
)

// String is the strength in a word.
func (s Strength) String() string {
	switch s {
	case None:
		return "none"
	case Weak:
		return "weak"
	case Strong:
		return "strong"
	}
	return "strength?"
}

// Strength says how much the identity proves: Strong with a designator of a
// registry (NAA 2, 5, 6, EUI-64, UUID, SCSI name string) that names a company
// and is not left empty; Weak with any other that is not all zeros, or a serial
// number; else None.
func (a Identity) Strength() Strength {
	best := None
	if meaningful([]byte(a.Serial)) {
		best = Weak
	}
	for _, d := range UnitDesignators(a.Designators) {
		if d.strong() {
			return Strong
		}
		if d.weak() {
			best = Weak
		}
	}
	return best
}

// weak reports whether d says something about the unit that is not unique by
// rule. Relative ports and groups say nothing about it.
func (d Designator) weak() bool {
	if d.Association != AssociationUnit || d.strong() {
		return false
	}
	switch d.Type {
	case DesignatorRelativePort, DesignatorPortGroup, DesignatorUnitGroup, DesignatorProtocol:
		return false
	}
	return meaningful(d.ID)
}

// meaningful reports whether an identifier is more than filling.
func meaningful(id []byte) bool {
	return len(id) > 0 && !uniform(id) && cleanString(id) != ""
}

// Name is the best identifier for people and logs: a strong designator if there
// is one, NAA first, else the serial number, else a weak designator, else "".
func (a Identity) Name() string {
	unit := UnitDesignators(a.Designators)
	slices.SortStableFunc(unit, func(x, y Designator) int { return cmp.Compare(nameRank(x), nameRank(y)) })
	switch {
	case len(unit) > 0 && nameRank(unit[0]) < weakRank:
		return unit[0].String()
	case a.Serial != "":
		return "serial." + a.Serial
	case len(unit) > 0 && nameRank(unit[0]) == weakRank:
		return unit[0].String()
	}
	return ""
}

// weakRank is the nameRank of weak designators.
const weakRank = 4

// nameRank orders designators by how good a name they make, the best first.
func nameRank(d Designator) int {
	switch {
	case d.weak():
		return weakRank
	case !d.strong():
		return weakRank + 1
	}
	switch d.Type {
	case DesignatorNAA:
		return 0
	case DesignatorEUI64:
		return 1
	case DesignatorUUID:
		return 2
	}
	return 3
}

// String is the name, what the unit is, and its size.
func (a Identity) String() string {
	name := a.Name()
	if name == "" {
		name = "unit without a name"
	}
	if what := strings.TrimSpace(a.Vendor + " " + a.Product); what != "" {
		return fmt.Sprintf("%s (%s, %s)", name, what, a.Capacity)
	}
	return fmt.Sprintf("%s (%s)", name, a.Capacity)
}

// Match is the result of SameUnit.
type Match uint8

// The results.
const (
	Unproven  Match = iota // nothing contradicts, but a second proof is needed
	Same                   // it is the same logical unit
	Different              // they are different units, or not safely the same
)

// String is the result in a word.
func (m Match) String() string {
	switch m {
	case Unproven:
		return "unproven"
	case Same:
		return "same"
	case Different:
		return "different"
	}
	return "match?"
}

// SameUnit judges whether a and b, seen over two paths or at two times, are one
// logical unit, and says why in words. It is symmetric.
//
//   - Different: device type, size, or a designator that should agree, does not;
//     or of two lists of designators only one has a strong one.
//   - Same: a strong designator agrees, no strong one contradicts, the size agrees,
//     and neither serial number nor product contradicts.
//   - Unproven: anything else. The caller needs a second proof, such as the
//     same target name and LUN, before it reads or writes.
func SameUnit(a, b Identity) (Match, string) {
	if a.DeviceType != b.DeviceType {
		return Different, fmt.Sprintf("device type %d and %d", min(a.DeviceType, b.DeviceType), max(a.DeviceType, b.DeviceType))
	}
	if reason := sizeConflict(a.Capacity, b.Capacity); reason != "" {
		return Different, reason
	}
	ua, ub := UnitDesignators(a.Designators), UnitDesignators(b.Designators)
	strong := compareDesignators(ua, ub, Designator.strong)
	if strong.conflict != "" {
		return Different, strong.conflict
	}
	doubt := softConflict(a, b)
	if strong.agreed == "" {
		return weakMatch(a, b, ua, ub, doubt)
	}
	switch {
	case doubt != "":
		return Unproven, strong.agreed + " agrees, but " + doubt
	case !a.Capacity.Known() || !b.Capacity.Known():
		return Unproven, strong.agreed + " agrees, but the capacity is not known"
	}
	return Same, strong.agreed + " and capacity agree"
}

// weakMatch judges identities without a strong designator in common.
func weakMatch(a, b Identity, ua, ub []Designator, doubt string) (Match, string) {
	if doubt != "" {
		return Different, doubt
	}
	weak := compareDesignators(ua, ub, func(d Designator) bool { return d.weak() && d.Type != DesignatorVendor })
	switch {
	case weak.conflict != "":
		return Different, weak.conflict
	case len(ua) > 0 && len(ub) > 0 && (a.Strength() == Strong) != (b.Strength() == Strong):
		// A unit shows the same designators on every path (SPC-4).
		return Different, "only one has a globally unique designator"
	case weak.agreed != "":
		return Unproven, "only " + weak.agreed + " agrees, which is not unique by rule"
	case a.Serial != "" && a.Serial == b.Serial:
		return Unproven, "only the serial number agrees, which is not unique by rule"
	case a.Strength() == Strong && b.Strength() == Strong:
		return Unproven, "the designators are of different kinds"
	}
	return Unproven, "no designator in common"
}

// sizeConflict is the contradiction between two capacities, or "". Fields that
// a controller may leave out (provisioning, alignment) do not count.
func sizeConflict(a, b Capacity) string {
	if !a.Known() || !b.Known() {
		return ""
	}
	if a.BlockSize != b.BlockSize {
		return fmt.Sprintf("block size %d and %d", min(a.BlockSize, b.BlockSize), max(a.BlockSize, b.BlockSize))
	}
	if a.LastLBA != b.LastLBA {
		return fmt.Sprintf("capacity %d and %d blocks", min(a.Blocks(), b.Blocks()), max(a.Blocks(), b.Blocks()))
	}
	return ""
}

// softConflict is a contradiction that a strong designator in common leaves
// explainable (a controller's own serial number, a product renamed by a firmware
// update) but that needs a second proof, or "".
func softConflict(a, b Identity) string {
	for _, f := range []struct{ name, a, b string }{
		{"serial number", a.Serial, b.Serial},
		{"vendor", a.Vendor, b.Vendor},
		{"product", a.Product, b.Product},
	} {
		if f.a != "" && f.b != "" && f.a != f.b {
			return fmt.Sprintf("%s %q and %q", f.name, min(f.a, f.b), max(f.a, f.b))
		}
	}
	return ""
}

// comparison is what two lists of designators say about each other.
type comparison struct {
	agreed   string // the designator both have, "" if none
	conflict string // why they contradict, "" if they do not
}

// compareDesignators compares the designators that count. Each kind that both
// sides have must have one in common, or they contradict.
func compareDesignators(a, b []Designator, counts func(Designator) bool) comparison {
	var c comparison
	for _, x := range a {
		if !counts(x) {
			continue
		}
		for _, y := range b {
			if !counts(y) || kindOf(x) != kindOf(y) {
				continue
			}
			if x.Equal(y) {
				c.agreed = leastText(c.agreed, x.String())
			} else if !shareKind(a, b, kindOf(x)) {
				c.conflict = leastText(c.conflict, fmt.Sprintf("designators %s and %s",
					min(x.String(), y.String()), max(x.String(), y.String())))
			}
		}
	}
	return c
}

// leastText returns the smaller of the two, an empty a apart: so the reason does
// not depend on the order of designators or arguments.
func leastText(a, b string) string {
	if a == "" {
		return b
	}
	return min(a, b)
}

// shareKind reports whether a and b have a designator of the kind in common.
func shareKind(a, b []Designator, k designatorKind) bool {
	return slices.ContainsFunc(a, func(x Designator) bool {
		return kindOf(x) == k && slices.ContainsFunc(b, x.Equal)
	})
}

// designatorKind groups the designators of which one must agree.
type designatorKind struct {
	typ    DesignatorType
	naa    uint8  // NAA formats name different things
	length int    // so do EUI-64 identifiers of different length
	prefix string // and name strings of different authorities
}

// kindOf returns the kind of d.
func kindOf(d Designator) designatorKind {
	k := designatorKind{typ: d.Type}
	switch d.Type {
	case DesignatorNAA:
		if len(d.ID) > 0 {
			k.naa = d.ID[0] >> 4
		}
	case DesignatorEUI64:
		k.length = len(d.ID)
	case DesignatorName:
		k.prefix, _, _ = strings.Cut(strings.ToLower(cleanString(d.ID)), ".")
	}
	return k
}
