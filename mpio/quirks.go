package mpio

import "strings"

// Quirks is a set of ways in which a target departs from the standards.
type Quirks uint32

// The quirks. Code asks for a quirk, never for a product.
const (
	// QuirkWriteSame: WRITE SAME cannot be trusted; zeros are written.
	QuirkWriteSame Quirks = 1 << iota
	// QuirkUnmap: UNMAP cannot be trusted; trims do nothing.
	QuirkUnmap
	// QuirkCompareAndWrite: COMPARE AND WRITE is announced but not there.
	QuirkCompareAndWrite
	// QuirkUnprovenReinstatement: a login does not end the session before it. The
	// session sees that by itself (TSIH 0); named here so that it is shown.
	QuirkUnprovenReinstatement
)

var quirkNames = []string{"write-same", "unmap", "compare-and-write", "unproven-reinstatement"}

// Names lists the quirks in q.
func (q Quirks) Names() []string {
	var names []string
	for i, n := range quirkNames {
		if q&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// quirkRule is one row of quirkTable. Vendor must be equal, product and
// revision begin with what is given.
type quirkRule struct {
	vendor, product, revision string
	quirks                    Quirks
}

var quirkTable = []quirkRule{
	// gotgt (github.com/gostor/gotgt v0.2.2): WRITE SAME(10) and (16) answer
	// GOOD and write nothing, pkg/scsi/backingstore.go "TODO"; seen with qemu-io
	// write -z, which read back old data. Every Login Response carries TSIH 0 and
	// a second login with the same ISID makes a second session.
	{"GOSTOR", "GOTGT", "", QuirkWriteSame | QuirkUnprovenReinstatement},

	// tgt (github.com/fujita/tgt 1.0.85): VPD page B0 announces 128 blocks for
	// COMPARE AND WRITE, which is answered "invalid operation code".
	{"IET", "VIRTUAL-DISK", "", QuirkCompareAndWrite},
}

// quirksOf looks a unit up.
func quirksOf(vendor, product, revision string) Quirks {
	var q Quirks
	for _, r := range quirkTable {
		if r.vendor == vendor && strings.HasPrefix(product, r.product) && strings.HasPrefix(revision, r.revision) {
			q |= r.quirks
		}
	}
	return q
}
