//go:build linux

package hotpath

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/iscsimp/iscsimp/iscsitest"
)

// peer is the child process: a target with two portals, and an NBD client that
// keeps depth requests in flight on command.
func peer(in io.Reader, out io.Writer) error {
	tgt, err := iscsitest.NewTarget(iscsitest.Config{Portals: []iscsitest.Portal{{TPGT: 1}, {TPGT: 2}}})
	if err != nil {
		return err
	}
	defer tgt.Close()
	fmt.Fprintln(out, tgt.Name(), strings.Join(tgt.Addrs(), " "))
	var c *client
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var verb, arg string
		fmt.Sscan(lines.Text(), &verb, &arg)
		n := 0
		fmt.Sscan(arg, &n)
		switch verb {
		case "connect":
			if c, err = connect(arg); err == nil {
				fmt.Fprintln(out, "connected")
			}
		case "read", "write":
			if err = c.run(verb == "write", n); err == nil {
				fmt.Fprintln(out, "done")
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// client is just enough of an NBD client (fixed newstyle, NBD_OPT_EXPORT_NAME).
type client struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func connect(sock string) (*client, error) {
	conn, err := net.Dial("unix", sock)
	if err != nil {
		return nil, err
	}
	c := &client{conn, bufio.NewReaderSize(conn, 1<<18), bufio.NewWriterSize(conn, 1<<18)}
	if _, err := io.ReadFull(c.r, make([]byte, 18)); err != nil {
		return nil, err
	}
	b := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	b = append(b, "IHAVEOPT"...)
	b = binary.BigEndian.AppendUint32(b, 1) // NBD_OPT_EXPORT_NAME
	b = binary.BigEndian.AppendUint32(b, 1)
	b = append(b, 'd')
	if _, err := conn.Write(b); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(c.r, make([]byte, 10)) // size and flags
	return c, err
}

// run does n operations of 4 KiB with depth of them in flight.
func (c *client) run(write bool, n int) error {
	req := make([]byte, 28+4096)
	binary.BigEndian.PutUint32(req, 0x25609513)
	binary.BigEndian.PutUint32(req[24:], 4096)
	reply := 16 + 4096
	if write {
		binary.BigEndian.PutUint16(req[6:], 1)
		reply = 16
	} else {
		req = req[:28]
	}
	sent := 0
	send := func(k int) error {
		for range k {
			if sent == n {
				break
			}
			binary.BigEndian.PutUint64(req[8:], uint64(sent))
			binary.BigEndian.PutUint64(req[16:], uint64(sent*7919%8192)*4096)
			if _, err := c.w.Write(req); err != nil {
				return err
			}
			sent++
		}
		return c.w.Flush()
	}
	if err := send(depth); err != nil {
		return err
	}
	buf := make([]byte, reply)
	for got := 0; got < n; {
		k := 0
		for { // all replies that are there, then as many new requests
			if _, err := io.ReadFull(c.r, buf); err != nil {
				return err
			}
			if binary.BigEndian.Uint32(buf) != 0x67446698 || binary.BigEndian.Uint32(buf[4:]) != 0 {
				return errors.New("bad reply")
			}
			k++
			if c.r.Buffered() < reply {
				break
			}
		}
		got += k
		if err := send(k); err != nil {
			return err
		}
	}
	return nil
}
