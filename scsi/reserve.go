package scsi

import "fmt"

// Service actions of PERSISTENT RESERVE IN (SPC-4).
const (
	SAReadKeys           uint8 = 0x00
	SAReadReservation    uint8 = 0x01
	SAReportCapabilities uint8 = 0x02
	SAReadFullStatus     uint8 = 0x03
)

// Service actions of PERSISTENT RESERVE OUT (SPC-4).
const (
	SARegister          uint8 = 0x00 // key → service action key, if key is the registered one
	SAReserve           uint8 = 0x01
	SARelease           uint8 = 0x02
	SAClear             uint8 = 0x03 // release and unregister everybody
	SAPreempt           uint8 = 0x04
	SAPreemptAndAbort   uint8 = 0x05 // and abort the commands of the preempted
	SARegisterAndIgnore uint8 = 0x06 // register, whatever the registered key is
	SARegisterAndMove   uint8 = 0x07
)

// ReservationType is the TYPE of a persistent reservation (SPC-4).
type ReservationType uint8

// The reservation types.
const (
	WriteExclusive                ReservationType = 0x1
	ExclusiveAccess               ReservationType = 0x3
	WriteExclusiveRegistrantsOnly ReservationType = 0x5
	ExclusiveRegistrantsOnly      ReservationType = 0x6
	WriteExclusiveAllRegistrants  ReservationType = 0x7
	ExclusiveAllRegistrants       ReservationType = 0x8
)

// String is the standard's name.
func (t ReservationType) String() string {
	switch t {
	case WriteExclusive:
		return "write exclusive"
	case ExclusiveAccess:
		return "exclusive access"
	case WriteExclusiveRegistrantsOnly:
		return "write exclusive, registrants only"
	case ExclusiveRegistrantsOnly:
		return "exclusive access, registrants only"
	case WriteExclusiveAllRegistrants:
		return "write exclusive, all registrants"
	case ExclusiveAllRegistrants:
		return "exclusive access, all registrants"
	}
	return fmt.Sprintf("reservation type 0x%x", uint8(t))
}

// PersistentReserveIn asks about registrations and reservations (SPC-4).
func PersistentReserveIn(sa uint8, alloc uint16) CDB {
	c := CDB{0: byte(OpPersistentReserveIn), 1: sa & 0x1f}
	be.PutUint16(c[7:], alloc)
	return c
}

// ReserveParametersLen is the length of what ReserveParameters.AppendTo appends.
const ReserveParametersLen = 24

// PersistentReserveOut changes registrations and reservations (SPC-4) of
// the whole unit; ReserveParametersLen bytes of data go with it. It is not
// idempotent: never send it again before its outcome is known.
func PersistentReserveOut(sa uint8, t ReservationType) CDB {
	c := CDB{0: byte(OpPersistentReserveOut), 1: sa & 0x1f, 2: byte(t & 0x0f)}
	be.PutUint32(c[5:], ReserveParametersLen)
	return c
}

// ReserveParameters is the parameter list of PERSISTENT RESERVE OUT (SPC-4),
// for every service action but REGISTER AND MOVE.
type ReserveParameters struct {
	Key       uint64 // the registered key of this path, 0 if none
	ActionKey uint64 // key to register or to preempt
	APTPL     bool   // registrations outlive a loss of power
	AllPorts  bool   // ALL_TG_PT: register on all target ports
}

// AppendTo appends the 24 bytes of the list.
func (p ReserveParameters) AppendTo(dst []byte) []byte {
	var d [ReserveParametersLen]byte
	be.PutUint64(d[0:], p.Key)
	be.PutUint64(d[8:], p.ActionKey)
	if p.APTPL {
		d[20] |= 0x01
	}
	if p.AllPorts {
		d[20] |= 0x04
	}
	return append(dst, d[:]...)
}

// ParseReserveParameters reads the parameter list of PERSISTENT RESERVE OUT.
func ParseReserveParameters(b []byte) (ReserveParameters, error) {
	if len(b) < ReserveParametersLen {
		return ReserveParameters{}, short("PERSISTENT RESERVE OUT parameter list", len(b), ReserveParametersLen)
	}
	return ReserveParameters{
		Key:       be.Uint64(b[0:]),
		ActionKey: be.Uint64(b[8:]),
		APTPL:     b[20]&0x01 != 0,
		AllPorts:  b[20]&0x04 != 0,
	}, nil
}

// reserveHeader is the header of all PERSISTENT RESERVE IN data but capabilities:
// generation and length of what follows.
const reserveHeader = 8

// reserveBody checks that header.
func reserveBody(what string, b []byte) (generation uint32, body []byte, err error) {
	if len(b) < reserveHeader {
		return 0, nil, short(what, len(b), reserveHeader)
	}
	n := uint64(be.Uint32(b[4:])) + reserveHeader
	if n > uint64(len(b)) {
		return 0, nil, short(what, len(b), clampInt(n))
	}
	return be.Uint32(b), b[reserveHeader:n], nil
}

// ParseReserveKeys reads the data of PERSISTENT RESERVE IN READ KEYS (SPC-4):
// one key for each registered path, and the generation, which counts
// the changes. Data cut short is an error that wraps ErrShort.
func ParseReserveKeys(b []byte) (generation uint32, keys []uint64, err error) {
	generation, body, err := reserveBody("READ KEYS data", b)
	if err != nil {
		return 0, nil, err
	}
	keys = make([]uint64, 0, len(body)/8)
	for ; len(body) >= 8; body = body[8:] {
		keys = append(keys, be.Uint64(body))
	}
	return generation, keys, nil
}

// AppendReserveKeys appends the data of PERSISTENT RESERVE IN READ KEYS.
func AppendReserveKeys(dst []byte, generation uint32, keys []uint64) []byte {
	dst = be.AppendUint32(dst, generation)
	dst = be.AppendUint32(dst, uint32(8*len(keys)))
	for _, k := range keys {
		dst = be.AppendUint64(dst, k)
	}
	return dst
}

// Reservation is the answer to PERSISTENT RESERVE IN READ RESERVATION.
type Reservation struct {
	Generation uint32
	Held       bool   // there is a reservation; the rest counts only then
	Key        uint64 // of the holder; 0 with the all-registrants types
	Type       ReservationType
}

// ParseReservation reads the data of READ RESERVATION (SPC-4).
func ParseReservation(b []byte) (Reservation, error) {
	const what, descriptor = "READ RESERVATION data", 16
	generation, body, err := reserveBody(what, b)
	if err != nil {
		return Reservation{}, err
	}
	r := Reservation{Generation: generation}
	if len(body) == 0 {
		return r, nil
	}
	if len(body) < descriptor {
		return Reservation{}, malformed(what, "descriptor of %d bytes", len(body))
	}
	r.Held, r.Key, r.Type = true, be.Uint64(body), ReservationType(body[13]&0x0f)
	return r, nil
}

// AppendTo appends the data of READ RESERVATION.
func (r Reservation) AppendTo(dst []byte) []byte {
	dst = be.AppendUint32(dst, r.Generation)
	if !r.Held {
		return be.AppendUint32(dst, 0)
	}
	dst = be.AppendUint32(dst, 16)
	dst = be.AppendUint64(dst, r.Key)
	return append(dst, 0, 0, 0, 0, 0, byte(r.Type&0x0f), 0, 0)
}

// reserveInNames and reserveOutNames are the standard's names by service action.
var (
	reserveInNames  = [...]string{"READ KEYS", "READ RESERVATION", "REPORT CAPABILITIES", "READ FULL STATUS"}
	reserveOutNames = [...]string{
		"REGISTER", "RESERVE", "RELEASE", "CLEAR", "PREEMPT", "PREEMPT AND ABORT",
		"REGISTER AND IGNORE EXISTING KEY", "REGISTER AND MOVE",
	}
)
