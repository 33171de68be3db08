package nbd

import (
	"sync/atomic"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
)

// Counters count what was asked of the server, since the connection (or the
// server) began.
type Counters struct {
	Reads       uint64 // READ requests handed to the device
	Writes      uint64 // WRITE requests handed to the device
	Flushes     uint64 // FLUSH requests handed to the device
	Trims       uint64 // TRIM requests handed to the device
	WriteZeroes uint64 // WRITE_ZEROES requests handed to the device
	Errors      uint64 // requests answered with an error, those refused here included

	BytesRead    uint64 // payload bytes of successful READs
	BytesWritten uint64 // payload bytes of successful WRITEs
}

// Ops is the number of requests handed to devices.
func (c Counters) Ops() uint64 {
	return c.Reads + c.Writes + c.Flushes + c.Trims + c.WriteZeroes
}

func (c *Counters) add(o Counters) {
	c.Reads += o.Reads
	c.Writes += o.Writes
	c.Flushes += o.Flushes
	c.Trims += o.Trims
	c.WriteZeroes += o.WriteZeroes
	c.Errors += o.Errors
	c.BytesRead += o.BytesRead
	c.BytesWritten += o.BytesWritten
}

// ConnInfo describes one connection that uses an export.
type ConnInfo struct {
	ID       uint64    // unique within the server, rising
	Remote   string    // the client: address, or process and user for a Unix socket where the system tells
	Export   string    // name of the export
	Since    time.Time // when the export was chosen
	InFlight int       // requests at the device now
	Buffered int       // bytes of buffer memory held by unanswered requests
	Counters Counters
}

// Snapshot is the state of a Server at one moment.
type Snapshot struct {
	Connections []ConnInfo // ordered by ID
	Handshakes  int        // clients in the handshake now
	Accepted    uint64     // connections accepted since the start
	Refused     uint64     // of those: ended before an export was chosen, for whatever reason
	Total       Counters   // of all connections, closed ones included
}

// connStats is written by a connection's loop and read by anybody.
type connStats struct {
	ops          [block.OpWriteZeroes + 1]atomic.Uint64 // by block.Op
	errors       atomic.Uint64
	bytesRead    atomic.Uint64
	bytesWritten atomic.Uint64
	inflight     atomic.Int64
	buffered     atomic.Int64
}

func (s *connStats) counters() Counters {
	return Counters{
		Reads:        s.ops[block.OpRead].Load(),
		Writes:       s.ops[block.OpWrite].Load(),
		Flushes:      s.ops[block.OpFlush].Load(),
		Trims:        s.ops[block.OpTrim].Load(),
		WriteZeroes:  s.ops[block.OpWriteZeroes].Load(),
		Errors:       s.errors.Load(),
		BytesRead:    s.bytesRead.Load(),
		BytesWritten: s.bytesWritten.Load(),
	}
}
