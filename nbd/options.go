package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// optionTable holds the options this server knows; any other one is answered
// with ERR_UNSUP and the handshake goes on. A handler queues its answers in
// n.out; an error from it ends the connection after they have been sent.
var optionTable = map[uint32]func(n *negotiation, option uint32, data []byte) error{
	optExportName: (*negotiation).exportName,
	optAbort:      (*negotiation).abort,
	optList:       (*negotiation).list,
	optInfo:       (*negotiation).info,
	optGo:         (*negotiation).info,
}

// exportName is the oldest way to choose an export; it has no way to report an
// error but to hang up.
//
//	C: name                       (the whole option data)
//	S: size (64) | flags (16) | 124 zeros unless NO_ZEROES
func (n *negotiation) exportName(_ uint32, data []byte) error {
	if len(data) > maxString {
		return fmt.Errorf("the client asked for an export with a name of %d bytes", len(data))
	}
	name := string(data)
	e := n.srv.cfg.find(name)
	if e == nil {
		return fmt.Errorf("the client asked for export %q, which does not exist", name)
	}
	l, err := e.limits()
	if err != nil {
		return err
	}
	if n.chosen, err = n.srv.reserve(e, l, n.remote); err != nil {
		return err
	}
	n.out = binary.BigEndian.AppendUint64(n.out, l.size)
	n.out = binary.BigEndian.AppendUint16(n.out, l.flags)
	if !n.noZeroes {
		n.out = append(n.out, make([]byte, exportNamePadLen)...)
	}
	return nil
}

func (n *negotiation) abort(option uint32, _ []byte) error {
	n.answer(option, repAck, nil)
	return errAborted
}

// list answers with one SERVER reply per export:
//
//	S: length of name (32) | name | description
func (n *negotiation) list(option uint32, data []byte) error {
	if len(data) > 0 {
		n.refuse(option, repErrInvalid, "LIST takes no data")
		return nil
	}
	var b []byte
	for _, e := range n.srv.cfg.Exports {
		b = binary.BigEndian.AppendUint32(b[:0], uint32(len(e.Name)))
		b = append(b, e.Name...)
		b = append(b, e.Description...)
		n.answer(option, repServer, b)
	}
	n.answer(option, repAck, nil)
	return nil
}

// info serves INFO and GO, which differ only in what follows the ACK.
func (n *negotiation) info(option uint32, data []byte) error {
	name, wanted, err := parseInfoRequest(data)
	if err != nil {
		n.refuse(option, repErrInvalid, err.Error())
		return nil
	}
	if len(name) > maxString {
		n.refuse(option, repErrTooBig, fmt.Sprintf("an export name has at most %d bytes", maxString))
		return nil
	}
	e := n.srv.cfg.find(name)
	if e == nil {
		n.refuse(option, repErrUnknown, fmt.Sprintf("there is no export %q here; list the exports to see what there is (nbdinfo --list)", name))
		return nil
	}
	l, err := e.limits()
	if err != nil {
		n.refuse(option, repErrPolicy, err.Error())
		return nil
	}
	if option == optGo {
		if n.chosen, err = n.srv.reserve(e, l, n.remote); errors.Is(err, ErrClosed) {
			n.refuse(option, repErrShutdown, err.Error())
			return err
		} else if err != nil {
			n.refuse(option, repErrPolicy, err.Error())
			return nil
		}
	}
	n.describe(option, e, &l, wanted)
	n.answer(option, repAck, nil)
	return nil
}

// describe queues the INFO replies:
//
//	EXPORT:      0 (16) | size (64) | transmission flags (16)
//	NAME:        1 (16) | name
//	DESCRIPTION: 2 (16) | description
//	BLOCK_SIZE:  3 (16) | minimum (32) | preferred (32) | maximum payload (32)
//
// BLOCK_SIZE is sent unasked too, as a server with constraints of its own
// should (proto.md, "Size constraints").
func (n *negotiation) describe(option uint32, e *Export, l *limits, wanted infoSet) {
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, l.size)
	b = binary.BigEndian.AppendUint16(b, l.flags)
	n.answer(option, repInfo, b)
	if wanted.has(infoName) {
		b = binary.BigEndian.AppendUint16(b[:0], infoName)
		n.answer(option, repInfo, append(b, e.Name...))
	}
	if wanted.has(infoDescription) {
		b = binary.BigEndian.AppendUint16(b[:0], infoDescription)
		n.answer(option, repInfo, append(b, e.Description...))
	}
	b = binary.BigEndian.AppendUint16(b[:0], infoBlockSize)
	b = binary.BigEndian.AppendUint32(b, l.minBlock)
	b = binary.BigEndian.AppendUint32(b, l.preferBlock)
	b = binary.BigEndian.AppendUint32(b, maxPayload)
	n.answer(option, repInfo, b)
}

// infoSet is the set of information types a client asked for.
type infoSet uint8

func (s infoSet) has(info uint16) bool { return s&(1<<info) != 0 }

// parseInfoRequest decodes the data of INFO and GO:
//
//	C: length of name (32) | name | number of requests (16) | requests (16 each)
//
// Types this server does not know are ignored, as the protocol demands.
func parseInfoRequest(data []byte) (name string, wanted infoSet, err error) {
	if len(data) < 6 {
		return "", 0, fmt.Errorf("the option carries %d bytes; it takes 6 at least", len(data))
	}
	nameLen := binary.BigEndian.Uint32(data)
	if uint64(nameLen) > uint64(len(data)-6) {
		return "", 0, fmt.Errorf("a name of %d bytes does not fit in an option of %d", nameLen, len(data))
	}
	name = string(data[4 : 4+nameLen])
	rest := data[4+nameLen:]
	count := int(binary.BigEndian.Uint16(rest))
	rest = rest[2:]
	if len(rest) != 2*count {
		return "", 0, fmt.Errorf("%d information requests were announced, %d bytes of them came", count, len(rest))
	}
	for ; len(rest) > 0; rest = rest[2:] {
		if info := binary.BigEndian.Uint16(rest); info <= infoBlockSize {
			wanted |= 1 << info
		}
	}
	return name, wanted, nil
}
