// Package initiator is the public face of iscsimp: find targets, look at their
// LUNs, and open one LUN over every path that leads to it.
//
// Discover asks portals for their targets, Luns lists what a target offers,
// Open logs in through every portal and returns a Device: an io.ReaderAt and
// io.WriterAt with Flush, Discard and WriteZeroes, and Submit for callers that
// keep many requests in flight. A Device survives the loss of paths; what it
// does with no path left is set by Config.NoPathTimeout.
//
// No root, no kernel iSCSI and no daemon is needed. All protocol work of a
// Device runs on one loop goroutine; its methods may be called from any
// goroutine.
//
// What does not belong here: wire formats (package pdu), protocol states
// (session), path choice (mpio), block exports (nbd) and anything that prints.
package initiator
