package login

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

// TestRequests: what each kind of login sends, word for word.
func TestRequests(t *testing.T) {
	type config struct{ discovery, minimal, digests bool }
	for _, tt := range []struct {
		name          string
		cfg           config
		first, second string
	}{
		{
			"normal",
			config{},
			"InitiatorName=iqn.2026-01.test:host SessionType=Normal TargetName=iqn.2026-01.test:disk AuthMethod=None",
			"HeaderDigest=None DataDigest=None MaxConnections=1 InitialR2T=No ImmediateData=Yes MaxRecvDataSegmentLength=262144 " +
				"MaxBurstLength=16776192 FirstBurstLength=262144 DefaultTime2Wait=0 DefaultTime2Retain=0 MaxOutstandingR2T=8 " +
				"DataPDUInOrder=Yes DataSequenceInOrder=Yes ErrorRecoveryLevel=0",
		},
		{
			"minimal",
			config{minimal: true},
			"InitiatorName=iqn.2026-01.test:host SessionType=Normal TargetName=iqn.2026-01.test:disk AuthMethod=None",
			"MaxRecvDataSegmentLength=262144",
		},
		{
			"minimal with digests",
			config{minimal: true, digests: true},
			"InitiatorName=iqn.2026-01.test:host SessionType=Normal TargetName=iqn.2026-01.test:disk AuthMethod=None",
			"HeaderDigest=CRC32C,None DataDigest=CRC32C,None MaxRecvDataSegmentLength=262144",
		},
		{
			"discovery",
			config{discovery: true},
			"InitiatorName=iqn.2026-01.test:host SessionType=Discovery AuthMethod=None",
			"HeaderDigest=None DataDigest=None MaxRecvDataSegmentLength=262144 DefaultTime2Wait=0 DefaultTime2Retain=0",
		},
		{
			"minimal discovery",
			config{discovery: true, minimal: true},
			"InitiatorName=iqn.2026-01.test:host SessionType=Discovery MaxRecvDataSegmentLength=262144", "",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := testConfig()
			cfg.Discovery, cfg.Minimal = tt.cfg.discovery, tt.cfg.minimal
			cfg.Offer.HeaderDigest, cfg.Offer.DataDigest = tt.cfg.digests, tt.cfg.digests
			m := New(cfg)
			r := m.First()
			require.Equal(t, tt.first, strings.Join(items(t, r.Text), " "))
			stage := pdu.StageSecurity
			if tt.second == "" {
				stage = pdu.StageOperational
			}
			header := pdu.Login{Transit: true, CSG: stage, NSG: stage + 1, ISID: cfg.ISID, CID: 3, DataLen: len(r.Text)}
			if stage == pdu.StageOperational {
				header.NSG = pdu.StageFullFeature
			}
			require.Equal(t, header, r.Header)
			if tt.second != "" {
				r, err := m.Step(toOperational, nil)
				require.NoError(t, err)
				require.Equal(t, tt.second, strings.Join(items(t, r.Text), " "))
				header.CSG, header.NSG, header.DataLen = pdu.StageOperational, pdu.StageFullFeature, len(r.Text)
				require.Equal(t, header, r.Header)
			}
			r, err := m.Step(toFull, nil)
			require.NoError(t, err)
			require.Zero(t, r)
			require.True(t, m.Done())
			require.EqualValues(t, 7, m.TSIH())
			require.Equal(t, tt.second != "", m.SecurityStage())
		})
	}
}

// TestMinimalResult: without an offer the defaults of the RFC hold.
func TestMinimalResult(t *testing.T) {
	cfg := testConfig()
	cfg.Minimal = true
	res, err := settle(t, cfg)
	require.NoError(t, err)
	assert.Equal(t, Result{
		Offer: Offer{
			MaxRecvDataSegmentLength: 262144, MaxBurstLength: 262144, FirstBurstLength: 65536, MaxOutstandingR2T: 1,
			InitialR2T: true, ImmediateData: true, MaxConnections: 1, DefaultTime2Wait: 2, DefaultTime2Retain: 20,
		},
		MaxSendDataSegmentLength: 8192, DataPDUInOrder: true, DataSeqInOrder: true,
		TargetPortalGroupTag: -1, AuthMethod: "None",
	}, res)
}

// TestBadHeaders: responses that cannot belong to the last request.
func TestBadHeaders(t *testing.T) {
	for name, tt := range map[string]struct {
		resp pdu.LoginResponse
		err  string
	}{
		"version":           {pdu.LoginResponse{VersionActive: 1, CSG: 1}, "iSCSI version 1"},
		"stage":             {pdu.LoginResponse{CSG: pdu.StageSecurity}, "stage 0 while stage 1"},
		"reserved stage":    {pdu.LoginResponse{CSG: 2}, "stage 2 while stage 1"},
		"T and C":           {pdu.LoginResponse{CSG: 1, NSG: 3, Transit: true, Continue: true}, "both the T and the C bit"},
		"wrong next stage":  {pdu.LoginResponse{CSG: 1, NSG: 2, Transit: true}, "to login stage 2 instead of 3"},
		"back":              {pdu.LoginResponse{CSG: 1, NSG: 0, Transit: true}, "to login stage 0 instead of 3"},
		"to the same stage": {pdu.LoginResponse{CSG: 1, NSG: 1, Transit: true}, "to login stage 1 instead of 3"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := operational(t, testConfig())
			_, err := m.Step(tt.resp, nil)
			broken(t, err, tt.err)
			require.False(t, m.Done())
		})
	}
	m := New(testConfig())
	m.First()
	_, err := m.Step(pdu.LoginResponse{Transit: true, NSG: pdu.StageFullFeature}, nil)
	broken(t, err, "to login stage 3 instead of 1")
}

// TestRounds: the target may stay in a stage, but not for ever.
func TestRounds(t *testing.T) {
	m, _ := operational(t, testConfig())
	for i := range maxRounds - 2 {
		r, err := m.Step(stay, nil)
		require.NoError(t, err, i)
		require.True(t, r.Header.Transit, "each empty round asks for the transit again")
		require.Equal(t, pdu.StageFullFeature, r.Header.NSG)
		require.Empty(t, r.Text)
	}
	done := *m
	_, err := done.Step(toFull, nil)
	require.NoError(t, err, "the last round counts")
	_, err = m.Step(stay, nil)
	require.NoError(t, err)
	_, err = m.Step(toFull, nil)
	broken(t, err, "after 32 rounds")

	// Parts count as rounds too.
	m, _ = operational(t, testConfig())
	for n := 0; ; n++ {
		require.Less(t, n, maxRounds)
		r, err := m.Step(pdu.LoginResponse{CSG: 1, Continue: true}, nil)
		if err != nil {
			broken(t, err, "rounds")
			return
		}
		require.Empty(t, r.Text)
	}
}

// TestSplit: an answer cut in two, and in three, at each byte is read like a
// whole one (RFC 7143 §6.2).
func TestSplit(t *testing.T) {
	cfg := testConfig()
	cfg.Offer.HeaderDigest = true
	keys := kv("HeaderDigest=CRC32C", "MaxBurstLength=65536", "MaxRecvDataSegmentLength=4096", "X-a=b", "DefaultTime2Wait=7")
	more := pdu.LoginResponse{CSG: pdu.StageOperational, Continue: true}
	m, _ := operational(t, cfg)
	whole, err := m.Step(stay, keys)
	require.NoError(t, err)
	_, err = m.Step(toFull, nil)
	require.NoError(t, err)
	want := m.Result()
	require.Equal(t, []string{"X-a=NotUnderstood"}, items(t, whole.Text))

	for i := range len(keys) + 1 {
		for _, j := range []int{i, (i + len(keys)) / 2, len(keys)} {
			m, _ := operational(t, cfg)
			for _, part := range [][]byte{keys[:i], keys[i:j]} {
				r, err := m.Step(more, part)
				require.NoError(t, err)
				require.Empty(t, r.Text, "parts are fetched with empty requests")
				require.True(t, r.Header.Transit, "we are ready all the time (RFC 7143 §6.3.3)")
			}
			r, err := m.Step(stay, keys[j:])
			require.NoError(t, err)
			require.Equal(t, whole, r)
			_, err = m.Step(toFull, nil)
			require.NoError(t, err)
			require.Equal(t, want, m.Result())
		}
	}

	m, _ = operational(t, cfg)
	_, err = m.Step(more, keys[:10])
	require.NoError(t, err)
	_, err = m.Step(toFull, keys[10:])
	require.NoError(t, err, "the last part may end the stage")
	require.Equal(t, want, m.Result())
}

// TestTooMuch: bounds on what a target can make us keep and say.
func TestTooMuch(t *testing.T) {
	more := pdu.LoginResponse{CSG: pdu.StageOperational, Continue: true}
	m, _ := operational(t, testConfig())
	_, err := m.Step(more, make([]byte, maxText))
	require.NoError(t, err)
	_, err = m.Step(more, make([]byte, 1))
	broken(t, err, "more than 65536 bytes of login keys")

	var many []string
	for i := range 8192/16 - 100 {
		many = append(many, fmt.Sprintf("K%d=", i))
	}
	m, _ = operational(t, testConfig())
	r, err := m.Step(stay, kv(many[:300]...))
	require.NoError(t, err)
	require.LessOrEqual(t, len(r.Text), 8192)
	m, _ = operational(t, testConfig())
	_, err = m.Step(stay, kv(many...))
	broken(t, err, "bytes of answers")

	// Answers due together with our offer still fit a request (§13.12).
	m = New(testConfig())
	m.First()
	r, err = m.Step(toOperational, kv(many[:380]...))
	require.NoError(t, err)
	require.Greater(t, len(r.Text), 7000)
	require.LessOrEqual(t, len(r.Text), 8192)
}

// TestRefused: each class of status, with what it says.
func TestRefused(t *testing.T) {
	for _, st := range []pdu.LoginStatus{0x0200, 0x0201, 0x0202, 0x0203, 0x020b, 0x0300, 0x0301, 0x0302, 0x03ff, 0x0400, 0xff00} {
		m := New(testConfig())
		m.First()
		_, err := m.Step(pdu.LoginResponse{StatusClass: uint8(st >> 8), StatusDetail: uint8(st), CSG: 3, VersionActive: 9}, []byte("garbage"))
		var e *Error
		require.ErrorAs(t, err, &e)
		assert.Equal(t, st, e.Status)
		assert.Empty(t, e.Redirect)
		assert.NotEmpty(t, e.Msg)
		assert.False(t, m.Done())
	}
}

func TestRedirect(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"TargetAddress=10.0.0.1:3261,2", "10.0.0.1:3261"},
		{"TargetAddress=10.0.0.1:3261", "10.0.0.1:3261"},
		{"TargetAddress=10.0.0.1,2", "10.0.0.1:3260"},
		{"TargetAddress=10.0.0.1", "10.0.0.1:3260"},
		{"TargetAddress=disk.example.org", "disk.example.org:3260"},
		{"TargetAddress=[2001:db8::1]:3261,5", "[2001:db8::1]:3261"},
		{"TargetAddress=[2001:db8::1]:3261", "[2001:db8::1]:3261"},
		{"TargetAddress=[2001:db8::1],5", "[2001:db8::1]:3260"},
		{"TargetAddress=[2001:db8::1]", "[2001:db8::1]:3260"},
		{"TargetAddress=", ""},
		{"TargetAddress=,1", ""},
		{"TargetName=x", ""},
		{"", ""},
		{"no keys at all", ""},
	} {
		for _, detail := range []uint8{1, 2} {
			m := New(testConfig())
			m.First()
			var text []byte
			if tt.text != "" {
				text = kv(tt.text)
			}
			_, err := m.Step(pdu.LoginResponse{StatusClass: 1, StatusDetail: detail}, text)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, tt.want, e.Redirect, tt.text)
			require.Equal(t, pdu.LoginStatus(0x0100+uint16(detail)), e.Status)
			if tt.want == "" {
				require.Contains(t, e.Msg, "names no address")
			}
		}
	}
}

func TestErrorText(t *testing.T) {
	assert.Equal(t, "a", (&Error{Msg: "a"}).Error())
	assert.Equal(t, "a; do b", (&Error{Msg: "a", Hint: "do b"}).Error())
}

// TestRedirectAfterSecurity: in the operational stage a redirect must be taken, too.
func TestRedirectAfterSecurity(t *testing.T) {
	m, _ := operational(t, testConfig())
	r := pdu.LoginResponse{CSG: pdu.StageOperational, StatusClass: 1, StatusDetail: 1}
	_, err := m.Step(r, kv("TargetAddress=192.0.2.7:3261,1"))
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, pdu.LoginMovedTemporarily, e.Status)
	require.Equal(t, "192.0.2.7:3261", e.Redirect)
}
