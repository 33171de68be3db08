package session

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestDialErrors: each says in one line why there is no connection and what to do.
func TestDialErrors(t *testing.T) {
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 3260}, Err: err}
	}
	connect := func(e syscall.Errno) error { return dial(os.NewSyscallError("connect", e)) }
	for _, c := range []struct {
		err  error
		want string
	}{
		{connect(syscall.ECONNREFUSED), "p:1: cannot connect (connect: connection refused); nothing listens there: check the port, and whether the target runs"},
		{connect(syscall.EHOSTUNREACH), "p:1: cannot connect (connect: no route to host); there is no way to this address: check the address, this host's routes, and the network"},
		{connect(syscall.EPERM), "p:1: cannot connect (connect: operation not permitted); this host does not allow it: check its firewall, and how this process is confined"},
		{dial(&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}), "p:1: cannot connect (lookup x: no such host); check how the host's name is written, and this host's name server"},
		{dial(os.ErrDeadlineExceeded), "p:1: cannot connect (i/o timeout); nothing answers there: check the address, the network, and firewalls in between"},
		{context.DeadlineExceeded, "p:1: cannot connect (context deadline exceeded); nothing answers there: check the address, the network, and firewalls in between"},
		{errors.New("odd"), "p:1: cannot connect (odd); check the address and port, the network and whether the target runs"},
	} {
		e := dialError("p:1", c.err)
		assert.Equal(t, c.want, e.Error())
		assert.Equal(t, KindTransport, e.Kind)
		assert.ErrorIs(t, e, c.err)
	}
}
