package iscsitest

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// Recorder keeps the PDUs that passed a Target or FaultProxy. The zero value is
// ready for use; all methods may be called from any goroutine.
type Recorder struct {
	// Live gets each line of trace at once, if not nil. Set it before use.
	Live io.Writer
	// KeepData keeps data segments too, not only their lengths. Set it before use.
	KeepData bool
	// Limit is the most PDUs kept; older ones are forgotten. Default 1<<20.
	Limit int

	mu       sync.Mutex // guards everything below
	records  []Record
	commands map[taskKey]*Command // by connection and tag, for predicates
	index    map[streamKey]int
	cids     map[int]uint16 // by connection
}

type taskKey struct {
	conn int
	itt  uint32
}

type streamKey struct {
	conn int
	dir  Direction
}

// Record is one PDU that passed.
type Record struct {
	At      time.Time
	Dir     Direction
	Portal  int
	Conn    int    // number of the connection
	CID     uint16 // of the connection in its session, 0 if its login was not recorded
	Index   int    // number of the PDU on its connection and direction, from 0
	Header  [pdu.BHSLen]byte
	Data    []byte   // with KeepData only
	Command *Command // the SCSI command it belongs to, if any
}

// BHS is the header.
func (r *Record) BHS() pdu.BHS { return r.Header[:] }

// Trace is the PDU in one line, as pdu.AppendTrace writes it.
func (r *Record) Trace() string {
	return string(pdu.AppendTrace(nil, r.Dir == FromInitiator, r.BHS()))
}

func (r *Record) event() *Event {
	return &Event{
		Dir: r.Dir, Portal: r.Portal, Conn: r.Conn, CID: r.CID, BHS: r.BHS(), Data: r.Data,
		Index: r.Index, Command: r.Command,
	}
}

func (r *Recorder) record(dir Direction, portal, conn int, bhs pdu.BHS, data []byte) {
	rec := Record{At: time.Now(), Dir: dir, Portal: portal, Conn: conn, Header: [pdu.BHSLen]byte(bhs)}
	if r.KeepData {
		rec.Data = bytes.Clone(data)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.index == nil {
		r.index = make(map[streamKey]int)
		r.commands = make(map[taskKey]*Command)
		r.cids = make(map[int]uint16)
	}
	stream := streamKey{conn, dir}
	rec.Index = r.index[stream]
	r.index[stream]++
	if rec.BHS().Opcode() == pdu.OpLogin {
		r.cids[conn] = pdu.LoginView(rec.BHS()).CID()
	}
	rec.CID = r.cids[conn]
	rec.Command = r.lockedCommand(conn, rec.BHS())
	if limit := r.limit(); len(r.records) >= limit {
		r.records = slices.Delete(r.records, 0, max(1, limit/10))
	}
	r.records = append(r.records, rec)
	if r.Live != nil {
		fmt.Fprintf(r.Live, "%s %d/%d %s\n", rec.At.Format("15:04:05.000000"), portal, conn, rec.Trace())
	}
}

func (r *Recorder) limit() int {
	if r.Limit > 0 {
		return r.Limit
	}
	return 1 << 20
}

// lockedCommand finds the SCSI command of a PDU and follows their lives.
func (r *Recorder) lockedCommand(conn int, bhs pdu.BHS) *Command {
	key := taskKey{conn, bhs.ITT()}
	switch bhs.Opcode() {
	case pdu.OpSCSICommand:
		r.commands[key] = commandOf(pdu.SCSICommandView(bhs))
		return r.commands[key]
	case pdu.OpDataOut, pdu.OpR2T, pdu.OpDataIn, pdu.OpSCSIResponse:
		return r.commands[key]
	}
	return nil
}

// Records returns what was kept, in the order of passing.
func (r *Recorder) Records() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// Reset forgets everything kept.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = nil
}

// Select returns the PDUs that when picks.
func (r *Recorder) Select(when Predicate) []Record {
	return slices.DeleteFunc(r.Records(), func(rec Record) bool { return !when.Match(rec.event()) })
}

// Count is the number of PDUs that when picks.
func (r *Recorder) Count(when Predicate) int { return len(r.Select(when)) }

// Trace is the trace of one connection, one line for each PDU, fit to be compared
// with a golden file. A negative number takes all connections, and puts the
// number of the connection before each line.
func (r *Recorder) Trace(conn int) string {
	var b bytes.Buffer
	for _, rec := range r.Records() {
		switch {
		case conn < 0:
			fmt.Fprintf(&b, "%d %s\n", rec.Conn, rec.Trace())
		case rec.Conn == conn:
			fmt.Fprintln(&b, rec.Trace())
		}
	}
	return b.String()
}
