package session

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/internal/transcript"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// TestLongTimesAdd: Time2Wait and Time2Retain of a Logout Response have 16 bits
// each, their sum has more.
func TestLongTimesAdd(t *testing.T) {
	w := newWorld(t)
	w.quick()
	w.s.params.ErrorRecoveryLevel = 2
	lost := newConn(w.s, 1)
	w.s.members = []member{{state: memberUp, conn: w.s.conn}, {cid: 1, state: memberCleaning, conn: lost}}
	m := &w.s.members[1]
	r := pdu.LogoutResponse{Time2Wait: 40000, Time2Retain: 30000}
	require.NoError(t, w.s.memberLoggedOut(m, w.s.conn, pdu.LogoutResponseView(r.AppendTo(nil))))
	require.Equal(t, memberProving, m.state)
	w.s.pinged(m.logout)
	require.Equal(t, memberSettling, m.state)
	require.Equal(t, w.now+int64(70000*time.Second), m.deadline, "the tasks of the lost connection may live so long")
}

// TestLongestNames: a target may have a name of 223 bytes.
func TestLongestNames(t *testing.T) {
	name := "iqn.2026-01.test:" + strings.Repeat("x", 223-17)
	got, err := parseTargets([]byte("TargetName="+name+"\x00"), "127.0.0.1:3260")
	require.NoError(t, err)
	require.Equal(t, name, got[0].Name)
	require.NoError(t, checkName("target", name))
	require.Error(t, checkName("target", name+"x"))
}

// TestNamesAreUTF8, without anything that breaks a text key.
func TestNamesAreUTF8(t *testing.T) {
	for name, ok := range map[string]bool{
		"iqn.2026-01.test:platte": true, "iqn.2026-01.test:größe": true, "iqn.2026-01.test:磁盤": true,
		"iqn.2026-01.test:\xff": false, "iqn.2026-01.test:\xc3": false, "iqn.2026-01.test:\u00a0": false,
		"iqn.2026-01.test:\u2028": false, "iqn.2026-01.test:\u0085": false, "iqn.2026-01.test:\x00": false, "": false,
	} {
		assert.Equal(t, ok, checkName("target", name) == nil, "%q", name)
	}
}

// TestFailedLoginLeavesNothing: what was negotiated in a login that failed
// half-way does not hold (RFC 7143 §6.2).
func TestFailedLoginLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.s.cfg.HeaderDigest, w.s.cfg.DataDigest = true, true
	w.quick()
	before := w.s.params
	w.h.Closed(io.EOF)
	w.now = w.timer
	w.s.Tick()
	w.s.Connected(w.h, w)
	step := transcript.Cmd{
		Name: "recv", Flags: []string{"login", "T"}, Args: map[string]string{"csg": "0", "nsg": "1"}, Input: []string{"AuthMethod=None"},
	}
	w.feed(w.build(step), 1<<20)
	step.Flags, step.Args["csg"] = []string{"login"}, "1"
	step.Input = []string{"HeaderDigest=CRC32C", "MaxRecvDataSegmentLength=512", "MaxBurstLength=512", "ImmediateData=No"}
	w.feed(w.build(step), 1<<20)
	require.Equal(t, before, w.s.params)
	require.Equal(t, pdu.Digests{}, w.s.conn.digests)
	w.h.Closed(io.EOF)
	require.Equal(t, before, w.s.params)
}

// TestWholeWords: segments are filled to whole words but for the last one of a
// sequence, whatever the target takes; padding is 0 and part of the digest.
func TestWholeWords(t *testing.T) {
	for _, most := range []int{513, 514, 515, 1021} {
		w := newWorld(t)
		w.s.cfg.DataDigest = true
		w.quickLogin(transcript.Cmd{Input: []string{
			fmt.Sprintf("MaxRecvDataSegmentLength=%d", most), "InitialR2T=No", "DataDigest=CRC32C",
		}})
		w.s.conn.out.advance(w.s.conn.out.pending())
		c := &Command{Owner: w, Dir: DirWrite, Data: bytes.Repeat([]byte{0xee}, 4099), LUN: scsi.MakeLUN(1)}
		require.True(t, w.s.Submit(c))
		var raw []byte
		for _, b := range w.h.WriteBuffers(make([][]byte, 0, 1024)) {
			raw = append(raw, b...)
		}
		r, total := bytes.NewReader(raw), 0
		for r.Len() > 0 {
			left := r.Len()
			p, err := pdu.ReadPDU(r, nil, w.s.conn.digests, pdu.Limits{MaxData: 1 << 24}) // checks the digest
			require.NoError(t, err)
			at := len(raw) - left + pdu.BHSLen
			total += len(p.Data)
			require.LessOrEqual(t, len(p.Data), most)
			last := p.BHS.Opcode() == pdu.OpDataOut && pdu.DataOutView(p.BHS).Final()
			require.Equal(t, last, len(p.Data)%4 != 0)
			pad := raw[at+len(p.Data):][:pdu.PadLen(len(p.Data))]
			require.Equal(t, make([]byte, len(pad)), pad)
		}
		require.Equal(t, 4099, total)
	}
}

// TestShortSense: sense data that is cut off is better than none.
func TestShortSense(t *testing.T) {
	assert.Equal(t, []byte{0x70, 0, 6}, senseOf([]byte{0, 18, 0x70, 0, 6}))
	assert.Empty(t, senseOf([]byte{9}))
	assert.Empty(t, senseOf(nil))
	assert.Equal(t, []byte{0x70}, senseOf([]byte{0, 1, 0x70, 0xff}))
}

// TestNoticeOfALivingConnection: the target says that it drops one of several, of
// which it has not lost any yet. That one is given up, over whichever it was said.
func TestNoticeOfALivingConnection(t *testing.T) {
	everywhere(t, func(t *testing.T, at place) {
		var log strings.Builder // written and read on the loop
		tgt := mcsTarget(t, at, 2, nil)
		l := logIn(t, at, tgt, Config{
			Connections: 3, ErrorRecoveryLevel: 2, ReconnectMin: time.Millisecond, ReconnectMax: 20 * time.Millisecond,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		l.awaitConnections(3)
		number := tgt.Sessions()[0].Conns[1].Number
		notice := pdu.Async{AsyncEvent: pdu.AsyncConnectionDrop, Param1: 1}
		require.NotZero(t, tgt.SendAsync(nil, notice, nil))
		newLoad(l, 3, 8, 200, 64).run(t)
		require.Eventually(t, func() bool {
			c := tgt.Sessions()[0].Conns
			return len(c) == 3 && c[1].Number != number
		}, 10*time.Second, time.Millisecond)
		var st Stats
		var said string
		l.do(func() { st, said = l.s.Stats(), log.String() })
		require.Equal(t, uint64(1), st.Logins)
		require.Contains(t, said, "announces that it drops the connection")
	})
}

// TestDetourKeepsTime2Wait, as every other way to log in again does.
func TestDetourKeepsTime2Wait(t *testing.T) {
	w := newWorld(t)
	w.quick()
	w.s.params.DefaultTime2Wait = 3
	w.h.Closed(io.EOF)
	require.Equal(t, w.now+int64(3*time.Second), w.timer)
	w.now += int64(3*time.Second) - 1
	require.False(t, w.s.Detour("127.0.0.2:3260", 1))
	w.now++
	require.True(t, w.s.Detour("127.0.0.2:3260", 1))
}
