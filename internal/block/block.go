// Package block holds the one request type that travels from a front end
// (the NBD server, the public API) to the multipath device, and the small
// interface a front end needs of a device. It knows nothing of iSCSI, SCSI or NBD.
package block

import (
	"errors"

	"github.com/iscsimp/iscsimp/internal/loop"
)

// Op is what a Request asks for.
type Op uint8

// The operations of a block device.
const (
	OpRead        Op = iota + 1 // Data is filled
	OpWrite                     // Data is stored
	OpFlush                     // all completed writes become durable; Offset, Length and Data are ignored
	OpTrim                      // the range may be deallocated; a hint, contents afterwards undefined
	OpWriteZeroes               // the range reads as zeros afterwards
)

// String returns the name used in logs and statistics.
func (o Op) String() string {
	switch o {
	case OpRead:
		return "read"
	case OpWrite:
		return "write"
	case OpFlush:
		return "flush"
	case OpTrim:
		return "trim"
	case OpWriteZeroes:
		return "write-zeroes"
	}
	return "op?"
}

// Errors a device completes a Request with. They are compared with errors.Is;
// the device may wrap them with detail.
var (
	ErrIO       = errors.New("input/output error")                // EIO
	ErrReadOnly = errors.New("device is read-only")               // EPERM
	ErrRange    = errors.New("request is outside the device")     // EINVAL, ENOSPC for writes
	ErrAlign    = errors.New("request is not aligned to a block") // EINVAL
	ErrNoSpace  = errors.New("no space left on the device")       // ENOSPC (thin provisioning)
	ErrClosed   = errors.New("device is closed")                  // ESHUTDOWN
	ErrNotSup   = errors.New("operation is not supported")        // ENOTSUP
)

// Completer learns that a Request is done.
type Completer interface {
	// RequestDone runs on the device's loop, exactly once for each submitted
	// Request, never from inside Submit's caller's stack for a request that
	// had to wait for the wire; it may run inside Submit for one that is
	// refused at once. r.Err is set; the device no longer touches r or r.Data.
	RequestDone(r *Request)
}

// Request is one block operation. The submitter owns it and its Data before
// Submit and after RequestDone; the device owns both in between. A Request can
// be used again after RequestDone; reuse allocates nothing.
type Request struct {
	Op      Op
	FUA     bool   // writes: durable before they complete
	NoUnmap bool   // OpWriteZeroes: must not deallocate (NBD_CMD_FLAG_NO_HOLE)
	Offset  uint64 // bytes
	Length  uint64 // bytes; equals len(Data) for OpRead and OpWrite
	Data    []byte // OpRead: destination; OpWrite: source
	Owner   Completer

	Err error // the outcome: nil, or one of the errors above (perhaps wrapped)
}

// Geometry describes a device to a front end. All sizes are in bytes.
type Geometry struct {
	Size          uint64
	BlockSize     uint32 // logical block: alignment every request must keep
	PhysicalBlock uint32 // preferred alignment, >= BlockSize
	OptimalIO     uint32 // preferred transfer size, 0 = unknown
	MaxTransfer   uint32 // largest request worth sending in one piece, 0 = unlimited; larger ones are split by the device
	ReadOnly      bool
	CanTrim       bool
	CanZero       bool // OpWriteZeroes is offloaded to the target (it works in any case)
	Rotational    bool
}

// Device is what a front end needs.
type Device interface {
	// Geometry may be called from any goroutine.
	Geometry() Geometry
	// Loop is the loop that owns the device.
	Loop() loop.Loop
	// Submit starts r. Only on the device's loop. It never blocks: with no
	// usable path r waits in the device, for as long as its configuration says.
	Submit(r *Request)
}
