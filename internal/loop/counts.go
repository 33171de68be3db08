package loop

import "sync/atomic"

// Counts is how often a loop has called the kernel since it was made.
type Counts struct {
	Reads    uint64 // readv, or net.Conn.Read
	Writes   uint64 // sendmsg, or writes to a net.Conn
	Waits    uint64 // epoll_wait, blocking or not; portable: times the loop slept
	Wakeups  uint64 // times a posting goroutine had to wake the loop
	Controls uint64 // epoll_ctl; portable: none
	Pauses   uint64 // nanosleep, to let events gather; portable: none
}

// Total is the sum of all system calls.
func (c Counts) Total() uint64 {
	return c.Reads + c.Writes + c.Waits + c.Wakeups + c.Controls + c.Pauses
}

// Sub is what was counted since the earlier reading.
func (c Counts) Sub(earlier Counts) Counts {
	return Counts{
		Reads:    c.Reads - earlier.Reads,
		Writes:   c.Writes - earlier.Writes,
		Waits:    c.Waits - earlier.Waits,
		Wakeups:  c.Wakeups - earlier.Wakeups,
		Controls: c.Controls - earlier.Controls,
		Pauses:   c.Pauses - earlier.Pauses,
	}
}

// Counter is implemented by both drivers, for tests and benchmarks:
//
//	n := l.(loop.Counter).Syscalls()
type Counter interface {
	// Syscalls may be called from any goroutine; the numbers are not taken at
	// one instant unless the loop is idle.
	Syscalls() Counts
}

// counters is the live form of Counts.
type counters struct {
	reads, writes, waits, wakeups, controls, pauses atomic.Uint64
}

// Syscalls implements Counter.
func (c *counters) Syscalls() Counts {
	return Counts{
		Reads:    c.reads.Load(),
		Writes:   c.writes.Load(),
		Waits:    c.waits.Load(),
		Wakeups:  c.wakeups.Load(),
		Controls: c.controls.Load(),
		Pauses:   c.pauses.Load(),
	}
}
