package mpio

import (
	"github.com/iscsimp/iscsimp/internal/invariants"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Bounds of scouting.
const (
	scoutShare  = 0.01        // scouts for each command
	scoutBurst  = 16          // scouts saved up at most
	scoutEvery  = int64(1e6)  // ns: how often paths are looked at
	scoutStale  = int64(20e6) // ns: a path without a sample for so long is scouted
	scoutSoon   = int64(2e6)
	scoutGiveUp = int64(10e9) // ns: a scout is taken back
	scoutBytes  = 4 << 10
	scoutWrites = int64(1e9) // ns: a write estimate this old is doubted
)

// scout is a small read of the latency policy's own over a path that carries
// nothing, so that one that has healed is found: a path's estimate changes only
// when it answers something, and no request of the caller's should have to wait
// for a path that is known to be slow. Its data is thrown away. It is the
// Completer of its command; each path has one.
type scout struct {
	p      *path
	cmd    session.Command
	buf    []byte
	busy   bool
	sentAt int64
}

// scouting is what the device keeps for all scouts.
type scouting struct {
	tokens float64
	next   int64 // loop time of the next look
}

func (s *scout) init(p *path) {
	s.p = p
	s.cmd.Owner = s
	s.cmd.LUN = p.dev.cfg.LUN
}

// sendScout sends scouts over idle paths nothing is known of lately, to where o
// reads or writes.
func (d *Device) sendScout(cands []*path, o *io, now int64) {
	s := &d.scouting
	if s.tokens < scoutBurst {
		s.tokens += scoutShare
	}
	if now < s.next || s.tokens < 1 || o.kind.slow() {
		return
	}
	s.next = now + scoutEvery
	for _, p := range cands {
		e := &p.est[o.dir()]
		known := max(e.last, p.est[0].last, p.scout.sentAt)
		if p.inflight > 0 || e.far == 0 && now-known < scoutStale || s.tokens < 1 {
			continue
		}
		p.scout.giveUp(now)
		p.scout.send(o.lba, now)
	}
}

// send reads the blocks at lba over the path.
func (s *scout) send(lba uint64, now int64) {
	p, d := s.p, s.p.dev
	if s.busy || p.sess.Room() <= 0 {
		return
	}
	size := max(scoutBytes, int(d.geo.blockSize))
	if s.buf == nil {
		s.buf = make([]byte, size) // once for each path
	}
	blocks := min(uint64(size)>>d.geo.shift, d.geo.size>>d.geo.shift-lba)
	c := &s.cmd
	c.Err, c.Sense, c.Status, c.Received = nil, nil, scsi.Good, 0
	c.CDB, c.Dir, c.Data = scsi.Read(lba, uint32(blocks), 0), session.DirRead, s.buf[:blocks<<d.geo.shift]
	s.busy, s.sentAt = true, now
	if !p.sess.Submit(c) {
		s.busy = false
		return
	}
	d.scouting.tokens--
	p.stat.probes++
}

// giveUp takes a scout back that is not answered although the session lives.
func (s *scout) giveUp(now int64) {
	if s.busy && now-s.sentAt >= scoutGiveUp && s.p.sess.Detach(&s.cmd) {
		s.busy = false
	}
}

// CommandDone implements session.Completer.
func (s *scout) CommandDone(c *session.Command) {
	s.busy = false
	p, d := s.p, s.p.dev
	p.hedge.unseen = 0
	invariants.Mangle(s.buf)
	switch {
	case c.Err != nil:
		if c.Err.Kind != session.KindResponse && !c.Err.Settled {
			p.linkLost(c.Err)
		}
	case !p.usable():
	case c.Status == scsi.Good:
		s.found(d.loop.Now(), len(c.Data))
	case c.Status == scsi.TaskSetFull:
		p.throttle()
	case c.Status == scsi.CheckCondition:
		// What a unit attention tells it tells once: it must not be lost.
		sense, _ := scsi.ParseSense(c.Sense)
		d.noteSense(p, sense, scsi.Classify(c.Status, sense))
	}
	d.kick()
}

// found takes the scout's time as a sample. What it tells of the path holds for
// writes as well, of which no copy may be sent. While the path turns out to be
// better than thought, the next scout follows at once.
func (s *scout) found(now int64, bytes int) {
	p := s.p
	reads, writes := &p.est[0], &p.est[1]
	before := reads.lat
	p.stat.late(now, now-s.sentAt)
	if now-s.sentAt >= p.dev.stallLimit {
		p.stalled(now, now-s.sentAt)
	}
	took := float64(now - s.sentAt)
	reads.add(now, now-s.sentAt, traffic{p.inflight, p.queued[0], bytes})
	healed := before > 0 && reads.lat <= before*healedRatio
	if healed && p.inflight == 0 {
		reads.lat = min(reads.lat, max(took, reads.usual))
	}
	reads.far, writes.far = 0, 0
	switch {
	case writes.lat == 0:
	case took <= 2*reads.usual:
		writes.lat = min(writes.lat, max(took, writes.usual))
	case healed:
		writes.lat = max(writes.lat*reads.lat/before, latencyMinimum)
	case now-writes.last >= scoutWrites:
		writes.lat = max(writes.lat*healedRatio, min(reads.lat, writes.lat))
		writes.last = now
	}
	if healed && p.inflight == 0 && p.dev.scouting.tokens >= 1 {
		s.send(s.cmd.CDB.LBA(), now)
	}
}
