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
	longCDBLen       = 32
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

// executable is the CDB that a logical unit carries out for a long one: READ(32)
// and WRITE(32) are READ(16) and WRITE(16) here, since there is no protection
// information to check. Others it refuses by their opcode.
func executable(cdb scsi.CDB, long []byte) scsi.CDB {
	if cdb.Opcode() != opVariableLength || len(long) != longCDBLen || long[7] != longCDBLen-8 {
		return cdb
	}
	var short scsi.CDB
	switch binary.BigEndian.Uint16(long[8:]) {
	case actionRead32:
		short[0] = byte(scsi.OpRead16)
	case actionWrite32:
		short[0] = byte(scsi.OpWrite16)
	default:
		return cdb
	}
	short[1] = long[10] // protection, DPO and FUA
	copy(short[2:10], long[12:20])
	copy(short[10:14], long[28:32])
	return short
}
