//go:build !unix || solaris || aix

package nbd

import "net"

// lockDir does nothing where folders cannot be locked.
func lockDir(string) (unlock func(), err error) { return func() {}, nil }

// listenPrivate makes the socket; its access rights are those of the folder.
func listenPrivate(path string) (*net.UnixListener, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	return ln, nil
}
