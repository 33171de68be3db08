package initiator

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/mpio"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// DefaultLoginTimeout is the default of Config.LoginTimeout and DiscoverConfig.LoginTimeout.
const DefaultLoginTimeout = 10 * time.Second

// Wait says how many paths Open waits for.
type Wait int

// The values of Wait besides a number of paths.
const (
	WaitAny Wait = 0  // one path is enough; the others come in the background
	WaitAll Wait = -1 // every path, those found by discovery included
)

// Forever is the value of Config.NoPathTimeout that never gives up.
const Forever time.Duration = -1

// Config describes one device: which LUN, through which portals, and how. The
// zero value of each optional field means the documented default. Open
// validates and copies it. The names in parentheses are those of open-iscsi's
// iscsid.conf, of multipath.conf, or of RFC 7143 §13.
type Config struct {
	// Target is the target's iSCSI name. Required.
	Target string
	// Portals are addresses of the target, each as ParsePortal takes it. All are
	// logged in to. At least one is required.
	Portals []string
	// OnlyGiven leaves it at Portals. By default Open also asks every given
	// portal for further ones (SendTargets) and logs in to those too.
	OnlyGiven bool
	// LUN is the unit on the target; scsi.MakeLUN makes one from a number. Default LUN 0.
	LUN scsi.LUN
	// Name is the device's short name in logs and snapshots. Default: Target.
	Name string
	// InitiatorName is this host's iSCSI name. Required, and to be kept: targets
	// know the host by it, and the session identifiers are derived from it.
	InitiatorName string

	// CHAP authenticates the logins to the target. Default: no authentication.
	CHAP CHAP
	// DiscoveryCHAP authenticates discovery, unless OnlyGiven. Default: User and
	// Secret of CHAP, where a portal asks for them. A portal that refuses CHAP in
	// discovery (LIO without accounts for it) is asked without, unless DiscoveryCHAP
	// has a MutualSecret.
	DiscoveryCHAP CHAP

	// Policy spreads commands over paths: see Policies (path_selector). Default "latency".
	Policy string
	// Failback is when I/O returns to a better path or group of paths that was
	// lost and is back (failback): 0, the default, at once; FailbackManual once
	// SetPath says so; otherwise after so long without a break.
	Failback time.Duration
	// HedgeBudget is the share of the reads, up to 0.5, that may be sent over a
	// second path too when they are older than what that one takes. Default 0.02;
	// negative: none.
	HedgeBudget float64
	// PollingInterval is how long a path may be idle before it is asked whether
	// its unit is ready (polling_interval). Default 5 s; negative: never.
	PollingInterval time.Duration
	// Marginal says when a path that fails, flaps or stalls is taken out of use
	// (marginal_path_*). Default: as MarginalConfig says.
	Marginal MarginalConfig
	// ReadOnly refuses everything that changes the medium. A LUN that is
	// write-protected is read-only in any case.
	ReadOnly bool
	// Shared says that other hosts write the same blocks, as cluster file systems
	// do: a write of unknown outcome is answered only when no old copy of it can
	// land any more. Default: this host is the only writer.
	Shared bool
	// OneNode says that Portals belong to one machine, or to several that know of
	// each other's sessions: a session whose portal stays dead may be ended through
	// another portal of its group. Without it, and for all other portals, that is
	// taken from discovery. Never set it for independent hosts that serve one disk,
	// whatever portal group tag they use: an old write could land late.
	OneNode bool
	// Wait is the number of paths that must be up before Open returns. Default WaitAny.
	Wait Wait

	// Paths steers paths beforehand, each by its portal. Default: nothing is steered.
	Paths []PathSetting

	// NoPathTimeout is how long requests wait while there is no usable path;
	// then they fail with ErrIO until one is back (no_path_retry, in seconds;
	// node.session.timeo.replacement_timeout). Default 120 s; Forever: no limit.
	NoPathTimeout time.Duration
	// FailFast fails requests at once while there is no usable path (no_path_retry fail).
	FailFast bool
	// FenceTimeout is how long after the loss of its session a write of unknown
	// outcome holds back newer writes to its blocks when nothing better settles it. Default 60 s.
	FenceTimeout time.Duration
	// CommandTimeout is how long a read or write may take on a path that is
	// otherwise alive (the SCSI command timer); SYNCHRONIZE CACHE, UNMAP and WRITE
	// SAME get four times as much. Then the command is aborted; if the target does
	// not do that the unit is reset, with LUNReset, and at last the session is
	// dropped and made anew. Default 30 s.
	CommandTimeout time.Duration
	// LUNReset allows the reset of the unit, which ends the commands of every host
	// that uses it; never with Shared. Default: no reset.
	LUNReset bool
	// AbortTimeout and LUResetTimeout bound the answers to an abort and a reset
	// (node.session.err_timeo.abort_timeout, lu_reset_timeout). Defaults 15 s and 30 s.
	AbortTimeout, LUResetTimeout time.Duration
	// RetryTimeout is how long a command that the target turns away (BUSY, TASK SET
	// FULL, ACA ACTIVE, TASK ABORTED) is tried again before it fails. Default 30 s.
	RetryTimeout time.Duration
	// WaitTimeout is how long a command waits for a unit that says it is becoming
	// ready or changing its access state (sense 02/04/xx). Default 60 s.
	WaitTimeout time.Duration
	// IdentifyTimeout bounds each command of the check of a path before it is used.
	// Default 10 s.
	IdentifyTimeout time.Duration
	// MaxTransfer caps the bytes of one READ or WRITE, besides the target's own
	// limit (max_sectors_kb). 65536..4194304, default 4194304.
	MaxTransfer uint32

	// LoginTimeout bounds connecting and logging in to one portal
	// (node.conn[0].timeo.login_timeout). Default 10 s.
	LoginTimeout time.Duration
	// LogoutTimeout bounds the farewell (node.conn[0].timeo.logout_timeout). Default 5 s.
	LogoutTimeout time.Duration
	// NoopInterval is how often an idle connection is asked whether it is there
	// (node.conn[0].timeo.noop_out_interval). Default 1 s; negative: never.
	NoopInterval time.Duration
	// NoopTimeout is how long a connection may stay silent when asked before it
	// is given up (node.conn[0].timeo.noop_out_timeout). Default 2 s.
	NoopTimeout time.Duration
	// SuspectAfter is how long a connection with commands outstanding may stay
	// silent before commands avoid it. Default 200 ms.
	SuspectAfter time.Duration
	// ReconnectMin, ReconnectMax bound the pause before a lost path is dialed
	// again: it doubles from one to the other. Defaults 100 ms and 5 s.
	ReconnectMin, ReconnectMax time.Duration

	// HeaderDigest, DataDigest ask for CRC32C over headers and data
	// (node.conn[0].iscsi.HeaderDigest, DataDigest). Default None. Targets may decline.
	HeaderDigest, DataDigest bool
	// Connections is how many TCP connections each path's session has (MC/S,
	// RFC 7143 §4.2.1; node.session.iscsi.MaxConnections). 1..16, default 1. The
	// target may allow fewer.
	Connections int
	// ErrorRecoveryLevel is the highest level offered (node.session.iscsi.ERL): 0 or,
	// with several Connections, 2. At 0 a path is lost, for as long as a login
	// takes, with any of its connections; at 2 the others carry on, if the target
	// can do that. Default 0. LIO's kernel (6.1) can crash when a connection of
	// several is lost: at 0 it is given one only, and a warning is logged.
	ErrorRecoveryLevel uint8
	// CommandsMax bounds the commands in flight per path
	// (node.session.cmds_max). 1..4096, default 128.
	CommandsMax int
	// MaxRecvDataSegmentLength is the most data the target may send in one PDU,
	// in bytes (same key). 512..2^24-1, default 262144.
	MaxRecvDataSegmentLength uint32
	// MaxBurstLength and FirstBurstLength bound one sequence of data and the
	// unsolicited data, in bytes (same keys). 512..2^24-1, the second not more than
	// the first; defaults 16776192 and 262144.
	MaxBurstLength, FirstBurstLength uint32
	// MaxOutstandingR2T is how many transfers of one command the target may
	// solicit at a time (same key). 1..65535, default 8; at ErrorRecoveryLevel 2
	// it is 1 (RFC 7143 §13.19).
	MaxOutstandingR2T uint16
	// InitialR2T asks the target to solicit all data but immediate data (same
	// key); NoImmediateData declines immediate data (ImmediateData=No). Default no.
	InitialR2T, NoImmediateData bool
	// AnyPDUOrder and AnySequenceOrder offer DataPDUInOrder=No and
	// DataSequenceInOrder=No (same keys): for targets that like to answer, and to
	// ask for data, out of order. Default no.
	AnyPDUOrder, AnySequenceOrder bool

	// StateDir is a folder in which the device notes its sessions while writes may
	// be under way in them, so that they are known after a crash or a power loss of
	// this host: writes of the next run, with the same Target and LUN, then wait until
	// the old sessions have provably ended, or for FenceTimeout; reads do not wait.
	// It has to outlive what is to be survived, and only one Device for each Target
	// and LUN may use it at a time: Open refuses a second one, where the system has
	// locks (flock). Close tidies it up.
	// Default: nothing is noted. Then whoever opens a device anew, after a process
	// that ended without Close, has to wait for the target to end the old sessions
	// before the first write, or writes of the old process may land on top of new ones.
	StateDir string

	// Logger gets what happens; it may be slow: it is called from a goroutine of
	// its own, and records are dropped and counted if it cannot keep up.
	// Default: nothing is logged.
	Logger *slog.Logger
	// OnEvent is told what happens to the device and its paths, in order, from a
	// goroutine of its own; Close waits for it to return, so it must not call
	// Close. If it falls behind by many events, some are left out; Snapshot
	// always tells the whole. Default: nobody is told.
	OnEvent func(Event)
	// Trace is told about every PDU header sent and received. Default: nobody is.
	Trace TraceFunc
	// Dial makes the TCP connections. Default: a net.Dialer.
	Dial DialFunc
	// Portable runs on the portable loop even where a faster one exists; it is
	// needed if Dial returns anything but TCP connections.
	Portable bool
}

// FailbackManual is the value of Config.Failback that leaves I/O where it is
// until SetPath moves it.
const FailbackManual = mpio.FailbackManual

// FailbackName is a value of Config.Failback in words: "immediate", "manual" or
// "after" and the time.
func FailbackName(after time.Duration) string { return mpio.FailbackName(after) }

// MarginalConfig says when a path counts as marginal, and how it comes back.
type MarginalConfig = mpio.MarginalConfig

// Event tells what happened to a device or one of its paths.
type Event = mpio.Event

// Policies lists the values of Config.Policy.
func Policies() []string { return mpio.Policies() }

// withDefaults validates c and fills in what Open itself needs; the layers
// below fill in the rest.
func (c Config) withDefaults() (Config, error) {
	d, err := c.discovery().withDefaults()
	if err != nil {
		return c, err
	}
	if err := checkCHAP(c.CHAP, c.DiscoveryCHAP); err != nil {
		return c, err
	}
	c.Portals, c.LoginTimeout, c.Logger = d.Portals, d.LoginTimeout, d.Logger
	if c.Target == "" {
		return c, invalidf("`iscsimp discover` lists the targets of a portal", "no target is given")
	}
	if err := CheckName(c.Target); err != nil {
		return c, err
	}
	if c.Policy != "" && !slices.Contains(Policies(), c.Policy) {
		return c, invalidf("the policies are "+listWords(Policies()), "there is no policy %q", c.Policy)
	}
	if c.Failback < 0 && c.Failback != FailbackManual {
		return c, invalidf("use 0, FailbackManual or a time", "Failback is %v", c.Failback)
	}
	if c.Wait < WaitAll {
		return c, invalidf("use WaitAny, WaitAll or a number of paths", "Wait is %d", c.Wait)
	}
	if c.OnlyGiven && int(c.Wait) > len(c.Portals) {
		return c, invalidf("give more portals or wait for fewer", "cannot wait for %d paths with %d portals", c.Wait, len(c.Portals))
	}
	if c.FailFast && c.NoPathTimeout != 0 {
		return c, invalidf("set one of the two", "FailFast and NoPathTimeout contradict each other")
	}
	if c.Paths, err = cleanPaths(c.Paths); err != nil {
		return c, err
	}
	if c.MaxBurstLength != 0 && c.FirstBurstLength > c.MaxBurstLength {
		return c, invalidf("RFC 7143 §13.14 wants it the other way round",
			"FirstBurstLength %d is more than MaxBurstLength %d", c.FirstBurstLength, c.MaxBurstLength)
	}
	c.Name = cmp.Or(c.Name, c.Target)
	return c, c.checkTimes()
}

// checkTimes refuses durations that cannot be meant.
func (c Config) checkTimes() error {
	for _, t := range []struct {
		name     string
		v        time.Duration
		negative bool // has a meaning
	}{
		{"NoPathTimeout", c.NoPathTimeout, true},
		{"FenceTimeout", c.FenceTimeout, false},
		{"CommandTimeout", c.CommandTimeout, false},
		{"AbortTimeout", c.AbortTimeout, false},
		{"LUResetTimeout", c.LUResetTimeout, false},
		{"RetryTimeout", c.RetryTimeout, false},
		{"WaitTimeout", c.WaitTimeout, false},
		{"IdentifyTimeout", c.IdentifyTimeout, false},
		{"LogoutTimeout", c.LogoutTimeout, false},
		{"NoopInterval", c.NoopInterval, true},
		{"NoopTimeout", c.NoopTimeout, false},
		{"SuspectAfter", c.SuspectAfter, false},
		{"ReconnectMin", c.ReconnectMin, false},
		{"ReconnectMax", c.ReconnectMax, false},
	} {
		if t.v < 0 && !t.negative {
			return invalidf("0 means the default", "%s is negative", t.name)
		}
	}
	// The core validates the rest in the same words for every user of it.
	probe := c.session("127.0.0.1:3260", -1)
	if _, err := session.New(probe, nil, nil); err != nil {
		return &Error{Kind: KindInvalid, Err: err, Msg: "configuration"}
	}
	return nil
}

// discovery is the part of c that discovery needs.
func (c Config) discovery() DiscoverConfig {
	return DiscoverConfig{
		Portals: c.Portals, InitiatorName: c.InitiatorName, LoginTimeout: c.LoginTimeout,
		HeaderDigest: c.HeaderDigest, DataDigest: c.DataDigest, CHAP: c.discoveryCHAP(),
		Logger: c.Logger, Trace: c.Trace, Dial: c.Dial, Portable: c.Portable,
	}
}

// session is the configuration of the session to one portal.
func (c Config) session(portal string, tpgt int) session.Config {
	return session.Config{
		InitiatorName: c.InitiatorName,
		TargetName:    c.Target,
		Portal:        portal,
		TPGT:          tpgt,
		// The same after every restart, so that a login ends what the session
		// before it left behind; and another one for every session of this host.
		ISID:                     session.DeriveISID(c.InitiatorName, c.Target, c.LUN.String(), portal),
		CHAP:                     c.CHAP.config(),
		HeaderDigest:             c.HeaderDigest,
		DataDigest:               c.DataDigest,
		MaxRecvDataSegmentLength: c.MaxRecvDataSegmentLength,
		MaxBurstLength:           c.MaxBurstLength,
		FirstBurstLength:         c.FirstBurstLength,
		MaxOutstandingR2T:        c.MaxOutstandingR2T,
		InitialR2T:               c.InitialR2T,
		NoImmediateData:          c.NoImmediateData,
		AnyPDUOrder:              c.AnyPDUOrder,
		AnySequenceOrder:         c.AnySequenceOrder,
		Connections:              c.Connections,
		ErrorRecoveryLevel:       c.ErrorRecoveryLevel,
		CmdsMax:                  c.CommandsMax,
		LoginTimeout:             c.LoginTimeout,
		LogoutTimeout:            c.LogoutTimeout,
		AbortTimeout:             c.AbortTimeout,
		LUResetTimeout:           c.LUResetTimeout,
		NoopInterval:             c.NoopInterval,
		NoopTimeout:              c.NoopTimeout,
		SuspectAfter:             c.SuspectAfter,
		ReconnectMin:             c.ReconnectMin,
		ReconnectMax:             c.ReconnectMax,
		Logger:                   c.Logger,
		Trace:                    bindTrace(c.Trace, portal),
	}
}
