package mpio

import (
	"time"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Snapshot is the state of a device at one moment, ready for JSON. Durations
// are in seconds, sizes in bytes.
type Snapshot struct {
	Name      string   `json:"name"`
	Target    string   `json:"target"`
	LUN       string   `json:"lun"`
	Unit      string   `json:"unit"` // the best designator
	Vendor    string   `json:"vendor"`
	Product   string   `json:"product"`
	Revision  string   `json:"revision"`
	Quirks    []string `json:"quirks,omitempty"`
	Size      uint64   `json:"size"`
	BlockSize uint32   `json:"block_size"`
	ReadOnly  bool     `json:"read_only"`
	Shared    bool     `json:"shared"`
	// State is "starting", "up", "degraded" (a path that should be up is not),
	// "no-path", "closing" or "closed".
	State   string `json:"state"`
	Policy  string `json:"policy"`
	PathsUp int    `json:"paths_up"`
	// Failback is "immediate", "manual" or "after D". FailbackPending tells that
	// I/O stays where it is although a better path is back, for FailbackLeft
	// seconds more, or until it is moved by hand (negative).
	Failback        string  `json:"failback"`
	FailbackPending bool    `json:"failback_pending,omitempty"`
	FailbackLeft    float64 `json:"failback_left,omitempty"`
	// NoPathFor is how long no path has been usable; NoPathLeft how long
	// requests will go on waiting: negative for ever, 0 once they fail.
	NoPathFor  float64 `json:"no_path_for,omitempty"`
	NoPathLeft float64 `json:"no_path_left,omitempty"`
	Failing    bool    `json:"failing,omitempty"` // requests fail for want of a path

	Requests uint64 `json:"requests"` // since the start
	Failed   uint64 `json:"failed"`
	Open     int    `json:"open"`   // not completed
	Queued   int    `json:"queued"` // commands that are with no path
	InFlight int    `json:"in_flight"`

	FencesRaised   uint64  `json:"fences_raised"`
	FencesSettled  uint64  `json:"fences_settled"`
	FencesTimedOut uint64  `json:"fences_timed_out"`
	FencedWaits    uint64  `json:"fenced_waits"` // commands a fence held back
	Fenced         []Fence `json:"fenced"`       // the oldest 64
	FencedCount    int     `json:"fenced_count"`

	HedgeBudget  float64 `json:"hedge_budget"`  // share of the reads, 0 = hedging is off
	Hedges       uint64  `json:"hedges"`        // reads sent over a second path as well
	HedgeWins    uint64  `json:"hedge_wins"`    // ... which answered first
	HedgesDenied uint64  `json:"hedges_denied"` // reads that were old enough while the budget was exhausted

	// Key is what this host is registered with at the unit (see Registration), 0 if
	// it is not; Reserved is the type of the reservation it made, 0 if none; Preempted
	// says why every request fails since it was fenced off, "" if it was not.
	Key       uint64               `json:"key,omitempty"`
	Reserved  scsi.ReservationType `json:"reserved,omitempty"`
	Preempted string               `json:"preempted,omitempty"`

	LastError string         `json:"last_error,omitempty"`
	Paths     []PathSnapshot `json:"paths"`
}

// OpOfEarlierRun is the Op of a Fence over the whole device: what a process that ended
// without logging out may have left.
const OpOfEarlierRun = "of an earlier run"

// Fence is a range that newer writes may not touch yet.
type Fence struct {
	Path   string  `json:"path"` // the path the first copy was lost on, or is with
	Op     string  `json:"op"`
	Offset uint64  `json:"offset"`
	Length uint64  `json:"length"`
	Age    float64 `json:"age"`
	Left   float64 `json:"left"` // until FenceTimeout
	// Moved: the write was taken from the path, which was silent but lives. Left
	// begins to run if its session is lost, which it is in time if the target
	// neither answers nor ends the command.
	Moved bool `json:"moved,omitempty"`
}

// PathSnapshot is the state of one path.
type PathSnapshot struct {
	ID     string `json:"id"`
	Portal string `json:"portal"`
	TPGT   int    `json:"tpgt"`
	State  State  `json:"state"`
	Active bool   `json:"active"` // carries I/O now
	// HeldBack: it is better than the paths in use, and waits for failback.
	HeldBack bool    `json:"held_back,omitempty"`
	Since    float64 `json:"since"` // seconds in this state
	Reason   string  `json:"reason"`
	Priority int     `json:"priority"`
	Weight   int     `json:"weight"`

	// Asymmetric access (ALUA), "" if the unit has none: the access state of the
	// path's target port group, its number, and whether the target prefers it.
	ALUAState     string  `json:"alua_state,omitempty"`
	ALUAGroup     int     `json:"alua_group,omitempty"`
	ALUAPreferred bool    `json:"alua_preferred,omitempty"`
	ALUASince     float64 `json:"alua_since,omitempty"` // seconds in this access state

	Share      float64 `json:"share"`       // of the device's commands, lately: 0 to 1
	ShareTotal float64 `json:"share_total"` // since the start
	IOs        uint64  `json:"ios"`
	Bytes      uint64  `json:"bytes"`
	IOPS       float64 `json:"iops"`
	MBps       float64 `json:"mbps"` // 10^6 bytes per second
	P50        float64 `json:"p50"`  // seconds, lately
	P99        float64 `json:"p99"`
	InFlight   int     `json:"in_flight"`
	OldestAge  float64 `json:"oldest_age"`

	Retries  uint64 `json:"retries"`
	Errors   uint64 `json:"errors"`
	Timeouts uint64 `json:"timeouts"` // commands that grew too old
	Aborts   uint64 `json:"aborts"`   // ... and were asked to be aborted
	Resets   uint64 `json:"resets"`   // LUN resets asked for
	Moved    uint64 `json:"moved"`
	Probes   uint64 `json:"probes"`
	Hedged   uint64 `json:"hedged"` // reads sent here that were then sent over another path too
	Polls    uint64 `json:"polls"`  // the device's own commands: TEST UNIT READY on idle paths, probes on probation
	Logins   uint64 `json:"logins"`
	Losses   uint64 `json:"losses"`

	Cost      Cost          `json:"cost"` // of a read of 4 KiB, as the latency policy sees it
	LastError string        `json:"last_error,omitempty"`
	Link      Link          `json:"link"`
	Health    Health        `json:"health"`
	Session   session.Stats `json:"-"`
}

// Cost is how the latency policy rates a path for a read of 4 KiB, and the parts
// of it: Total = max(Latency, Late) + 4096/Bandwidth + 2·Queue.
type Cost struct {
	Total      float64 `json:"total"`       // seconds
	Latency    float64 `json:"latency"`     // the estimate for a command of no length on an empty path
	Write      float64 `json:"write"`       // the same for writes
	Age        float64 `json:"age"`         // of the oldest in flight
	Late       float64 `json:"late"`        // by how much the oldest in flight is overdue; Latency counts as no less
	InFlight   int     `json:"in_flight"`   // commands
	PerCommand float64 `json:"per_command"` // seconds each command in flight adds, 0 = none or not known
	Queued     int     `json:"queued"`      // bytes in flight, of reads and writes
	Queue      float64 `json:"queue"`       // seconds the commands in flight need, as far as they hold up a read
	Bandwidth  float64 `json:"bandwidth"`   // bytes per second, 0 = not known
	Limit      int     `json:"limit"`       // commands in flight after TASK SET FULL, 0 = none
	Ramp       int     `json:"ramp"`        // commands in flight while starting, 0 = over
	Known      bool    `json:"known"`       // false: no sample yet
}

const snapshotFences = 64

// Snapshot describes the device. On the loop only.
func (d *Device) Snapshot() Snapshot {
	now := d.loop.Now()
	id := &d.identity
	s := Snapshot{
		Name: d.cfg.Name, Target: d.cfg.Target, LUN: d.cfg.LUN.String(),
		Unit: id.Name(), Vendor: id.Vendor, Product: id.Product, Revision: id.Revision, Quirks: d.quirks.Names(),
		Size: d.geo.size, BlockSize: d.geo.blockSize, ReadOnly: d.geo.readOnly, Shared: d.cfg.Shared,
		Policy: d.cfg.Policy, Failback: FailbackName(d.cfg.Failback), Failing: d.failing,
		Requests: d.stat.requests, Failed: d.stat.failed, Open: d.open, Queued: d.waiting(),
		FencesRaised: d.stat.fencesRaised, FencesSettled: d.stat.fencesSettled,
		FencesTimedOut: d.stat.fencesTimedOut, FencedWaits: d.stat.fencedWaits,
		Fenced: d.fencedRanges(now), FencedCount: len(d.ghosts),
		HedgeBudget: d.hedges.budget, Hedges: d.hedges.sent, HedgeWins: d.hedges.wins, HedgesDenied: d.hedges.denied,
		Paths: make([]PathSnapshot, 0, len(d.paths)),
	}
	if r := &d.rsv; r.on {
		s.Key, s.Reserved = r.reg.Key, r.held
		if r.lost != nil {
			s.Preempted = r.lost.Error()
		}
	}
	if d.lastErr != nil {
		s.LastError = d.lastErr.Error()
	}
	if d.noPathSince != 0 {
		s.NoPathFor = seconds(now - d.noPathSince)
		switch {
		case d.cfg.NoPathTimeout < 0 && !d.cfg.FailFast:
			s.NoPathLeft = -1
		case !d.failing && !d.cfg.FailFast:
			s.NoPathLeft = max(0, seconds(max(d.noPathSince+int64(d.cfg.NoPathTimeout), d.transitionEnds())-now))
		}
	}
	s.FailbackPending, s.FailbackLeft = d.failbackPending(now)
	d.addPaths(&s, now)
	s.State = d.stateName(&s)
	return s
}

func (d *Device) addPaths(s *Snapshot, now int64) {
	var recent, total uint64
	for _, p := range d.paths {
		n, _, _ := p.stat.recent(now)
		recent += n
		total += p.stat.ios
		s.InFlight += p.inflight
		if p.state == StateUp {
			s.PathsUp++
		}
	}
	for _, p := range d.paths {
		ps := p.snapshot(now)
		n, _, _ := p.stat.recent(now)
		ps.Share, ps.ShareTotal = share(n, recent), share(p.stat.ios, total)
		s.Paths = append(s.Paths, ps)
	}
}

func (d *Device) stateName(s *Snapshot) string {
	switch {
	case d.closeDone:
		return "closed"
	case d.closing:
		return "closing"
	case !d.ready:
		return "starting"
	case len(d.active) == 0:
		return "no-path"
	}
	for _, p := range d.paths {
		if p.state != StateUp && p.state != StateOffline && !p.inStandby() {
			return "degraded"
		}
	}
	return "up"
}

func (d *Device) fencedRanges(now int64) []Fence {
	list := make([]Fence, 0, min(len(d.ghosts), snapshotFences))
	for _, g := range d.ghosts[:min(len(d.ghosts), snapshotFences)] {
		f := Fence{
			Path: g.path.cfg.ID, Op: g.kind.String(),
			Offset: g.ext.lo << d.geo.shift, Length: (g.ext.hi - g.ext.lo) << d.geo.shift,
			Age: seconds(now - g.at), Left: max(0, seconds(g.deadline-now)),
		}
		if g.deadline == never {
			f.Left, f.Moved = d.cfg.FenceTimeout.Seconds(), true
		}
		if g.earlier != nil {
			f.Op, f.Length = OpOfEarlierRun, d.geo.size
		}
		list = append(list, f)
	}
	return list
}

func (p *path) snapshot(now int64) PathSnapshot {
	st := &p.stat
	ios, bytes, span := st.recent(now)
	times, writes := st.times(now, 0), st.times(now, 1)
	times.add(&writes)
	ps := PathSnapshot{
		ID: p.cfg.ID, Portal: p.cfg.Portal, TPGT: p.cfg.TPGT, State: p.state, Active: p.isActive(),
		Since: seconds(now - p.since), Reason: p.reason, Priority: p.cfg.Priority, Weight: p.cfg.Weight,
		IOs: st.ios, Bytes: st.bytes,
		P50: times.quantile(0.5) / 1e9, P99: times.quantile(0.99) / 1e9,
		InFlight: p.inflight, OldestAge: seconds(p.age(now)),
		Retries: st.retries, Errors: st.errors, Timeouts: st.timeouts, Aborts: st.aborts, Resets: st.resets, Moved: st.moved, Probes: st.probes,
		Hedged: p.hedge.away, Polls: p.probe.polls, Health: p.healthNow(now), Logins: st.logins, Losses: st.losses, Cost: p.explainCost(now), Session: p.sess.Stats(),
	}
	if cur := p.dev.inUse(); p.dev.failback.since != 0 && cur != nil {
		ps.HeldBack = p.usable() && p.dev.outranks(p, cur)
	}
	ps.link(now)
	if p.lost != "" {
		ps.Link.Lost, ps.Link.LostAge = p.lost, seconds(now-p.lostAt)
	}
	p.snapshotAccess(&ps, now)
	if span > 0 {
		ps.IOPS, ps.MBps = float64(ios)/span, float64(bytes)/span/1e6
	}
	if st.lastError != nil {
		ps.LastError = st.lastError.Error()
	}
	return ps
}

func (p *path) isActive() bool {
	for _, a := range p.dev.active {
		if a == p {
			return true
		}
	}
	return false
}

func (p *path) explainCost(now int64) Cost {
	const sample = 4096
	e := &p.est[0]
	base := baseline(p.dev.paths, 0)
	c := Cost{
		Total: p.price(now, 0, sample, base).total / 1e9, PerCommand: e.fit.perCommand / 1e9, Queue: e.fit.of(traffic{p.inflight, p.queued[0], 0}) / 1e9, Late: max(p.late(now), 0) / 1e9, Latency: e.lat / 1e9, Write: p.est[1].lat / 1e9,
		Age: seconds(p.age(now)), InFlight: p.inflight, Queued: p.queued[0] + p.queued[1],
		Limit: p.limit, Ramp: p.ramp, Known: e.lat > 0,
	}
	if e.fit.perByte > 0 {
		c.Bandwidth = 1e9 / e.fit.perByte
	}
	return c
}

func seconds(ns int64) float64 { return time.Duration(ns).Seconds() }

func share(n, of uint64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}
