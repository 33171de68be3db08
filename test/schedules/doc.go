// Package schedules tests the whole initiator against random schedules of faults, in virtual time: a target in this process, a fault proxy before each of its
// portals, a device over real sessions, and concurrent readers and writers of a few blocks. Lines get slow, stall, are cut and come back; writes are held and
// let go later; the target hangs, turns commands away, drops sessions, changes its access states and starts anew. What the clients saw must be linearizable,
// nothing may fail or leak, and the target must not have seen a rule of RFC 7143 broken. With the write fence off the same schedules must find violations.
//
// TestFlush gives the target a volatile cache, takes its power away, and lets it fail to store what is in the cache: what a flush or a write with FUA has
// promised must be there.
//
//	SCHEDULES=10000 go test ./schedules            a campaign
//	ISCSIMP_SEED=123 go test -run 'Fence/on' ./schedules     one schedule again
package schedules
