package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

func discoverCommand() *cli.Command {
	return &cli.Command{
		Name:      "discover",
		Usage:     "ask portals for their targets",
		ArgsUsage: "[iscsi://host[:port]...]",
		Description: "Asks every PORTAL at once (SendTargets) and prints targets, portals and portal\n" +
			"group tags. A portal that does not answer is reported and does not spoil the rest.",
		Flags:        flags(sessionFlags(), authFlags(), digestFlags()),
		OnUsageError: onUsageError,
		Action:       runDiscover,
	}
}

// portalReportJSON is how asking one portal went.
type portalReportJSON struct {
	Portal  string  `json:"portal"`
	OK      bool    `json:"ok"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

type discoverReport struct {
	Version int                `json:"version"`
	Targets []targetJSON       `json:"targets"`
	Portals []portalReportJSON `json:"portals"`
}

type targetJSON struct {
	Name    string             `json:"name"`
	Portals []targetPortalJSON `json:"portals"`
}

type targetPortalJSON struct {
	Portal string   `json:"portal"`
	TPGT   int      `json:"tpgt"` // -1: not told
	Via    []string `json:"via"`
}

func runDiscover(c *cli.Context) error {
	portals, user, err := discoverPortals(c)
	if err != nil {
		return err
	}
	if len(portals) == 0 {
		return usagef("no portal given: say where to ask with -p PORTAL")
	}
	cfg, done, err := discoverConfig(c, portals, user)
	if err != nil {
		return err
	}
	defer done()
	if cfg.CHAP, err = discoveryCHAPOr(c, cfg.CHAP); err != nil {
		return err
	}
	found, err := initiator.Discover(c.Context, cfg)
	if err != nil && len(found.Portals) == 0 { // it did not even begin
		return err
	}
	if c.Bool(flagJSON) {
		if werr := writeJSON(c.App.Writer, newDiscoverReport(found), false); werr != nil {
			return werr
		}
	} else if len(found.Targets) > 0 {
		if werr := targetsTable(found.Targets).writeTo(c.App.Writer); werr != nil {
			return werr
		}
	}
	if err != nil {
		return err
	}
	warnPortals(c, found.Portals)
	if len(found.Targets) == 0 {
		return failf(exitNothing, "the portals offer no target to %s; see the target's access list", cfg.InitiatorName)
	}
	return nil
}

// discoverPortals reads where to ask: -p, and addresses whose target, if there is
// one, does not matter.
func discoverPortals(c *cli.Context) (portals []string, user string, err error) {
	if portals, err = portalsOf(c); err != nil {
		return nil, "", err
	}
	for _, arg := range c.Args().Slice() {
		if !initiator.IsURL(arg) {
			return nil, "", usagef("discover takes portals with -p, or as iscsi://host; %q stands alone", arg)
		}
		a, err := initiator.ParsePortalURL(arg)
		if err != nil {
			return nil, "", err
		}
		portals, user = append(portals, a.Portal), cmp.Or(a.User, user)
	}
	return portals, user, nil
}

// discoverConfig reads the options that discover, luns and doctor share. user is
// that of an iscsi:// address. done must be called at the end.
func discoverConfig(c *cli.Context, portals []string, user string) (cfg initiator.DiscoverConfig, done func(), err error) {
	logger, err := newLogger(c, c.App.ErrWriter)
	if err != nil {
		return cfg, nil, err
	}
	loginTimeout, err := timeOf(c, flagLoginTimeout)
	if err != nil {
		return cfg, nil, err
	}
	chap, err := chapOf(c, user)
	if err != nil {
		return cfg, nil, err
	}
	name, _, err := defaultNameFinder().find(c.String(flagInitiatorName))
	if err != nil {
		return cfg, nil, err
	}
	trace, err := openTrace(c)
	if err != nil {
		return cfg, nil, err
	}
	return initiator.DiscoverConfig{
		Portals:       portals,
		InitiatorName: name,
		CHAP:          chap,
		LoginTimeout:  loginTimeout,
		HeaderDigest:  c.Bool(flagHeaderDigest),
		DataDigest:    c.Bool(flagDataDigest),
		Logger:        logger,
		Trace:         trace.hook(),
	}, func() { trace.close(logger) }, nil
}

// warnPortals tells about portals that did not answer although others did.
func warnPortals(c *cli.Context, portals []initiator.PortalReport) {
	logger, err := newLogger(c, c.App.ErrWriter)
	if err != nil {
		logger = slog.New(slog.DiscardHandler)
	}
	for _, p := range portals {
		if p.Err != nil {
			logger.Warn("portal does not answer", "portal", p.Portal, "err", p.Err)
		}
	}
}

func newDiscoverReport(found initiator.DiscoverResult) discoverReport {
	r := discoverReport{Version: schemaVersion, Targets: []targetJSON{}, Portals: portalReports(found.Portals)}
	for _, t := range found.Targets {
		target := targetJSON{Name: t.Name, Portals: []targetPortalJSON{}}
		for _, p := range t.Portals {
			target.Portals = append(target.Portals, targetPortalJSON{Portal: p.Address, TPGT: p.TPGT, Via: append([]string{}, p.Via...)})
		}
		r.Targets = append(r.Targets, target)
	}
	return r
}

func portalReports(portals []initiator.PortalReport) []portalReportJSON {
	reports := []portalReportJSON{}
	for _, p := range portals {
		r := portalReportJSON{Portal: p.Portal, OK: p.Err == nil, Seconds: p.Elapsed.Seconds()}
		if p.Err != nil {
			r.Error = p.Err.Error()
		}
		reports = append(reports, r)
	}
	return reports
}

func targetsTable(targets []initiator.Target) *table {
	t := &table{header: []string{"TARGET", "PORTAL", "TPGT", "VIA"}}
	for _, target := range targets {
		for _, p := range target.Portals {
			t.add(target.Name, p.Address, formatTPGT(p.TPGT), strings.Join(p.Via, " "))
		}
		if len(target.Portals) == 0 { // it named no address anybody can dial
			t.add(target.Name)
		}
	}
	return t
}

func formatTPGT(tag int) string {
	if tag < 0 {
		return "-"
	}
	return fmt.Sprint(tag)
}
