package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/scsi"
)

func lunsCommand() *cli.Command {
	return &cli.Command{
		Name:      "luns",
		Usage:     "show the LUNs of a target",
		ArgsUsage: "TARGET",
		Description: "Logs in through every PORTAL given, asks what the LUNs are, and leaves. Nothing is\n" +
			"written. A number that leads to different units at different portals is shown twice.",
		Flags:        flags(sessionFlags(), authFlags(), digestFlags()),
		OnUsageError: onUsageError,
		Action:       runLuns,
	}
}

type lunsReport struct {
	Version int                `json:"version"`
	Target  string             `json:"target"`
	LUNs    []lunInfoJSON      `json:"luns"`
	Portals []portalReportJSON `json:"portals"`
}

type lunInfoJSON struct {
	LUN           lunJSON  `json:"lun"`
	Type          string   `json:"type"`
	SizeBytes     uint64   `json:"size_bytes"`
	BlockSize     uint32   `json:"block_size"`
	PhysicalBlock uint64   `json:"physical_block_size"`
	Vendor        string   `json:"vendor"`
	Product       string   `json:"product"`
	Revision      string   `json:"revision"`
	Serial        string   `json:"serial"`
	Identity      string   `json:"identity"`
	Unique        bool     `json:"identity_unique"`
	ReadOnly      bool     `json:"read_only"`
	Thin          bool     `json:"thin"`
	Portals       []string `json:"portals"`
	Error         string   `json:"error,omitempty"`
}

func runLuns(c *cli.Context) error {
	a, portals, err := addressOf(c)
	if err != nil {
		return err
	}
	cfg, done, err := discoverConfig(c, portals, a.User)
	if err != nil {
		return err
	}
	defer done()
	found, err := initiator.Luns(c.Context, a.Target, cfg)
	if err != nil && len(found.Portals) == 0 {
		return err
	}
	if c.Bool(flagJSON) {
		if werr := writeJSON(c.App.Writer, newLunsReport(a.Target, found), false); werr != nil {
			return werr
		}
	} else if len(found.LUNs) > 0 {
		if werr := lunsTable(found.LUNs).writeTo(c.App.Writer); werr != nil {
			return werr
		}
	}
	if err != nil {
		return err
	}
	warnPortals(c, found.Portals)
	if len(found.LUNs) == 0 {
		return failf(exitNothing, "%s shows no LUN to %s; see the target's LUN mapping", a.Target, cfg.InitiatorName)
	}
	return nil
}

func newLunsReport(target string, found initiator.LunsResult) lunsReport {
	r := lunsReport{Version: schemaVersion, Target: target, LUNs: []lunInfoJSON{}, Portals: portalReports(found.Portals)}
	for _, l := range found.LUNs {
		j := lunInfoJSON{
			LUN: lunJSON(l.LUN), Type: lunType(l.Type), SizeBytes: l.SizeBytes, BlockSize: l.BlockSize,
			PhysicalBlock: l.PhysicalBlock, Vendor: l.Vendor, Product: l.Product, Revision: l.Revision,
			Serial: l.Serial, Identity: l.Identity, Unique: l.Strong, ReadOnly: l.ReadOnly, Thin: l.Thin, Portals: append([]string{}, l.Portals...),
		}
		if l.Err != nil {
			j.Error = l.Err.Error()
		}
		r.LUNs = append(r.LUNs, j)
	}
	return r
}

func lunsTable(luns []initiator.LUNInfo) *table {
	t := &table{header: []string{"LUN", "TYPE", "SIZE", "BLOCK", "VENDOR", "PRODUCT", "REV", "IDENTITY", "NOTES"}}
	for _, l := range luns {
		size, block := "", ""
		if l.SizeBytes > 0 {
			size, block = formatSize(l.SizeBytes), fmt.Sprint(l.BlockSize)
		}
		t.add(l.LUN.String(), lunType(l.Type), size, block, l.Vendor, l.Product, l.Revision, l.Identity, lunNotes(l, luns))
	}
	return t
}

// lunNotes is what else there is to say about a LUN.
func lunNotes(l initiator.LUNInfo, all []initiator.LUNInfo) string {
	var notes []string
	if l.ReadOnly {
		notes = append(notes, "read-only")
	}
	if l.Thin {
		notes = append(notes, "thin")
	}
	twins := 0
	for _, other := range all {
		if other.LUN == l.LUN {
			twins++
		}
	}
	if twins > 1 {
		notes = append(notes, "at "+strings.Join(l.Portals, ", ")+" only: other portals show another unit")
	}
	if l.Err != nil {
		notes = append(notes, l.Err.Error())
	}
	return strings.Join(notes, "; ")
}

// lunType names a peripheral device type.
func lunType(t uint8) string {
	switch t {
	case scsi.TypeDisk:
		return "disk"
	case 0x01:
		return "tape"
	case scsi.TypeProcessor:
		return "processor"
	case scsi.TypeOptical:
		return "cd-dvd"
	case 0x08:
		return "changer"
	case scsi.TypeController:
		return "controller"
	case scsi.TypeEnclosure:
		return "enclosure"
	case scsi.TypeUnknown:
		return "none"
	}
	return fmt.Sprintf("type-%#02x", t)
}
