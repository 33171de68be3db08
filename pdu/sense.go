package pdu

import (
	"encoding/binary"
	"fmt"
	"math"
)

// senseLengthLen is the size in bytes of the SenseLength field.
const senseLengthLen = 2

// SplitSense divides the data segment of a SCSI Response (RFC 7143 §11.4.7) or an
// Asynchronous Message (§11.9.4) into the sense data and what follows it, response
// or event data. An empty data segment has neither. Both results are parts of
// data: they are valid as long as data is. If SenseLength says more than there is
// (or is itself cut off), it returns what sense data there is, and an error.
//
//	 |0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|0 1 2 3 4 5 6 7|
//	 +---------------+---------------+---------------+---------------+
//	0|SenseLength                    | Sense Data                    |
//	 +---------------+---------------+---------------+---------------+
//	x/ Sense Data                                                    /
//	 +---------------+---------------+---------------+---------------+
//	y/ Response Data                                                 /
//	 /                                                               /
//	 +---------------+---------------+---------------+---------------+
func SplitSense(data []byte) (sense, rest []byte, err error) {
	if len(data) == 0 {
		return nil, nil, nil
	}
	if len(data) < senseLengthLen {
		return nil, nil, fmt.Errorf("pdu: data segment of %d byte has no room for SenseLength", len(data))
	}
	end := senseLengthLen + int(u16(data, 0))
	if end > len(data) {
		return data[senseLengthLen:len(data):len(data)], nil, fmt.Errorf("pdu: SenseLength %d, only %d bytes follow", end-senseLengthLen, len(data)-senseLengthLen)
	}
	return data[senseLengthLen:end:end], data[end:], nil
}

// AppendSense appends SenseLength and sense, the form SplitSense reads. It panics
// when sense exceeds 65535 bytes; SCSI allows 252.
func AppendSense(dst, sense []byte) []byte {
	if len(sense) > math.MaxUint16 {
		panic("pdu: sense data does not fit its length field")
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(sense)))
	return append(dst, sense...)
}
