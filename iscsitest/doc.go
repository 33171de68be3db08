// Package iscsitest is a kit for testing iSCSI initiators without hardware,
// kernel modules or other processes:
//
//   - Target: an iSCSI target in this process, strict about RFC 7143, with
//     memory LUNs behind one or several portals, over TCP or net.Pipe, with one
//     or several connections per session (Params.MaxConnections) and with or
//     without CHAP (Config.CHAP). It records every rule the initiator breaks
//     (Target.Violations).
//   - FaultProxy: a proxy for any target that understands PDUs and delays,
//     holds, drops, duplicates, corrupts or cuts what a Predicate picks.
//   - Recorder: keeps each PDU that passed, as text that can be compared.
//
// Faults are picked by composable predicates and are reproducible: whatever is
// random takes a seed. Everything runs in virtual time inside a
// testing/synctest bubble if it was made there and talks over Target.Dial or
// FaultProxy.Dial; nothing here sleeps to wait for something else.
//
// What does not belong here: anything an initiator needs in production, and
// speed at the price of clarity.
package iscsitest
