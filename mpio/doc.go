// Package mpio makes one logical unit out of many paths: it splits block
// requests into SCSI commands, chooses a path for each, moves commands away
// from paths that die, checks that every path leads to the same unit, and keeps
// a write whose outcome is unknown from overtaking a newer one (the write fence).
//
// Everything runs on one loop and is single-threaded: no goroutine, no lock, no
// clock of its own. Time is loop.Now, timers are loop.Timer. Only
// Device.Geometry may be called from elsewhere.
//
// What does not belong here: iSCSI (package session logs in, counts sequence
// numbers and reconnects), the meaning of SCSI bytes (package scsi), front ends
// such as NBD (they see package internal/block), and finding portals.
//
// The rules of path states and of the fence are in docs/recovery.md.
package mpio
