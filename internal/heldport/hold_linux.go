package heldport

import (
	"net"
	"os"
	"syscall"
)

// hold binds a socket that never listens: with SO_REUSEADDR on both, a listener can
// be bound beside it, while the system passes by a bound port when it looks for one
// for others. It returns nil when that cannot be done, for whatever reason.
func hold(address *net.TCPAddr) (*net.TCPAddr, func()) {
	var family int
	var to syscall.Sockaddr
	switch ip4 := address.IP.To4(); {
	case address.IP == nil, address.IP.IsUnspecified(), address.Zone != "":
		return nil, nil
	case ip4 != nil:
		family, to = syscall.AF_INET, &syscall.SockaddrInet4{Port: address.Port, Addr: [4]byte(ip4)}
	default:
		family, to = syscall.AF_INET6, &syscall.SockaddrInet6{Port: address.Port, Addr: [16]byte(address.IP)}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil
	}
	socket := os.NewFile(uintptr(fd), "held port")
	port, err := bind(fd, to)
	if err != nil {
		socket.Close()
		return nil, nil
	}
	return &net.TCPAddr{IP: address.IP, Port: port}, func() { socket.Close() }
}

// bind returns the port.
func bind(fd int, to syscall.Sockaddr) (int, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(fd, to); err != nil {
		return 0, err
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch b := bound.(type) {
	case *syscall.SockaddrInet4:
		return b.Port, nil
	case *syscall.SockaddrInet6:
		return b.Port, nil
	}
	return 0, syscall.EAFNOSUPPORT
}
