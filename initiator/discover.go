package initiator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/internal/asynclog"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session"
)

// DiscoverConfig says where and how to ask for targets. The zero value of each
// optional field means its default. Discover does not change it.
type DiscoverConfig struct {
	// Portals are asked in parallel, each as ParsePortal takes it. Required.
	Portals []string
	// InitiatorName is this host's iSCSI name. Required. Targets decide by it
	// what they show.
	InitiatorName string
	// CHAP authenticates the logins: discovery sessions for Discover, sessions to
	// the target for Luns. Default: no authentication. A portal that refuses it in
	// discovery is asked without, unless there is a MutualSecret.
	CHAP CHAP
	// LoginTimeout bounds connecting and logging in at each portal
	// (node.conn[0].timeo.login_timeout), and with asking it is a quarter more.
	// Default 10 s.
	LoginTimeout time.Duration
	// HeaderDigest, DataDigest ask for CRC32C over headers and over data
	// (discovery.sendtargets.iscsi.HeaderDigest). Default no.
	HeaderDigest, DataDigest bool
	// Logger gets what happens; it may be slow. Default: nothing is logged.
	Logger *slog.Logger
	// Trace is told about every PDU header sent and received. Default: nobody is.
	Trace TraceFunc
	// Dial makes the TCP connections. Default: a net.Dialer.
	Dial DialFunc
	// Portable runs on the portable loop even where a faster one exists; it is
	// needed if Dial returns anything but TCP connections.
	Portable bool
}

// DiscoverResult is what the portals said.
type DiscoverResult struct {
	// Targets are in the order of their names, without duplicates.
	Targets []Target
	// Portals reports on every portal asked, in the order given, without duplicates.
	Portals []PortalReport
}

// Target is one target and where it can be reached.
type Target struct {
	Name    string
	Portals []TargetPortal // in the order of address
}

// TargetPortal is one address of a target.
type TargetPortal struct {
	Address string // as ParsePortal returns it
	TPGT    int    // portal group tag (RFC 7143 §4.2.7); -1 if it was not told
	// Via lists the asked portals that named this address.
	Via []string
}

// PortalReport is how asking one portal went.
type PortalReport struct {
	Portal  string        // as ParsePortal returns it
	Found   int           // number of targets, or LUNs, it named
	Elapsed time.Duration // from dialing to the answer, or to giving up
	Err     error         // nil, or a PortalError that says why it gave no answer
}

// Discover asks every portal for its targets (SendTargets=All in a discovery
// session, RFC 7143 §4.3 and Appendix C), in parallel, and merges the answers.
// A portal that does not answer does not spoil the rest: the error is not nil
// only if the configuration is wrong or no portal answered, and
// DiscoverResult.Portals tells about each in any case. To find no targets is
// not an error.
//
// Errors are *Error. When ctx ends, portals that have not answered by then are
// given up.
func Discover(ctx context.Context, cfg DiscoverConfig) (DiscoverResult, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return DiscoverResult{}, err
	}
	l := newLoop(cfg.Portable)
	defer l.Close()
	logger, stop := asynclog.New(cfg.Logger)
	defer stop()
	cfg.Logger = logger
	cfg.CHAP.warn(logger)
	result := DiscoverResult{Portals: make([]PortalReport, len(cfg.Portals))}
	finds := make([][]session.TargetInfo, len(cfg.Portals))
	for a := range cfg.ask(ctx, l) {
		finds[a.index] = a.targets
		result.Portals[a.index] = a.report
	}
	m := merger{}
	for i, targets := range finds { // in the order given, whoever answered first
		m.add(cfg.Portals[i], targets)
	}
	result.Targets = m.targets()
	return result, result.verdict()
}

// verdict is nil if at least one portal answered.
func (r DiscoverResult) verdict() error {
	var failed []PortalError
	for _, p := range r.Portals {
		if p.Err == nil {
			return nil
		}
		if err, ok := errors.AsType[PortalError](p.Err); ok { // as it always is
			failed = append(failed, err)
		}
	}
	return &Error{
		Kind:    worstKind(failed),
		Msg:     "no portal could be asked",
		Portals: failed,
		Hint:    "`iscsimp doctor -p PORTAL` looks into it",
	}
}

// finding is what one portal said.
type finding struct {
	index   int // of the portal in DiscoverConfig.Portals
	targets []session.TargetInfo
	report  PortalReport
}

// ask asks all portals at once. The channel gives one finding for each and is
// then closed.
func (c DiscoverConfig) ask(ctx context.Context, l loop.Loop) <-chan finding {
	out := make(chan finding, len(c.Portals)) // nobody has to listen
	var wg sync.WaitGroup
	for i, portal := range c.Portals {
		wg.Go(func() {
			began := time.Now()
			targets, err := c.askOne(ctx, l, portal)
			f := finding{index: i, targets: targets, report: PortalReport{
				Portal: portal, Found: len(targets), Elapsed: time.Since(began),
			}}
			if err != nil {
				f.report.Err = portalErr(portal, err)
			}
			out <- f
		})
	}
	go func() {
		wg.Wait()
		close(out)
	}()
	return out
}

// askOne asks one portal.
func (c DiscoverConfig) askOne(ctx context.Context, l loop.Loop, portal string) ([]session.TargetInfo, error) {
	// The session bounds the login itself, and says more when time runs out: it comes first.
	ctx, cancel := context.WithTimeout(ctx, c.LoginTimeout+c.LoginTimeout/4+time.Second)
	defer cancel()
	v, err := c.visit(ctx, l, "discovery", "", portal)
	if refusesCHAP(err) && !c.CHAP.isZero() {
		v, err = c.visitWithoutCHAP(ctx, l, portal, err)
	}
	if err != nil {
		return nil, err
	}
	defer v.leave(ctx)
	return v.sendTargets(ctx)
}

// refusesCHAP reports whether a login failed for its authentication.
func refusesCHAP(err error) bool {
	e, ok := errors.AsType[*session.Error](err)
	return ok && e.Kind == session.KindLogin && e.Login == pdu.LoginAuthFailure
}

// visitWithoutCHAP is the second try at a portal that refused CHAP, for the reason
// given: LIO refuses it in discovery while it has no account for that. Nothing is
// given away, since in one-way CHAP nobody vouches for the target in any case. One
// that is to prove itself must not get around that.
func (c DiscoverConfig) visitWithoutCHAP(ctx context.Context, l loop.Loop, portal string, refused error) (*visit, error) {
	if !c.CHAP.MutualSecret.IsZero() {
		return nil, fmt.Errorf("%w; discovery without CHAP is not tried, since the target is to prove itself: "+
			"set CHAP up for discovery on the target, or leave out the mutual secret for discovery", refused)
	}
	c.Logger.Info("the portal refuses CHAP in discovery: it is asked once more without", "portal", portal, "err", refused)
	c.CHAP = CHAP{}
	v, err := c.visit(ctx, l, "discovery", "", portal)
	if err != nil {
		return nil, refused // that it is demanded tells the user less than why it was refused
	}
	return v, nil
}

// visit logs in to one portal: to target, or, if that is empty, for discovery.
// The caller leaves again.
func (c DiscoverConfig) visit(ctx context.Context, l loop.Loop, purpose, target, portal string) (*visit, error) {
	v, err := newVisit(l, session.Config{
		InitiatorName: c.InitiatorName,
		TargetName:    target,
		Discovery:     target == "",
		Portal:        portal,
		ISID:          visitISID(c.InitiatorName, purpose, portal),
		TPGT:          -1,
		CHAP:          c.CHAP.config(),
		HeaderDigest:  c.HeaderDigest,
		DataDigest:    c.DataDigest,
		LoginTimeout:  c.LoginTimeout,
		LogoutTimeout: visitLogoutTimeout,
		Logger:        c.Logger,
		Trace:         bindTrace(c.Trace, portal),
	}, c.Dial)
	if err != nil {
		return nil, err
	}
	if err := v.login(ctx); err != nil {
		v.leave(ctx)
		return nil, err
	}
	return v, nil
}

// visitLogoutTimeout bounds the farewell of a session nothing depends on.
const visitLogoutTimeout = time.Second

// visitISID makes an ISID that no other session of this host uses: not that of
// a device (those are the same after every restart), nor that of another
// process which asks the same portal now. Equal ISIDs would make the target end
// the other session (RFC 7143 §6.3.5).
func visitISID(initiatorName, purpose, portal string) [6]byte {
	return session.DeriveISID(initiatorName, purpose, portal, strconv.Itoa(os.Getpid()), strconv.FormatInt(time.Now().UnixNano(), 36))
}

// withDefaults validates c and fills in what is left at zero.
func (c DiscoverConfig) withDefaults() (DiscoverConfig, error) {
	var err error
	if c.Portals, err = parsePortals(c.Portals); err != nil {
		return c, err
	}
	if c.InitiatorName == "" {
		return c, invalidf("set InitiatorName to this host's iSCSI name", "no initiator name is given")
	}
	if err := CheckName(c.InitiatorName); err != nil {
		return c, err
	}
	if err := checkCHAP(c.CHAP); err != nil {
		return c, err
	}
	if c.LoginTimeout < 0 {
		return c, invalidf("0 means 10 s", "LoginTimeout is negative")
	}
	c.LoginTimeout = cmp.Or(c.LoginTimeout, DefaultLoginTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// parsePortals gives every portal its one form, without duplicates.
func parsePortals(given []string) ([]string, error) {
	if len(given) == 0 {
		return nil, invalidf("give at least one portal, as host or host:port", "no portal is given")
	}
	portals := make([]string, 0, len(given))
	for _, g := range given {
		p, err := ParsePortal(g)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(portals, p) {
			portals = append(portals, p)
		}
	}
	return portals, nil
}

// merger joins what several portals say about targets.
type merger struct {
	found map[string]map[string]*TargetPortal // by target, by address
}

// add takes what the portal via said. Addresses nobody can dial are left out:
// some targets name 0.0.0.0.
func (m *merger) add(via string, targets []session.TargetInfo) {
	if m.found == nil {
		m.found = make(map[string]map[string]*TargetPortal)
	}
	for _, t := range targets {
		if m.found[t.Name] == nil {
			m.found[t.Name] = make(map[string]*TargetPortal)
		}
		for _, p := range t.Portals {
			address, err := ParsePortal(p.Address)
			if err != nil || isUnspecified(address) {
				continue
			}
			known := m.found[t.Name][address]
			if known == nil {
				known = &TargetPortal{Address: address, TPGT: p.TPGT}
				m.found[t.Name][address] = known
			}
			if known.TPGT < 0 {
				known.TPGT = p.TPGT
			}
			if !slices.Contains(known.Via, via) {
				known.Via = append(known.Via, via)
			}
		}
	}
}

// targets returns everything found, in order.
func (m *merger) targets() []Target {
	targets := make([]Target, 0, len(m.found))
	for name, portals := range m.found {
		t := Target{Name: name, Portals: make([]TargetPortal, 0, len(portals))}
		for _, p := range portals {
			t.Portals = append(t.Portals, *p)
		}
		slices.SortFunc(t.Portals, func(a, b TargetPortal) int { return comparePortals(a.Address, b.Address) })
		targets = append(targets, t)
	}
	slices.SortFunc(targets, func(a, b Target) int { return cmp.Compare(a.Name, b.Name) })
	return targets
}

// comparePortals orders addresses by number, names by letter, then by port.
func comparePortals(a, b string) int {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	ipA, errA := netip.ParseAddr(hostA)
	ipB, errB := netip.ParseAddr(hostB)
	byHost := cmp.Compare(hostA, hostB)
	switch {
	case errA == nil && errB == nil:
		byHost = ipA.Compare(ipB)
	case errA == nil:
		return -1
	case errB == nil:
		return 1
	}
	nA, _ := strconv.Atoi(portA)
	nB, _ := strconv.Atoi(portB)
	return cmp.Or(byHost, cmp.Compare(nA, nB))
}

// isUnspecified reports whether portal is 0.0.0.0 or [::].
func isUnspecified(portal string) bool {
	host, _, err := net.SplitHostPort(portal)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}

// newLoop starts the loop a configuration asks for.
func newLoop(portable bool) loop.Loop {
	if portable {
		return loop.NewPortable()
	}
	return loop.New()
}
