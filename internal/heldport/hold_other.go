//go:build !linux

package heldport

import "net"

func hold(*net.TCPAddr) (*net.TCPAddr, func()) { return nil, nil }
