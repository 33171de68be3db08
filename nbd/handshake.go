package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// maxOptions is how many options a client may send in one handshake.
const maxOptions = 128

// errAborted ends a handshake in which the client sent ABORT.
var errAborted = errors.New("the client ended the handshake")

// negotiation is the handshake with one client, up to its choice of an export
// (proto.md, "Fixed newstyle negotiation"). It reads exactly what belongs to
// the handshake and not a byte more, since the connection then goes to a loop.
// Deadlines are set by the caller.
type negotiation struct {
	srv      *Server
	conn     net.Conn
	remote   string
	noZeroes bool
	in       []byte // data of the present option; reused
	out      []byte // answers to it, sent together; reused
	chosen   *conn  // set once an export was chosen
}

// run returns nil when n.chosen is to be served. On an error the connection is
// of no further use; n.chosen may be set even so.
func (n *negotiation) run() error {
	if err := n.greet(); err != nil {
		return err
	}
	for range maxOptions {
		if err := n.option(); err != nil {
			return err
		}
		if n.chosen != nil {
			return nil
		}
	}
	return fmt.Errorf("the client sent %d options and chose no export", maxOptions)
}

// greet exchanges the flags.
func (n *negotiation) greet() error {
	b := binary.BigEndian.AppendUint64(n.out[:0], magicInit)
	b = binary.BigEndian.AppendUint64(b, magicOption)
	b = binary.BigEndian.AppendUint16(b, flagFixedNewstyle|flagNoZeroes)
	if err := n.send(b); err != nil {
		return err
	}
	var raw [4]byte
	if _, err := io.ReadFull(n.conn, raw[:]); err != nil {
		return fmt.Errorf("no client flags came: %w", err)
	}
	flags := binary.BigEndian.Uint32(raw[:])
	if flags&^knownClientFlags != 0 {
		return fmt.Errorf("the client sent flags %#x, of which only %#x are known", flags, knownClientFlags)
	}
	// A client without the fixed-newstyle flag may only send EXPORT_NAME, but
	// may be served if it sends more (proto.md, "Client flags").
	n.noZeroes = flags&flagNoZeroes != 0
	return nil
}

// option reads one option and answers it.
func (n *negotiation) option() error {
	var raw [optionHeaderLen]byte
	if _, err := io.ReadFull(n.conn, raw[:]); err != nil {
		return fmt.Errorf("no option came: %w", err)
	}
	if magic := binary.BigEndian.Uint64(raw[:]); magic != magicOption {
		return fmt.Errorf("an option begins with %#x instead of %#x", magic, magicOption)
	}
	option := binary.BigEndian.Uint32(raw[8:])
	length := binary.BigEndian.Uint32(raw[12:])
	if length > maxOptionData {
		return fmt.Errorf("option %d announces %d bytes of data; more than %d is taken for an attack", option, length, maxOptionData)
	}
	if cap(n.in) < int(length) {
		n.in = make([]byte, length)
	}
	data := n.in[:length]
	if _, err := io.ReadFull(n.conn, data); err != nil {
		return fmt.Errorf("the data of option %d did not come: %w", option, err)
	}
	n.out = n.out[:0]
	err := n.dispatch(option, data)
	if len(n.out) > 0 {
		if sendErr := n.send(n.out); err == nil {
			err = sendErr
		}
	}
	return err
}

func (n *negotiation) dispatch(option uint32, data []byte) error {
	run, known := optionTable[option]
	switch {
	case !known:
		n.refuse(option, repErrUnsup, "this server does not know the option")
		return nil
	case n.srv.ctx.Err() != nil && option == optExportName:
		return ErrClosed // this option has no way to say so
	case n.srv.ctx.Err() != nil && option != optAbort:
		n.refuse(option, repErrShutdown, "this server is shutting down")
		return ErrClosed
	}
	return run(n, option, data)
}

func (n *negotiation) send(b []byte) error {
	if _, err := n.conn.Write(b); err != nil {
		return fmt.Errorf("the client took no answer: %w", err)
	}
	return nil
}

// answer queues a reply to the present option.
func (n *negotiation) answer(option, reply uint32, data []byte) {
	n.out = appendOptionReply(n.out, option, reply, data)
}

// refuse queues an error reply with a text for humans.
func (n *negotiation) refuse(option, reply uint32, text string) {
	n.answer(option, reply, []byte(text[:min(len(text), maxString)]))
}
