package mpio

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/iscsimp/iscsimp/internal/loop"
	"github.com/iscsimp/iscsimp/scsi"
	"github.com/iscsimp/iscsimp/session"
)

// Errors of a check that trying again soon cannot cure. They are in Event.Err
// of PathDown and PathQuarantined, wrapped with detail.
var (
	ErrNoSuchLUN  = errors.New("the target offers no such LUN")
	ErrController = errors.New("this LUN is the target's own controller, not a disk")
	ErrNotDisk    = errors.New("the unit is not a disk")
	ErrOtherUnit  = errors.New("the path leads to another unit")
	ErrBlockSize  = errors.New("the unit's block size cannot be used")
	// ErrLessIdentity: nothing contradicts, but the path does not show that its unit is the
	// device's, as it has to where that can be shown. It is checked again soon.
	ErrLessIdentity = errors.New("the unit shows less of its identity here")
)

// Bounds of a check.
const (
	checkBuffer   = 4096
	checkAlloc    = 252 // what SPC-2 units, with one byte for it, take as well
	maxAttentions = 16  // unit attentions and chance failures in one check
	checkPause    = 100 * time.Millisecond
	readyPause    = 500 * time.Millisecond
	recheckAfter  = 10 * time.Second // a failed check is repeated
)

// inspection is what a check found out.
type inspection struct {
	identity        scsi.Identity
	pages           []uint8
	limits          scsi.BlockLimits
	characteristics scsi.BlockCharacteristics
	provisioning    scsi.Provisioning
	writeProtected  bool
	dpofua          bool
	cacheOff        bool             // the unit says that its write cache is off
	tpgs            uint8            // see access
	absent          bool             // not connected here, as a port group says that is unavailable
	groups          *scsi.PortGroups // nil: not told
	refusal         scsi.ASC         // with which the access state kept the check from going on, 0: not
	quirks          Quirks
}

// checkStep is one command of a check and what to do with its answer.
type checkStep struct {
	name string
	page uint8 // VPD page that must be listed for the step, 0 = none
	cdb  func(alloc int) scsi.CDB
	size int // bytes asked for
	// parse takes the data. An error that wraps scsi.ErrShort asks for more.
	parse func(ins *inspection, data []byte) error
	// optional: an answer that cannot be used is as good as none.
	optional bool
}

func vpdStep(name string, page uint8, parse func(*inspection, []byte) error) checkStep {
	return checkStep{
		name: name, page: page, size: checkAlloc, optional: true, parse: parse,
		cdb: func(alloc int) scsi.CDB { return scsi.InquiryVPD(page, uint16(alloc)) },
	}
}

// Names of the steps that ask for target port groups: with the extended header,
// and if that gave nothing without.
const (
	stepPortGroups      = "REPORT TARGET PORT GROUPS, extended"
	stepPortGroupsPlain = "REPORT TARGET PORT GROUPS"
)

func portGroupsStep(name string, extended bool) checkStep {
	return checkStep{
		name: name, size: checkAlloc, optional: true,
		cdb: func(alloc int) scsi.CDB { return scsi.ReportTargetPortGroups(extended, uint32(alloc)) },
		parse: func(ins *inspection, b []byte) error {
			list, err := scsi.ParseTargetPortGroups(b)
			if err == nil {
				ins.groups = &list
			}
			return err
		},
	}
}

// Indices of steps that are treated specially.
const (
	stepInquiry = 0
	stepReady   = 6
)

// checkSteps is the whole check, in order.
var checkSteps = []checkStep{
	{
		name: "INQUIRY", size: 96, parse: parseInquiry,
		cdb: func(alloc int) scsi.CDB { return scsi.Inquiry(uint16(alloc)) },
	},
	{
		name: "INQUIRY VPD 00", size: checkAlloc, optional: true,
		cdb: func(alloc int) scsi.CDB { return scsi.InquiryVPD(scsi.VPDSupportedPages, uint16(alloc)) },
		parse: func(ins *inspection, b []byte) (err error) {
			ins.pages, err = scsi.ParseVPDPages(b)
			return err
		},
	},
	vpdStep("INQUIRY VPD 80", scsi.VPDSerial, func(ins *inspection, b []byte) (err error) {
		ins.identity.Serial, err = scsi.ParseSerial(b)
		return err
	}),
	vpdStep("INQUIRY VPD 83", scsi.VPDDesignators, func(ins *inspection, b []byte) (err error) {
		ins.identity.Designators, err = scsi.ParseDesignators(b)
		return err
	}),
	portGroupsStep(stepPortGroups, true),
	portGroupsStep(stepPortGroupsPlain, false),
	{name: "TEST UNIT READY", cdb: func(int) scsi.CDB { return scsi.TestUnitReady() }},
	vpdStep("INQUIRY VPD B0", scsi.VPDBlockLimits, func(ins *inspection, b []byte) (err error) {
		ins.limits, err = scsi.ParseBlockLimits(b)
		return err
	}),
	vpdStep("INQUIRY VPD B1", scsi.VPDBlockCharacteristics, func(ins *inspection, b []byte) (err error) {
		ins.characteristics, err = scsi.ParseBlockCharacteristics(b)
		return err
	}),
	vpdStep("INQUIRY VPD B2", scsi.VPDProvisioning, func(ins *inspection, b []byte) (err error) {
		ins.provisioning, err = scsi.ParseProvisioning(b)
		return err
	}),
	{
		name: "READ CAPACITY(16)", size: 32, optional: true,
		cdb: func(alloc int) scsi.CDB { return scsi.ReadCapacity16(uint32(alloc)) },
		parse: func(ins *inspection, b []byte) (err error) {
			ins.identity.Capacity, err = scsi.ParseReadCapacity16(b)
			return err
		},
	},
	{
		name: "READ CAPACITY(10)", size: 8, parse: parseCapacity10,
		cdb: func(int) scsi.CDB { return scsi.ReadCapacity10() },
	},
	{
		name: "MODE SENSE(6)", size: 192, optional: true,
		cdb: func(alloc int) scsi.CDB { return scsi.ModeSense6(0x3f, 0, true, uint8(alloc)) },
		parse: func(ins *inspection, b []byte) error {
			m, err := scsi.ParseModeSense6(b)
			ins.writeProtected, ins.dpofua = m.WriteProtected, m.DPOFUA
			caching, told := m.Caching()
			ins.cacheOff = told && !caching.WCE
			return err
		},
	},
}

// skip reports whether step i is not needed after what was found.
func (ins *inspection) skip(i int) bool {
	s := &checkSteps[i]
	if s.page != 0 {
		return !slices.Contains(ins.pages, s.page)
	}
	if s.name == stepPortGroups || s.name == stepPortGroupsPlain {
		return ins.tpgs == 0 || ins.groups != nil
	}
	return s.name == "READ CAPACITY(10)" && ins.identity.Capacity.Known()
}

func parseInquiry(ins *inspection, b []byte) error {
	q, err := scsi.ParseInquiry(b)
	if err != nil {
		return err
	}
	switch {
	case q.PeripheralQualifier == scsi.QualifierNotPossible, q.DeviceType == scsi.TypeUnknown,
		q.PeripheralQualifier == scsi.QualifierNotConnected && q.TPGS == 0:
		return ErrNoSuchLUN
	case q.DeviceType == scsi.TypeController:
		return ErrController
	case q.DeviceType != scsi.TypeDisk && q.DeviceType != scsi.TypeReduced && q.DeviceType != scsi.TypeOptical:
		return fmt.Errorf("%w: its device type is %#02x", ErrNotDisk, q.DeviceType)
	}
	id := &ins.identity
	id.DeviceType, id.Vendor, id.Product, id.Revision = q.DeviceType, q.Vendor, q.Product, q.Revision
	ins.tpgs = q.TPGS
	ins.absent = q.PeripheralQualifier == scsi.QualifierNotConnected
	ins.quirks = quirksOf(q.Vendor, q.Product, q.Revision)
	return nil
}

func parseCapacity10(ins *inspection, b []byte) error {
	c, err := scsi.ParseReadCapacity10(b)
	if err == nil && c.NeedsReadCapacity16() {
		return errors.New("the unit is larger than READ CAPACITY(10) can tell, and READ CAPACITY(16) failed")
	}
	ins.identity.Capacity = c
	return err
}

// check looks at what is behind a path: one command at a time, with time
// limits of its own. It is the Completer of its command.
type check struct {
	p      *path
	cmd    session.Command
	buf    []byte
	timer  loop.Timer
	onTime func() // what the timer is for

	running  bool
	busy     bool // the command is with the session
	restart  bool // begin anew once it is back
	step     int
	alloc    int
	troubles int
	began    int64
	found    inspection
}

func (c *check) init(p *path) {
	c.p = p
	c.buf = make([]byte, checkBuffer)
	c.cmd.Owner = c
	c.cmd.LUN = p.dev.cfg.LUN
	c.timer.Fn = func() {
		if c.onTime != nil {
			c.onTime()
		}
	}
}

// startCheck looks at the unit behind p, anew if that is already under way.
func (p *path) startCheck(string) {
	c := &p.check
	p.rsv.pending = ""
	p.looks++
	if !p.logged {
		return
	}
	p.failedCheck, p.partial = false, false
	if c.busy {
		c.restart = true
		return
	}
	c.begin()
}

// stopCheck ends a check whose session is gone, or a planned one.
func (p *path) stopCheck() {
	c := &p.check
	c.running, c.restart = false, false
	c.p.dev.loop.StopTimer(&c.timer)
	p.query.stop()
}

func (c *check) begin() {
	c.running, c.restart, c.step, c.troubles = true, false, 0, 0
	c.began = c.p.dev.loop.Now()
	c.found = inspection{}
	c.alloc = checkSteps[0].size
	c.send()
}

// after calls fn in a while, instead of whatever was planned.
func (c *check) after(pause time.Duration, fn func()) {
	c.onTime = fn
	c.p.dev.loop.SetTimer(&c.timer, c.p.dev.loop.Now()+int64(pause))
}

// send sends the command of the current step.
func (c *check) send() {
	s := &checkSteps[c.step]
	cmd := &c.cmd
	cmd.CDB = s.cdb(c.alloc)
	cmd.Err, cmd.Sense, cmd.Status, cmd.Received = nil, nil, scsi.Good, 0
	cmd.Dir, cmd.Data = session.DirNone, nil
	if c.alloc > 0 {
		cmd.Dir, cmd.Data = session.DirRead, c.buf[:c.alloc]
		clear(cmd.Data)
	}
	c.busy = true
	if !c.p.sess.Submit(cmd) {
		c.busy = false
		c.after(checkPause/2, c.send) // the command window is full
		return
	}
	c.after(c.p.dev.cfg.IdentifyTimeout, c.timedOut)
}

// timedOut gives up a session that does not even answer this.
func (c *check) timedOut() {
	c.p.sess.Drop(&session.Error{
		Kind: session.KindTimeout, Portal: c.p.cfg.Portal,
		Msg:  fmt.Sprintf("%s was not answered for %v", checkSteps[c.step].name, c.p.dev.cfg.IdentifyTimeout),
		Hint: "the target's storage may hang: see its log",
	})
}

// CommandDone implements session.Completer.
func (c *check) CommandDone(*session.Command) {
	c.busy = false
	d := c.p.dev
	d.loop.StopTimer(&c.timer)
	switch err := c.cmd.Err; {
	case err != nil && err.Kind != session.KindResponse:
		c.p.linkLost(err)
	case !c.running || !c.p.logged:
	case c.restart:
		c.begin()
	case err != nil:
		c.trouble(checkPause, err)
	default:
		c.answered()
	}
	d.kick()
}

// answered handles the target's answer to the current step.
func (c *check) answered() {
	s := &checkSteps[c.step]
	var sense scsi.Sense
	if c.cmd.Status == scsi.CheckCondition {
		sense, _ = scsi.ParseSense(c.cmd.Sense)
	}
	remedy := scsi.Classify(c.cmd.Status, sense)
	err := scsi.NewCommandError(c.cmd.CDB.Opcode(), c.cmd.Status, sense)
	switch {
	case remedy == scsi.RemedyNone:
		c.parse(s)
	case c.found.tpgs != 0 && isAccessRefusal(sense):
		// The port group answers no more than this now. What the unit is was asked
		// before; what is missing is asked once the group carries I/O.
		c.found.refusal = sense.Code
		c.next()
	case remedy == scsi.RetryHere && c.cmd.Status == scsi.CheckCondition:
		c.news(sense)
		c.trouble(0, err)
	case remedy == scsi.RetryHere, remedy == scsi.Wait:
		if c.p.dev.loop.Now()-c.began >= int64(c.p.dev.cfg.WaitTimeout) {
			c.fail(err)
			return
		}
		c.p.refresh("waiting for the unit: "+err.Error(), nil)
		c.after(readyPause, c.send)
	case sense.Key == scsi.KeyIllegalRequest && sense.Code>>8 == scsi.ASCLUNNotSupported>>8,
		sense.Key == scsi.KeyIllegalRequest && c.step == stepInquiry:
		c.fail(fmt.Errorf("%w: LUN %v: %w", ErrNoSuchLUN, c.p.dev.cfg.LUN, err))
	case s.optional, c.step == stepReady && c.cmd.Status == scsi.ReservationConflict:
		c.next()
	default:
		c.fail(err)
	}
}

// news handles a change that the target reports with a step. What was found
// before it may not hold any more, unless it is the greeting to a new session.
func (c *check) news(s scsi.Sense) {
	p := c.p
	greeting := !p.introduced && s.Code>>8 == scsi.ASCPowerOnOrReset>>8
	if s.Key == scsi.KeyUnitAttention {
		p.dev.attend(p, s.Code)
	}
	if isReservationNews(s) {
		p.dev.audit(p)
	}
	if greeting || !raisesDoubt(s, scsi.RetryHere) {
		return
	}
	if p.verified {
		p.verified = false
		p.refresh("the target reported: "+s.Code.String(), nil)
	}
	c.rewind()
}

// rewind goes back to the first step.
func (c *check) rewind() {
	c.step, c.found, c.alloc = stepInquiry, inspection{}, checkSteps[stepInquiry].size
}

// repeat begins a check anew that ended with answers which do not go together, as things
// changed meanwhile; it counts as trouble.
func (c *check) repeat(err error) {
	c.running = true
	c.rewind()
	c.trouble(checkPause, err)
}

// parse reads the data of the current step.
func (c *check) parse(s *checkStep) {
	if s.parse == nil {
		c.next()
		return
	}
	err := s.parse(&c.found, c.cmd.Data[:min(c.cmd.Received, len(c.cmd.Data))])
	if short, ok := errors.AsType[*scsi.FormatError](err); ok && errors.Is(err, scsi.ErrShort) &&
		short.Need > c.alloc && c.alloc < checkBuffer && s.size == checkAlloc {
		c.alloc = min(short.Need, checkBuffer)
		c.send()
		return
	}
	if err != nil && !s.optional {
		c.fail(err)
		return
	}
	c.next()
}

// trouble tries the step again, a bounded number of times.
func (c *check) trouble(pause time.Duration, err error) {
	if c.troubles++; c.troubles > maxAttentions {
		c.fail(err)
		return
	}
	if pause > 0 {
		c.after(pause, c.send)
		return
	}
	c.send()
}

// next goes on to the next step that is needed, or ends the check.
func (c *check) next() {
	for c.step++; c.step < len(checkSteps); c.step++ {
		if !c.found.skip(c.step) {
			c.alloc = checkSteps[c.step].size
			c.send()
			return
		}
	}
	c.running = false
	c.p.dev.identified(c.p, &c.found)
}

// fail ends the check; it is repeated in a while.
func (c *check) fail(err error) {
	c.running = false
	p := c.p
	if p.detour.via != "" {
		p.leaveDetour("nothing was learned")
		return
	}
	// What is in flight is not trusted, either: a path that was in use while it was
	// looked at may have turned out to lead elsewhere.
	p.verified, p.failedCheck = false, true
	p.fault()
	p.refresh(p.explain(err), err)
	c.after(recheckAfter, func() { p.startCheck("again") })
}

// explain adds what to do about it.
func (p *path) explain(err error) string {
	hint := ""
	switch {
	case errors.Is(err, ErrNoSuchLUN):
		hint = "; list what it offers with \"iscsimp luns\", and check the target's access list"
	case errors.Is(err, ErrController):
		hint = "; disks begin at LUN 1 there: list them with \"iscsimp luns\""
	case errors.Is(err, ErrNotDisk):
		hint = "; choose a disk: list the units with \"iscsimp luns\""
	case errors.Is(err, ErrLessIdentity):
		hint = "; its controller may still be starting, or the portal may lead to another unit"
	}
	return err.Error() + hint
}
