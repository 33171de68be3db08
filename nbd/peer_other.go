//go:build !linux

package nbd

import "net"

// peerName says who is at the other end of nc, for logs and Snapshot.
func peerName(nc net.Conn) string {
	if _, ok := nc.(*net.UnixConn); ok {
		return "unix"
	}
	return nc.RemoteAddr().String()
}
