package chap

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

// The expected values come from OpenSSL, such as, for the first:
//
//	(printf '\x1ccorrect horse 96'; printf '%b' '\x00\x01…\x0f') | openssl dgst -md5
var vectors = []struct {
	alg         Algorithm
	short, long string // hexadecimal
}{
	{MD5, "94c2e2c04f054e1cd0679a47e3a60241", "f952eaa088742d3e8caae12407b58ddc"},
	{SHA1, "d20a945e17c3119ceb785926a808af8ce2744cda", "88304da2c630eef56b8ec0d6067bcc9ca14e219f"},
	{SHA256, "c8dd5c1f67e0800011582661edf5d7dad7212c3d297203e44c9dc4f0b5193554", "b79eb95779250db3a7de8d58933bedbb3df1578f8b06538da058b70ba12432e1"},
	{SHA3256, "53e639361ac95245ee48a9178901429722f3e4847f61f45c4967b738c6aadacf", "dec7ee3b0bd40d547b584e7a7f496343188b3d722ec31923817209681f08cf36"},
}

func TestResponsesMatchOpenSSL(t *testing.T) {
	counting := make([]byte, 16)
	for i := range counting {
		counting[i] = byte(i)
	}
	longest := bytes.Repeat([]byte{0xa5}, MaxBinary)
	for _, v := range vectors {
		t.Run(v.alg.String(), func(t *testing.T) {
			for _, tc := range []struct {
				id                   byte
				secret, challenge, r string
			}{
				{0x1c, "correct horse 96", "0x" + hex.EncodeToString(counting), v.short},
				{0x1c, "correct horse 96", "0b" + base64.StdEncoding.EncodeToString(counting), v.short},
				{0xff, "another secret!!", "0x" + strings.ToUpper(hex.EncodeToString(longest)), v.long},
				{0xff, "another secret!!", "0b" + base64.StdEncoding.EncodeToString(longest), v.long},
			} {
				in := initiator(t, Config{User: "alice", Secret: secretOf(t, tc.secret), Algorithms: []Algorithm{v.alg}, Registry: NewRegistry()})
				assert.Equal(t, fmt.Sprintf("CHAP_A=%d\x00", v.alg), string(in.AppendOffer(nil)))
				id := fmt.Sprintf("%d", tc.id)
				out, err := in.Step([]byte("before"), Keys{Algorithm: fmt.Sprint(int(v.alg)), Identifier: id, Challenge: tc.challenge})
				require.NoError(t, err)
				assert.Equal(t, "beforeCHAP_N=alice\x00CHAP_R=0x"+tc.r+"\x00", string(out))
				assert.Equal(t, v.alg.Size()*2, len(tc.r))
				assert.True(t, in.Done())
			}
		})
	}
}

func TestLogins(t *testing.T) {
	for _, alg := range []Algorithm{MD5, SHA1, SHA256, SHA3256} {
		for name, cfg := range map[string]Config{"one way": oneWay(t), "mutual": mutual(t)} {
			for _, faults := range []Faults{{}, {ChallengeLen: MaxBinary}, {ChallengeLen: 1}, {Base64: true}, {Identifier: "0xfF"}} {
				t.Run(fmt.Sprintf("%v/%s/%+v", alg, name, faults), func(t *testing.T) {
					tc := targetConfig(t)
					tc.Algorithms, tc.Faults = []Algorithm{alg}, faults
					cfg.Algorithms = []Algorithm{SHA3256, SHA256, SHA1, MD5}
					in, tg := initiator(t, cfg), target(t, tc)
					if faults.Identifier != "" {
						tg.cfg.Rand = bytes.NewReader(bytes.Repeat([]byte{0xff}, 17))
					}
					inErr, tgErr := login(t, in, tg)
					require.NoError(t, inErr)
					require.NoError(t, tgErr)
					assert.True(t, in.Done())
					assert.True(t, tg.Done())
					assert.Equal(t, alg, in.Chosen())
				})
			}
		}
	}
}

func TestDefaultListLogsInEverywhere(t *testing.T) {
	tgtd := Faults{SHA1As7: true}
	for name, tc := range map[string]struct {
		knows  []Algorithm
		faults Faults
		want   Algorithm
	}{
		"MD5 only, as istgt": {[]Algorithm{MD5}, Faults{ChallengeLen: 1024}, MD5},
		"tgtd":               {[]Algorithm{MD5, SHA256}, tgtd, MD5},
		"all":                {[]Algorithm{MD5, SHA1, SHA256, SHA3256}, Faults{}, SHA3256},
		"no MD5":             {[]Algorithm{SHA256}, Faults{}, SHA256},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := targetConfig(t)
			cfg.Algorithms, cfg.Faults = tc.knows, tc.faults
			in := initiator(t, mutual(t))
			assert.Equal(t, "CHAP_A=8,5,7\x00", string(in.AppendOffer(nil)))
			inErr, tgErr := login(t, in, target(t, cfg))
			require.NoError(t, inErr)
			require.NoError(t, tgErr)
			assert.Equal(t, tc.want, in.Chosen())
		})
	}
}

func TestFallbackToMD5(t *testing.T) {
	tgtd := targetConfig(t)
	tgtd.Algorithms, tgtd.Faults.SHA1As7 = []Algorithm{MD5, SHA256}, true
	cfg := mutual(t)
	cfg.Algorithms = []Algorithm{SHA256, MD5}
	in := initiator(t, cfg)
	_, err := login(t, in, target(t, tgtd))
	requireReason(t, ReasonProtocol, err)
	e, _ := errors.AsType[*Error](err)
	require.Equal(t, pdu.LoginInitiatorError, e.Status())

	var again bool
	cfg.Algorithms, again = Fallback(in.Offered(), in.Chosen(), e.Status())
	require.True(t, again)
	in = initiator(t, cfg)
	inErr, tgErr := login(t, in, target(t, tgtd))
	require.NoError(t, inErr)
	require.NoError(t, tgErr)

	_, again = Fallback(in.Offered(), in.Chosen(), pdu.LoginAuthFailure)
	assert.False(t, again, "once only")
	for _, tc := range []struct {
		offered []Algorithm
		chosen  Algorithm
		status  pdu.LoginStatus
		want    bool
	}{
		{[]Algorithm{SHA256, MD5}, SHA256, pdu.LoginAuthFailure, true},
		{[]Algorithm{SHA256, MD5}, SHA256, pdu.LoginNotFound, false},
		{[]Algorithm{SHA256, MD5}, SHA256, pdu.LoginSuccess, false},
		{[]Algorithm{SHA256, MD5}, 0, pdu.LoginAuthFailure, false},
		{[]Algorithm{SHA256, MD5}, MD5, pdu.LoginAuthFailure, false},
		{[]Algorithm{SHA256, SHA1}, SHA256, pdu.LoginAuthFailure, false},
		{[]Algorithm{SHA3256, MD5}, SHA3256, pdu.LoginAuthFailure, false},
	} {
		list, ok := Fallback(tc.offered, tc.chosen, tc.status)
		assert.Equal(t, tc.want, ok, "%v", tc)
		assert.Equal(t, tc.want, len(list) == 1, "%v", tc)
	}
}

func TestStepRefuses(t *testing.T) {
	good := Keys{Algorithm: "5", Identifier: "7", Challenge: "0x0102"}
	for name, tc := range map[string]struct {
		change func(*Keys)
		want   Reason
	}{
		"no algorithm":        {func(k *Keys) { k.Algorithm = "" }, ReasonProtocol},
		"no identifier":       {func(k *Keys) { k.Identifier = "" }, ReasonProtocol},
		"no challenge":        {func(k *Keys) { k.Challenge = "" }, ReasonProtocol},
		"response too early":  {func(k *Keys) { k.Response = "0x00" }, ReasonProtocol},
		"name too early":      {func(k *Keys) { k.Name = "x" }, ReasonProtocol},
		"not offered":         {func(k *Keys) { k.Algorithm = "6" }, ReasonAlgorithm},
		"wraps around":        {func(k *Keys) { k.Algorithm = "261" }, ReasonAlgorithm},
		"rejected":            {func(k *Keys) { k.Algorithm = "Reject" }, ReasonAlgorithm},
		"two algorithms":      {func(k *Keys) { k.Algorithm = "5,7" }, ReasonProtocol},
		"identifier 256":      {func(k *Keys) { k.Identifier = "256" }, ReasonProtocol},
		"identifier 0x100":    {func(k *Keys) { k.Identifier = "0x100" }, ReasonProtocol},
		"identifier -1":       {func(k *Keys) { k.Identifier = "-1" }, ReasonProtocol},
		"challenge decimal":   {func(k *Keys) { k.Challenge = "12" }, ReasonProtocol},
		"challenge empty":     {func(k *Keys) { k.Challenge = "0x" }, ReasonProtocol},
		"challenge too long":  {func(k *Keys) { k.Challenge = "0x" + strings.Repeat("00", 1025) }, ReasonProtocol},
		"challenge malformed": {func(k *Keys) { k.Challenge = "0b!!!!" }, ReasonProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			in := initiator(t, mutual(t))
			in.AppendOffer(nil)
			k := good
			tc.change(&k)
			out, err := in.Step([]byte("dst"), k)
			requireReason(t, tc.want, err)
			assert.Equal(t, "dst", string(out))
			assert.False(t, in.Done())
			_, again := in.Step(nil, good)
			assert.Same(t, err, again, "failure is final")
			assert.Same(t, err, in.Verify(Keys{}))
		})
	}
}

func TestCallsOutOfTurn(t *testing.T) {
	good := Keys{Algorithm: "5", Identifier: "7", Challenge: "0x0102"}
	in := initiator(t, oneWay(t))
	_, err := in.Step(nil, good)
	requireReason(t, ReasonUse, err)

	in = initiator(t, oneWay(t))
	in.AppendOffer(nil)
	requireReason(t, ReasonUse, in.Verify(Keys{Name: "storage", Response: "0x00"}))

	in = initiator(t, oneWay(t))
	in.AppendOffer(nil)
	_, err = in.Step(nil, good)
	require.NoError(t, err)
	require.True(t, in.Done())
	requireReason(t, ReasonUse, in.Verify(Keys{Name: "storage", Response: "0x00"}))
	assert.False(t, in.Done(), "a proof nobody asked for ends the login")

	in = initiator(t, mutual(t))
	in.AppendOffer(nil)
	_, err = in.Step(nil, good)
	require.NoError(t, err)
	assert.False(t, in.Done(), "the target has yet to prove itself")
	_, err = in.Step(nil, good)
	requireReason(t, ReasonUse, err)
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no user":              func(c *Config) { c.User = "" },
		"user with null byte":  func(c *Config) { c.User = "a\x00CHAP_R=0x" },
		"user not UTF-8":       func(c *Config) { c.User = "\xff" },
		"user too long":        func(c *Config) { c.User = strings.Repeat("u", MaxNameLen+1) },
		"no secret":            func(c *Config) { c.Secret = Secret{} },
		"no registry":          func(c *Config) { c.Registry = nil },
		"mutual without":       func(c *Config) { c.MutualSecret = Secret{} },
		"mutual user bad":      func(c *Config) { c.MutualUser = "\x00" },
		"same secrets":         func(c *Config) { c.MutualSecret = secretOf(t, aliceSecret) },
		"secret goes on":       func(c *Config) { c.MutualSecret = secretOf(t, aliceSecret+"2") },
		"secret stops earlier": func(c *Config) { c.MutualSecret = secretOf(t, aliceSecret[:5]) },
		"unknown algorithm":    func(c *Config) { c.Algorithms = []Algorithm{MD5, 9} },
		"algorithm twice":      func(c *Config) { c.Algorithms = []Algorithm{MD5, SHA256, MD5} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := mutual(t)
			change(&cfg)
			_, err := New(cfg)
			requireReason(t, ReasonConfig, err)
			_, err = NewTarget(TargetConfig{User: cfg.User, Secret: cfg.Secret, MutualUser: cfg.MutualUser, MutualSecret: cfg.MutualSecret, Algorithms: cfg.Algorithms})
			if cfg.Registry != nil {
				requireReason(t, ReasonConfig, err)
			}
		})
	}
	cfg := mutual(t)
	list := []Algorithm{MD5}
	cfg.Algorithms = list
	in := initiator(t, cfg)
	list[0] = SHA1
	assert.Equal(t, []Algorithm{MD5}, in.Offered(), "the list is copied")
}

func TestCheckConfigs(t *testing.T) {
	a, b := mutual(t), oneWay(t)
	require.NoError(t, CheckConfigs(a, b))
	b.User, b.Secret = "bob", secretOf(t, storageSecret)
	err := CheckConfigs(a, b)
	requireReasonOfCause(t, err)
	assert.ErrorContains(t, err, `"bob"`)
	require.NoError(t, CheckConfigs())
}

func requireReasonOfCause(t *testing.T, err error) {
	t.Helper()
	requireReason(t, ReasonConfig, errors.Unwrap(err))
	assert.NotContains(t, err.Error(), storageSecret)
}

func TestWarnings(t *testing.T) {
	cfg := mutual(t)
	assert.Empty(t, cfg.Warnings())
	assert.Empty(t, initiator(t, cfg).Warnings(), "the default list gives no cause")
	cfg.Secret, cfg.MutualSecret = secretOf(t, strings.Repeat("s", 11)), secretOf(t, strings.Repeat("m", 12))
	cfg.Algorithms = []Algorithm{SHA3256}
	got := initiator(t, cfg).Warnings()
	require.Len(t, got, 2)
	assert.Contains(t, got[0], "the CHAP secret has only 11 bytes")
	assert.Contains(t, got[1], "MD5")
	cfg.MutualSecret, cfg.Algorithms = secretOf(t, "m"), []Algorithm{SHA256, MD5}
	got = cfg.Warnings()
	require.Len(t, got, 3)
	assert.Contains(t, got[1], "mutual")
	assert.Contains(t, got[2], "tgtd")
}

func TestRandomSourceFails(t *testing.T) {
	good := Keys{Algorithm: "5", Identifier: "7", Challenge: "0x0102"}
	cfg := mutual(t)
	cfg.Rand = iotest.ErrReader(errors.New("no entropy"))
	in := initiator(t, cfg)
	in.AppendOffer(nil)
	_, err := in.Step(nil, good)
	requireReason(t, ReasonRandom, err)

	zeros := make([]byte, 2*(1+challengeLen))
	cfg.Rand = bytes.NewReader(zeros)
	for i := range 2 {
		in = initiator(t, cfg)
		in.AppendOffer(nil)
		_, err = in.Step(nil, good)
		if i == 0 {
			require.NoError(t, err)
		}
	}
	requireReason(t, ReasonRandom, err)

	cfg.Rand, cfg.Registry = bytes.NewReader(zeros), NewRegistry()
	in = initiator(t, cfg)
	in.AppendOffer(nil)
	_, err = in.Step(nil, Keys{Algorithm: "5", Identifier: "7", Challenge: "0x" + strings.Repeat("00", challengeLen)})
	requireReason(t, ReasonRandom, err)
}

func TestParseAlgorithms(t *testing.T) {
	got, err := ParseAlgorithms("sha3-256, 5,SHA-256,sha1")
	require.NoError(t, err)
	assert.Equal(t, []Algorithm{SHA3256, MD5, SHA256, SHA1}, got)
	for _, bad := range []string{"", "MD4", "5,,7", "5,MD5", "9", strings.Repeat("x", 5000)} {
		_, err := ParseAlgorithms(bad)
		requireReason(t, ReasonConfig, err)
		assert.Less(t, len(err.Error()), 300)
	}
	assert.Equal(t, "algorithm 9", Algorithm(9).String())
	assert.Equal(t, "SHA3-256", SHA3256.String())
}

func TestKeys(t *testing.T) {
	var k Keys
	known, err := k.Set("AuthMethod", "CHAP")
	assert.False(t, known)
	require.NoError(t, err)
	for _, key := range []string{"CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"} {
		known, err = k.Set(key, "value of "+key)
		assert.True(t, known)
		require.NoError(t, err)
	}
	_, err = k.Set("CHAP_C", "again")
	requireReason(t, ReasonProtocol, err)
	assert.Equal(t, k, KeysFromMap(map[string]string{
		"CHAP_A": "value of CHAP_A", "CHAP_I": "value of CHAP_I",
		"CHAP_C": "value of CHAP_C", "CHAP_N": "value of CHAP_N", "CHAP_R": "value of CHAP_R", "X": "y",
	}))
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s", k, k, &k, k.LogValue()), "value")
}

func TestTargetRefuses(t *testing.T) {
	other := oneWay(t)
	other.User = "mallory"
	wrong := oneWay(t)
	wrong.Secret = secretOf(t, "not the right one")
	noMD5 := oneWay(t)
	noMD5.Algorithms = []Algorithm{SHA1}
	plain := targetConfig(t)
	bare := targetConfig(t)
	bare.MutualUser, bare.MutualSecret = "", Secret{}
	for name, tc := range map[string]struct {
		in     Config
		tg     TargetConfig
		want   Reason
		status pdu.LoginStatus
	}{
		"unknown user":         {other, plain, ReasonName, pdu.LoginAuthFailure},
		"wrong secret":         {wrong, plain, ReasonResponse, pdu.LoginAuthFailure},
		"no common algorithm":  {noMD5, plain, ReasonAlgorithm, pdu.LoginAuthFailure},
		"cannot prove itself":  {mutual(t), bare, ReasonNoAnswer, pdu.LoginAuthFailure},
		"initiator knows ours": {Config{User: "alice", Secret: plain.MutualSecret, Registry: NewRegistry()}, plain, ReasonSameSecret, pdu.LoginAuthFailure},
		"SHA-256 where SHA-1 is": {
			Config{User: "alice", Secret: plain.Secret, Algorithms: []Algorithm{SHA256}, Registry: NewRegistry()},
			TargetConfig{User: "alice", Secret: plain.Secret, Faults: Faults{SHA1As7: true}},
			ReasonProtocol, pdu.LoginInitiatorError,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tg := target(t, tc.tg)
			inErr, err := login(t, initiator(t, tc.in), tg)
			require.NoError(t, inErr)
			requireReason(t, tc.want, err)
			e, _ := errors.AsType[*Error](err)
			assert.Equal(t, tc.status, e.Status())
			assert.False(t, tg.Done())
			_, again := tg.Answer(nil, Keys{})
			assert.Same(t, err, again)
		})
	}
	tg := target(t, plain)
	_, err := tg.Answer(nil, Keys{Name: "alice", Response: "0x00"})
	requireReason(t, ReasonProtocol, err)
	_, err = target(t, plain).Challenge(nil, Keys{Algorithm: strings.Repeat("5,", 70) + "5"})
	requireReason(t, ReasonProtocol, err)
	plain.Faults.ChallengeLen = 5000
	_, err = NewTarget(plain)
	requireReason(t, ReasonConfig, err)
}
