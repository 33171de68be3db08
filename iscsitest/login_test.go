package iscsitest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

func TestKeysAreNegotiatedByTheirFunctions(t *testing.T) {
	params := Params{
		MaxRecvDataSegmentLength: 65536, MaxBurstLength: 131072, FirstBurstLength: 65536,
		MaxOutstandingR2T: 4, DefaultTime2Wait: 5, DefaultTime2Retain: 7,
	}
	for _, tc := range []struct{ offer, want string }{
		{"HeaderDigest=None,CRC32C", "None"},
		{"HeaderDigest=CRC32C,None", "CRC32C"},
		{"HeaderDigest=MD5", "Reject"},
		{"MaxConnections=8", "1"},
		{"InitialR2T=No", "No"},
		{"InitialR2T=Yes", "Yes"},
		{"ImmediateData=No", "No"},
		{"ImmediateData=Yes", "Yes"},
		{"ImmediateData=Perhaps", "Reject"},
		{"MaxBurstLength=262144", "131072"},
		{"MaxBurstLength=4096", "4096"},
		{"MaxBurstLength=511", "Reject"},
		{"MaxBurstLength=16777216", "Reject"},
		{"FirstBurstLength=131072", "65536"},
		{"MaxOutstandingR2T=2", "2"},
		{"MaxOutstandingR2T=0", "Reject"},
		{"DefaultTime2Wait=0", "5"},
		{"DefaultTime2Wait=9", "9"},
		{"DefaultTime2Retain=20", "7"},
		{"ErrorRecoveryLevel=2", "0"},
		{"DataPDUInOrder=No", "Yes"},
		{"DataSequenceInOrder=No", "Yes"},
		{"TaskReporting=RFC3720,FastAbort", "RFC3720"},
		{"iSCSIProtocolLevel=2", "1"},
		{"IFMarker=Yes", "No"},
		{"OFMarkInt=2048~8192", "Reject"},
		{"X-com.example.key=1", "NotUnderstood"},
		{"Unheard=of", "NotUnderstood"},
	} {
		t.Run(tc.offer, func(t *testing.T) {
			c := loggedIn(t, startTarget(t, Config{Params: params}), tc.offer)
			key, _, _ := strings.Cut(tc.offer, "=")
			assert.Equal(t, tc.want, c.keys[key])
			assert.Equal(t, "65536", c.keys["MaxRecvDataSegmentLength"])
			assert.Equal(t, "1", c.keys["TargetPortalGroupTag"])
		})
	}
}

func TestFirstBurstNeverExceedsMaxBurst(t *testing.T) {
	c := loggedIn(t, startTarget(t, Config{}), "FirstBurstLength=65536", "MaxBurstLength=8192")
	assert.Equal(t, "8192", c.keys["FirstBurstLength"])
}

func TestLoginRefusals(t *testing.T) {
	base := func() *pdu.Login {
		return &pdu.Login{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, ISID: [6]byte{0x80, 0, 0, 0, 0, 1}, ITT: 1, CmdSN: 1}
	}
	for _, tc := range []struct {
		name   string
		change func(*pdu.Login)
		keys   []string
		want   pdu.LoginStatus
	}{
		{"no initiator name", nil, []string{"TargetName=" + DefaultName}, pdu.LoginMissingParameter},
		{"no target name", nil, nameKeys[:1], pdu.LoginMissingParameter},
		{"unknown target", nil, []string{nameKeys[0], "TargetName=iqn.2026-01.test:nobody"}, pdu.LoginNotFound},
		{"bad session type", nil, append(nameKeys[:2:2], "SessionType=Strange"), pdu.LoginSessionType},
		{"version 1 only", func(l *pdu.Login) { l.VersionMin, l.VersionMax = 1, 1 }, nameKeys, pdu.LoginUnsupportedVersion},
		{"unknown TSIH", func(l *pdu.Login) { l.TSIH = 77 }, nameKeys, pdu.LoginNoSession},
		{"key twice", nil, append(nameKeys[:2:2], "InitialR2T=No", "InitialR2T=No"), pdu.LoginInitiatorError},
		{"stage 2", func(l *pdu.Login) { l.CSG = 2 }, nameKeys, pdu.LoginInitiatorError},
		{"backwards", func(l *pdu.Login) { l.NSG = pdu.StageSecurity }, nameKeys, pdu.LoginInitiatorError},
		{"T and C", func(l *pdu.Login) { l.Continue = true }, nameKeys, pdu.LoginInitiatorError},
		{"no null at the end", nil, nil, pdu.LoginInitiatorError},
		{"target's key", nil, append(nameKeys[:2:2], "TargetAlias=me"), pdu.LoginInitiatorError},
		{"operational key too early", func(l *pdu.Login) { l.CSG, l.NSG = pdu.StageSecurity, pdu.StageOperational }, append(nameKeys[:2:2], "MaxRecvDataSegmentLength=4096"), pdu.LoginInitiatorError},
		{"CHAP only", func(l *pdu.Login) { l.CSG, l.NSG = pdu.StageSecurity, pdu.StageOperational }, append(nameKeys[:2:2], "AuthMethod=CHAP"), pdu.LoginAuthFailure},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := connect(t, startTarget(t, Config{}), 0)
			req := base()
			if tc.change != nil {
				tc.change(req)
			}
			text := textOf(tc.keys...)
			if tc.name == "no null at the end" {
				text = []byte("InitiatorName=x")
			}
			c.send(req, text)
			p := c.recv(pdu.OpLoginResponse)
			assert.Equal(t, tc.want, pdu.LoginResponseView(p.BHS).LoginStatus())
			c.expectEnd()
		})
	}
}

func TestOnlyLoginsDuringLogin(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := connect(t, tgt, 0)
	c.send(&pdu.NOPOut{Immediate: true, ITT: 5, TTT: pdu.ReservedTag}, nil)
	p := c.recv(pdu.OpLoginResponse)
	assert.Equal(t, pdu.LoginInvalidRequest, pdu.LoginResponseView(p.BHS).LoginStatus())
	assert.EqualValues(t, 5, p.BHS.ITT())
	c.expectEnd()
	assert.Len(t, tgt.Violations(), 1)
}

func TestRedirect(t *testing.T) {
	tgt := startTarget(t, Config{Portals: []Portal{
		{Redirect: &Redirect{Address: "192.0.2.9:3260,1"}},
		{Redirect: &Redirect{Address: "192.0.2.9:3260", Permanent: true}},
	}})
	for portal, want := range []pdu.LoginStatus{pdu.LoginMovedTemporarily, pdu.LoginMovedPermanently} {
		c := connect(t, tgt, portal)
		r := c.loginStep(c.loginPDU(true, pdu.StageSecurity, pdu.StageOperational), nameKeys...)
		assert.Equal(t, want, r.LoginStatus())
		assert.Contains(t, c.keys["TargetAddress"], "192.0.2.9:3260")
	}
}

func TestLongTextGoesOnWithCBit(t *testing.T) {
	tgt := startTarget(t, Config{Params: Params{TextLength: 20}})
	c := connect(t, tgt, 0)
	// The request is in pieces too, cut inside a key.
	text := textOf(append(nameKeys[:2:2], "InitialR2T=No", "HeaderDigest=None")...)
	for len(text) > 30 {
		req := c.loginPDU(false, pdu.StageOperational, 0)
		req.Continue = true
		c.send(req, text[:30])
		text = text[30:]
		p := c.recv(pdu.OpLoginResponse)
		assert.Empty(t, p.Data)
		assert.False(t, p.BHS.Final())
	}
	c.send(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), text)
	var answer []byte
	for {
		p := c.recv(pdu.OpLoginResponse)
		r := pdu.LoginResponseView(p.BHS).Decode()
		answer = append(answer, p.Data...)
		if !r.Continue {
			c.requireLoggedIn(r)
			break
		}
		assert.Len(t, p.Data, 20)
		assert.False(t, r.Transit)
		c.send(c.loginPDU(false, pdu.StageOperational, 0), nil)
	}
	assert.Contains(t, string(answer), "InitialR2T=No\x00HeaderDigest=None\x00")
	c.ping()
	assert.Empty(t, tgt.Violations())
}

func TestTargetMayOfferKeysItself(t *testing.T) {
	tgt := startTarget(t, Config{Quirks: Quirks{OfferKeys: true}, Params: Params{HeaderDigest: DigestRequired, MaxOutstandingR2T: 6}})
	c := connect(t, tgt, 0)
	r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys...)
	require.False(t, r.Transit, "the target has questions of its own")
	assert.Equal(t, "CRC32C", c.keys["HeaderDigest"])
	assert.Equal(t, "6", c.keys["MaxOutstandingR2T"])
	r = c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature),
		"HeaderDigest=CRC32C", "MaxOutstandingR2T=2", "DefaultTime2Retain=0")
	c.requireLoggedIn(r)
	c.ping()
	assert.EqualValues(t, 2, tgt.Sessions()[0].Negotiated.MaxOutstandingR2T)
}

func TestLoginTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tgt := startTarget(t, Config{Params: Params{LoginTimeout: 15 * time.Second}})
		c := connect(t, tgt, 0)
		start := time.Now()
		c.nc.SetReadDeadline(time.Time{})
		_, err := c.nc.Read(make([]byte, 1))
		require.Error(t, err)
		assert.Equal(t, 15*time.Second, time.Since(start))
	})
}

func TestQuirksOfLogin(t *testing.T) {
	t.Run("TSIH 0", func(t *testing.T) {
		c := loggedIn(t, startTarget(t, Config{Quirks: Quirks{TSIHZero: true}}))
		assert.Zero(t, c.tsih)
		c.ping()
	})
	t.Run("silent failure", func(t *testing.T) {
		c := connect(t, startTarget(t, Config{Quirks: Quirks{SilentFailure: true}}), 0)
		c.send(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), textOf(nameKeys[0]))
		c.expectEnd()
	})
	t.Run("unknown key", func(t *testing.T) {
		c := connect(t, startTarget(t, Config{Quirks: Quirks{CloseOnUnknownKey: true}}), 0)
		r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), append(nameKeys[:2:2], "X-test.key=1")...)
		assert.Equal(t, pdu.LoginInitiatorError, r.LoginStatus())
	})
}

// discover logs in to a discovery session and returns the answer of SendTargets.
func discover(t *testing.T, c *client, what string) (keys []KeyValue) {
	t.Helper()
	r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys[0], "SessionType=Discovery")
	c.requireLoggedIn(r)
	itt, ttt := c.nextITT(), uint32(pdu.ReservedTag)
	data, parts := textOf("SendTargets="+what), 0
	var text []byte
	for {
		c.send(&pdu.Text{Final: true, ITT: itt, TTT: ttt, CmdSN: c.cmdSN, ExpStatSN: c.expStat}, data)
		c.cmdSN++
		p := c.recv(pdu.OpTextResponse)
		text = append(text, p.Data...)
		v := pdu.TextResponseView(p.BHS)
		parts++
		if v.Final() {
			require.EqualValues(t, uint32(pdu.ReservedTag), v.TTT())
			break
		}
		require.NotEqualValues(t, uint32(pdu.ReservedTag), v.TTT())
		ttt, data = v.TTT(), nil
	}
	keys, err := parseKeys(text)
	require.NoError(t, err)
	return keys
}

func TestDiscovery(t *testing.T) {
	cfg := Config{
		Portals: []Portal{{}, {TPGT: 2, Advertise: "[2001:db8::1]:3260"}, {Hidden: true}},
		Targets: []Node{{Name: "iqn.2026-01.test:other", Portals: []int{1}}},
	}
	all := []KeyValue{
		{"TargetName", DefaultName},
		{"TargetAddress", "192.0.2.1:3260,1"},
		{"TargetAddress", "[2001:db8::1]:3260,2"},
		{"TargetName", "iqn.2026-01.test:other"},
		{"TargetAddress", "[2001:db8::1]:3260,2"},
	}
	for _, tc := range []struct {
		name, what string
		limit      uint32
		want       []KeyValue
	}{
		{"all", "All", 0, all},
		{"all in pieces", "All", 16, all},
		{"one", "iqn.2026-01.test:other", 0, all[3:]},
		{"nobody", "iqn.2026-01.test:nobody", 0, nil},
		{"empty", "", 0, []KeyValue{{"SendTargets", "Reject"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg.Params.TextLength = tc.limit
			tgt := startTarget(t, cfg)
			c := connect(t, tgt, 0)
			assert.Equal(t, tc.want, discover(t, c, tc.what))
			assert.Empty(t, tgt.Violations())
		})
	}
}

func TestNoSCSIInDiscoverySessions(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := connect(t, tgt, 0)
	discover(t, c, "All")
	c.send(&pdu.SCSICommand{Final: true, ITT: c.nextITT(), CmdSN: c.cmdSN, ExpStatSN: c.expStat}, nil)
	assert.Equal(t, pdu.RejectProtocolError, pdu.RejectView(c.recv(pdu.OpReject).BHS).Reason())
	assert.Len(t, tgt.Violations(), 1)
}
