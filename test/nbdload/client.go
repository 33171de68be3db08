// Package nbdload drives an NBD server with load that checks itself: a small pipelining client, a runner whose every block says which version of which block
// it is, and a recorder whose histories a linearizability checker can judge.
//
// What does not belong here: iSCSI, knowledge of the server under test, TLS, structured replies.
package nbdload

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Numbers of the NBD protocol, in the order of proto.md.
const (
	magicServer     = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption     = 0x49484156454f5054 // "IHAVEOPT"
	magicOptReply   = 0x3e889045565a9
	magicRequest    = 0x25609513
	magicReply      = 0x67446698
	flagFixed       = 1 << 0 // fixed newstyle, both directions
	flagNoZeroes    = 1 << 1
	optionGo        = 7
	replyAck        = 1
	replyInfo       = 3
	replyErrorBit   = 1 << 31
	infoExport      = 0
	infoBlockSize   = 3
	maxOptionReply  = 1 << 16
	commandRead     = 0
	commandWrite    = 1
	commandEnd      = 2
	commandFlush    = 3
	commandTrim     = 4
	commandZeroes   = 6
	commandFlagFUA  = 1 << 0
	requestLength   = 28
	replyHeadLength = 16
)

// Errno is an error number that an NBD server answered.
type Errno uint32

// Error names the number as errno(3) does.
func (e Errno) Error() string {
	names := map[Errno]string{1: "EPERM", 5: "EIO", 12: "ENOMEM", 22: "EINVAL", 28: "ENOSPC", 75: "EOVERFLOW", 95: "ENOTSUP", 108: "ESHUTDOWN"}
	if name, ok := names[e]; ok {
		return "the NBD server answered " + name
	}
	return fmt.Sprintf("the NBD server answered error %d", uint32(e))
}

// Client is one NBD connection. Its methods may be called from many goroutines; the requests are then in flight together.
type Client struct {
	// Size of the export in bytes, its transmission flags, and its largest request (32 MiB when the server says nothing). Do not change them.
	Size       uint64
	Flags      uint16
	MaxRequest uint32

	conn net.Conn

	sending sync.Mutex // held while a request is written

	mu      sync.Mutex
	pending map[uint64]*call
	cookie  uint64
	err     error // why the connection ended

	reader sync.WaitGroup
}

type call struct {
	into []byte // where a read's payload goes
	done chan error
}

// Dial connects ("unix" and a path, or "tcp" and host:port) and opens the export ("" is the default one).
func Dial(ctx context.Context, network, address, export string) (*Client, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, MaxRequest: 32 << 20, pending: map[uint64]*call{}}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = c.negotiate(export)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("NBD negotiation with %s: %w", address, err)
	}
	c.reader.Go(c.read)
	return c, nil
}

// negotiate does the fixed newstyle handshake with NBD_OPT_GO.
func (c *Client) negotiate(export string) error {
	var hello [18]byte
	if _, err := io.ReadFull(c.conn, hello[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(hello[:]) != magicServer || binary.BigEndian.Uint64(hello[8:]) != magicOption {
		return fmt.Errorf("not a newstyle NBD server: %q", hello[:16])
	}
	flags := binary.BigEndian.Uint16(hello[16:])
	if flags&flagFixed == 0 {
		return errors.New("the server does not speak fixed newstyle")
	}
	option := binary.BigEndian.AppendUint32(nil, uint32(flags&(flagFixed|flagNoZeroes)))
	option = binary.BigEndian.AppendUint64(option, magicOption)
	option = binary.BigEndian.AppendUint32(option, optionGo)
	option = binary.BigEndian.AppendUint32(option, uint32(4+len(export)+2+2))
	option = binary.BigEndian.AppendUint32(option, uint32(len(export)))
	option = append(option, export...)
	option = binary.BigEndian.AppendUint16(option, 1)
	option = binary.BigEndian.AppendUint16(option, infoBlockSize)
	if _, err := c.conn.Write(option); err != nil {
		return err
	}
	for {
		kind, payload, err := c.optionReply()
		switch {
		case err != nil:
			return err
		case kind == replyAck && c.Size == 0:
			return errors.New("the server accepted the export without telling its size")
		case kind == replyAck:
			return nil
		case kind&replyErrorBit != 0:
			return fmt.Errorf("the server refused export %q: %#x %q", export, kind, payload)
		case kind == replyInfo:
			c.takeInfo(payload)
		}
	}
}

func (c *Client) optionReply() (kind uint32, payload []byte, err error) {
	var head [20]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[16:])
	if binary.BigEndian.Uint64(head[:]) != magicOptReply || length > maxOptionReply {
		return 0, nil, fmt.Errorf("bad option reply % x", head)
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(c.conn, payload)
	return binary.BigEndian.Uint32(head[12:]), payload, err
}

func (c *Client) takeInfo(payload []byte) {
	switch {
	case len(payload) >= 12 && binary.BigEndian.Uint16(payload) == infoExport:
		c.Size = binary.BigEndian.Uint64(payload[2:])
		c.Flags = binary.BigEndian.Uint16(payload[10:])
	case len(payload) >= 14 && binary.BigEndian.Uint16(payload) == infoBlockSize:
		c.MaxRequest = binary.BigEndian.Uint32(payload[10:])
	}
}

// Read fills p from offset.
func (c *Client) Read(p []byte, offset uint64) error {
	return c.do(commandRead, 0, offset, uint32(len(p)), nil, p)
}

// Write writes p at offset; fua asks for stable storage before the answer.
func (c *Client) Write(p []byte, offset uint64, fua bool) error {
	var flags uint16
	if fua {
		flags = commandFlagFUA
	}
	return c.do(commandWrite, flags, offset, uint32(len(p)), p, nil)
}

// Flush asks that every write answered so far be on stable storage.
func (c *Client) Flush() error { return c.do(commandFlush, 0, 0, 0, nil, nil) }

// Trim says that the bytes are not needed any more.
func (c *Client) Trim(offset uint64, length uint32) error {
	return c.do(commandTrim, 0, offset, length, nil, nil)
}

// WriteZeroes makes the bytes read as zero.
func (c *Client) WriteZeroes(offset uint64, length uint32) error {
	return c.do(commandZeroes, 0, offset, length, nil, nil)
}

// Close ends the connection in order; requests in flight fail.
func (c *Client) Close() error {
	_ = c.conn.SetWriteDeadline(aSecondFromNow()) // a server that does not read must not hold us
	_ = c.send(commandEnd, 0, 0, 0, 0, nil)
	err := c.conn.Close()
	c.reader.Wait()
	if errors.Is(err, net.ErrClosed) { // the server was quicker
		return nil
	}
	return err
}

func (c *Client) do(command, flags uint16, offset uint64, length uint32, payload, into []byte) error {
	waiting := &call{into: into, done: make(chan error, 1)}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.err
	}
	c.cookie++
	cookie := c.cookie
	c.pending[cookie] = waiting
	c.mu.Unlock()
	if err := c.send(command, flags, cookie, offset, length, payload); err != nil {
		c.fail(err) // answers this call too
	}
	return <-waiting.done
}

func (c *Client) send(command, flags uint16, cookie, offset uint64, length uint32, payload []byte) error {
	head := make([]byte, 0, requestLength)
	head = binary.BigEndian.AppendUint32(head, magicRequest)
	head = binary.BigEndian.AppendUint16(head, flags)
	head = binary.BigEndian.AppendUint16(head, command)
	head = binary.BigEndian.AppendUint64(head, cookie)
	head = binary.BigEndian.AppendUint64(head, offset)
	head = binary.BigEndian.AppendUint32(head, length)
	c.sending.Lock()
	defer c.sending.Unlock()
	parts := net.Buffers{head}
	if len(payload) > 0 {
		parts = append(parts, payload)
	}
	_, err := parts.WriteTo(c.conn)
	return err
}

// read delivers replies until the connection ends.
func (c *Client) read() {
	var head [replyHeadLength]byte
	for {
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			c.fail(err)
			return
		}
		cookie := binary.BigEndian.Uint64(head[8:])
		c.mu.Lock()
		waiting := c.pending[cookie]
		delete(c.pending, cookie)
		c.mu.Unlock()
		if binary.BigEndian.Uint32(head[:]) != magicReply || waiting == nil {
			err := fmt.Errorf("the server answered % x, which belongs to no request", head)
			if waiting != nil {
				waiting.done <- err
			}
			c.fail(err)
			return
		}
		if code := binary.BigEndian.Uint32(head[4:]); code != 0 {
			waiting.done <- Errno(code)
			continue
		}
		if _, err := io.ReadFull(c.conn, waiting.into); err != nil {
			waiting.done <- connectionError(err)
			c.fail(err)
			return
		}
		waiting.done <- nil
	}
}

// ErrConnectionLost is what requests return when the connection to the NBD server has ended.
var ErrConnectionLost = errors.New("the NBD connection is lost")

func connectionError(err error) error { return fmt.Errorf("%w: %w", ErrConnectionLost, err) }

// fail ends the connection and every request in flight.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = connectionError(err)
		_ = c.conn.Close()
	}
	for cookie, waiting := range c.pending {
		delete(c.pending, cookie)
		waiting.done <- c.err
	}
}
