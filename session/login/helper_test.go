package login

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

// testOffer is a usual offer; tests change what they are about.
func testOffer() Offer {
	return Offer{
		MaxRecvDataSegmentLength: 262144, MaxBurstLength: 16776192, FirstBurstLength: 262144,
		MaxOutstandingR2T: 8, ImmediateData: true, MaxConnections: 1,
	}
}

func testConfig() Config {
	return Config{
		InitiatorName: "iqn.2026-01.test:host", TargetName: "iqn.2026-01.test:disk",
		ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, CID: 3, TPGT: -1, Offer: testOffer(),
	}
}

// kv makes text of "key=value" items.
func kv(items ...string) []byte {
	var b []byte
	for _, s := range items {
		b = append(append(b, s...), 0)
	}
	return b
}

// items takes text apart again, by the rules of the wire.
func items(t require.TestingT, text []byte) []string {
	out := []string{}
	require.NoError(t, pdu.WalkKeys(text, func(k, v []byte) error {
		require.NoError(t, pdu.CheckKey(string(k), string(v)))
		out = append(out, string(k)+"="+string(v))
		return nil
	}))
	return out
}

// valueOf is the value of a key in a request, and whether it is there.
func valueOf(t require.TestingT, text []byte, key string) (string, bool) {
	for _, s := range items(t, text) {
		if v, ok := strings.CutPrefix(s, key+"="); ok {
			return v, true
		}
	}
	return "", false
}

var (
	toOperational = pdu.LoginResponse{Transit: true, CSG: pdu.StageSecurity, NSG: pdu.StageOperational}
	toFull        = pdu.LoginResponse{Transit: true, CSG: pdu.StageOperational, NSG: pdu.StageFullFeature, TSIH: 7}
	stay          = pdu.LoginResponse{CSG: pdu.StageOperational}
)

// operational brings a login to the operational stage and gives the request it
// sends there.
func operational(t testing.TB, cfg Config) (*Machine, Request) {
	m := New(cfg)
	m.First()
	r, err := m.Step(toOperational, kv("AuthMethod=None"))
	require.NoError(t, err)
	return m, r
}

// settle ends a login with the target's keys in one final response.
func settle(t testing.TB, cfg Config, keys ...string) (Result, error) {
	m, _ := operational(t, cfg)
	_, err := m.Step(toFull, kv(keys...))
	if err != nil {
		require.False(t, m.Done())
		return Result{}, err
	}
	require.True(t, m.Done())
	return m.Result(), nil
}

// broken asserts that err is a breach of the protocol by the target.
func broken(t require.TestingT, err error, about string) {
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Zero(t, e.Status)
	require.Contains(t, e.Error(), about)
}
