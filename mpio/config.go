package mpio

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Session is what a path needs of an iSCSI session; *session.Session implements
// it. All methods are called on the device's loop only.
type Session interface {
	// Start dials and logs in, and keeps the session alive until Close.
	Start()
	// Room is the number of commands Submit takes now; 0 unless logged in.
	Room() int
	// Submit hands c over; false: no room, c stays the caller's.
	Submit(c *session.Command) bool
	// Detach takes a command back: its buffer is never touched again and
	// CommandDone does not come. False if that is not possible.
	Detach(c *session.Command) bool
	// DetachWatched is Detach, and over is called once the target has provably
	// ended the command; never if the session is lost before.
	DetachWatched(c *session.Command, over func()) bool
	// AbortTask asks the target to end c, which completes as settled if it does
	// so first; done follows in any case, in bounded time. False: it cannot be asked.
	AbortTask(c *session.Command, done func(session.TMFResult)) bool
	// ResetLUN resets the unit; every command of the session to it completes as
	// settled if the target does so. done and false as with AbortTask.
	ResetLUN(lun scsi.LUN, done func(session.TMFResult)) bool
	// Drop resets the connection; commands complete with err and the session recovers.
	Drop(err *session.Error)
	// RetryNow dials at once instead of at the planned time.
	RetryNow()
	// Close logs out; SessionClosed follows.
	Close()
	// Stats is a snapshot.
	Stats() session.Stats
}

var _ Session = (*session.Session)(nil)

// PathConfig describes one path: a session to one portal.
type PathConfig struct {
	// ID names the path in snapshots, events and SetPath. Required, unique.
	ID string
	// Portal is the address, "host:port".
	Portal string
	// TPGT is the portal group tag discovery gave; negative: not known.
	TPGT int
	// Target is the iSCSI name this path logs in to. Default: Config.Target.
	// A path through another name joins only with a globally unique designator.
	Target string
	// ISID is the initiator part of the session identifier (RFC 7143 §11.12.5).
	ISID [6]byte
	// Priority groups paths: only the group with the lowest number that has a
	// usable path carries I/O. 1 is best; default 1.
	Priority int
	// Weight is what the policy makes of it: under round-robin the share of
	// commands, under least-bytes that of bytes in flight; under weighted the cost,
	// of which the lowest is used first; the others ignore it. Default 1.
	Weight int
}

// Config describes a device. The zero value of each field means the documented
// default. New copies it.
type Config struct {
	// Name is the device's short name, for snapshots and logs.
	Name string
	// Target is the iSCSI target name, LUN the unit on it.
	Target string
	LUN    scsi.LUN
	// Policy chooses among usable paths: see Policies. Default "latency".
	Policy string
	// Failback is when I/O returns to a better path or group that was lost and is
	// back (multipath.conf: failback): 0, the default, at once; FailbackManual
	// once SetPath is told OpUp or OpPriority for it; otherwise when it has been
	// back for so long without a break. I/O leaves a path that is not up, and
	// goes to one that was never in use before, at once in any case.
	Failback time.Duration
	// ReadOnly refuses everything that changes the medium.
	ReadOnly bool
	// Shared says that other hosts write the same blocks without a lock of
	// their own: a write of unknown outcome is re-sent only once its first copy
	// is settled. Slower recovery, never a stale write seen by others.
	Shared bool

	// NoPathTimeout is how long requests wait while no path is usable; then they
	// fail with block.ErrIO until a path is back. Default 120 s; negative: for ever.
	NoPathTimeout time.Duration
	// FailFast fails requests at once while no path is usable.
	FailFast bool
	// FenceTimeout is how long after the loss of its session a write of unknown
	// outcome holds back newer writes to its blocks if nothing better settles it. Default 60 s.
	FenceTimeout time.Duration
	// CommandTimeout is how old a read or write may grow on a path whose peer is
	// alive before it is aborted and, if the target does not do that, the session
	// is dropped. Default 30 s. SYNCHRONIZE CACHE,
	// UNMAP and WRITE SAME get four times as much.
	CommandTimeout time.Duration
	// LUNReset puts a reset of the unit between the two. It ends the commands of
	// all hosts that use the unit, so it never happens with Shared. Default off.
	LUNReset bool
	// IdentifyTimeout bounds each command of the check of a path. Default 10 s.
	IdentifyTimeout time.Duration
	// RetryTimeout is how long a command is tried again that the target turns
	// away (BUSY, TASK SET FULL, ACA ACTIVE, TASK ABORTED). Default 30 s.
	RetryTimeout time.Duration
	// WaitTimeout is how long a command waits for a unit that says it is
	// changing state (04/01, 04/0A, …). Default 60 s.
	WaitTimeout time.Duration

	// HedgeBudget is the share of the reads, from 0 to 0.5, that may be sent over
	// a second path as well because they are older than the p99 of what that one
	// would deliver. Not with the failover policy. Default 0.02; negative: none.
	HedgeBudget float64

	// PollingInterval is how long a path may be idle before TEST UNIT READY is
	// sent over it, give or take a tenth (multipath.conf: polling_interval).
	// Default 5 s; negative: never.
	PollingInterval time.Duration
	// Marginal says when a path that works badly is taken out of use.
	Marginal MarginalConfig

	// MaxTransfer caps the bytes of one READ or WRITE, besides the target's own
	// limit (VPD B0). Default and greatest value 4 MiB; at least 64 KiB.
	MaxTransfer uint32
	// Seed starts the generator that breaks ties between equal paths. Default 1.
	Seed uint64

	// Inherited are the sessions of an earlier process that ended without Close, as
	// Remember had them noted. Writes wait until each has provably ended, or for
	// FenceTimeout from Start; reads do not wait.
	Inherited []SessionRecord
	// Remember keeps a list of sessions where it outlives the process, replacing
	// the one before, and calls done on the loop when it is durable, or cannot be.
	// It is called on the loop, with one list at a time, and must not block. A path
	// carries no I/O before its session is noted: if that fails it stays down and
	// tries again. An empty list, at the end of Close, says that no write of this
	// device can land any more. nil: after a crash, writes of the old process may
	// land over newer ones of the next. Not called with ReadOnly.
	Remember func(list []SessionRecord, done func(error))

	// UnsafeNoFence switches the write fence off. It exists so that the tests
	// of the fence can be tested: with it they must fail. Never set it otherwise:
	// data will be lost.
	UnsafeNoFence bool

	// NewSession makes the session of a path, not yet started. Required.
	NewSession func(PathConfig, session.Observer) (Session, error)
	// OnEvent is told what happened, on the loop, often in the middle of a change:
	// it must not block, nor call any method of the device but Geometry and
	// Snapshot. May be nil.
	OnEvent func(Event)
	// Logger gets every event. nil: discarded.
	Logger *slog.Logger
}

// Sizes and counts that are not worth a setting.
const (
	maxTransferCap = 4 << 20
	minTransferCap = 64 << 10
	maxPaths       = 64 // the bits of io.avoid
	maxChildren    = 16 // commands of one request in flight at a time
)

// withDefaults validates cfg and fills in the defaults.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.NewSession == nil {
		return cfg, errors.New("mpio: Config.NewSession is not set")
	}
	for _, d := range []struct {
		name string
		v    *time.Duration
		def  time.Duration
	}{
		{"NoPathTimeout", &cfg.NoPathTimeout, 120 * time.Second},
		{"FenceTimeout", &cfg.FenceTimeout, 60 * time.Second},
		{"CommandTimeout", &cfg.CommandTimeout, 30 * time.Second},
		{"IdentifyTimeout", &cfg.IdentifyTimeout, 10 * time.Second},
		{"RetryTimeout", &cfg.RetryTimeout, 30 * time.Second},
		{"WaitTimeout", &cfg.WaitTimeout, 60 * time.Second},
		{"PollingInterval", &cfg.PollingInterval, 5 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < 0 && d.name != "NoPathTimeout" && d.name != "PollingInterval" {
			return cfg, fmt.Errorf("mpio: %s is %v, must not be negative", d.name, *d.v)
		}
	}
	if cfg.Failback < 0 && cfg.Failback != FailbackManual {
		return cfg, fmt.Errorf("mpio: Failback is %v, must not be negative", cfg.Failback)
	}
	if cfg.MaxTransfer == 0 {
		cfg.MaxTransfer = maxTransferCap
	}
	if cfg.MaxTransfer < minTransferCap || cfg.MaxTransfer > maxTransferCap {
		return cfg, fmt.Errorf("mpio: MaxTransfer is %d, must be from %d to %d", cfg.MaxTransfer, minTransferCap, maxTransferCap)
	}
	var err error
	if cfg.Marginal, err = cfg.Marginal.withDefaults(); err != nil {
		return cfg, err
	}
	if cfg.HedgeBudget == 0 {
		cfg.HedgeBudget = defaultHedgeBudget
	}
	if !(cfg.HedgeBudget <= maxHedgeBudget) { // also NaN
		return cfg, fmt.Errorf("mpio: HedgeBudget is %v, must not be more than %v", cfg.HedgeBudget, maxHedgeBudget)
	}
	if cfg.Policy == "" {
		cfg.Policy = PolicyLatency
	}
	if cfg.Seed == 0 {
		cfg.Seed = 1
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg, nil
}

// withDefaults validates pc and fills in the defaults.
func (pc PathConfig) withDefaults(cfg *Config) (PathConfig, error) {
	if pc.ID == "" {
		return pc, errors.New("mpio: a path needs an ID")
	}
	if pc.Priority < 0 || pc.Weight < 0 {
		return pc, fmt.Errorf("mpio: path %s: priority and weight must be 1 or more", pc.ID)
	}
	pc.Priority = max(pc.Priority, 1)
	pc.Weight = max(pc.Weight, 1)
	if pc.Target == "" {
		pc.Target = cfg.Target
	}
	return pc, nil
}
