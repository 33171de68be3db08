// Package hotpath holds no code, only the test of what one command costs on its
// way through all floors: NBD socket, multipath device, session, iSCSI socket.
package hotpath
