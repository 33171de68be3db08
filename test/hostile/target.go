package hostile

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"

	"github.com/iscsimp/iscsimp/pdu"
)

// unit is the size that every honest piece of data is a multiple of; a piece at any other offset is a lie.
const unit = 512

// target serves one connection with well-framed PDUs that are honest, slightly wrong or random. Whatever it says, the data it sends for a place on the disk are
// those of that place, unless the PDU is one that an initiator must see through: so that every wrong byte that reaches a caller is the initiator's fault.
type target struct {
	conn    net.Conn
	rng     *rand.Rand
	digests pdu.Digests
	lies    int // one PDU in this many is a lie

	mu       sync.Mutex
	statSN   uint32
	expCmdSN uint32
	tasks    map[uint32]*task
	wake     chan struct{}
	gone     bool
}

// task is a command that was received and may be answered.
type task struct {
	itt, edtl, dataSN, next uint32
	lba                     uint64
	read                    bool
}

// serve plays one connection to its end and returns how many PDUs were sent.
func (t *target) serve() (sent int) {
	defer t.conn.Close()
	t.tasks, t.wake = map[uint32]*task{}, make(chan struct{}, 1)
	if !t.login() {
		return 1
	}
	var reader sync.WaitGroup
	reader.Go(t.read)
	for limit := t.rng.IntN(400); sent < limit; sent++ {
		out := t.next()
		if out == nil {
			break
		}
		if _, err := t.conn.Write(out); err != nil {
			break
		}
	}
	_ = t.conn.Close()
	reader.Wait()
	return sent
}

// limits are generous: what initiators send is not judged here.
var limits = pdu.Limits{MaxAHS: pdu.MaxAHSLen, MaxData: 1 << 20}

// login answers until the full-feature phase; most logins are let through, so that the rest is reached.
func (t *target) login() bool {
	honest := t.rng.IntN(4) != 0
	for range 10 {
		in, err := pdu.ReadPDU(t.conn, nil, pdu.Digests{}, limits)
		if err != nil || in.BHS.Opcode() != pdu.OpLogin {
			return false
		}
		request := pdu.LoginView(in.BHS).Decode()
		answer := pdu.LoginResponse{
			Transit: request.Transit, CSG: request.CSG, NSG: request.NSG, ISID: request.ISID, ITT: request.ITT, StatSN: t.statSN,
			ExpCmdSN: request.CmdSN, MaxCmdSN: request.CmdSN + 64,
		}
		t.statSN++
		t.expCmdSN = request.CmdSN
		text := t.keys(request.CSG)
		last := request.Transit && request.NSG == pdu.StageFullFeature
		if last {
			answer.TSIH = uint16(t.rng.IntN(3) + 1)
		}
		if !honest && t.rng.IntN(2) == 0 {
			text = t.spoilLogin(&answer, text)
			last = false
		}
		if _, err := t.conn.Write(pdu.AppendPDU(nil, answer.AppendTo(nil), nil, text, pdu.Digests{})); err != nil {
			return false
		}
		if last {
			return true
		}
	}
	return false
}

func (t *target) keys(stage pdu.Stage) []byte {
	if stage == pdu.StageSecurity {
		return pdu.AppendKey(pdu.AppendKey(nil, "AuthMethod", "None"), "TargetPortalGroupTag", "1")
	}
	digest := func(on bool) string {
		if on {
			return "CRC32C"
		}
		return "None"
	}
	var text []byte
	for _, key := range [][2]string{
		{"HeaderDigest", digest(t.digests.Header)},
		{"DataDigest", digest(t.digests.Data)},
		{"MaxRecvDataSegmentLength", "8192"},
		{"InitialR2T", "Yes"},
		{"ImmediateData", "Yes"},
		{"MaxBurstLength", "65536"},
		{"FirstBurstLength", "8192"},
		{"MaxOutstandingR2T", "1"},
		{"MaxConnections", "1"},
		{"ErrorRecoveryLevel", "0"},
		{"DataPDUInOrder", "Yes"},
		{"DataSequenceInOrder", "Yes"},
		{"DefaultTime2Wait", "0"},
		{"DefaultTime2Retain", "0"},
	} {
		text = pdu.AppendKey(text, key[0], key[1])
	}
	return text
}

// spoilLogin makes a login response wrong in one way and returns its text.
func (t *target) spoilLogin(answer *pdu.LoginResponse, text []byte) []byte {
	switch t.rng.IntN(8) {
	case 0:
		answer.StatusClass, answer.StatusDetail = uint8(t.rng.IntN(5)), uint8(t.rng.IntN(16))
	case 1:
		answer.ITT ^= 1 << t.rng.IntN(32)
	case 2:
		answer.CSG, answer.NSG = pdu.Stage(t.rng.IntN(4)), pdu.Stage(t.rng.IntN(4))
	case 3:
		answer.Transit, answer.Continue = t.rng.IntN(2) == 0, t.rng.IntN(2) == 0
		if answer.Continue {
			answer.Transit = false
		}
	case 4:
		answer.StatSN += uint32(t.rng.IntN(5))
	case 5:
		text = make([]byte, t.rng.IntN(9000))
		for i := range text {
			text[i] = byte(t.rng.Uint32())
		}
	case 6:
		for range t.rng.IntN(5) + 1 {
			text[t.rng.IntN(len(text))] = byte(t.rng.Uint32())
		}
	case 7:
		text = pdu.AppendKey(text, "X-com.example.hostile", strings.Repeat("x", t.rng.IntN(255)))
	}
	return text
}

// read takes note of commands until the connection ends.
func (t *target) read() {
	buf := make([]byte, limits.BufLen())
	for {
		in, err := pdu.ReadPDU(t.conn, buf, t.digests, limits)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = t.conn.Close()
			}
			t.mu.Lock()
			t.gone = true
			t.mu.Unlock()
			t.signal()
			return
		}
		if in.BHS.Opcode() == pdu.OpSCSICommand {
			t.accept(pdu.SCSICommandView(in.BHS).Decode())
		}
		t.signal()
	}
}

func (t *target) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *target) accept(c pdu.SCSICommand) {
	var lba uint64
	for _, b := range c.CDB[2:10] {
		lba = lba<<8 | uint64(b)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expCmdSN = c.CmdSN + 1
	t.tasks[c.ITT] = &task{itt: c.ITT, edtl: c.ExpectedDataLen, lba: lba, read: c.Read}
}
