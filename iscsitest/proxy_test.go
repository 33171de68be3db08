package iscsitest

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/leak"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// startProxy puts a proxy before a portal, by net.Pipe.
func startProxy(t *testing.T, tgt *Target, portal int) *FaultProxy {
	t.Helper()
	p, err := NewFaultProxy(ProxyConfig{
		Listen: "-", Portal: portal, Logf: t.Logf,
		Dial: func() (net.Conn, error) { return tgt.Dial(portal) },
	})
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func throughProxy(t *testing.T, p *FaultProxy, isid byte, keys ...string) *client {
	t.Helper()
	nc, err := p.Dial()
	require.NoError(t, err)
	c := newClient(t, nc)
	c.isid[5] = isid
	c.login(keys...)
	return c
}

func TestProxyIsTransparent(t *testing.T) {
	leak.Check(t)
	tgt, err := NewTarget(Config{})
	require.NoError(t, err)
	defer tgt.Close()
	proxy, err := NewFaultProxy(ProxyConfig{Target: tgt.Addr(0)})
	require.NoError(t, err)
	defer proxy.Close()
	for i, keys := range [][]string{nil, {"HeaderDigest=CRC32C"}, {"DataDigest=CRC32C"}, {"HeaderDigest=CRC32C", "DataDigest=CRC32C"}} {
		nc, err := net.Dial("tcp", proxy.Addr())
		require.NoError(t, err)
		c := newClient(t, nc)
		c.isid[5] = byte(i)
		c.login(keys...)
		require.Equal(t, scsi.Good, c.write(uint64(64*i), pattern(4096, byte(i))).status)
		assert.True(t, isPattern(c.read(uint64(64*i), 8), byte(i)))
		c.nc.Close()
	}
	assert.Empty(t, tgt.Violations())
}

func TestProxyPassesOtherProtocolsUnseen(t *testing.T) {
	client, inner := net.Pipe()
	server, outer := net.Pipe()
	p, err := NewFaultProxy(ProxyConfig{Listen: "-", Dial: func() (net.Conn, error) { return outer, nil }})
	require.NoError(t, err)
	defer p.Close()
	require.NoError(t, p.ServeConn(inner))
	defer client.Close()
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go way[0].Write([]byte("SSH-2.0"))
		b := make([]byte, 7)
		_, err = io.ReadFull(way[1], b)
		require.NoError(t, err)
		assert.Equal(t, "SSH-2.0", string(b))
	}
}

// TestStaleWrite is the hazard the write fence is for: a write held back in the
// network lands after a newer one, unless its session was reinstated before.
func TestStaleWrite(t *testing.T) {
	for _, tc := range []struct {
		name      string
		reinstate bool
		want      byte
	}{
		{"without a fence the old data wins", false, 1},
		{"after reinstatement the new data stands", true, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tgt := startTarget(t, Config{Portals: []Portal{{}, {}}})
				slow, good := startProxy(t, tgt, 0), startProxy(t, tgt, 1)
				hold := NewHold(HoldStrict)
				slow.Inject(And(Writes(), Blocks(0, 1)), FaultHoldTask(hold))
				a, b := throughProxy(t, slow, 1, "InitialR2T=No"), throughProxy(t, good, 2)

				cmd := a.command(0, scsi.Write(0, 1, 0), 512, false, true)
				cmd.Final = false // the data comes in a PDU of its own
				a.send(cmd, nil)
				a.send(&pdu.DataOut{Final: true, ITT: cmd.ITT, TTT: pdu.ReservedTag}, pattern(512, 1))
				require.NoError(t, hold.WaitHeld(t.Context(), 1))
				slow.CutInitiator()
				synctest.Wait()
				require.Equal(t, 1, slow.Conns(), "the target knows nothing yet")

				require.Equal(t, scsi.Good, b.write(0, pattern(512, 1)).status) // sent again
				if tc.reinstate {
					throughProxy(t, good, 1)
				}
				require.Equal(t, scsi.Good, b.write(0, pattern(512, 2)).status) // a newer one
				hold.Release()
				synctest.Wait()
				assert.True(t, isPattern(readMedium(t, tgt, 0, 1), tc.want))
				assert.Zero(t, slow.Conns())
			})
		})
	}
}

func TestStaleWriteOverTCP(t *testing.T) {
	tgt, err := NewTarget(Config{})
	require.NoError(t, err)
	defer tgt.Close()
	proxy, err := NewFaultProxy(ProxyConfig{Target: tgt.Addr(0)})
	require.NoError(t, err)
	defer proxy.Close()
	hold := NewHold(HoldStrict)
	proxy.Inject(Writes(), FaultHoldTask(hold))
	nc, err := net.Dial("tcp", proxy.Addr())
	require.NoError(t, err)
	c := newClient(t, nc)
	c.login()
	c.send(c.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
	require.NoError(t, hold.WaitHeld(t.Context(), 1))
	proxy.CutInitiator()
	hold.Release()
	require.Eventually(t, func() bool { return proxy.Conns() == 0 }, patience, time.Millisecond)
	assert.True(t, isPattern(readMedium(t, tgt, 0, 1), 1), "what was held gets there")
}

func TestFaults(t *testing.T) {
	digests := []string{"HeaderDigest=CRC32C", "DataDigest=CRC32C"}
	setup := func(t *testing.T, when Predicate, f Fault, keys ...string) (*Target, *client) {
		tgt := startTarget(t, Config{})
		p := startProxy(t, tgt, 0)
		p.Inject(when, f)
		return tgt, throughProxy(t, p, 1, keys...)
	}
	writes := func() Predicate { return And(Writes(), First(1)) }
	t.Run("drop", func(t *testing.T) {
		tgt, c := setup(t, writes(), FaultDrop())
		c.send(c.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
		c.send(c.command(0, scsi.TestUnitReady(), 0, false, false), nil)
		c.expectNothing()
		assert.EqualValues(t, 100, tgt.Sessions()[0].ExpCmdSN)
	})
	t.Run("duplicate", func(t *testing.T) {
		tgt, c := setup(t, writes(), FaultDuplicate())
		require.Equal(t, scsi.Good, c.write(0, pattern(512, 1)).status)
		c.expectNothing()
		assert.Len(t, tgt.Violations(), 1)
	})
	t.Run("flip data, digest finds it", func(t *testing.T) {
		tgt, c := setup(t, writes(), FaultFlip(PartData, 77, false), digests...)
		c.send(c.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
		assert.Equal(t, pdu.RejectDataDigest, pdu.RejectView(c.recv(pdu.OpReject).BHS).Reason())
		c.expectEnd()
		assert.True(t, isZero(readMedium(t, tgt, 0, 1)))
	})
	t.Run("flip data, digest fits", func(t *testing.T) {
		tgt, c := setup(t, writes(), FaultFlip(PartData, 8*100+7, true), digests...)
		require.Equal(t, scsi.Good, c.write(0, pattern(512, 1)).status)
		want := pattern(512, 1)
		want[100] ^= 1
		assert.Equal(t, want, readMedium(t, tgt, 0, 1))
	})
	t.Run("flip header", func(t *testing.T) {
		_, c := setup(t, writes(), FaultFlip(PartHeader, 300, false), digests...)
		c.send(c.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
		c.expectEnd()
	})
	t.Run("truncate", func(t *testing.T) {
		tgt, c := setup(t, writes(), FaultTruncate(100))
		c.send(c.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
		c.expectEnd()
		assert.True(t, isZero(readMedium(t, tgt, 0, 1)))
	})
	t.Run("cut", func(t *testing.T) {
		_, c := setup(t, And(Op(pdu.OpSCSIResponse), First(1)), FaultCut())
		c.send(c.command(0, scsi.TestUnitReady(), 0, false, false), nil)
		c.expectEnd()
	})
	t.Run("cut the target's side", func(t *testing.T) {
		_, c := setup(t, And(Op(pdu.OpSCSIResponse), First(1)), FaultCutTarget())
		require.Equal(t, scsi.Good, c.run(0, scsi.TestUnitReady(), 0).status, "the answer was on its way")
		c.expectEnd()
	})
}

func TestDelaysKeepTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startTarget(t, Config{})
		p := startProxy(t, tgt, 0)
		c := throughProxy(t, p, 1)
		p.SetDelay(10 * time.Millisecond)
		start := time.Now()
		c.ping()
		assert.Equal(t, 20*time.Millisecond, time.Since(start), "there and back")
		p.Inject(And(Op(pdu.OpNOPOut), First(1)), FaultDelay(time.Second))
		start = time.Now()
		for range 3 { // not slower than one: the path holds any number
			c.send(&pdu.NOPOut{Immediate: true, ITT: c.nextITT(), TTT: pdu.ReservedTag, CmdSN: c.cmdSN}, nil)
		}
		for i := range uint32(3) {
			assert.Equal(t, c.itt-2+i, c.recv(pdu.OpNOPIn).BHS.ITT())
		}
		assert.Equal(t, 1020*time.Millisecond, time.Since(start))
	})
}

func TestModes(t *testing.T) {
	leak.Check(t)
	tgt, err := NewTarget(Config{})
	require.NoError(t, err)
	defer tgt.Close()
	p, err := NewFaultProxy(ProxyConfig{Target: tgt.Addr(0)})
	require.NoError(t, err)
	defer p.Close()
	dial := func() *client {
		nc, err := net.Dial("tcp", p.Addr())
		require.NoError(t, err)
		return newClient(t, nc)
	}
	c := dial()
	c.login()

	require.NoError(t, p.SetMode(ModeStall))
	itt := c.nextITT()
	c.send(&pdu.NOPOut{Immediate: true, ITT: itt, TTT: pdu.ReservedTag, CmdSN: c.cmdSN}, nil)
	c.nc.SetReadDeadline(time.Now().Add(silence))
	_, err = c.nc.Read(make([]byte, 1))
	require.Error(t, err, "nothing comes through")
	require.NoError(t, p.SetMode(ModeGo))
	assert.Equal(t, itt, c.recv(pdu.OpNOPIn).BHS.ITT(), "what was sent meanwhile arrives")

	require.NoError(t, p.SetMode(ModeCut))
	c.expectEnd()
	if nc, err := net.Dial("tcp", p.Addr()); err == nil { // else the RST was quicker
		newClient(t, nc).expectEnd()
	}

	require.NoError(t, p.SetMode(ModeRefuse))
	_, err = net.Dial("tcp", p.Addr())
	require.Error(t, err)
	_, err = p.Dial()
	require.Error(t, err)
	require.NoError(t, p.SetMode(ModeGo))
	c = dial()
	c.login()
	c.ping()
}

func TestHoldOfAWholeDirection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startTarget(t, Config{})
		p := startProxy(t, tgt, 0)
		hold := NewHold(HoldStrict)
		p.Inject(And(Reads(), First(1)), FaultHold(hold))
		c := throughProxy(t, p, 1)
		c.send(c.command(0, scsi.Read(0, 1, 0), 512, true, false), nil)
		c.send(&pdu.NOPOut{Immediate: true, ITT: c.nextITT(), TTT: pdu.ReservedTag, CmdSN: c.cmdSN}, nil)
		require.NoError(t, hold.WaitHeld(t.Context(), 1))
		synctest.Wait()
		assert.Zero(t, tgt.Sessions()[0].Commands)
		hold.Release()
		c.await()
		c.recv(pdu.OpNOPIn)
	})
}

func TestCloseWhileThingsAreHeld(t *testing.T) {
	leak.Check(t)
	tgt, err := NewTarget(Config{})
	require.NoError(t, err)
	p, err := NewFaultProxy(ProxyConfig{Target: tgt.Addr(0)})
	require.NoError(t, err)
	atProxy, atTarget := NewHold(HoldStrict), NewHold(HoldZombie)
	p.Inject(Reads(), FaultHoldTask(atProxy))
	tgt.Inject(Writes(), HoldWrite(atTarget))
	nc, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	c := newClient(t, nc)
	c.login()
	c.send(c.command(0, scsi.Write(0, 1, 0), 512, false, true), pattern(512, 1))
	c.send(c.command(0, scsi.Read(0, 1, 0), 512, true, false), nil)
	require.NoError(t, atTarget.WaitHeld(t.Context(), 1))
	require.NoError(t, atProxy.WaitHeld(t.Context(), 1))
	p.Close()
	tgt.Close()
	atProxy.Release()
	atTarget.Release()
	assert.True(t, isZero(readMedium(t, tgt, 0, 1)))
}
