package iscsitest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/pdu"
)

// DefaultName is the iSCSI name of a Target that was not given one.
const DefaultName = "iqn.2026-01.test.iscsimp:disk"

// Config describes a Target. The zero value is one disk of 64 MiB as LUN 0
// behind one portal on 127.0.0.1. NewTarget validates and copies it.
type Config struct {
	// Name is the iSCSI name of the target. Default DefaultName.
	Name string
	// Alias is declared in the login (TargetAlias, RFC 7143 §13.6). Default: none.
	Alias string
	// LUNs of the target. Default: one, the zero LUN. An empty, non-nil slice
	// makes a target without logical units.
	LUNs []LUN
	// Targets are further targets behind the same portals.
	Targets []Node
	// Portals are the addresses to listen on. Default: one, the zero Portal.
	Portals []Portal
	// Params are the keys the target negotiates.
	Params Params
	// Quirks make the target deviate from the RFC or from good manners.
	Quirks Quirks
	// CHAP has initiators log in with CHAP; nil: AuthMethod=None and everybody is
	// welcome.
	CHAP *CHAP
	// Authenticate decides about logins in place of CHAP; nil: not.
	Authenticate Authenticator
	// Recorder gets every PDU; nil: none.
	Recorder *Recorder
	// Logf gets a line for each login, loss and violation; nil: none.
	Logf func(format string, args ...any)
}

// Node is a further target of a Config.
type Node struct {
	Name    string // required
	Alias   string
	LUNs    []LUN
	Portals []int // indexes into Config.Portals; nil: all
}

// Portal is one address of a Target.
type Portal struct {
	// Addr to listen on, "host:port". Default "127.0.0.1:0". "-" does not
	// listen: such a portal is reached by Dial and ServeConn only.
	Addr string
	// TPGT is the target portal group tag. Default 1.
	TPGT uint16
	// Advertise is the address that SendTargets reports, "host:port". Default:
	// the address listened on.
	Advertise string
	// Down makes the portal advertised but not served until StartPortal.
	Down bool
	// Hidden leaves the portal out of SendTargets answers.
	Hidden bool
	// Redirect answers logins of normal sessions with "moved"; nil: not.
	Redirect *Redirect
}

// Redirect sends initiators elsewhere (RFC 7143 §11.13.5, class 1).
type Redirect struct {
	Address   string // "host:port" or "host:port,tpgt"
	Permanent bool   // 0102 instead of 0101
}

// DigestPolicy is how a target negotiates HeaderDigest or DataDigest.
type DigestPolicy uint8

const (
	// DigestAccept takes the first of None and CRC32C that the initiator lists.
	DigestAccept DigestPolicy = iota
	// DigestNone takes None only; a login that does not offer it fails.
	DigestNone
	// DigestRequired takes CRC32C only, and proposes it if the initiator does
	// not; a login that refuses it fails.
	DigestRequired
)

// Params are the target's side of the operational keys (RFC 7143 §13) and of
// what is not Negotiated but visible. The zero value of each field means the
// default given.
type Params struct {
	HeaderDigest, DataDigest DigestPolicy
	// MaxConnections per session, 1..65535 (RFC 7143 §13.2). Default 1.
	MaxConnections uint16
	// ErrorRecoveryLevel is the highest negotiated, 0..2 (RFC 7143 §7.1.5). Of
	// level 1 the target has Reject instead of the end of the connection for data
	// digest errors of requests with a CmdSN, and refuses every SNACK but
	// DataACK; of level 2
	// it has Logout for recovery, and refuses every TASK REASSIGN. Default 0.
	ErrorRecoveryLevel uint8
	// InitialR2T insists on InitialR2T=Yes. Default: the initiator's wish.
	InitialR2T bool
	// NoImmediateData insists on ImmediateData=No. Default: the initiator's wish.
	NoImmediateData bool
	// MaxRecvDataSegmentLength declared, in bytes, 512..2^24-1. Default 262144.
	MaxRecvDataSegmentLength uint32
	// MaxBurstLength in bytes, 512..2^24-1. Default 1048576.
	MaxBurstLength uint32
	// FirstBurstLength in bytes, 512..2^24-1. Default 262144.
	FirstBurstLength uint32
	// MaxOutstandingR2T per task, 1..65535. As many R2Ts are really sent at
	// once. Default 8.
	MaxOutstandingR2T uint16
	// R2TLength is the most one R2T asks for, in bytes. Default: MaxBurstLength.
	R2TLength uint32
	// DefaultTime2Wait and DefaultTime2Retain in seconds, 0..3600. Default 0.
	DefaultTime2Wait, DefaultTime2Retain uint16
	// CmdWindow is how many non-immediate commands a session takes at once
	// (MaxCmdSN, RFC 7143 §4.2.2.1), 1..65535. Default 128.
	CmdWindow uint32
	// AnyPDUOrder and AnySequenceOrder take DataPDUInOrder=No and
	// DataSequenceInOrder=No where offered (§13.18, §13.19), and make use of it: the
	// Data-Ins of a sequence, and the sequences of reads and writes, are shuffled.
	AnyPDUOrder, AnySequenceOrder bool
	// TaskReporting is the most that is agreed to (§13.23). Default: RFC3720.
	TaskReporting TaskReporting
	// AckData wants the data of reads acknowledged, sequence by sequence, at
	// ErrorRecoveryLevel 1 and 2 (A bit, §11.7.2); see SessionInfo.Acks.
	AckData bool
	// SeparateStatus sends good status of reads in a SCSI Response instead of
	// the last Data-In.
	SeparateStatus bool
	// LoginTimeout is how long a connection may take to reach full feature
	// phase. Default 15 s.
	LoginTimeout time.Duration
	// TextLength is the most text sent in one PDU, in bytes, to force answers
	// that go on (C bit). Default: what the initiator takes.
	TextLength uint32
}

// Quirks are the sins of real targets.
type Quirks struct {
	// TSIHZero answers the final login with TSIH 0.
	TSIHZero bool
	// NoReinstatement lets the old session live when its initiator and ISID log
	// in again with TSIH 0.
	NoReinstatement bool
	// ReinstateNeedsSecurity: as NoReinstatement, unless the login passed the
	// security stage.
	ReinstateNeedsSecurity bool
	// JoinNeedsSecurity makes a login that names a session by its TSIH but skips
	// the security stage open another session, as tgtd does.
	JoinNeedsSecurity bool
	// DropSessionWithConnection ends the session, with its other connections and
	// all tasks, when one connection is lost, unless ErrorRecoveryLevel is 2, as
	// LIO does.
	DropSessionWithConnection bool
	// SilentFailure closes the connection instead of answering a login that
	// fails with its status.
	SilentFailure bool
	// CloseOnUnknownKey fails logins that carry a key the target does not know,
	// instead of answering NotUnderstood.
	CloseOnUnknownKey bool
	// OfferKeys makes the target answer the first operational request with T=0
	// and proposals of its own.
	OfferKeys bool
	// NoPortalGroupTag leaves TargetPortalGroupTag out of the login.
	NoPortalGroupTag bool
	// IgnoreMRDSL sends Data-In PDUs of up to 64 KiB, whatever the initiator
	// declared.
	IgnoreMRDSL bool
}

// Authenticator takes part in the security stage of a login.
type Authenticator interface {
	// Begin is called at the start of each login that names a target or wants
	// discovery (target is empty then).
	Begin(initiator, target string) AuthExchange
}

// AuthExchange is the authentication of one login.
type AuthExchange interface {
	// Required reports whether a login that skips the security stage fails.
	Required() bool
	// Step takes the security keys of one request (AuthMethod, CHAP_…) and
	// returns those to answer with, and whether the stage may end. A status
	// other than pdu.LoginSuccess fails the login.
	Step(keys map[string]string) (answer []KeyValue, done bool, status pdu.LoginStatus)
}

// KeyValue is one key=value pair of a login or text negotiation.
type KeyValue struct{ Key, Value string }

func (c *Config) setDefaults() {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.LUNs == nil {
		c.LUNs = []LUN{{}}
	}
	c.Portals = slices.Clone(c.Portals)
	if len(c.Portals) == 0 {
		c.Portals = []Portal{{}}
	}
	for i := range c.Portals {
		if c.Portals[i].Addr == "" {
			c.Portals[i].Addr = "127.0.0.1:0"
		}
		if c.Portals[i].TPGT == 0 {
			c.Portals[i].TPGT = 1
		}
	}
	if c.Logf == nil {
		c.Logf = func(string, ...any) {}
	}
	c.Params.setDefaults()
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

func (p *Params) setDefaults() {
	orDefault(&p.MaxConnections, 1)
	orDefault(&p.MaxRecvDataSegmentLength, 256<<10)
	orDefault(&p.MaxBurstLength, 1<<20)
	orDefault(&p.FirstBurstLength, min(256<<10, p.MaxBurstLength))
	orDefault(&p.MaxOutstandingR2T, 8)
	orDefault(&p.CmdWindow, 128)
	orDefault(&p.LoginTimeout, 15*time.Second)
}

func (p *Params) validate() error {
	for _, f := range []struct {
		name         string
		v            uint32
		least, bound uint32
	}{
		{"MaxRecvDataSegmentLength", p.MaxRecvDataSegmentLength, 512, pdu.MaxDataLen},
		{"MaxBurstLength", p.MaxBurstLength, 512, pdu.MaxDataLen},
		{"FirstBurstLength", p.FirstBurstLength, 512, pdu.MaxDataLen},
		{"CmdWindow", p.CmdWindow, 1, 65535},
		{"DefaultTime2Wait", uint32(p.DefaultTime2Wait), 0, 3600},
		{"DefaultTime2Retain", uint32(p.DefaultTime2Retain), 0, 3600},
		{"ErrorRecoveryLevel", uint32(p.ErrorRecoveryLevel), 0, 2},
	} {
		if f.v < f.least || f.v > f.bound {
			return fmt.Errorf("%s is %d, must be %d to %d", f.name, f.v, f.least, f.bound)
		}
	}
	if p.TaskReporting > ReportFastAbort {
		return fmt.Errorf("TaskReporting is %d, must be 0 to %d", p.TaskReporting, ReportFastAbort)
	}
	if p.FirstBurstLength > p.MaxBurstLength {
		return fmt.Errorf("FirstBurstLength %d is more than MaxBurstLength %d", p.FirstBurstLength, p.MaxBurstLength)
	}
	return nil
}

func (c *Config) validate() error {
	if err := c.Params.validate(); err != nil {
		return err
	}
	if c.CHAP != nil {
		if c.Authenticate != nil {
			return errors.New("set CHAP or Authenticate, not both")
		}
		if err := c.CHAP.validate(); err != nil {
			return err
		}
	}
	if err := c.validateALUA(c.LUNs); err != nil {
		return err
	}
	names := map[string]bool{c.Name: true}
	for _, n := range c.Targets {
		if n.Name == "" {
			return errors.New("a further target has no Name")
		}
		if names[n.Name] {
			return fmt.Errorf("two targets are called %s", n.Name)
		}
		names[n.Name] = true
		if err := c.validateALUA(n.LUNs); err != nil {
			return fmt.Errorf("target %s, %w", n.Name, err)
		}
		for _, i := range n.Portals {
			if i < 0 || i >= len(c.Portals) {
				return fmt.Errorf("target %s is behind portal %d, but there are %d portals", n.Name, i, len(c.Portals))
			}
		}
	}
	return nil
}
