package login

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rule is what RFC 7143 §13 says of a key, written down a second time.
type rule struct {
	key       string
	fn        string // min, max, or, and
	lo, hi    uint64
	def       uint64
	discovery bool // means something in discovery sessions
	set       func(*Offer, uint64)
	get       func(*Result) uint64
}

var rules = []rule{
	{
		"MaxConnections", "min", 1, 65535, 1, false,
		func(o *Offer, v uint64) { o.MaxConnections = uint16(v) },
		func(r *Result) uint64 { return uint64(r.MaxConnections) },
	},
	{
		"InitialR2T", "or", 0, 1, 1, false,
		func(o *Offer, v uint64) { o.InitialR2T = v == 1 },
		func(r *Result) uint64 { return bit(r.InitialR2T) },
	},
	{
		"ImmediateData", "and", 0, 1, 1, false,
		func(o *Offer, v uint64) { o.ImmediateData = v == 1 },
		func(r *Result) uint64 { return bit(r.ImmediateData) },
	},
	{
		"MaxBurstLength", "min", 512, 1<<24 - 1, 262144, false,
		func(o *Offer, v uint64) { o.MaxBurstLength = uint32(v) },
		func(r *Result) uint64 { return uint64(r.MaxBurstLength) },
	},
	{
		"FirstBurstLength", "min", 512, 1<<24 - 1, 65536, false,
		func(o *Offer, v uint64) { o.FirstBurstLength = uint32(v) },
		func(r *Result) uint64 { return uint64(r.FirstBurstLength) },
	},
	{
		"DefaultTime2Wait", "max", 0, 3600, 2, true,
		func(o *Offer, v uint64) { o.DefaultTime2Wait = uint16(v) },
		func(r *Result) uint64 { return uint64(r.DefaultTime2Wait) },
	},
	{
		"DefaultTime2Retain", "min", 0, 3600, 20, true,
		func(o *Offer, v uint64) { o.DefaultTime2Retain = uint16(v) },
		func(r *Result) uint64 { return uint64(r.DefaultTime2Retain) },
	},
	{
		"MaxOutstandingR2T", "min", 1, 65535, 1, false,
		func(o *Offer, v uint64) { o.MaxOutstandingR2T = uint16(v) },
		func(r *Result) uint64 { return uint64(r.MaxOutstandingR2T) },
	},
	{
		"DataPDUInOrder", "or", 0, 1, 1, false, nil,
		func(r *Result) uint64 { return bit(r.DataPDUInOrder) },
	},
	{
		"DataSequenceInOrder", "or", 0, 1, 1, false, nil,
		func(r *Result) uint64 { return bit(r.DataSeqInOrder) },
	},
	{
		"ErrorRecoveryLevel", "min", 0, 2, 0, false,
		func(o *Offer, v uint64) { o.ErrorRecoveryLevel = uint8(v) },
		func(r *Result) uint64 { return uint64(r.ErrorRecoveryLevel) },
	},
}

func (k rule) boolean() bool { return k.fn == "or" || k.fn == "and" }

func (k rule) text(v uint64) string {
	switch {
	case !k.boolean():
		return strconv.FormatUint(v, 10)
	case v == 1:
		return "Yes"
	}
	return "No"
}

func (k rule) outcome(a, b uint64) uint64 {
	switch k.fn {
	case "min", "and":
		return min(a, b)
	}
	return max(a, b)
}

// samples are values of a key worth trying.
func (k rule) samples() []uint64 {
	if k.boolean() {
		return []uint64{0, 1}
	}
	return []uint64{k.lo, k.lo + 1, k.def, (k.lo + k.hi) / 2, k.hi}
}

// config offers ours for the key, and for the others what leaves it alone.
func (k rule) config(ours uint64) Config {
	cfg := testConfig()
	cfg.Offer.MaxBurstLength = 1<<24 - 1
	if k.set != nil {
		k.set(&cfg.Offer, ours)
	}
	return cfg
}

// oursToTry: of two keys this side never offers anything but Yes.
func (k rule) oursToTry() []uint64 {
	if k.set == nil {
		return []uint64{1}
	}
	return k.samples()
}

// others are answers to the keys that k hangs on.
func (k rule) others() []string {
	if k.key == "FirstBurstLength" {
		return []string{"MaxBurstLength=16777215"}
	}
	return nil
}

// TestAnswers: we offer, the target answers with the outcome or, as some do,
// with its own value; the outcome is the same.
func TestAnswers(t *testing.T) {
	for _, k := range rules {
		t.Run(k.key, func(t *testing.T) {
			for _, ours := range k.oursToTry() {
				m, req := operational(t, k.config(ours))
				v, ok := valueOf(t, req.Text, k.key)
				require.True(t, ok, "not offered")
				require.Equal(t, k.text(ours), v)
				require.NotNil(t, m)
				for _, theirs := range k.samples() {
					want := k.outcome(ours, theirs)
					for _, answer := range []uint64{theirs, want} {
						res, err := settle(t, k.config(ours), append(k.others(), k.key+"="+k.text(answer))...)
						require.NoError(t, err)
						require.Equal(t, want, k.get(&res), "ours %d theirs %d answer %d", ours, theirs, answer)
					}
				}
			}
		})
	}
}

// TestTargetOffers: we did not send the key, the target proposes a value; the
// answer is the outcome and the target is not offered the key again.
func TestTargetOffers(t *testing.T) {
	for _, k := range rules {
		t.Run(k.key, func(t *testing.T) {
			for _, ours := range k.oursToTry() {
				for _, theirs := range k.samples() {
					cfg := k.config(ours)
					cfg.Minimal = true
					want := k.outcome(ours, theirs)

					m, req := operational(t, cfg)
					_, ok := valueOf(t, req.Text, k.key)
					require.False(t, ok, "offered in a minimal login")
					req, err := m.Step(stay, kv(append(k.others(), k.key+"="+k.text(theirs))...))
					require.NoError(t, err)
					require.True(t, req.Header.Transit)
					v, _ := valueOf(t, req.Text, k.key)
					require.Equal(t, k.text(want), v)
					_, err = m.Step(toFull, nil)
					require.NoError(t, err)
					res := m.Result()
					require.Equal(t, want, k.get(&res))

					// Proposed in the security stage, too early, by a target in a hurry.
					m = New(k.config(ours))
					m.First()
					req, err = m.Step(toOperational, kv(k.key+"="+k.text(theirs)))
					require.NoError(t, err)
					n := 0
					for _, s := range items(t, req.Text) {
						if s == k.key+"="+k.text(want) {
							n++
						}
					}
					require.Equal(t, 1, n, "answered once, not offered besides: %q", req.Text)
				}
			}
		})
	}
}

// TestDefaults: a target that does not speak of a key, or gives no value, gets
// the RFC's default, whatever we offered.
func TestDefaults(t *testing.T) {
	for _, k := range rules {
		for _, answer := range []string{"", "=Irrelevant", "=NotUnderstood", "=Reject"} {
			t.Run(k.key+answer, func(t *testing.T) {
				for _, ours := range k.oursToTry() {
					cfg := k.config(ours)
					if k.key != "MaxBurstLength" {
						cfg.Offer.MaxBurstLength = 1<<24 - 1
					}
					keys := k.others()
					if answer != "" {
						keys = append(keys, k.key+answer)
					}
					res, err := settle(t, cfg, keys...)
					require.NoError(t, err)
					require.Equal(t, k.def, k.get(&res))
				}
			})
		}
	}
}

func TestBadValues(t *testing.T) {
	for _, k := range rules {
		bad := []string{"", " 1", "-1", "1.5", "0x", "1,2", "18446744073709551616", "yes", "TRUE", "None"}
		if k.boolean() {
			bad = append(bad, "0", "1", "no", "Yes ")
		} else {
			bad = append(bad, "Yes", "No", strconv.FormatUint(k.hi+1, 10), "0x"+strconv.FormatUint(k.hi+1, 16), "1~2")
			if k.lo > 0 {
				bad = append(bad, strconv.FormatUint(k.lo-1, 10))
			}
		}
		for _, v := range bad {
			t.Run(fmt.Sprintf("%s=%s", k.key, v), func(t *testing.T) {
				_, err := settle(t, testConfig(), k.key+"="+v)
				broken(t, err, k.key)
			})
		}
	}
	for _, v := range []string{"511", "16777216", "0", "x", ""} {
		_, err := settle(t, testConfig(), "MaxRecvDataSegmentLength="+v)
		broken(t, err, "MaxRecvDataSegmentLength")
	}
}

// TestHexadecimal: numbers may be sent in hexadecimal (RFC 7143 §6.1).
func TestHexadecimal(t *testing.T) {
	res, err := settle(t, testConfig(), "MaxBurstLength=0x10000", "FirstBurstLength=0X8000", "MaxRecvDataSegmentLength=0x200", "TargetPortalGroupTag=0xffff")
	require.NoError(t, err)
	assert.EqualValues(t, 65536, res.MaxBurstLength)
	assert.EqualValues(t, 32768, res.FirstBurstLength)
	assert.EqualValues(t, 512, res.MaxSendDataSegmentLength)
	assert.Equal(t, 65535, res.TargetPortalGroupTag)
}

// TestFirstBurstWithinMaxBurst: whatever the target says of the two.
func TestFirstBurstWithinMaxBurst(t *testing.T) {
	res, err := settle(t, testConfig(), "MaxBurstLength=4096", "FirstBurstLength=65536")
	require.NoError(t, err)
	assert.EqualValues(t, 4096, res.FirstBurstLength)
	res, err = settle(t, testConfig(), "MaxBurstLength=4096")
	require.NoError(t, err)
	assert.EqualValues(t, 4096, res.FirstBurstLength, "the default is 65536")
}

// TestDeclarations: each side tells its own MaxRecvDataSegmentLength.
func TestDeclarations(t *testing.T) {
	for _, v := range []string{"512", "8192", "16777215"} {
		m, req := operational(t, testConfig())
		own, _ := valueOf(t, req.Text, "MaxRecvDataSegmentLength")
		require.Equal(t, "262144", own)
		req, err := m.Step(stay, kv("MaxRecvDataSegmentLength="+v))
		require.NoError(t, err)
		require.Empty(t, req.Text, "a declaration is not answered")
		_, err = m.Step(toFull, nil)
		require.NoError(t, err)
		res := m.Result()
		require.Equal(t, v, fmt.Sprint(res.MaxSendDataSegmentLength))
		require.EqualValues(t, 262144, res.MaxRecvDataSegmentLength)
	}
	res, err := settle(t, testConfig())
	require.NoError(t, err)
	assert.EqualValues(t, 8192, res.MaxSendDataSegmentLength)
	assert.EqualValues(t, 262144, res.MaxRecvDataSegmentLength, "declared, and never refused")
}

// TestRepeatedKeys: the same value again is borne with, another is not
// (RFC 7143 §6.3).
func TestRepeatedKeys(t *testing.T) {
	for _, k := range rules {
		a, b := k.key+"="+k.text(k.lo), k.key+"="+k.text(k.lo+1)
		_, err := settle(t, testConfig(), a, b)
		broken(t, err, "the target gives "+k.key+" twice")
		_, err = settle(t, testConfig(), a, a)
		require.NoError(t, err)

		m, _ := operational(t, testConfig())
		_, err = m.Step(stay, kv(a))
		require.NoError(t, err)
		_, err = m.Step(toFull, kv(b))
		broken(t, err, k.key)
	}
	for _, k := range []string{"MaxRecvDataSegmentLength", "TargetPortalGroupTag"} {
		_, err := settle(t, testConfig(), k+"=1024", k+"=1025")
		broken(t, err, k)
		_, err = settle(t, testConfig(), k+"=1024", k+"=0x400")
		require.NoError(t, err)
	}
}

// TestDiscoveryKeys: keys that mean nothing in a discovery session are not
// offered, and answered with Irrelevant, but for ErrorRecoveryLevel.
func TestDiscoveryKeys(t *testing.T) {
	cfg := testConfig()
	cfg.Discovery, cfg.TargetName = true, ""
	for _, k := range rules {
		m, req := operational(t, cfg)
		_, offered := valueOf(t, req.Text, k.key)
		require.Equal(t, k.discovery, offered, k.key)
		req, err := m.Step(stay, kv(k.key+"="+k.text(k.lo)))
		require.NoError(t, err)
		if k.discovery {
			require.Empty(t, req.Text)
			continue
		}
		want := k.key + "=Irrelevant"
		if k.key == "ErrorRecoveryLevel" {
			want = k.key + "=0" // RFC 7143 §7.4.1
		}
		require.Equal(t, []string{want}, items(t, req.Text))
	}
}
