package iscsitest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// Variable length CDBs (SBC-3 §5.14, §5.39): the opcode and the service actions
// that the target knows.
const (
	opVariableLength = scsi.Opcode(0x7f)
	actionRead32     = 0x0009
	actionWrite32    = 0x000b
	actionExchange32 = 0x0007 // XDWRITEREAD(32)
	longCDBLen       = 32

	opExchange10 = scsi.Opcode(0x53) // XDWRITEREAD(10), SBC-3 §5.54: bidirectional
)

// longCDB returns the whole CDB if it is longer than 16 bytes, else nil, from the
// additional header segments of a command (RFC 7143 §11.2.2.3).
func longCDB(bhs pdu.BHS, ahs []byte) (long []byte, err error) {
	err = pdu.WalkAHS(ahs, func(typ uint8, body []byte) error {
		switch {
		case typ == pdu.AHSExtendedCDB && long == nil:
			cdb := pdu.SCSICommandView(bhs).CDB()
			long = slices.Concat(cdb[:], body)
		case typ == pdu.AHSExtendedCDB:
			return fmt.Errorf("two Extended CDBs")
		case typ != pdu.AHSBidiReadLen:
			return fmt.Errorf("AHS of unknown type %d", typ)
		}
		return nil
	})
	return long, err
}

// bidiLen gives the Bidirectional Read Expected Data Transfer Length, and whether
// there is one.
func bidiLen(ahs []byte) (n uint32, ok bool) {
	_ = pdu.WalkAHS(ahs, func(typ uint8, body []byte) error {
		if typ == pdu.AHSBidiReadLen {
			n, ok = pdu.BidiReadLen(body), true
		}
		return nil
	})
	return n, ok
}

// executable is the CDB that a logical unit carries out for another: READ(32) and
// WRITE(32) are READ(16) and WRITE(16) here, since there is no protection
// information to check, XDWRITEREAD is a write that gives back what the old and
// the new data differ in. Others it refuses by their opcode.
func executable(cdb scsi.CDB, long []byte) (short scsi.CDB, exchange bool) {
	if cdb.Opcode() == opExchange10 {
		if cdb[1] != 0 { // no DISABLE WRITE, FUA and the like
			return cdb, false
		}
		cdb[0] = byte(scsi.OpWrite10)
		return cdb, true
	}
	if cdb.Opcode() != opVariableLength || len(long) != longCDBLen || long[7] != longCDBLen-8 {
		return cdb, false
	}
	switch binary.BigEndian.Uint16(long[8:]) {
	case actionRead32:
		short[0] = byte(scsi.OpRead16)
	case actionWrite32:
		short[0] = byte(scsi.OpWrite16)
	case actionExchange32:
		short[0], exchange = byte(scsi.OpWrite16), true
	default:
		return cdb, false
	}
	short[1] = long[10] // protection, DPO and FUA
	copy(short[2:10], long[12:20])
	copy(short[10:14], long[28:32])
	return short, exchange
}

// exchanged carries a write out and gives back old XOR new data.
func (x *execution) exchanged(write func(*execution) result) result {
	old := readBlocks(x)
	if old.status != scsi.Good {
		return old
	}
	diff := slices.Clone(old.data)
	for i := range min(len(diff), len(x.data)) {
		diff[i] ^= x.data[i]
	}
	res := write(x)
	if res.status == scsi.Good {
		res.data = diff
	}
	return res
}
