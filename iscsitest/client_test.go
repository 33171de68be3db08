package iscsitest

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// client is an initiator made of single PDUs: it does what a test tells it,
// right or wrong.
type client struct {
	t       *testing.T
	nc      net.Conn
	digests pdu.Digests
	isid    [6]byte
	tsih    uint16
	cid     uint16
	itt     uint32
	cmdSN   uint32
	expStat uint32
	keys    map[string]string // answers of the login
	last    pdu.LoginResponse
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// silence is how long expectNothing waits. Only a target that errs makes a test
// depend on it.
const silence = 30 * time.Millisecond

func newClient(t *testing.T, nc net.Conn) *client {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	return &client{t: t, nc: nc, isid: [6]byte{0x80, 0, 0, 0, 0, 1}, cmdSN: 100, keys: map[string]string{}}
}

// startTarget starts a target whose portals are reached by Dial only.
func startTarget(t *testing.T, cfg Config) *Target {
	t.Helper()
	if len(cfg.Portals) == 0 {
		cfg.Portals = []Portal{{}}
	}
	for i := range cfg.Portals {
		if cfg.Portals[i].Addr == "" {
			cfg.Portals[i].Addr = "-"
		}
	}
	if cfg.Logf == nil {
		cfg.Logf = t.Logf
	}
	tgt, err := NewTarget(cfg)
	require.NoError(t, err)
	t.Cleanup(tgt.Close)
	return tgt
}

// connect returns a client that is not logged in.
func connect(t *testing.T, tgt *Target, portal int) *client {
	t.Helper()
	nc, err := tgt.Dial(portal)
	require.NoError(t, err)
	return newClient(t, nc)
}

// loggedIn returns a client in full feature phase of a normal session. More keys
// are given as "Key=Value".
func loggedIn(t *testing.T, tgt *Target, keys ...string) *client {
	t.Helper()
	c := connect(t, tgt, 0)
	c.login(keys...)
	return c
}

type appender interface{ AppendTo(dst []byte) []byte }

func (c *client) send(p appender, data []byte) {
	c.t.Helper()
	bhs := p.AppendTo(nil)
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.nc.Write(pdu.AppendPDU(nil, bhs, nil, data, c.digests))
	require.NoError(c.t, err)
}

func (c *client) recvErr() (pdu.PDU, error) {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	p, err := pdu.ReadPDU(c.nc, nil, c.digests, pdu.Limits{MaxAHS: 0, MaxData: pdu.MaxDataLen})
	if err == nil && p.BHS.Opcode() != pdu.OpR2T && (p.BHS.Opcode() != pdu.OpDataIn || pdu.DataInView(p.BHS).HasStatus()) {
		if p.BHS.ITT() != pdu.ReservedTag || p.BHS.Opcode() != pdu.OpNOPIn {
			c.expStat = p.BHS.StatSN() + 1
		}
	}
	return p, err
}

func (c *client) recv(want pdu.Opcode) pdu.PDU {
	c.t.Helper()
	p, err := c.recvErr()
	require.NoError(c.t, err)
	require.Equal(c.t, want, p.BHS.Opcode(), "%s", pdu.AppendTrace(nil, false, p.BHS))
	return p
}

// expectEnd wants the connection to be closed by the target.
func (c *client) expectEnd() {
	c.t.Helper()
	_, err := c.recvErr()
	require.Error(c.t, err)
	nerr, ok := errors.AsType[net.Error](err)
	require.False(c.t, ok && nerr.Timeout(), "connection still open")
}

// expectNothing wants no PDU to come, by asking for a ping and getting its
// answer as the next PDU.
func (c *client) expectNothing() {
	c.t.Helper()
	c.ping()
}

func (c *client) nextITT() uint32 { c.itt++; return c.itt }

func (c *client) ping() {
	c.t.Helper()
	itt := c.nextITT()
	c.send(&pdu.NOPOut{Immediate: true, ITT: itt, TTT: pdu.ReservedTag, CmdSN: c.cmdSN, ExpStatSN: c.expStat}, []byte("ping"))
	p := c.recv(pdu.OpNOPIn)
	require.Equal(c.t, itt, p.BHS.ITT())
	require.Equal(c.t, "ping", string(p.Data))
}

func textOf(keys ...string) []byte { // "A=1" pairs
	var b []byte
	for _, k := range keys {
		b = append(append(b, k...), 0)
	}
	return b
}

func (c *client) loginPDU(transit bool, csg, nsg pdu.Stage) *pdu.Login {
	return &pdu.Login{
		Transit: transit, CSG: csg, NSG: nsg, ISID: c.isid, TSIH: c.tsih, CID: c.cid, ITT: 0x10000000,
		CmdSN: c.cmdSN, ExpStatSN: c.expStat,
	}
}

// loginStep sends one Login Request and collects the whole answer.
func (c *client) loginStep(req *pdu.Login, keys ...string) pdu.LoginResponse {
	c.t.Helper()
	c.send(req, textOf(keys...))
	var text []byte
	for {
		p := c.recv(pdu.OpLoginResponse)
		c.last = pdu.LoginResponseView(p.BHS).Decode()
		text = append(text, p.Data...)
		if !c.last.Continue {
			break
		}
		c.send(c.loginPDU(false, req.CSG, 0), nil)
	}
	require.NoError(c.t, pdu.WalkKeys(text, func(k, v []byte) error {
		c.keys[string(k)] = string(v)
		return nil
	}))
	return c.last
}

var nameKeys = []string{"InitiatorName=iqn.2026-01.test:initiator", "TargetName=" + DefaultName}

// login logs in through the security and the operational stage.
func (c *client) login(keys ...string) {
	c.t.Helper()
	r := c.loginStep(c.loginPDU(true, pdu.StageSecurity, pdu.StageOperational), append([]string{"AuthMethod=None"}, nameKeys...)...)
	require.Equal(c.t, pdu.LoginSuccess, r.LoginStatus())
	require.True(c.t, r.Transit)
	r = c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), keys...)
	c.requireLoggedIn(r)
}

func (c *client) requireLoggedIn(r pdu.LoginResponse) {
	c.t.Helper()
	require.Equal(c.t, pdu.LoginSuccess, r.LoginStatus())
	require.True(c.t, r.Transit && r.NSG == pdu.StageFullFeature)
	c.tsih = r.TSIH
	c.digests = pdu.Digests{Header: c.keys["HeaderDigest"] == "CRC32C", Data: c.keys["DataDigest"] == "CRC32C"}
}

// command makes a SCSI Command PDU with the next CmdSN.
func (c *client) command(lun uint16, cdb scsi.CDB, edtl uint32, read, write bool) *pdu.SCSICommand {
	p := &pdu.SCSICommand{
		Final: true, Read: read, Write: write, Attr: pdu.AttrSimple, LUN: uint64(scsi.MakeLUN(lun)),
		ITT: c.nextITT(), ExpectedDataLen: edtl, CmdSN: c.cmdSN, ExpStatSN: c.expStat, CDB: cdb,
	}
	c.cmdSN++
	return p
}

// outcome is the end of a command.
type outcome struct {
	status scsi.Status
	sense  scsi.Sense
	data   []byte
	over   bool
	under  bool
	resid  uint32
	pdus   []pdu.DataIn
	resp   pdu.SCSIResponse
}

// await collects Data-In and status of a command.
func (c *client) await() outcome {
	c.t.Helper()
	var o outcome
	for {
		p, err := c.recvErr()
		require.NoError(c.t, err)
		switch p.BHS.Opcode() {
		case pdu.OpDataIn:
			in := pdu.DataInView(p.BHS).Decode()
			require.Equal(c.t, uint32(len(o.data)), in.BufferOffset)
			require.Equal(c.t, uint32(len(o.pdus)), in.DataSN)
			o.data, o.pdus = append(o.data, p.Data...), append(o.pdus, in)
			if in.HasStatus {
				o.status, o.over, o.under, o.resid = scsi.Status(in.Status), in.Overflow, in.Underflow, in.ResidualCount
				return o
			}
		case pdu.OpSCSIResponse:
			r := pdu.SCSIResponseView(p.BHS).Decode()
			o.resp = r
			o.status, o.over, o.under, o.resid = scsi.Status(r.Status), r.Overflow, r.Underflow, r.ResidualCount
			if len(p.Data) > 2 {
				o.sense, _ = scsi.ParseSense(p.Data[2:])
			}
			return o
		default:
			require.Fail(c.t, "unexpected PDU", "%s", pdu.AppendTrace(nil, false, p.BHS))
		}
	}
}

// run sends a command without data-out and returns its end.
func (c *client) run(lun uint16, cdb scsi.CDB, edtl uint32) outcome {
	c.t.Helper()
	c.send(c.command(lun, cdb, edtl, edtl > 0, false), nil)
	return c.await()
}

// write sends a WRITE with all data immediate.
func (c *client) write(lba uint64, data []byte) outcome {
	c.t.Helper()
	c.send(c.command(0, scsi.Write(lba, uint32(len(data)/512), 0), uint32(len(data)), false, true), data)
	return c.await()
}

func (c *client) read(lba uint64, blocks uint32) []byte {
	c.t.Helper()
	o := c.run(0, scsi.Read(lba, blocks, 0), blocks*512)
	require.Equal(c.t, scsi.Good, o.status)
	require.Len(c.t, o.data, int(blocks)*512)
	return o.data
}

// answerR2Ts sends the data that R2Ts ask for, in PDUs of at most segment
// bytes, until something else than an R2T comes; that is returned.
func (c *client) answerR2Ts(cmd *pdu.SCSICommand, data []byte, segment int) pdu.PDU {
	c.t.Helper()
	for {
		p, err := c.recvErr()
		require.NoError(c.t, err)
		if p.BHS.Opcode() != pdu.OpR2T {
			return p
		}
		c.answerR2T(pdu.R2TView(p.BHS).Decode(), data, segment)
	}
}

func (c *client) answerR2T(r pdu.R2T, data []byte, segment int) {
	c.t.Helper()
	part := data[r.BufferOffset : r.BufferOffset+r.DesiredDataLen]
	for sn, off := uint32(0), 0; off < len(part); sn++ {
		n := min(segment, len(part)-off)
		c.send(&pdu.DataOut{
			Final: off+n == len(part), LUN: r.LUN, ITT: r.ITT, TTT: r.TTT, ExpStatSN: c.expStat,
			DataSN: sn, BufferOffset: r.BufferOffset + uint32(off),
		}, part[off:off+n])
		off += n
	}
}

// pattern is n bytes that differ from block to block and from seed to seed.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i) ^ byte(i>>9)*31 ^ seed
	}
	return b
}

func isPattern(b []byte, seed byte) bool { return bytes.Equal(b, pattern(len(b), seed)) }
