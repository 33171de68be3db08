// Command sim runs the selectors of package mpio through scenarios in virtual
// time and says how well each does:
//
//	go run ./mpio/sim -scenario all
//	go run ./mpio/sim -scenario stall-2,mixed-4 -policy latency,queue-depth
//	go run ./mpio/sim -scenario all -svg docs/policies
//
// What runs is the real mpio.Device, fence and path states included, on a loop
// with a clock that jumps from event to event, over sessions that answer after
// the time a model of the path says: latency of the network, a controller with
// some commands at a time, a line with a bandwidth, jitter, stalls, losses. The
// clients keep a number of requests in flight (a queue depth) or send them at a
// given rate whatever comes back.
//
// Everything follows from the seed: the same command prints the same figures.
//
// What does not belong here: iSCSI, real time, and anything mpio itself decides.
package main
