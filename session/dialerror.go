package session

import (
	"errors"
	"net"
	"syscall"
)

// dialError is dialError for the address that was dialed last.
func (s *Session) dialError(err error) *Error {
	e := dialError(s.portal(), err)
	e.SentTo = s.sentTo
	return e
}

// dialError says why no connection to portal was made, and what to do about it.
func dialError(portal string, err error) *Error {
	e := &Error{Kind: KindTransport, NotConnected: true, Portal: portal, Err: err}
	timeout, _ := errors.AsType[net.Error](err)
	_, unknown := errors.AsType[*net.DNSError](err)
	switch {
	case unknown:
		e.Hint = "check how the host's name is written, and this host's name server"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "nothing listens there: check the port, and whether the target runs"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		e.Hint = "there is no way to this address: check the address, this host's routes, and the network"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		e.Hint = "this host does not allow it: check its firewall, and how this process is confined"
	case timeout != nil && timeout.Timeout():
		e.Hint = "nothing answers there: check the address, the network, and firewalls in between"
	default:
		e.Hint = "check the address and port, the network and whether the target runs"
	}
	return e
}

// causeText is a cause without what the error around it says anyway: that it was
// about a TCP connection, and to where.
func causeText(err error) string {
	if op, ok := err.(*net.OpError); ok && op.Err != nil { //nolint:errorlint // only if nothing is around it
		return op.Err.Error()
	}
	return err.Error()
}
