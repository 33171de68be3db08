package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/iscsimp/iscsimp/nbd"
)

// defaultNBDPort is the port of the NBD protocol (IANA "nbd").
const defaultNBDPort = "10809"

// exportAddress is where the NBD server listens.
type exportAddress struct {
	network string // unix or tcp
	address string // a path, or host:port
}

// parseExport reads the value of --export: unix:PATH or tcp:HOST:PORT.
func parseExport(s string) (exportAddress, error) {
	network, address, _ := strings.Cut(s, ":")
	switch network {
	case "unix":
		if address == "" || strings.ContainsRune(address, 0) {
			return exportAddress{}, usagef("--%s %q: no path follows unix:", flagExport, s)
		}
		path, err := filepath.Abs(address)
		if err != nil {
			return exportAddress{}, usagef("--%s %q: %v", flagExport, s, err)
		}
		if len(path) > maxSocketPath {
			return exportAddress{}, usagef("--%s %q: the path is longer than %d bytes", flagExport, s, maxSocketPath)
		}
		return exportAddress{"unix", path}, nil
	case "tcp":
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			host, port, err = net.SplitHostPort(address + ":" + defaultNBDPort)
		}
		if _, perr := net.LookupPort("tcp", port); err != nil || perr != nil || address == "" {
			return exportAddress{}, usagef("--%s %q: write it as tcp:HOST:PORT or tcp:[V6]:PORT", flagExport, s)
		}
		return exportAddress{"tcp", net.JoinHostPort(host, port)}, nil
	}
	return exportAddress{}, usagef("--%s %q: write it as unix:PATH or tcp:HOST:PORT", flagExport, s)
}

// listen opens the listener.
func (e exportAddress) listen() (net.Listener, error) {
	if e.network == "unix" {
		l, err := nbd.ListenUnix(e.address)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%w; make its folder, or choose another place with --%s", err, flagExport)
			}
			return nil, fmt.Errorf("%w (--%s)", err, flagExport)
		}
		return l, nil
	}
	l, err := net.Listen("tcp", e.address)
	if err != nil {
		return nil, fmt.Errorf("cannot export on %s: %w; choose another address with --%s", e.address, err, flagExport)
	}
	return l, nil
}

// uri is what NBD clients take; l is the listener, which knows the port.
func (e exportAddress) uri(l net.Listener) string {
	if e.network == "unix" {
		return "nbd+unix:///?socket=" + strings.NewReplacer("%2F", "/", "+", "%20").Replace(url.QueryEscape(e.address))
	}
	return "nbd://" + l.Addr().String()
}

// warnOpen says aloud when an export can be reached from other hosts.
func (e exportAddress) warnOpen(l net.Listener, logger *slog.Logger) {
	if e.network != "tcp" {
		return
	}
	a, err := netip.ParseAddrPort(l.Addr().String())
	if err == nil && a.Addr().IsLoopback() {
		return
	}
	logger.Warn("whoever reaches this address can read and write the device: there is no encryption and no password",
		"export", l.Addr().String())
}
