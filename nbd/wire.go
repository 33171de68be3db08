package nbd

import (
	"encoding/binary"
)

// Magic numbers (proto.md, "Newstyle negotiation", "Request message",
// "Simple reply message"). All integers of NBD are big-endian.
const (
	magicInit        uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption      uint64 = 0x49484156454f5054 // "IHAVEOPT"
	magicOptionReply uint64 = 0x0003e889045565a9
	magicRequest     uint32 = 0x25609513
	magicSimpleReply uint32 = 0x67446698
)

// Handshake flags (server) and client flags: the same two bits.
const (
	flagFixedNewstyle = 1 << 0
	flagNoZeroes      = 1 << 1
	knownClientFlags  = flagFixedNewstyle | flagNoZeroes
)

// Transmission flags (proto.md, "Transmission flags").
const (
	flagHasFlags        uint16 = 1 << 0
	flagReadOnly        uint16 = 1 << 1
	flagSendFlush       uint16 = 1 << 2
	flagSendFUA         uint16 = 1 << 3
	flagRotational      uint16 = 1 << 4
	flagSendTrim        uint16 = 1 << 5
	flagSendWriteZeroes uint16 = 1 << 6
	flagCanMultiConn    uint16 = 1 << 8
)

// Options (proto.md, "Option types").
const (
	optExportName      uint32 = 1
	optAbort           uint32 = 2
	optList            uint32 = 3
	optStartTLS        uint32 = 5
	optInfo            uint32 = 6
	optGo              uint32 = 7
	optStructuredReply uint32 = 8
)

// Option reply types (proto.md, "Option reply types").
const (
	repAck         uint32 = 1
	repServer      uint32 = 2
	repInfo        uint32 = 3
	repErrUnsup    uint32 = 1<<31 + 1
	repErrPolicy   uint32 = 1<<31 + 2
	repErrInvalid  uint32 = 1<<31 + 3
	repErrUnknown  uint32 = 1<<31 + 6
	repErrShutdown uint32 = 1<<31 + 7
	repErrTooBig   uint32 = 1<<31 + 9
)

// Information types of OPT_INFO and OPT_GO.
const (
	infoExport      uint16 = 0
	infoName        uint16 = 1
	infoDescription uint16 = 2
	infoBlockSize   uint16 = 3
)

// Commands (proto.md, "Request types").
const (
	cmdRead        uint16 = 0
	cmdWrite       uint16 = 1
	cmdDisc        uint16 = 2
	cmdFlush       uint16 = 3
	cmdTrim        uint16 = 4
	cmdCache       uint16 = 5
	cmdWriteZeroes uint16 = 6
)

// Command flags (proto.md, "Command flags").
const (
	cmdFlagFUA      uint16 = 1 << 0
	cmdFlagNoHole   uint16 = 1 << 1
	cmdFlagFastZero uint16 = 1 << 4
)

// Error values of a reply (proto.md, "Error values").
const (
	errnoPerm     uint32 = 1
	errnoIO       uint32 = 5
	errnoInval    uint32 = 22
	errnoNoSpace  uint32 = 28
	errnoNotSup   uint32 = 95
	errnoShutdown uint32 = 108
)

// Sizes of the wire format, in bytes.
const (
	optionHeaderLen  = 16
	requestLen       = 28
	simpleReplyLen   = 16
	exportNamePadLen = 124 // zeros after the EXPORT_NAME answer, unless NO_ZEROES
)

// Limits of this server, in bytes.
const (
	maxString     = 4096     // proto.md, "Conventions": the longest string
	maxOptionData = 64 << 10 // longer option data is hostile: the connection is dropped
	maxPayload    = 32 << 20 // advertised maximum of a READ or WRITE
	maxDrain      = 64 << 20 // a refused WRITE up to this size is read and discarded; a longer one costs the connection
)

// Block sizes a server may advertise (proto.md, "Size constraints").
const (
	maxMinBlock        = 64 << 10
	defaultPreferBlock = 4096
)

// request message (proto.md, "Request message"):
//
//	 0               1               2               3
//	+---------------+---------------+---------------+---------------+
//	| magic 0x25609513                                              |
//	+---------------+---------------+---------------+---------------+
//	| command flags                 | type                          |
//	+---------------+---------------+---------------+---------------+
//	| cookie (64 bits)                                              |
//	+---------------+---------------+---------------+---------------+
//	| offset (64 bits)                                              |
//	+---------------+---------------+---------------+---------------+
//	| length                                                        |
//	+---------------+---------------+---------------+---------------+
type requestHeader struct {
	flags  uint16
	cmd    uint16
	cookie uint64
	offset uint64
	length uint32
}

// parseRequest decodes the first requestLen bytes of b. ok is false when the
// magic number is wrong.
func parseRequest(b []byte) (h requestHeader, ok bool) {
	_ = b[requestLen-1]
	h.flags = binary.BigEndian.Uint16(b[4:])
	h.cmd = binary.BigEndian.Uint16(b[6:])
	h.cookie = binary.BigEndian.Uint64(b[8:])
	h.offset = binary.BigEndian.Uint64(b[16:])
	h.length = binary.BigEndian.Uint32(b[24:])
	return h, binary.BigEndian.Uint32(b) == magicRequest
}

// putSimpleReply encodes a simple reply into the first simpleReplyLen bytes of
// b (proto.md, "Simple reply message"):
//
//	+---------------+---------------+---------------+---------------+
//	| magic 0x67446698                                              |
//	+---------------+---------------+---------------+---------------+
//	| error                                                         |
//	+---------------+---------------+---------------+---------------+
//	| cookie (64 bits)                                              |
//	+---------------+---------------+---------------+---------------+
func putSimpleReply(b []byte, errno uint32, cookie uint64) {
	_ = b[simpleReplyLen-1]
	binary.BigEndian.PutUint32(b, magicSimpleReply)
	binary.BigEndian.PutUint32(b[4:], errno)
	binary.BigEndian.PutUint64(b[8:], cookie)
}

// appendOptionReply appends one option reply (proto.md, "Fixed newstyle
// negotiation"): magic, the option answered, the reply type, the length of
// data, data.
func appendOptionReply(b []byte, option, reply uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, magicOptionReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, reply)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}
