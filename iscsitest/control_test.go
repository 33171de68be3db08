package iscsitest

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/scsi"
)

// passwordAuth wants one exchange with the right word in it.
type passwordAuth struct{ rounds int }

func (a *passwordAuth) Begin(string, string) AuthExchange { return a }
func (a *passwordAuth) Required() bool                    { return true }

func (a *passwordAuth) Step(keys map[string]string) ([]KeyValue, bool, pdu.LoginStatus) {
	a.rounds++
	switch {
	case a.rounds == 1:
		return []KeyValue{{"AuthMethod", "CHAP"}}, false, pdu.LoginSuccess
	case keys["CHAP_R"] == "word":
		return nil, true, pdu.LoginSuccess
	}
	return nil, false, pdu.LoginAuthFailure
}

func TestAuthenticatorsDecide(t *testing.T) {
	for _, tc := range []struct {
		word string
		want pdu.LoginStatus
	}{{"word", pdu.LoginSuccess}, {"guess", pdu.LoginAuthFailure}} {
		t.Run(tc.word, func(t *testing.T) {
			tgt := startTarget(t, Config{Authenticate: &passwordAuth{}})
			c := connect(t, tgt, 0)
			r := c.loginStep(c.loginPDU(true, pdu.StageSecurity, pdu.StageOperational), append(nameKeys[:2:2], "AuthMethod=CHAP,None")...)
			require.Equal(t, pdu.LoginSuccess, r.LoginStatus())
			require.False(t, r.Transit, "not yet")
			r = c.loginStep(c.loginPDU(true, pdu.StageSecurity, pdu.StageOperational), "CHAP_R="+tc.word)
			assert.Equal(t, tc.want, r.LoginStatus())
			assert.Equal(t, tc.want == pdu.LoginSuccess, r.Transit)
		})
	}
	c := connect(t, startTarget(t, Config{Authenticate: &passwordAuth{}}), 0)
	r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys...)
	assert.Equal(t, pdu.LoginAuthFailure, r.LoginStatus(), "the security stage cannot be skipped")
}

func TestSessionsArePickedByPortal(t *testing.T) {
	tgt := startTarget(t, Config{Portals: []Portal{{}, {TPGT: 2}}})
	var clients []*client
	for portal := range 2 {
		nc, err := tgt.DialContext(t.Context(), "tcp", tgt.Addr(portal))
		require.NoError(t, err)
		c := newClient(t, nc)
		c.login()
		clients = append(clients, c)
	}
	_, err := tgt.DialContext(t.Context(), "tcp", "192.0.2.200:3260")
	require.Error(t, err)
	assert.Equal(t, 1, tgt.SendReject(ByPortal(1), pdu.RejectWaitingForLogout, (&pdu.NOPOut{}).AppendTo(nil)))
	assert.Equal(t, pdu.RejectWaitingForLogout, pdu.RejectView(clients[1].recv(pdu.OpReject).BHS).Reason())
	assert.Equal(t, 1, tgt.CutConnections(ByPortal(0)))
	clients[0].expectEnd()
	clients[1].ping()
}

func TestParamsChangeForNewSessionsOnly(t *testing.T) {
	tgt := startTarget(t, Config{})
	loggedIn(t, tgt)
	p := tgt.Params()
	p.CmdWindow = 1
	require.NoError(t, tgt.SetParams(p))
	other := connect(t, tgt, 0)
	other.isid[5] = 8
	other.login()
	s := tgt.Sessions()
	assert.EqualValues(t, 127, s[0].MaxCmdSN-s[0].ExpCmdSN)
	assert.EqualValues(t, 0, s[1].MaxCmdSN-s[1].ExpCmdSN)
	p.FirstBurstLength = p.MaxBurstLength + 1
	require.Error(t, tgt.SetParams(p))
}

func TestRedirectsComeAndGo(t *testing.T) {
	tgt := startTarget(t, Config{})
	tgt.SetRedirect(0, &Redirect{Address: "192.0.2.7:3260"})
	c := connect(t, tgt, 0)
	r := c.loginStep(c.loginPDU(true, pdu.StageOperational, pdu.StageFullFeature), nameKeys...)
	assert.Equal(t, pdu.LoginMovedTemporarily, r.LoginStatus())
	tgt.SetRedirect(0, nil)
	loggedIn(t, tgt)
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"burst":      {Params: Params{MaxBurstLength: 100}},
		"first":      {Params: Params{MaxBurstLength: 1024, FirstBurstLength: 2048}},
		"LUN twice":  {LUNs: []LUN{{}, {}}},
		"block size": {LUNs: []LUN{{BlockSize: 1000}}},
		"NAA":        {LUNs: []LUN{{NAA: []byte{1}}}},
		"tiny":       {LUNs: []LUN{{Size: 100}}},
		"name twice": {Targets: []Node{{Name: DefaultName}}},
		"no name":    {Targets: []Node{{}}},
		"no portal":  {Targets: []Node{{Name: "iqn.2026-01.test:x", Portals: []int{3}}}},
		"no address": {Portals: []Portal{{Addr: "nonsense"}}},
	} {
		_, err := NewTarget(cfg)
		assert.Error(t, err, name)
	}
	_, err := NewFaultProxy(ProxyConfig{})
	assert.Error(t, err)
}

func TestMiscellaneousCommands(t *testing.T) {
	tgt := startTarget(t, Config{})
	c := loggedIn(t, tgt)
	data := append(pattern(512, 1), pattern(512, 2)...)
	caw := func() outcome {
		c.send(c.command(0, scsi.CDB{0: byte(scsi.OpCompareAndWrite), 13: 1}, 1024, false, true), data)
		return c.await()
	}
	o := caw()
	assert.Equal(t, []any{scsi.KeyMiscompare, scsi.ASCMiscompare}, []any{o.sense.Key, o.sense.Code})
	require.Equal(t, scsi.Good, c.write(0, data[:512]).status)
	require.Equal(t, scsi.Good, caw().status)
	assert.True(t, isPattern(c.read(0, 1), 2))
	c.send(c.command(0, scsi.CDB{0: byte(scsi.OpVerify10), 1: 2, 8: 1}, 512, false, true), data[:512])
	assert.Equal(t, scsi.KeyMiscompare, c.await().sense.Key)
	assert.Equal(t, scsi.ConditionMet, c.run(0, scsi.CDB{0: byte(scsi.OpPreFetch10), 8: 1}, 0).status)
	page := scsi.ModeData{Pages: scsi.ControlPage{SoftwareWP: true}.AppendTo(nil)}.AppendTo6(nil)
	page[0] = 0 // reserved in MODE SELECT
	c.send(c.command(0, scsi.CDB{0: byte(scsi.OpModeSelect6), 1: 0x10, 4: byte(len(page))}, uint32(len(page)), false, true), page)
	require.Equal(t, scsi.Good, c.await().status)
	assert.Equal(t, scsi.ASCSoftwareWriteProtect, c.write(0, data[:512]).sense.Code)
	assert.Empty(t, tgt.Violations())
}
