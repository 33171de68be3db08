// Package nbd serves block devices over the NBD protocol, fixed newstyle.
//
// It sees a device only through [block.Device] and the network only through
// [loop.Loop]: of iSCSI, paths and sessions nothing belongs here, and neither
// does the client side of NBD.
//
// A connection has two lives. During the handshake it is an ordinary net.Conn
// with deadlines, served by a goroutine of its own (handshake.go, options.go).
// Once an export is chosen it moves to the loop of the export's device and
// becomes a [loop.Handler] that does no I/O itself (conn.go, reply.go): from
// there on no goroutine, channel, lock or allocation is spent on a request.
//
// References such as "proto.md, Request message" are to the protocol text at
// https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md.
package nbd
