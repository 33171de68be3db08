package initiator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/iscsimp/iscsimp/internal/asynclog"
	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
)

// LUNInfo describes one LUN of a target as its portals show it.
type LUNInfo struct {
	LUN  scsi.LUN // the address, as REPORT LUNS gives it
	Type uint8    // peripheral device type; see Openable

	Vendor, Product, Revision string // of INQUIRY
	Serial                    string // of VPD page 0x80, "" if there is none

	// Identity is what names the unit best, such as "naa.6001405…" (VPD page
	// 0x83); Strong: it is unique in the world. "" if there is nothing.
	Identity string
	Strong   bool

	SizeBytes     uint64 // 0: not known
	BlockSize     uint32 // bytes of a logical block
	PhysicalBlock uint64 // bytes of a physical block
	ReadOnly      bool   // write-protected
	Thin          bool   // thin provisioned (READ CAPACITY(16), LBPME)

	// Portals lists the portals it was seen through. Portals that show
	// different units under one number give one LUNInfo each.
	Portals []string
	// Err says what could not be read, if anything.
	Err error

	identity scsi.Identity
}

// Openable reports whether Open can use the LUN.
func (i LUNInfo) Openable() bool { return isDisk(i.Type) && i.SizeBytes > 0 }

// isDisk reports whether units of a type take block commands.
func isDisk(deviceType uint8) bool {
	return deviceType == scsi.TypeDisk || deviceType == scsi.TypeOptical || deviceType == scsi.TypeReduced
}

// LunsResult is what the portals show of one target.
type LunsResult struct {
	// LUNs are in the order of their addresses.
	LUNs []LUNInfo
	// Portals reports on every portal asked, in the order given; Found counts
	// LUNs.
	Portals []PortalReport
}

// Luns logs in to target through every portal of cfg, in parallel, and asks for
// its LUNs: REPORT LUNS, then INQUIRY with the vital product data, capacity and
// write protection of each. Nothing is written. A portal that does not answer
// does not spoil the rest: the error is not nil only if the configuration is
// wrong or no portal let this initiator in. Errors are *Error.
func Luns(ctx context.Context, target string, cfg DiscoverConfig) (LunsResult, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return LunsResult{}, err
	}
	if err := CheckName(target); err != nil {
		return LunsResult{}, err
	}
	l := newLoop(cfg.Portable)
	defer l.Close()
	logger, stop := asynclog.New(cfg.Logger)
	defer stop()
	cfg.Logger = logger
	cfg.CHAP.warn(logger)
	result := LunsResult{Portals: make([]PortalReport, len(cfg.Portals))}
	found := make([][]LUNInfo, len(cfg.Portals))
	var wg sync.WaitGroup
	for i, portal := range cfg.Portals {
		wg.Go(func() {
			began := time.Now()
			luns, err := cfg.survey(ctx, l, target, portal)
			found[i] = luns
			result.Portals[i] = PortalReport{Portal: portal, Found: len(luns), Elapsed: time.Since(began)}
			if err != nil {
				result.Portals[i].Err = portalErr(portal, err)
			}
		})
	}
	wg.Wait()
	result.LUNs = mergeLUNs(found)
	return result, DiscoverResult{Portals: result.Portals}.verdict()
}

// surveyTimeout bounds the questions asked through one portal, besides the login.
const surveyTimeout = 20 * time.Second

// survey asks one portal.
func (c DiscoverConfig) survey(ctx context.Context, l loop.Loop, target, portal string) ([]LUNInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, c.LoginTimeout+surveyTimeout)
	defer cancel()
	v, err := c.visit(ctx, l, "luns", target, portal)
	if err != nil {
		return nil, err
	}
	defer v.leave(ctx)
	addresses, err := v.reportLUNs(ctx)
	if err != nil {
		return nil, err
	}
	var luns []LUNInfo
	for _, lun := range addresses {
		if lun.IsWellKnown() {
			continue
		}
		info, err := v.describe(ctx, lun)
		if err != nil { // the session is gone: what was found so far is not the whole
			return nil, err
		}
		if info.Type != scsi.TypeUnknown || info.Err != nil { // else nothing is behind the number
			info.Portals = []string{portal}
			luns = append(luns, info)
		}
	}
	return luns, nil
}

// reportLUNs asks for all LUNs (SPC-4 §6.33), with as much room as the answer needs.
func (v *visit) reportLUNs(ctx context.Context) ([]scsi.LUN, error) {
	const header, entry, maxLUNs = 8, 8, 16384
	for size := header + 256*entry; ; {
		data, err := v.query(ctx, 0, scsi.ReportLuns(uint32(size)), size)
		if err != nil {
			return nil, fmt.Errorf("REPORT LUNS: %w", err)
		}
		luns, err := scsi.ParseReportLuns(data)
		short, isShort := errors.AsType[*scsi.FormatError](err)
		if err == nil || !isShort || !errors.Is(err, scsi.ErrShort) || short.Need <= size || short.Need > header+maxLUNs*entry {
			return luns, err
		}
		size = short.Need
	}
}

// describe asks one LUN what it is. The error tells that the session failed;
// what the LUN refuses to tell is in LUNInfo.Err.
func (v *visit) describe(ctx context.Context, lun scsi.LUN) (info LUNInfo, err error) {
	info.LUN = lun
	info.Type = scsi.TypeUnknown
	inquiry, err := ask(ctx, v, lun, scsi.Inquiry(255), 255, scsi.ParseInquiry)
	if err != nil {
		return info, info.refused("INQUIRY", err)
	}
	if inquiry.PeripheralQualifier != scsi.QualifierConnected {
		return info, nil
	}
	info.Type, info.Vendor, info.Product, info.Revision = inquiry.DeviceType, inquiry.Vendor, inquiry.Product, inquiry.Revision
	id := scsi.Identity{DeviceType: inquiry.DeviceType, Vendor: inquiry.Vendor, Product: inquiry.Product, Revision: inquiry.Revision}
	// Both pages are optional, and so is saying which there are: just ask.
	id.Designators, err = ask(ctx, v, lun, scsi.InquiryVPD(scsi.VPDDesignators, 1024), 1024, scsi.ParseDesignators)
	if err := onlySession(err); err != nil {
		return info, err
	}
	id.Serial, err = ask(ctx, v, lun, scsi.InquiryVPD(scsi.VPDSerial, 255), 255, scsi.ParseSerial)
	if err := onlySession(err); err != nil {
		return info, err
	}
	if isDisk(info.Type) {
		if err := v.describeDisk(ctx, &info, &id); err != nil {
			return info, err
		}
	}
	info.Serial, info.Identity, info.Strong, info.identity = id.Serial, id.Name(), id.Strength() == scsi.Strong, id
	return info, nil
}

// describeDisk adds size and write protection.
func (v *visit) describeDisk(ctx context.Context, info *LUNInfo, id *scsi.Identity) error {
	capacity, err := ask(ctx, v, info.LUN, scsi.ReadCapacity16(32), 32, scsi.ParseReadCapacity16)
	if err != nil && onlySession(err) == nil { // before SBC-2
		capacity, err = ask(ctx, v, info.LUN, scsi.ReadCapacity10(), 8, scsi.ParseReadCapacity10)
	}
	if err != nil {
		return info.refused("READ CAPACITY", err)
	}
	id.Capacity = capacity
	info.SizeBytes, info.BlockSize, info.PhysicalBlock = capacity.Bytes(), capacity.BlockSize, capacity.PhysicalBlockSize()
	info.Thin = capacity.LBPME
	mode, err := ask(ctx, v, info.LUN, scsi.ModeSense6(scsi.ModePageAll, 0, true, 255), 255, scsi.ParseModeSense6)
	if err == nil {
		info.ReadOnly = mode.WriteProtected
	}
	return onlySession(err)
}

// refused notes what the LUN did not tell, and returns err if it was the session that failed.
func (i *LUNInfo) refused(what string, err error) error {
	if err := onlySession(err); err != nil {
		return err
	}
	i.Err = fmt.Errorf("%s: %w", what, err)
	return nil
}

// ask runs one query and parses its answer.
func ask[T any](ctx context.Context, v *visit, lun scsi.LUN, cdb scsi.CDB, size int, parse func([]byte) (T, error)) (T, error) {
	data, err := v.query(ctx, lun, cdb, size)
	if err != nil {
		var none T
		return none, err
	}
	return parse(data)
}

// onlySession returns err unless it is the target's own answer that displeases.
func onlySession(err error) error {
	if _, ok := errors.AsType[*scsi.CommandError](err); ok {
		return nil
	}
	if _, ok := errors.AsType[*scsi.FormatError](err); ok {
		return nil
	}
	return err
}

// mergeLUNs joins what several portals show. One number that leads to two units
// stays two entries.
func mergeLUNs(found [][]LUNInfo) []LUNInfo {
	var all []LUNInfo
	for _, luns := range found {
		for _, info := range luns {
			i := slices.IndexFunc(all, func(known LUNInfo) bool {
				if known.LUN != info.LUN {
					return false
				}
				match, _ := scsi.SameUnit(known.identity, info.identity)
				return match != scsi.Different
			})
			if i < 0 {
				all = append(all, info)
				continue
			}
			all[i].Portals = append(all[i].Portals, info.Portals...)
		}
	}
	slices.SortStableFunc(all, func(a, b LUNInfo) int { return cmp.Compare(a.LUN, b.LUN) })
	return all
}
