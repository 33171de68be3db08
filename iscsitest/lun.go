package iscsitest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/iscsimp/iscsimp/scsi"
)

// LUN describes a logical unit of a Target. The zero value is a thin
// provisioned disk of 64 MiB in memory with blocks of 512 bytes.
type LUN struct {
	// Number of the unit, 0..65535.
	Number uint16
	// Medium to store blocks on. Give the same to several LUNs, also of other
	// targets, to make them paths to one disk (with the same Serial). Default:
	// a new Memory of Size bytes.
	Medium Medium
	// Size in bytes of the default medium. Default 64 MiB.
	Size int64
	// BlockSize is the logical block size in bytes, a power of two from 512 to
	// 65536. Default 512.
	BlockSize uint32
	// PhysicalExponent: 2^this logical blocks make a physical block, 0..15.
	PhysicalExponent uint8
	// Serial is the unit serial number (VPD 0x80), and what the NAA designator
	// (VPD 0x83) is derived from. Default: derived from target name and number.
	Serial string
	// NAA is the NAA designator, 8 or 16 bytes. Default: derived from Serial.
	NAA []byte
	// NoDesignators leaves VPD 0x83 without any designator of the unit.
	NoDesignators bool
	// Vendor, Product, Revision of the INQUIRY data, at most 8, 16 and 4
	// characters. Defaults "ISCSIMP", "TEST DISK", "0001".
	Vendor, Product, Revision string
	// DeviceType is the peripheral device type; anything but a disk (0) answers
	// no command that addresses blocks.
	DeviceType uint8
	// ReadOnly refuses writes with DATA PROTECT.
	ReadOnly bool
	// NoUnmap makes the unit fully provisioned: no UNMAP, no WRITE SAME with
	// UNMAP.
	NoUnmap bool
	// NoWriteCache reports the write cache as off; each write is synced.
	NoWriteCache bool
	// PowerOnUA reports UNIT ATTENTION 29/00 to each new session.
	PowerOnUA bool
	// ALUA makes access asymmetric; nil: every portal is as good as any other.
	ALUA *ALUA
	// MaxTransfer is the most one READ or WRITE may move, in bytes. Default 16 MiB.
	MaxTransfer uint32
	// MaxUnmapBlocks of one UNMAP. Default 2^20.
	MaxUnmapBlocks uint32
	// MaxWriteSame blocks of one WRITE SAME. Default: as many as MaxTransfer is.
	MaxWriteSame uint32
	// Reservations are the persistent reservations of the unit. Give the same to
	// all LUNs that are paths to one disk. Default: its own.
	Reservations *Reservations
}

// maxUnmapDescriptors of one UNMAP.
const maxUnmapDescriptors = 256

// lun is a logical unit as one target shows it.
type lun struct {
	number   uint16
	cfg      LUN
	medium   Medium
	mayBlock bool // the medium is not plain memory
	alua     *alua

	reservations *Reservations

	// atomic is held for reading by what writes blocks and for writing by
	// COMPARE AND WRITE.
	atomic sync.RWMutex

	mu       sync.Mutex // guards everything below
	serial   string
	naa      []byte
	readOnly bool
	notReady scsi.ASC // cause if not 0
	swp      bool     // software write protect, by MODE SELECT

	powered     int                // how often PowerOn was called
	powersTold  map[*session]int   // ... when a session was told
	powersKnown map[sessionKey]int // ... when its nexus went on after that
	dsense      bool               // sense data in descriptor format, by MODE SELECT
}

func newLUN(cfg LUN, target string) (*lun, error) {
	orDefault(&cfg.BlockSize, 512)
	orDefault(&cfg.Size, 64<<20)
	orDefault(&cfg.Vendor, "ISCSIMP")
	orDefault(&cfg.Product, "TEST DISK")
	orDefault(&cfg.Revision, "0001")
	orDefault(&cfg.MaxTransfer, 16<<20)
	orDefault(&cfg.MaxUnmapBlocks, 1<<20)
	if cfg.Serial == "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", target, cfg.Number))
		cfg.Serial = hex.EncodeToString(sum[:8])
	}
	if b := cfg.BlockSize; b < 512 || b > 65536 || b&(b-1) != 0 {
		return nil, fmt.Errorf("block size %d is no power of two from 512 to 65536", b)
	}
	orDefault(&cfg.MaxWriteSame, cfg.MaxTransfer/cfg.BlockSize)
	if cfg.PhysicalExponent > 15 {
		return nil, fmt.Errorf("physical exponent %d is more than 15", cfg.PhysicalExponent)
	}
	if n := len(cfg.NAA); n != 0 && n != 8 && n != 16 {
		return nil, fmt.Errorf("NAA designator of %d bytes, must be 8 or 16", n)
	}
	if cfg.Medium == nil {
		cfg.Medium = NewMemory(cfg.Size)
	}
	if size := cfg.Medium.Size(); size < int64(cfg.BlockSize) {
		return nil, fmt.Errorf("medium of %d bytes is smaller than one block", size)
	}
	access, err := newALUA(cfg.ALUA)
	if err != nil {
		return nil, err
	}
	_, plain := cfg.Medium.(*Memory)
	if cfg.Reservations == nil {
		cfg.Reservations = &Reservations{}
	}
	u := &lun{
		number: cfg.Number, cfg: cfg, medium: cfg.Medium, mayBlock: !plain, alua: access, readOnly: cfg.ReadOnly,
		reservations: cfg.Reservations,
	}
	u.lockedIdentify(cfg.Serial, cfg.NAA)
	return u, nil
}

// lockedIdentify sets the identity of the unit. The default NAA designator is of
// type 3, locally assigned (SPC-4 §7.8.6.6.4).
func (u *lun) lockedIdentify(serial string, naa []byte) {
	u.serial, u.naa = serial, naa
	if len(naa) == 0 {
		sum := sha256.Sum256([]byte(serial))
		u.naa = sum[:8]
		u.naa[0] = 0x30 | u.naa[0]&0x0f
	}
}

// blocks is the capacity in blocks.
func (u *lun) blocks() uint64 { return uint64(u.medium.Size()) / uint64(u.cfg.BlockSize) }

func (u *lun) bytes(blocks uint64) int64 { return int64(blocks * uint64(u.cfg.BlockSize)) }

// writeProtect says why the unit cannot be written, 0 if it can.
func (u *lun) writeProtect() scsi.ASC {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.swp:
		return scsi.ASCSoftwareWriteProtect
	case u.readOnly:
		return scsi.ASCWriteProtected
	}
	return 0
}

// formatSense turns sense data into descriptor format if the initiators asked
// for that (D_SENSE bit of the control mode page).
func (u *lun) formatSense(sense []byte) []byte {
	u.mu.Lock()
	descriptor := u.dsense
	u.mu.Unlock()
	if s, ok := scsi.ParseSense(sense); ok && descriptor {
		return s.AppendDescriptor(nil)
	}
	return sense
}

// capacity is the answer of READ CAPACITY.
func (u *lun) capacity() scsi.Capacity {
	return scsi.Capacity{
		LastLBA: u.blocks() - 1, BlockSize: u.cfg.BlockSize,
		PhysicalPerLogicalExp: u.cfg.PhysicalExponent,
		LBPME:                 !u.cfg.NoUnmap, LBPRZ: !u.cfg.NoUnmap,
	}
}

// designators is the list of VPD 0x83: what the unit is, and where it was asked.
func (u *lun) designators(target string, p *portal) []scsi.Designator {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []scsi.Designator
	if !u.cfg.NoDesignators {
		t10 := fmt.Sprintf("%-8.8s%s", u.cfg.Vendor, u.serial)
		list = append(list,
			scsi.Designator{CodeSet: scsi.CodeSetBinary, Type: scsi.DesignatorNAA, ID: u.naa},
			scsi.Designator{CodeSet: scsi.CodeSetASCII, Type: scsi.DesignatorT10, ID: []byte(t10)})
	}
	port := scsi.Designator{ProtocolID: 5, PIV: true, Association: scsi.AssociationPort}
	relative, group, name := port, port, port
	relative.CodeSet, relative.Type = scsi.CodeSetBinary, scsi.DesignatorRelativePort
	relative.ID = binary.BigEndian.AppendUint32(nil, uint32(p.index+1))
	group.CodeSet, group.Type = scsi.CodeSetBinary, scsi.DesignatorPortGroup
	group.ID = binary.BigEndian.AppendUint32(nil, u.lockedPortGroup(p))
	name.CodeSet, name.Type = scsi.CodeSetUTF8, scsi.DesignatorName
	name.ID = padName(fmt.Sprintf("%s,t,0x%04x", target, p.cfg.TPGT))
	device := scsi.Designator{
		ProtocolID: 5, PIV: true, Association: scsi.AssociationDevice,
		CodeSet: scsi.CodeSetUTF8, Type: scsi.DesignatorName, ID: padName(target),
	}
	return append(list, relative, group, name, device)
}

// padName ends a SCSI name string as SPC-4 §7.8.6.11 wants: with 1 to 4 NULs, to
// a multiple of four.
func padName(s string) []byte { return append([]byte(s), make([]byte, 4-len(s)%4)...) }

// findLUN returns the unit of the target named; an empty name is the first target.
func (t *Target) findLUN(target string, number uint16) (*lun, error) {
	if target == "" {
		target = t.cfg.Name
	}
	n := t.node(target)
	if n == nil {
		return nil, fmt.Errorf("iscsitest: no target %s", target)
	}
	u := n.lun(number)
	if u == nil {
		return nil, fmt.Errorf("iscsitest: target %s has no LUN %d", target, number)
	}
	return u, nil
}

// SetSize changes the capacity of a LUN of the first target, in bytes, and tells
// all sessions by UNIT ATTENTION 2A/09. The medium must be a Resizer.
func (t *Target) SetSize(number uint16, size int64) error {
	u, err := t.findLUN("", number)
	if err != nil {
		return err
	}
	r, ok := u.medium.(Resizer)
	if !ok {
		return errors.New("iscsitest: the medium cannot change its size")
	}
	if size < int64(u.cfg.BlockSize) {
		return fmt.Errorf("iscsitest: size %d is smaller than one block", size)
	}
	if err := r.Resize(size); err != nil {
		return err
	}
	t.attention(u, scsi.ASCCapacityChanged, nil)
	return nil
}

// SetSerial gives a LUN of the first target another identity, as if another disk
// had been mapped to its number, and tells all sessions by UNIT ATTENTION 3F/03.
func (t *Target) SetSerial(number uint16, serial string) error {
	u, err := t.findLUN("", number)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.lockedIdentify(serial, nil)
	u.mu.Unlock()
	t.attention(u, scsi.ASCInquiryDataChanged, nil)
	return nil
}

// SetReadOnly makes a LUN of the first target refuse or take writes.
func (t *Target) SetReadOnly(number uint16, readOnly bool) error {
	u, err := t.findLUN("", number)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.readOnly = readOnly
	return nil
}

// SetNotReady makes a LUN of the first target answer commands that need its
// medium with NOT READY and the cause; 0 makes it ready again.
func (t *Target) SetNotReady(number uint16, cause scsi.ASC) error {
	u, err := t.findLUN("", number)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.notReady = cause
	return nil
}

// UnitAttention makes a LUN of the first target report a UNIT ATTENTION once to
// each session that exists now.
func (t *Target) UnitAttention(number uint16, asc scsi.ASC) error {
	u, err := t.findLUN("", number)
	if err != nil {
		return err
	}
	t.attention(u, asc, nil)
	return nil
}

// PowerOn makes a LUN of the first target report UNIT ATTENTION 29/01 once to each I_T
// nexus, that is to sessions that exist now and to those that are made later, as after a
// loss of power. A nexus whose session ends before it sends another command is told again.
// What the medium lost by it is its own business.
func (t *Target) PowerOn(number uint16) error {
	u, err := t.findLUN("", number)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.powered++
	return nil
}

// tellPower reports whether a session has to be told of a power on, which it is by that.
func (u *lun) tellPower(s *session) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.powersKnown[s.key] == u.powered:
		return false
	case u.powersTold[s] == u.powered: // it has heard it, since it goes on
		u.powersKnown[s.key] = u.powered
		delete(u.powersTold, s)
		return false
	}
	if u.powersTold == nil {
		u.powersTold, u.powersKnown = map[*session]int{}, map[sessionKey]int{}
	}
	u.powersTold[s] = u.powered
	return true
}

// Medium is what a LUN of the first target stores its blocks on, nil if there is
// no such LUN.
func (t *Target) Medium(number uint16) Medium {
	u, err := t.findLUN("", number)
	if err != nil {
		return nil
	}
	return u.medium
}

// attention queues a UNIT ATTENTION in all sessions to the unit but one.
func (t *Target) attention(u *lun, asc scsi.ASC, but *session) {
	t.mu.Lock()
	sessions := t.lockedSessions()
	t.mu.Unlock()
	for _, s := range sessions {
		if s == but || s.node == nil || s.discovery || s.node.lun(u.number) != u {
			continue
		}
		s.attend(u, asc)
	}
}

// attend queues a UNIT ATTENTION; one that waits already is not repeated.
func (s *session) attend(u *lun, asc scsi.ASC) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.ua[u], asc) {
		s.ua[u] = append(s.ua[u], asc)
	}
}

// takeAttention returns the oldest UNIT ATTENTION of the unit not reported yet.
func (s *session) takeAttention(u *lun) (scsi.ASC, bool) {
	if u.tellPower(s) {
		return scsi.ASCPowerOn, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.ua[u]
	if len(list) == 0 {
		return 0, false
	}
	s.ua[u] = list[1:]
	return list[0], true
}
