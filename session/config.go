package session

import (
	"log/slog"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
	"github.com/iscsimp/iscsimp/session/login"
)

// Config describes one session. The zero value of each field means the
// documented default. It is validated and copied by New.
type Config struct {
	// InitiatorName is this host's iSCSI name (iqn., eui. or naa.). Required.
	InitiatorName string
	// TargetName is the target's iSCSI name. Required unless Discovery.
	TargetName string
	// Discovery makes a discovery session: text requests only (RFC 7143 §4.3).
	Discovery bool
	// Portal is the address to dial, "host:port". Required.
	Portal string
	// ISID is the initiator part of the session identifier (RFC 7143 §4.4.3,
	// §11.12.5). It must be the same after a restart, and differ between any
	// two sessions to one portal group. See DeriveISID.
	ISID [6]byte
	// TPGT is the portal group tag that discovery gave for the portal;
	// negative: not known. A login answered with another tag is refused.
	TPGT int

	// CHAP authenticates every login of the session (RFC 7143 §9.2.1, §12.1.3;
	// node.session.auth.*, or discovery.sendtargets.auth.* with Discovery). With a
	// mutual secret a target that does not prove itself is not logged in to;
	// without one a target that wants no authentication is. Its Registry may be
	// nil, which stands for one that the whole process shares. Default: none.
	CHAP *chap.Config

	// HeaderDigest, DataDigest ask for CRC32C (node.conn[0].iscsi.HeaderDigest).
	// Default: None.
	HeaderDigest, DataDigest bool
	// Operational keys offered (RFC 7143 §13); the names are RFC names.
	MaxRecvDataSegmentLength uint32 // 512..2^24-1, default 262144
	MaxBurstLength           uint32 // 512..2^24-1, default 16776192
	FirstBurstLength         uint32 // 512..2^24-1, default 262144
	MaxOutstandingR2T        uint16 // default 8
	InitialR2T               bool   // default No: unsolicited data is welcome
	NoImmediateData          bool   // default: ImmediateData=Yes
	// AnyPDUOrder and AnySequenceOrder offer DataPDUInOrder=No and
	// DataSequenceInOrder=No (§13.18, §13.19): the target may then send the parts of a
	// read, and ask for those of a write, in any order. Nothing is gained by it here.
	// Default: Yes, in order.
	AnyPDUOrder, AnySequenceOrder bool

	// NoTaskReporting keeps TaskReporting (§13.23) from being offered. Default: it is
	// offered where the target seems to bear that, and FastAbort used where the target
	// agrees.
	NoTaskReporting bool

	// Connections is the number of connections in the session (MC/S, RFC 7143
	// §4.2.1; node.session.iscsi.MaxConnections), 1 to 16, default 1. The target
	// may allow fewer.
	Connections int
	// ErrorRecoveryLevel is the highest level offered, 0 or 2 (RFC 7143 §7.1.5,
	// §13.20; node.session.iscsi.ERL). At 0 the session ends with any of its
	// connections and is reinstated as a whole. At 2, which needs several
	// connections and a target that bears it, the others carry on; nothing else of
	// levels 1 and 2 is used. Default 0. LIO's kernel (6.1) can crash with several
	// connections, at level 2 too: at 0 it is given one only, and a warning is logged.
	ErrorRecoveryLevel uint8

	// CmdsMax bounds the commands in flight (node.session.cmds_max). Default
	// 128, at most 4096. The target's command window binds besides.
	CmdsMax int

	LoginTimeout  time.Duration // node.conn[0].timeo.login_timeout: dial and login together; default 10 s
	LogoutTimeout time.Duration // node.conn[0].timeo.logout_timeout; default 5 s
	// AbortTimeout, LUResetTimeout and TargetResetTimeout bound task management
	// functions (node.session.err_timeo.abort_timeout, .lu_reset_timeout,
	// .tgt_reset_timeout). Defaults 15 s, 30 s and 30 s.
	AbortTimeout, LUResetTimeout, TargetResetTimeout time.Duration
	// DetachTimeout is how long after Detach a command that the target does not
	// answer is aborted, since it fills a place in the command window; if that
	// fails too the session is dropped. Default 30 s.
	DetachTimeout time.Duration
	// NoopInterval: an idle connection is pinged this often
	// (node.conn[0].timeo.noop_out_interval). Default 1 s; negative: never. A
	// discovery session never is (RFC 7143 §4.3).
	NoopInterval time.Duration
	// NoopTimeout: the connection is given up when a ping is outstanding this
	// long and nothing at all was received meanwhile
	// (node.conn[0].timeo.noop_out_timeout). Default 2 s.
	NoopTimeout time.Duration
	// SuspectAfter: with commands or a ping outstanding and nothing received for
	// this long the observer is told SessionSilent; a ping is sent after half of
	// it, so that a target that is merely slow is not taken for silent. Default 200 ms.
	SuspectAfter time.Duration
	// ReconnectMin, ReconnectMax bound the pause before a new dial: it starts
	// at the minimum, doubles, and is jittered. Defaults 100 ms and 5 s.
	// After a permanent refusal the pause is ten times the maximum.
	ReconnectMin, ReconnectMax time.Duration

	// Logger gets state changes; nil: discarded.
	Logger *slog.Logger
	// Trace gets every PDU header sent and received; nil: none. It must not keep bhs.
	Trace func(fromInitiator bool, bhs pdu.BHS)
}

// Params is what the login settled on.
type Params struct {
	HeaderDigest, DataDigest bool
	MaxRecvDataSegmentLength uint32 // ours: the most the target sends in one PDU
	MaxSendDataSegmentLength uint32 // the target's: the most we send in one PDU
	MaxBurstLength           uint32
	FirstBurstLength         uint32
	MaxOutstandingR2T        uint16
	InitialR2T               bool
	ImmediateData            bool
	DataPDUInOrder           bool
	DataSequenceInOrder      bool
	DefaultTime2Wait         uint16 // seconds
	DefaultTime2Retain       uint16 // seconds
	ErrorRecoveryLevel       uint8
	MaxConnections           uint16
	TargetPortalGroupTag     int // -1: not told
	TargetAlias              string
	// TaskReporting says what a function for many tasks, such as ResetLUN, does.
	TaskReporting login.TaskReporting
}

// Stats is a snapshot of a session.
type Stats struct {
	State         State
	Portal        string
	SentTo        string // where Portal has sent the login on to, "" if it has not
	LocalAddr     string
	ISID          [6]byte
	TSIH          uint16
	TPGT          int
	Params        Params
	Connections   int         // logged in
	Conns         []ConnStats // each of them, and those that are missing
	LastAsync     Notice      // Asynchronous Messages (RFC 7143 §11.9)
	LastReject    Notice      // Rejects (RFC 7143 §11.17)
	InFlight      int
	Room          int    // commands that Submit would take now
	Logins        uint64 // successful ones
	Losses        uint64 // logged-in sessions lost
	LastError     string
	RetryAt       int64 // loop time of the next dial, 0 = none planned
	LastReceived  int64 // loop time
	BytesSent     uint64
	BytesReceived uint64
}
