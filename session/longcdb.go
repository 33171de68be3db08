package session

import "github.com/iscsimp/iscsimp/pdu"

// maxCDB is the longest CDB there is (SPC-4 §4.2.3).
const maxCDB = 260

// both sets the task of a bidirectional command up; a direction without data is none.
func (t *task) both(c *Command) {
	t.inLen = uint32(len(c.In))
	t.read, t.write = t.inLen > 0, t.length > 0
	if !t.write {
		t.length = t.inLen
	}
}

// headers gives the additional header segments of a command, and sets the CDB and
// their length in p (RFC 7143 §11.2.2). Few commands have any: the hot path does
// not come here.
func (t *task) headers(p *pdu.SCSICommand) (ahs []byte) {
	if long := t.cmd.Long; long != nil {
		clear(p.CDB[:])
		if n := copy(p.CDB[:], long); n < len(long) { // not for up to 16 bytes (§11.2.2.3)
			ahs = pdu.AppendExtendedCDB(ahs, long[n:])
		}
	}
	if t.read && t.write {
		ahs = pdu.AppendBidiReadLen(ahs, t.inLen)
	}
	p.AHSLen = len(ahs)
	return ahs
}
