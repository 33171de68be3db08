package login

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDigestAnswers: we offer, the target chooses.
func TestDigestAnswers(t *testing.T) {
	for _, tt := range []struct {
		want   bool
		answer string // empty: none
		on     bool
		err    string
	}{
		{true, "CRC32C", true, ""},
		{true, "None", false, ""},
		{true, "Reject", false, ""},
		{true, "NotUnderstood", false, ""},
		{true, "Irrelevant", false, ""},
		{true, "", false, ""},
		{true, "CRC32C,None", false, "not offered"},
		{true, "MD5", false, "not offered"},
		{false, "None", false, ""},
		{false, "", false, ""},
		{false, "Reject", false, ""},
		{false, "CRC32C", false, "--header-digest"},
		{false, "crc32c", false, "not offered"},
	} {
		for i, key := range digestKeys {
			t.Run(key+"="+tt.answer, func(t *testing.T) {
				cfg := testConfig()
				cfg.Offer.HeaderDigest = tt.want && i == 0
				cfg.Offer.DataDigest = tt.want && i == 1
				_, req := operational(t, cfg)
				offered, _ := valueOf(t, req.Text, key)
				require.Equal(t, map[bool]string{true: "CRC32C,None", false: "None"}[tt.want], offered)
				var keys []string
				if tt.answer != "" {
					keys = []string{key + "=" + tt.answer}
				}
				res, err := settle(t, cfg, keys...)
				if tt.err != "" {
					broken(t, err, tt.err)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, tt.on && i == 0, res.HeaderDigest)
				assert.Equal(t, tt.on && i == 1, res.DataDigest)
			})
		}
	}
}

// TestDigestOffers: the target proposes a list where we had sent nothing.
func TestDigestOffers(t *testing.T) {
	for _, tt := range []struct {
		want   bool
		list   string
		answer string
	}{
		{false, "CRC32C,None", "None"},
		{false, "None,CRC32C", "None"},
		{false, "CRC32C", "Reject"},
		{false, "MD5,,None", "None"},
		{false, "", "Reject"},
		{true, "CRC32C,None", "CRC32C"},
		{true, "None,CRC32C", "None"},
		{true, "CRC32C", "CRC32C"},
		{true, "SHA,CRC32C", "CRC32C"},
		{true, "SHA", "Reject"},
		{true, "Reject", ""},
	} {
		for i, key := range digestKeys {
			t.Run(key+"="+tt.list, func(t *testing.T) {
				cfg := testConfig()
				cfg.Offer.HeaderDigest = tt.want && i == 0
				cfg.Offer.DataDigest = tt.want && i == 1
				m := New(cfg)
				m.First()
				req, err := m.Step(toOperational, kv(key+"="+tt.list))
				require.NoError(t, err)
				var got []string
				for _, s := range items(t, req.Text) {
					if v, ok := strings.CutPrefix(s, key+"="); ok {
						got = append(got, v)
					}
				}
				if tt.answer == "" { // an answer to nothing: our offer follows
					require.Equal(t, []string{"CRC32C,None"}, got)
					return
				}
				require.Equal(t, []string{tt.answer}, got)
				_, err = m.Step(toFull, nil)
				require.NoError(t, err)
				res := m.Result()
				assert.Equal(t, tt.answer == "CRC32C" && i == 0, res.HeaderDigest)
				assert.Equal(t, tt.answer == "CRC32C" && i == 1, res.DataDigest)
			})
		}
	}
	// A minimal login does not mention digests it does not want.
	cfg := testConfig()
	cfg.Minimal = true
	m, req := operational(t, cfg)
	require.Equal(t, []string{"MaxRecvDataSegmentLength=262144"}, items(t, req.Text))
	req, err := m.Step(stay, kv("HeaderDigest=CRC32C,None"))
	require.NoError(t, err)
	require.Equal(t, []string{"HeaderDigest=None"}, items(t, req.Text))
}

func TestRepeatedDigest(t *testing.T) {
	cfg := testConfig()
	cfg.Offer.HeaderDigest = true
	_, err := settle(t, cfg, "HeaderDigest=CRC32C", "HeaderDigest=None")
	broken(t, err, "HeaderDigest twice")
	res, err := settle(t, cfg, "HeaderDigest=CRC32C", "HeaderDigest=CRC32C")
	require.NoError(t, err)
	require.True(t, res.HeaderDigest)
}

func TestAuthMethod(t *testing.T) {
	step := func(keys ...string) (*Machine, error) {
		m := New(testConfig())
		m.First()
		_, err := m.Step(toOperational, kv(keys...))
		return m, err
	}
	m, err := step("AuthMethod=None")
	require.NoError(t, err)
	require.True(t, m.SecurityStage())
	_, err = m.Step(toFull, nil)
	require.NoError(t, err)
	require.Equal(t, "None", m.Result().AuthMethod)

	m, err = step() // gotgt leaves the key out
	require.NoError(t, err)
	require.Empty(t, m.Result().AuthMethod)

	for value, msg := range map[string]string{
		"CHAP": "the target wants AuthMethod=CHAP", "CHAP,None": "wants", "": "wants", "none": "wants",
		"Reject":        "answers AuthMethod=Reject to a login without authentication",
		"NotUnderstood": "answers AuthMethod=NotUnderstood",
	} {
		_, err = step("AuthMethod=" + value)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.EqualValues(t, 0x0201, e.Status)
		require.Contains(t, e.Msg, msg)
		require.Contains(t, e.Error(), "without authentication")
	}
}

func TestPortalGroupTag(t *testing.T) {
	cfg := testConfig()
	res, err := settle(t, cfg)
	require.NoError(t, err)
	require.Equal(t, -1, res.TargetPortalGroupTag)

	cfg.TPGT = 5
	res, err = settle(t, cfg)
	require.NoError(t, err, "not told is no contradiction")
	require.Equal(t, -1, res.TargetPortalGroupTag)
	res, err = settle(t, cfg, "TargetPortalGroupTag=5")
	require.NoError(t, err)
	require.Equal(t, 5, res.TargetPortalGroupTag)

	_, err = settle(t, cfg, "TargetPortalGroupTag=6") // in the last response, where it is late
	var e *Error
	require.ErrorAs(t, err, &e)
	assert.Contains(t, e.Msg, "portal group 6")
	assert.Contains(t, e.Hint, "discovery")

	m := New(cfg)
	m.First()
	_, err = m.Step(toOperational, kv("TargetPortalGroupTag=0"))
	require.ErrorContains(t, err, "portal group 0, discovery said 5")

	for _, v := range []string{"65536", "-1", "", "x", "1.0"} {
		_, err = settle(t, testConfig(), "TargetPortalGroupTag="+v)
		broken(t, err, "TargetPortalGroupTag")
	}
	_, err = settle(t, testConfig(), "TargetPortalGroupTag=1", "TargetPortalGroupTag=2")
	broken(t, err, "twice")
}

// TestOtherKeys: what is answered to keys this side does not negotiate.
func TestOtherKeys(t *testing.T) {
	for _, tt := range []struct{ key, answer string }{
		{"IFMarker=Yes", "IFMarker=No"},
		{"OFMarker=No", "OFMarker=No"},
		{"IFMarkInt=1~2", "IFMarkInt=Reject"},
		{"OFMarkInt=65535", "OFMarkInt=Reject"},
		{"X-com.example.a=1", "X-com.example.a=NotUnderstood"},
		{"Z#x=", "Z#x=NotUnderstood"},
		{"CHAP_A=5", "CHAP_A=NotUnderstood"},
		{"TaskReporting=FastAbort", "TaskReporting=Reject"},
		{"TaskReporting=FastAbort,RFC3720,ResponseFence", "TaskReporting=RFC3720"},
		{"iSCSIProtocolLevel=2", "iSCSIProtocolLevel=1"},
		{"TargetAlias=the disk", "-"},
		{"TargetAddress=10.0.0.1:3260,1", "-"},
		{"TargetName=x", "-"},
		{"InitiatorName=x", "-"},
		{"InitiatorAlias=x", "-"},
		{"SessionType=Normal", "-"},
		{"X-a=NotUnderstood", "-"},
		{"X-a=Reject", "-"},
		{"X-a=Irrelevant", "-"},
	} {
		t.Run(tt.key, func(t *testing.T) {
			m, _ := operational(t, testConfig())
			req, err := m.Step(stay, kv(tt.key))
			switch tt.answer {
			case "-":
				require.Empty(t, req.Text)
			default:
				require.Equal(t, []string{tt.answer}, items(t, req.Text))
			}
			require.NoError(t, err)
			_, err = m.Step(toFull, nil)
			require.NoError(t, err)
		})
	}
	res, err := settle(t, testConfig(), "TargetAlias=the disk")
	require.NoError(t, err)
	require.Equal(t, "the disk", res.TargetAlias)
}

// TestBadText: text that is no list of keys.
func TestBadText(t *testing.T) {
	for name, text := range map[string]string{
		"no end":         "AuthMethod=None",
		"no value":       "AuthMethod\x00",
		"no key":         "=x\x00",
		"null in middle": "A=1\x00\x00B=2\x00",
		"lower case":     "abc=1\x00",
		"long key":       strings.Repeat("K", 64) + "=1\x00",
		"long value":     "K=" + strings.Repeat("v", 8193) + "\x00",
		"bad character":  "K\x80y=1\x00",
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := operational(t, testConfig())
			_, err := m.Step(stay, []byte(text))
			broken(t, err, "login keys cannot be read")
		})
	}
	m, _ := operational(t, testConfig())
	_, err := m.Step(toFull, []byte("X-a=1\x00\x00\x00\x00"))
	require.NoError(t, err, "nulls at the end are padding")
}

// TestNoPanicOnKeys: AppendKey panics on what is no key, and the keys it is
// given to answer unknown ones come from the target. None gets that far.
func TestNoPanicOnKeys(t *testing.T) {
	values := []string{"", "1", "Reject", "\x01\xff", strings.Repeat("v", 8192)}
	for _, n := range []int{0, 1, 2, 7, 59, 60, 61, 62, 63, 64} {
		for c := range 256 {
			key := []byte("X-" + strings.Repeat("k", n))
			key[c%len(key)] = byte(c)
			for _, v := range values {
				m, _ := operational(t, testConfig())
				req, err := m.Step(stay, kv(string(key)+"="+v))
				if err == nil {
					items(t, req.Text) // checks each by CheckKey
				}
			}
		}
	}
}
