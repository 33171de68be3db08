package iscsitest

import (
	"slices"

	"github.com/iscsimp/iscsimp/scsi"
)

// execution is one command on its way through a logical unit.
type execution struct {
	u    *lun
	s    *session
	task *task
	cdb  scsi.CDB
	data []byte // Data-Out
}

// command describes one SCSI command of a LUN.
type command struct {
	op    scsi.Opcode
	sa    int // service action, -1 if the opcode has none
	flags commandFlags
	run   func(x *execution) result
	// out is the length of the data the command takes, in bytes; nil: none.
	out func(u *lun, c scsi.CDB) uint64
	// usage marks the bits of the CDB that mean something, for REPORT SUPPORTED
	// OPERATION CODES (SPC-4 §6.35.3).
	usage scsi.CDB
}

type commandFlags uint16

const (
	cmdDespiteUA   commandFlags = 1 << iota // is carried out while a UNIT ATTENTION is pending
	cmdAnyType                              // also of units that are no disks
	cmdNoMedium                             // also while not ready
	cmdWrites                               // refused if write protected
	cmdBlocks                               // LBA and blocks must be inside the unit
	cmdTransfer                             // moves the blocks: the transfer limit holds
	cmdProtect                              // has RDPROTECT or WRPROTECT, which must be 0
	cmdStandby                              // carried out by a port group in standby, too
	cmdUnavailable                          // ... and by one that is unavailable or in transition
	cmdCapacity                             // READ CAPACITY: see ALUA.NoCapacity
	cmdALUA                                 // there only with ALUA
	cmdExact                                // the initiator must announce just the data the command takes
)

// commandKey finds a command: opcode and service action + 1.
func commandKey(op scsi.Opcode, sa int) uint16 { return uint16(op)<<8 | uint16(sa+1) }

var commandTable = make(map[uint16]*command)

var commandList []*command

func init() {
	// Not a variable initialiser: REPORT SUPPORTED OPERATION CODES looks into
	// the table it is part of.
	commandList = slices.Concat(infoCommands(), aluaCommands(), reserveCommands(), blockCommands())
	for _, c := range commandList {
		commandTable[commandKey(c.op, c.sa)] = c
	}
}

// opcodesWithAction are the opcodes in commandList that have service actions.
var opcodesWithAction = map[scsi.Opcode]bool{
	scsi.OpServiceActionIn16: true, scsi.OpMaintenanceIn: true, scsi.OpMaintenanceOut: true,
	scsi.OpPersistentReserveIn: true, scsi.OpPersistentReserveOut: true,
}

func findCommand(c scsi.CDB) (cmd *command, knownOpcode bool) {
	if opcodesWithAction[c.Opcode()] {
		return commandTable[commandKey(c.Opcode(), int(c.ServiceAction()))], true
	}
	cmd = commandTable[commandKey(c.Opcode(), -1)]
	return cmd, cmd != nil
}

// dataOutLen is how many bytes of data a command takes; 0 if it will fail anyway.
func (u *lun) dataOutLen(c scsi.CDB) uint64 {
	cmd, _ := findCommand(c)
	if cmd == nil || cmd.out == nil {
		return 0
	}
	n := cmd.out(u, c)
	if n > uint64(u.cfg.MaxTransfer) {
		return 0
	}
	return n
}

func illegal(asc scsi.ASC) *result {
	res := checkCondition(scsi.KeyIllegalRequest, asc)
	return &res
}

// judge returns the result of a command that cannot be carried out, else nil.
func (s *session) judge(t *task) *result {
	cdb := t.cdb
	cmd, knownOpcode := findCommand(cdb)
	if t.lun == nil {
		switch cdb.Opcode() {
		case scsi.OpInquiry, scsi.OpReportLuns, scsi.OpRequestSense:
			return nil
		}
		return illegal(scsi.ASCLUNNotSupported)
	}
	if cmd == nil || cmd.flags&cmdDespiteUA == 0 {
		if asc, ok := s.takeAttention(t.lun); ok {
			res := checkCondition(scsi.KeyUnitAttention, asc)
			return &res
		}
	}
	switch {
	case cmd == nil && knownOpcode, cmd != nil && !t.lun.has(cmd):
		return invalidField(1)
	case cmd == nil:
		return illegal(scsi.ASCInvalidOpcode)
	case cmd.flags&cmdAnyType == 0 && t.lun.cfg.DeviceType != scsi.TypeDisk:
		return illegal(scsi.ASCInvalidOpcode)
	case t.lun.reservations.conflicts(s.key, cmd):
		return &result{status: scsi.ReservationConflict}
	}
	if res := t.lun.judgeAccess(t.c.portal, cmd); res != nil {
		return res
	}
	if res := t.lun.judge(cmd, cdb); res != nil {
		return res
	}
	if cmd.flags&cmdExact != 0 && uint64(t.edtl) != cmd.out(t.lun, cdb) {
		return illegal(scsi.ASCInvalidFieldInCDB)
	}
	return nil
}

// has reports whether the unit has the command.
func (u *lun) has(cmd *command) bool { return cmd.flags&cmdALUA == 0 || u.alua != nil }

// judge checks what the CDB asks for against the state of the unit.
func (u *lun) judge(cmd *command, cdb scsi.CDB) *result {
	u.mu.Lock()
	cause := u.notReady
	u.mu.Unlock()
	if cause != 0 && cmd.flags&cmdNoMedium == 0 {
		res := checkCondition(scsi.KeyNotReady, cause)
		return &res
	}
	if cmd.flags&cmdProtect != 0 && cdb[1]&0xe0 != 0 {
		return invalidField(1) // there is no protection information
	}
	if cmd.flags&cmdBlocks != 0 {
		total, lba, n := u.blocks(), cdb.LBA(), uint64(cdb.Blocks())
		if lba > total || n > total-lba || (lba == total && n > 0) {
			return illegal(scsi.ASCLBAOutOfRange)
		}
	}
	if cmd.flags&cmdTransfer != 0 {
		if uint64(cdb.Blocks())*uint64(u.cfg.BlockSize) > uint64(u.cfg.MaxTransfer) {
			return invalidField(10)
		}
	}
	if cmd.flags&cmdWrites != 0 {
		if asc := u.writeProtect(); asc != 0 {
			res := checkCondition(scsi.KeyDataProtect, asc)
			return &res
		}
	}
	return nil
}

// work carries a command out. judge has let it pass.
func (s *session) work(t *task) result {
	x := &execution{u: t.lun, s: s, task: t, cdb: t.cdb, data: t.buf}
	cmd, _ := findCommand(x.cdb)
	if cmd.out != nil {
		want := cmd.out(t.lun, x.cdb)
		run := cmd.run
		if t.exchange {
			run = func(x *execution) result { return x.exchanged(cmd.run) }
		}
		res := run(x)
		if res.status == scsi.Good && res.moved == 0 {
			res.moved = uint32(want)
		}
		return res
	}
	return cmd.run(x)
}
