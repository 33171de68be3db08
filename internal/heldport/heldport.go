// Package heldport gives test servers a TCP port that stays theirs while they do
// not listen on it. A port that was only closed can be gone when it is to be
// listened on again: the system may have given it to an outgoing connection, even
// to the one that was trying to reach it.
package heldport

import "net"

// Port is a TCP address that is this process's own from Hold to Release. Between
// listeners connections to it are refused. Where the system cannot hold a port
// (other than Linux), it is an address that is listened on when it is asked for.
// The methods must not be called at the same time.
type Port struct {
	address string
	release func()
}

// Hold takes an address, "host:port"; port 0 chooses one. The caller must Release
// it. An address of all hosts (":0") is not held.
func Hold(address string) (*Port, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if held, release := hold(tcp); held != nil {
		return &Port{held.String(), release}, nil
	}
	if tcp.Port == 0 {
		l, err := net.ListenTCP("tcp", tcp)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		address = l.Addr().String()
	}
	return &Port{address, func() {}}, nil
}

// Addr is the address, with its port.
func (p *Port) Addr() string { return p.address }

// Listen listens on the port, as often as the listener before was closed.
func (p *Port) Listen() (net.Listener, error) { return net.Listen("tcp", p.address) }

// Release gives the port up. It may be called more than once, and with a nil Port.
func (p *Port) Release() {
	if p != nil {
		p.release()
		p.release = func() {}
	}
}
