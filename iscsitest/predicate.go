package iscsitest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// Predicate picks PDUs. Some count how often they are asked (OnIndex, First,
// From, Randomly): inside And they are asked only about what all before them
// picked, so And(Writes(), LUN(1), OnIndex(3)) is the fourth write to LUN 1. A
// predicate that counts must not be used in two places.
//
// Match may be called from many goroutines; String is how the predicate would
// be written.
type Predicate interface {
	Match(e *Event) bool
	String() string
}

type predicate struct {
	match func(e *Event) bool
	name  string
}

func (p predicate) Match(e *Event) bool { return p.match(e) }
func (p predicate) String() string      { return p.name }

// Func makes a predicate of a function.
func Func(name string, match func(e *Event) bool) Predicate { return predicate{match, name} }

// Any picks every PDU.
func Any() Predicate { return Func("Any()", func(*Event) bool { return true }) }

func join(ps []Predicate) string {
	names := make([]string, len(ps))
	for i, p := range ps {
		names[i] = p.String()
	}
	return strings.Join(names, ", ")
}

// And picks what all of ps pick; it asks from left to right and stops at the
// first that says no.
func And(ps ...Predicate) Predicate {
	return Func("And("+join(ps)+")", func(e *Event) bool {
		for _, p := range ps {
			if !p.Match(e) {
				return false
			}
		}
		return true
	})
}

// Or picks what any of ps picks; it asks from left to right and stops at the
// first that says yes.
func Or(ps ...Predicate) Predicate {
	return Func("Or("+join(ps)+")", func(e *Event) bool {
		return slices.ContainsFunc(ps, func(p Predicate) bool { return p.Match(e) })
	})
}

// Not picks what p does not pick.
func Not(p Predicate) Predicate {
	return Func("Not("+p.String()+")", func(e *Event) bool { return !p.Match(e) })
}

// Op picks PDUs with one of the opcodes.
func Op(ops ...pdu.Opcode) Predicate {
	return Func(fmt.Sprintf("Op(%v)", ops), func(e *Event) bool { return slices.Contains(ops, e.Opcode()) })
}

// Dir picks one direction.
func Dir(d Direction) Predicate {
	return Func("Dir("+d.String()+")", func(e *Event) bool { return e.Dir == d })
}

// OnPortal picks the PDUs of one portal, by its index in Config.Portals.
func OnPortal(index int) Predicate {
	return Func(fmt.Sprintf("OnPortal(%d)", index), func(e *Event) bool { return e.Portal == index })
}

// OnConn picks the PDUs of one connection, by its number from 0.
func OnConn(n int) Predicate {
	return Func(fmt.Sprintf("OnConn(%d)", n), func(e *Event) bool { return e.Conn == n })
}

// OnCID picks the PDUs of the connections that have a CID in their session.
func OnCID(cid uint16) Predicate {
	return Func(fmt.Sprintf("OnCID(%d)", cid), func(e *Event) bool { return e.CID == cid })
}

// OnLUN picks the PDUs of commands to a logical unit, by its number.
func OnLUN(lun uint16) Predicate {
	return Func(fmt.Sprintf("OnLUN(%d)", lun), func(e *Event) bool {
		if e.Command == nil {
			return false
		}
		n, ok := e.Command.LUN.Number()
		return ok && n == lun
	})
}

// SCSI picks SCSI Command PDUs whose CDB has one of the opcodes.
func SCSI(ops ...scsi.Opcode) Predicate {
	return Func(fmt.Sprintf("SCSI(%v)", ops), func(e *Event) bool {
		return isCommand(e) && slices.Contains(ops, e.Command.CDB.Opcode())
	})
}

func isCommand(e *Event) bool { return e.Command != nil && e.Opcode() == pdu.OpSCSICommand }

var (
	readOpcodes  = []scsi.Opcode{scsi.OpRead6, scsi.OpRead10, scsi.OpRead12, scsi.OpRead16}
	writeOpcodes = []scsi.Opcode{
		scsi.OpWrite6, scsi.OpWrite10, scsi.OpWrite12, scsi.OpWrite16,
		scsi.OpWriteVerify10, scsi.OpWriteVerify12, scsi.OpWriteVerify16,
		scsi.OpWriteSame10, scsi.OpWriteSame16, scsi.OpUnmap,
	}
)

// Reads picks SCSI Command PDUs that read blocks: READ(6) to READ(16).
func Reads() Predicate { return predicate{SCSI(readOpcodes...).Match, "Reads()"} }

// Writes picks SCSI Command PDUs that change blocks: WRITE, WRITE AND VERIFY,
// WRITE SAME and UNMAP.
func Writes() Predicate { return predicate{SCSI(writeOpcodes...).Match, "Writes()"} }

// OfCommand picks every PDU, of either direction, that belongs to a command
// whose SCSI Command PDU would have been picked by opcode: R2Ts, Data-Out,
// Data-In and the response too.
func OfCommand(ops ...scsi.Opcode) Predicate {
	return Func(fmt.Sprintf("OfCommand(%v)", ops), func(e *Event) bool {
		return e.Command != nil && slices.Contains(ops, e.Command.CDB.Opcode())
	})
}

// Blocks picks the PDUs of commands that touch any of count blocks from lba on.
func Blocks(lba, count uint64) Predicate {
	return Func(fmt.Sprintf("Blocks(%d, %d)", lba, count), func(e *Event) bool {
		if e.Command == nil {
			return false
		}
		first, n := e.Command.CDB.LBA(), uint64(e.Command.CDB.Blocks())
		return n > 0 && first < lba+count && lba < first+n
	})
}

// counted is a predicate that sees how often it was asked before.
func counted(name string, match func(n int) bool) Predicate {
	var mu sync.Mutex // guards n
	n := 0
	return Func(name, func(*Event) bool {
		mu.Lock()
		defer mu.Unlock()
		n++
		return match(n - 1)
	})
}

// OnIndex picks the PDU it is asked about for the n-th time, from 0.
func OnIndex(n int) Predicate {
	return counted(fmt.Sprintf("OnIndex(%d)", n), func(i int) bool { return i == n })
}

// First picks the first n PDUs it is asked about.
func First(n int) Predicate {
	return counted(fmt.Sprintf("First(%d)", n), func(i int) bool { return i < n })
}

// From picks the PDU it is asked about for the n-th time, from 0, and all after it.
func From(n int) Predicate {
	return counted(fmt.Sprintf("From(%d)", n), func(i int) bool { return i >= n })
}

// Randomly picks with probability p, 0 to 1. The answers depend on the seed and
// on how often it was asked, nothing else.
func Randomly(p float64, seed uint64) Predicate {
	rng := rand.New(rand.NewPCG(seed, 0x15c51))
	return counted(fmt.Sprintf("Randomly(%g, %d)", p, seed), func(int) bool { return rng.Float64() < p })
}
