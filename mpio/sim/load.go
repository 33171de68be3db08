package main

import (
	"math/rand/v2"
	"time"

	"github.com/iscsimp/iscsimp/internal/block"
	"github.com/iscsimp/iscsimp/mpio"
)

// Load is what the clients do.
type Load struct {
	Depth  int     // requests in flight, each replaced as soon as it is answered (closed loop); or
	Rate   float64 // requests per second at random times, whatever comes back (open loop), as a share of what the paths can do
	Sizes  []Size  // of requests, in bytes; none: 4 KiB
	Writes float64 // share of writes
}

// Size is a request size and how often it occurs.
type Size struct {
	Bytes int
	Share float64
}

// meanBytes is the mean request size.
func (l *Load) meanBytes() float64 {
	if len(l.Sizes) == 0 {
		return 4096
	}
	sum, shares := 0.0, 0.0
	for _, s := range l.Sizes {
		sum += float64(s.Bytes) * s.Share
		shares += s.Share
	}
	return sum / shares
}

// clients drive a device.
type clients struct {
	Load
	d     *mpio.Device
	c     *clock
	rnd   *rand.Rand
	data  []byte // one buffer for all: no data moves
	gap   float64
	pool  []*client
	tick  event
	count bool // samples are taken

	took   []int64 // ns, of each request that was answered while counting
	bytes  int64
	errors int
}

// client is one request, again and again.
type client struct {
	block.Request
	event
	all  *clients
	sent int64
}

// startClients starts the load on d; perSecond is the rate of an open loop.
func startClients(l Load, perSecond float64, d *mpio.Device, c *clock, rnd *rand.Rand) *clients {
	all := &clients{Load: l, d: d, c: c, rnd: rnd, data: make([]byte, 1<<20)}
	if l.Depth == 0 {
		all.gap = 1e9 / perSecond
		all.tick.run = all.arrive
		all.arrive()
		return all
	}
	for range l.Depth {
		all.newClient().submit()
	}
	return all
}

func (all *clients) newClient() *client {
	x := &client{all: all}
	x.Owner = x
	x.run = x.submit
	return x
}

// arrive submits a request of an open loop and plans the next.
func (all *clients) arrive() {
	var x *client
	if n := len(all.pool); n > 0 {
		x, all.pool = all.pool[n-1], all.pool[:n-1]
	} else {
		x = all.newClient()
	}
	all.c.at(all.c.now+int64(all.rnd.ExpFloat64()*all.gap), &all.tick)
	x.submit()
}

func (x *client) submit() {
	all := x.all
	size := all.size()
	x.Op = block.OpRead
	if all.Writes > 0 && all.rnd.Float64() < all.Writes {
		x.Op = block.OpWrite
	}
	x.Length, x.Data = uint64(size), all.data[:size]
	x.Offset = uint64(all.rnd.IntN(unitBlocks-256)) * 4096
	x.sent = all.c.now
	all.d.Submit(&x.Request)
}

func (all *clients) size() int {
	if len(all.Sizes) == 0 {
		return 4096
	}
	if len(all.Sizes) == 1 {
		return all.Sizes[0].Bytes
	}
	at := all.rnd.Float64()
	for _, s := range all.Sizes {
		if at -= s.Share; at < 0 {
			return s.Bytes
		}
	}
	return all.Sizes[0].Bytes
}

// RequestDone implements block.Completer.
func (x *client) RequestDone(r *block.Request) {
	all := x.all
	if r.Err != nil {
		all.errors++
	}
	if all.count {
		all.took = append(all.took, all.c.now-x.sent)
		all.bytes += int64(r.Length)
	}
	if all.Depth == 0 {
		all.pool = append(all.pool, x)
		return
	}
	pause := int64(0)
	if r.Err != nil {
		pause = int64(time.Millisecond)
	}
	all.c.at(all.c.now+pause, &x.event)
}
