package nbd

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerName says who is at the other end of nc, for logs and Snapshot. A client
// of a Unix socket has no address; its process and user say more.
func peerName(nc net.Conn) string {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return nc.RemoteAddr().String()
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return "unix"
	}
	name := "unix"
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			name = fmt.Sprintf("unix pid %d uid %d", cred.Pid, cred.Uid)
		}
	})
	return name
}
