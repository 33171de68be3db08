package scsi

// Remedy is what the sender of a command can do about its answer.
//
// A remedy is about one answer. The caller bounds how often it follows it: a
// command that got OtherPath on every path, or RetryHere or Wait past its
// deadline, has failed.
type Remedy uint8

// The remedies.
const (
	// RemedyNone: the command succeeded.
	RemedyNone Remedy = iota
	// RetryHere: send it again on the same path; at once after a CHECK CONDITION,
	// after a back-off for BUSY, TASK SET FULL and ACA ACTIVE. First look whether
	// Sense.IdentityMayHaveChanged.
	RetryHere
	// OtherPath: this path (port, controller, cable) cannot serve it now, another may.
	OtherPath
	// Wait: the unit is changing state; send it again in a second or so, here or
	// on a path whose port group is active.
	Wait
	// GiveUp: the answer would be the same on every path; report the error.
	GiveUp
)

// String is the remedy in words.
func (r Remedy) String() string {
	switch r {
	case RemedyNone:
		return "none"
	case RetryHere:
		return "retry here"
	case OtherPath:
		return "other path"
	case Wait:
		return "wait"
	case GiveUp:
		return "give up"
	}
	return "remedy?"
}

// Classify says what an answer asks for. Sense counts only with CHECK
// CONDITION: some targets send stray sense data along with GOOD. It allocates nothing.
func Classify(st Status, s Sense) Remedy {
	r, _ := Explain(st, s)
	return r
}

// Explain is Classify with the reason in words, for logs. It allocates nothing.
func Explain(st Status, s Sense) (Remedy, string) {
	switch st {
	case Good, ConditionMet:
		return RemedyNone, "success"
	case CheckCondition:
		return explainSense(s)
	case Busy:
		return RetryHere, "the target is busy"
	case TaskSetFull:
		return RetryHere, "the target's queue is full"
	case ACAActive:
		return RetryHere, "another command's error blocks the unit until it is cleared"
	case TaskAborted:
		return RetryHere, "another initiator aborted the command"
	case ReservationConflict:
		return GiveUp, "another host holds a reservation"
	}
	return GiveUp, "unknown status"
}

// explainSense looks sense up in senseRules, the most exact rule first.
func explainSense(s Sense) (Remedy, string) {
	switch {
	case s.IsZero():
		// It could be anything. The answer itself came through, so the path works.
		return RetryHere, "the target gave no reason"
	case s.LostEarlierWrite():
		return GiveUp, "an earlier write that was already answered is lost"
	case s.Deferred:
		// A command that ends with a deferred error was not executed (SPC-4).
		return RetryHere, "the news is about an earlier command, this one was not executed"
	}
	best, found := senseRule{}, -1
	for i := range senseRules {
		r := &senseRules[i]
		if r.key == s.Key && s.Code&r.mask == r.code && int(r.mask) > found {
			best, found = *r, int(r.mask)
		}
	}
	if found < 0 {
		return GiveUp, "unknown sense key"
	}
	return best.remedy, best.why
}

// senseRule is one row of senseRules: it holds for sense data of that key whose
// code equals code in the bits of mask.
type senseRule struct {
	key    SenseKey
	mask   ASC
	code   ASC
	remedy Remedy
	why    string
}

// The three widths of a rule.
const (
	exactly  ASC = 0xffff // code and qualifier
	anyASCQ  ASC = 0xff00 // any qualifier
	anySense ASC = 0x0000 // the key's default
)

// senseRules says what each kind of sense data asks for. Among the rules that
// hold, the one with the widest mask counts; the order is for the reader.
var senseRules = []senseRule{
	// The command did its work.
	{KeyRecoveredError, anySense, 0, RemedyNone, "the target recovered from an error, the command succeeded"},
	{KeyCompleted, anySense, 0, RemedyNone, "the command completed"},

	// Nothing is known to be wrong with unit or path; how much data moved is unknown.
	{KeyNoSense, anySense, 0, RetryHere, "the target gave no reason"},

	// Not ready: states that pass by themselves are waited for. Anything else
	// belongs to the controller that said it: passive controllers of older arrays
	// answer 04/02 or 04/03 while the other one serves the unit.
	{KeyNotReady, anySense, 0, OtherPath, "the unit is not ready on this path"},
	{KeyNotReady, exactly, 0x0401, Wait, "the unit is becoming ready"},
	{KeyNotReady, exactly, 0x0404, Wait, "the unit is being formatted"},
	{KeyNotReady, exactly, 0x0405, Wait, "the unit is being rebuilt"},
	{KeyNotReady, exactly, 0x0406, Wait, "the unit is recalculating"},
	{KeyNotReady, exactly, 0x0407, Wait, "an operation is in progress"},
	{KeyNotReady, exactly, 0x0408, Wait, "a long write is in progress"},
	{KeyNotReady, exactly, 0x0409, Wait, "a self-test is in progress"},
	{KeyNotReady, exactly, 0x040a, Wait, "the port group is in transition"},
	{KeyNotReady, exactly, 0x040b, OtherPath, "the port group is in standby"},
	{KeyNotReady, exactly, 0x040c, OtherPath, "the port group is unavailable"},
	{KeyNotReady, exactly, 0x0411, Wait, "the unit waits for leave to spin up"},
	{KeyNotReady, exactly, 0x0413, Wait, "a security association is being created"},
	{KeyNotReady, exactly, 0x0414, Wait, "space is being allocated"},
	{KeyNotReady, exactly, 0x041a, Wait, "the unit is starting or stopping"},
	{KeyNotReady, exactly, 0x041b, Wait, "the unit is being sanitized"},
	{KeyNotReady, exactly, 0x041c, Wait, "the unit waits for power"},
	{KeyNotReady, exactly, 0x041d, Wait, "the unit is being configured"},
	{KeyNotReady, exactly, 0x0424, Wait, "the unit is being depopulated"},
	{KeyNotReady, exactly, 0x0425, Wait, "the unit's depopulation is being undone"},
	{KeyNotReady, exactly, 0x3e00, Wait, "the unit has not configured itself yet"},
	{KeyNotReady, anyASCQ, 0x3a00, GiveUp, "the unit has no medium"},
	{KeyNotReady, anyASCQ, 0x3100, GiveUp, "the medium's format is corrupted"},

	// The medium is the same behind every path.
	{KeyMediumError, anySense, 0, GiveUp, "the medium is damaged"},
	{KeyBlankCheck, anySense, 0, GiveUp, "the blocks were never written"},
	{KeyMiscompare, anySense, 0, GiveUp, "the data differ"},
	{KeyVolumeOverflow, anySense, 0, GiveUp, "the end of the medium was passed"},

	// Broken hardware may be one controller of two; only faults of the medium
	// itself are the same everywhere.
	{KeyHardwareError, anySense, 0, OtherPath, "hardware of this path failed"},
	{KeyHardwareError, anyASCQ, 0x0300, GiveUp, "the medium cannot be written"},
	{KeyHardwareError, anyASCQ, 0x0c00, GiveUp, "the medium cannot be written"},
	{KeyHardwareError, anyASCQ, 0x1100, GiveUp, "the medium cannot be read"},
	{KeyHardwareError, anyASCQ, 0x1900, GiveUp, "the medium's defect list is broken"},
	{KeyHardwareError, anyASCQ, 0x3200, GiveUp, "the medium has no spare blocks left"},
	{KeyHardwareError, anyASCQ, 0x6900, GiveUp, "the unit lost data"},

	// The command is wrong, on every path; but a LUN may be absent from one port
	// and offered by another.
	{KeyIllegalRequest, anySense, 0, GiveUp, "the target does not accept this command"},
	{KeyIllegalRequest, anyASCQ, 0x2500, OtherPath, "the unit is not offered on this path"},
	{KeyIllegalRequest, exactly, 0x040b, OtherPath, "the port group is in standby"},
	{KeyIllegalRequest, exactly, 0x040c, OtherPath, "the port group is unavailable"},
	{KeyIllegalRequest, exactly, 0x9401, OtherPath, "the other controller owns the unit"}, // RDAC arrays

	// Unit attention: news about the past; this command was not executed (SAM-5).
	{KeyUnitAttention, anySense, 0, RetryHere, "the unit reported a change, the command was not executed"},
	{KeyUnitAttention, anyASCQ, 0x2900, RetryHere, "the unit or the session was reset, the command was not executed"},
	{KeyUnitAttention, exactly, 0x040a, Wait, "the port group is in transition"},
	{KeyUnitAttention, exactly, 0x040b, OtherPath, "the port group is in standby"},
	{KeyUnitAttention, exactly, 0x040c, OtherPath, "the port group is unavailable"},

	// Protection, full pools included, is the unit's.
	{KeyDataProtect, anySense, 0, GiveUp, "the unit is protected"},
	{KeyDataProtect, anyASCQ, 0x2700, GiveUp, "the unit is write protected"},
	{KeyDataProtect, exactly, 0x2707, GiveUp, "the target has no space left for the unit"},

	{KeyVendorSpecific, anySense, 0, GiveUp, "vendor specific error"},
	{KeyCopyAborted, anySense, 0, GiveUp, "the copy was aborted"},

	// Aborted command: usually chance, worth another try here. Where the data was
	// damaged on its way the path itself is suspect: the same cable would damage
	// the next try too, and if not, the other path does no worse.
	{KeyAbortedCommand, anySense, 0, RetryHere, "the target aborted the command"},
	{KeyAbortedCommand, anyASCQ, 0x0800, OtherPath, "the target lost contact with the unit"},
	{KeyAbortedCommand, exactly, 0x040a, Wait, "the port group is in transition"},
	{KeyAbortedCommand, exactly, 0x040b, OtherPath, "the port group is in standby"},
	{KeyAbortedCommand, exactly, 0x040c, OtherPath, "the port group is unavailable"},
	{KeyAbortedCommand, anyASCQ, 0x0e00, OtherPath, "the command was damaged on its way"},
	{KeyAbortedCommand, anyASCQ, 0x1000, GiveUp, "the protection information does not match the data"},
	{KeyAbortedCommand, exactly, 0x1113, OtherPath, "the target could not send the data again"},
	{KeyAbortedCommand, anyASCQ, 0x4100, OtherPath, "the data path failed"},
	{KeyAbortedCommand, anyASCQ, 0x4300, OtherPath, "a message was damaged on its way"},
	{KeyAbortedCommand, anyASCQ, 0x4400, OtherPath, "the controller failed"},
	{KeyAbortedCommand, anyASCQ, 0x4500, OtherPath, "the target could not reach the unit"},
	{KeyAbortedCommand, anyASCQ, 0x4700, OtherPath, "the data was damaged on its way"},
	{KeyAbortedCommand, exactly, 0x477f, RetryHere, "commands were cleared by an event of the session"},
	{KeyAbortedCommand, anyASCQ, 0x4800, OtherPath, "a message was damaged on its way"},
	{KeyAbortedCommand, anyASCQ, 0x4900, OtherPath, "a message was damaged on its way"},
	{KeyAbortedCommand, anyASCQ, 0x4a00, OtherPath, "the transport lost step"},
	{KeyAbortedCommand, anyASCQ, 0x4b00, OtherPath, "the data transfer failed"},
}
