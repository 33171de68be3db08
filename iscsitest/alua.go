package iscsitest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/scsi"
)

// ALUA makes access to a LUN asymmetric (SPC-4 §5.16.2): its portals are divided
// into target port groups, each of which has an access state of its own.
type ALUA struct {
	// TPGS says who changes access states: scsi.TPGSImplicit, scsi.TPGSExplicit or
	// both. It is what INQUIRY shows; SetAccess works in any case. Default implicit.
	TPGS uint8
	// Groups, at least one. Each portal is in exactly one of them.
	Groups []PortGroup
	// TransitionSeconds is shown in the extended header of REPORT TARGET PORT
	// GROUPS, 0: not said.
	TransitionSeconds uint8
	// NoExtendedHeader refuses the extended header, as units older than SPC-4 do.
	NoExtendedHeader bool
	// ShortExtended leaves the extended header out of the length of the list, so
	// that its last four bytes are missing, as LIO does.
	ShortExtended bool
	// GarbledExtended makes the list with the extended header useless.
	GarbledExtended bool
	// Transition is how long a group is transitioning after SET TARGET PORT GROUPS,
	// which is answered at once. Default: no time at all.
	Transition time.Duration
	// NoAttention keeps UNIT ATTENTION 2A/06 from being reported.
	NoAttention bool
	// NoCapacity has a group in standby refuse READ CAPACITY, which the standard
	// leaves open.
	NoCapacity bool
}

// PortGroup is a target port group.
type PortGroup struct {
	ID        uint16
	Portals   []int            // indexes into Config.Portals
	State     scsi.AccessState // at the start. Default active/optimized
	Preferred bool             // the PREF bit
}

// supportedStates of every group: optimized, non-optimized, standby, unavailable,
// offline, transitioning.
const supportedStates = 0b1100_1111

// Reasons of a state in REPORT TARGET PORT GROUPS (SPC-4).
const (
	accessBySet      = 1
	accessByImplicit = 2
)

// alua is the ALUA of a lun. All of it but cfg is guarded by lun.mu.
type alua struct {
	cfg    ALUA
	groups []accessGroup
	sets   int // SET TARGET PORT GROUPS that were carried out
}

type accessGroup struct {
	PortGroup
	status uint8
	turns  int // changes, so that a transition that was overtaken ends in nothing
}

func newALUA(cfg *ALUA) (*alua, error) {
	if cfg == nil {
		return nil, nil
	}
	a := &alua{cfg: *cfg}
	orDefault(&a.cfg.TPGS, scsi.TPGSImplicit)
	if a.cfg.TPGS > scsi.TPGSImplicit|scsi.TPGSExplicit {
		return nil, fmt.Errorf("TPGS is %d, must be 1 to 3", a.cfg.TPGS)
	}
	ids, portals := map[uint16]bool{}, map[int]bool{}
	for _, g := range cfg.Groups {
		if ids[g.ID] {
			return nil, fmt.Errorf("two target port groups are called %d", g.ID)
		}
		ids[g.ID] = true
		for _, p := range g.Portals {
			if portals[p] {
				return nil, fmt.Errorf("portal %d is in two target port groups", p)
			}
			portals[p] = true
		}
		a.groups = append(a.groups, accessGroup{PortGroup: g})
	}
	if len(a.groups) == 0 {
		return nil, errors.New("ALUA without target port groups")
	}
	return a, nil
}

// validateALUA checks that each portal is in a group.
func (c *Config) validateALUA(luns []LUN) error {
	for _, l := range luns {
		if l.ALUA == nil {
			continue
		}
		for i := range c.Portals {
			if !slices.ContainsFunc(l.ALUA.Groups, func(g PortGroup) bool { return slices.Contains(g.Portals, i) }) {
				return fmt.Errorf("LUN %d: portal %d is in no target port group", l.Number, i)
			}
		}
	}
	return nil
}

// group finds a group by its number, nil if there is none.
func (a *alua) group(id uint16) *accessGroup {
	i := slices.IndexFunc(a.groups, func(g accessGroup) bool { return g.ID == id })
	if i < 0 {
		return nil
	}
	return &a.groups[i]
}

// of finds the group of a portal.
func (a *alua) of(portal int) *accessGroup {
	i := slices.IndexFunc(a.groups, func(g accessGroup) bool { return slices.Contains(g.Portals, portal) })
	if i < 0 {
		return nil
	}
	return &a.groups[i]
}

// tpgs is what INQUIRY shows.
func (u *lun) tpgs() uint8 {
	if u.alua == nil {
		return 0
	}
	return u.alua.cfg.TPGS
}

// lockedPortGroup is the target port group designator of a portal: the portal
// group where access is symmetric.
func (u *lun) lockedPortGroup(p *portal) uint32 {
	if u.alua != nil {
		if g := u.alua.of(p.index); g != nil {
			return uint32(g.ID)
		}
	}
	return uint32(p.cfg.TPGT)
}

// qualifier is the peripheral qualifier of INQUIRY data: the unit of a group that is unavailable
// is not connected there (SPC-4 §5.16.2.4.5).
func (u *lun) qualifier(p *portal) uint8 {
	if u.alua == nil {
		return scsi.QualifierConnected
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if g := u.alua.of(p.index); g != nil && g.State == scsi.AccessUnavailable {
		return scsi.QualifierNotConnected
	}
	return scsi.QualifierConnected
}

// judgeAccess refuses what the access state of the portal does not allow
// (SPC-4 §5.16.2.4).
func (u *lun) judgeAccess(p *portal, cmd *command) *result {
	if u.alua == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	g := u.alua.of(p.index)
	if g == nil || g.State.Usable() {
		return nil
	}
	asc := scsi.ASCALUAUnavailable
	allowed := cmd.flags & cmdUnavailable
	switch g.State {
	case scsi.AccessTransitioning:
		asc = scsi.ASCALUATransition
	case scsi.AccessStandby:
		asc = scsi.ASCALUAStandby
		allowed = cmd.flags & (cmdStandby | cmdUnavailable)
		if cmd.flags&cmdCapacity != 0 && !u.alua.cfg.NoCapacity {
			return nil
		}
	}
	if allowed != 0 {
		return nil
	}
	res := checkCondition(scsi.KeyNotReady, asc)
	return &res
}

// aluaCommands are the commands about target port groups.
func aluaCommands() []*command {
	const always = cmdAnyType | cmdNoMedium | cmdALUA | cmdUnavailable
	return []*command{
		{
			op: scsi.OpMaintenanceIn, sa: int(scsi.SAReportTargetPortGroups), flags: always, run: reportPortGroups,
			usage: scsi.CDB{0xa3, 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 11: 0x04},
		},
		{
			op: scsi.OpMaintenanceOut, sa: int(scsi.SASetTargetPortGroups), flags: always, run: setPortGroups, out: paramLen,
			usage: scsi.CDB{0xa4, 0x1f, 6: 0xff, 7: 0xff, 8: 0xff, 9: 0xff, 11: 0x04},
		},
	}
}

// reportPortGroups is REPORT TARGET PORT GROUPS (SPC-4 §6.37).
func reportPortGroups(x *execution) result {
	a := x.u.alua
	format := x.cdb[1] >> 5
	if format > 1 || format == 1 && a.cfg.NoExtendedHeader {
		return x.invalidField(1)
	}
	x.u.mu.Lock()
	defer x.u.mu.Unlock()
	list := scsi.PortGroups{TransitionSeconds: a.cfg.TransitionSeconds}
	for _, g := range a.groups {
		d := scsi.PortGroupState{
			Group: g.ID, State: g.State, Preferred: g.Preferred, Supported: supportedStates, Status: g.status,
		}
		for _, p := range g.Portals {
			d.Ports = append(d.Ports, uint16(p+1))
		}
		list.Groups = append(list.Groups, d)
	}
	b := list.AppendTo(nil, format == 1)
	if cut := a.cfg.shorter(); format == 1 && cut > 0 {
		b = b[:len(b)-cut]
		binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	}
	return x.cut(b)
}

// shorter is by how much a list with the extended header is cut.
func (a *ALUA) shorter() int {
	switch {
	case a.GarbledExtended:
		return 7
	case a.ShortExtended:
		return 4
	}
	return 0
}

// setPortGroups is SET TARGET PORT GROUPS (SPC-4 §6.45): every group named gets
// the state named; where one becomes optimized, those not named go to standby.
func setPortGroups(x *execution) result {
	a := x.u.alua
	if a.cfg.TPGS&scsi.TPGSExplicit == 0 {
		return x.invalidField(1)
	}
	invalid := checkCondition(scsi.KeyIllegalRequest, scsi.ASCInvalidFieldInParameters)
	wanted, err := scsi.ParseSetTargetPortGroups(x.data)
	if err != nil {
		return checkCondition(scsi.KeyIllegalRequest, scsi.ASCParameterListLength)
	}
	x.u.mu.Lock()
	states := make(map[uint16]scsi.AccessState)
	for _, w := range wanted {
		g := a.group(w.Group)
		if g == nil || w.State > scsi.AccessUnavailable && w.State != scsi.AccessOffline {
			x.u.mu.Unlock()
			return invalid
		}
		if w.State == scsi.AccessOptimized {
			for _, other := range a.groups {
				if _, named := states[other.ID]; !named {
					states[other.ID] = scsi.AccessStandby
				}
			}
		}
	}
	for _, w := range wanted {
		states[w.Group] = w.State
	}
	a.sets++
	x.u.mu.Unlock()
	for id, state := range states {
		x.s.t.turn(x.u, id, state, accessBySet, a.cfg.Transition, x.s)
	}
	return result{}
}

// turn changes the access state of a group, after it was transitioning for a while.
func (t *Target) turn(u *lun, id uint16, state scsi.AccessState, status uint8, during time.Duration, but *session) {
	u.mu.Lock()
	g := u.alua.group(id)
	g.turns++
	turns, now := g.turns, state
	if during > 0 && g.State != state {
		now = scsi.AccessTransitioning
	}
	changed := g.State != now
	g.State, g.status = now, status
	u.mu.Unlock()
	if changed && !u.alua.cfg.NoAttention {
		t.attention(u, scsi.ASCALUAStateChanged, but)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now == state || t.closed {
		return
	}
	t.wg.Go(func() {
		select {
		case <-t.done:
			return
		case <-time.After(during):
		}
		u.mu.Lock()
		overtaken := g.turns != turns
		u.mu.Unlock()
		if !overtaken {
			t.turn(u, id, state, status, 0, nil)
		}
	})
}

// aluaOf finds a LUN of the first target with a target port group.
func (t *Target) aluaOf(number, group uint16) (*lun, error) {
	u, err := t.findLUN("", number)
	switch {
	case err != nil:
		return nil, err
	case u.alua == nil:
		return nil, fmt.Errorf("iscsitest: LUN %d has no ALUA", number)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.alua.group(group) == nil {
		return nil, fmt.Errorf("iscsitest: LUN %d has no target port group %d", number, group)
	}
	return u, nil
}

// SetAccess changes the access state of a target port group of a LUN of the first
// target, as the target itself does, and reports UNIT ATTENTION 2A/06 to all
// sessions. With a time it is transitioning for so long before.
func (t *Target) SetAccess(number, group uint16, state scsi.AccessState, during time.Duration) error {
	u, err := t.aluaOf(number, group)
	if err != nil {
		return err
	}
	t.turn(u, group, state, accessByImplicit, during, nil)
	return nil
}

// SetPreferred sets the PREF bit of a target port group of a LUN of the first
// target, and reports UNIT ATTENTION 2A/06 to all sessions.
func (t *Target) SetPreferred(number, group uint16, preferred bool) error {
	u, err := t.aluaOf(number, group)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.alua.group(group).Preferred = preferred
	u.mu.Unlock()
	if !u.alua.cfg.NoAttention {
		t.attention(u, scsi.ASCALUAStateChanged, nil)
	}
	return nil
}

// Access is the access state of a target port group of a LUN of the first target.
func (t *Target) Access(number, group uint16) (scsi.AccessState, error) {
	u, err := t.aluaOf(number, group)
	if err != nil {
		return 0, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.alua.group(group).State, nil
}

// PortGroupSets is how many SET TARGET PORT GROUPS a LUN of the first target has
// carried out.
func (t *Target) PortGroupSets(number uint16) int {
	u, err := t.findLUN("", number)
	if err != nil || u.alua == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.alua.sets
}
