package login

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

// TestRandomTargets: targets that answer some keys, leave others out, offer
// their own, in several rounds and parts. Every login ends, and what it settles
// on is the function of both values, or the default.
func TestRandomTargets(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 1500 {
		g := &randomTarget{rng: rng, cfg: randomConfig(rng)}
		g.run(t)
	}
}

func randomConfig(rng *rand.Rand) Config {
	cfg := testConfig()
	o := &cfg.Offer
	for _, k := range rules {
		if k.set != nil {
			k.set(o, randomValue(rng, k))
		}
	}
	o.MaxRecvDataSegmentLength = 512 + rng.Uint32N(1<<24-512)
	o.FirstBurstLength = min(o.FirstBurstLength, o.MaxBurstLength)
	o.HeaderDigest, o.DataDigest = rng.IntN(2) == 0, rng.IntN(2) == 0
	cfg.Minimal = rng.IntN(3) == 0
	return cfg
}

func randomValue(rng *rand.Rand, k rule) uint64 {
	if rng.IntN(2) == 0 {
		s := k.samples()
		return s[rng.IntN(len(s))]
	}
	return k.lo + rng.Uint64N(k.hi-k.lo+1)
}

// randomTarget has a will of its own about each key.
type randomTarget struct {
	rng   *rand.Rand
	cfg   Config
	ours  map[string]uint64 // the initiator's values
	spoke map[string]uint64 // values the target gave
	mrdsl uint32
}

func (g *randomTarget) run(t *testing.T) {
	m := New(g.cfg)
	m.First()
	_, err := m.Step(toOperational, kv("AuthMethod=None", "TargetPortalGroupTag=9"))
	require.NoError(t, err)
	said := g.keys()
	for len(said) > 0 && g.rng.IntN(3) == 0 { // T=0 rounds, some of them in parts
		n := g.rng.IntN(len(said) + 1)
		text := kv(said[:n]...)
		said = said[n:]
		if g.rng.IntN(2) == 0 {
			cut := g.rng.IntN(len(text) + 1)
			_, err = m.Step(pdu.LoginResponse{CSG: 1, Continue: true}, text[:cut])
			require.NoError(t, err)
			text = text[cut:]
		}
		r, err := m.Step(stay, text)
		require.NoError(t, err)
		items(t, r.Text)
	}
	_, err = m.Step(toFull, kv(said...))
	require.NoError(t, err)
	require.True(t, m.Done())
	g.check(t, m.Result())
}

// keys makes up what the target says, in random order.
func (g *randomTarget) keys() (said []string) {
	g.spoke = map[string]uint64{}
	for _, k := range rules {
		switch g.rng.IntN(4) {
		case 0:
		case 1:
			said = append(said, k.key+"="+[]string{"Reject", "Irrelevant", "NotUnderstood"}[g.rng.IntN(3)])
		default:
			v := randomValue(g.rng, k)
			g.spoke[k.key] = v
			said = append(said, k.key+"="+k.text(v))
		}
	}
	g.mrdsl = 512 + g.rng.Uint32N(1<<24-512)
	said = append(said, fmt.Sprintf("MaxRecvDataSegmentLength=%d", g.mrdsl), "X-vendor=1", "IFMarker=No")
	g.rng.Shuffle(len(said), func(i, j int) { said[i], said[j] = said[j], said[i] })
	return said
}

func (g *randomTarget) check(t *testing.T, res Result) {
	want := Result{Offer: g.cfg.Offer}
	max := uint64(0)
	for _, k := range rules {
		ours := uint64(1) // the two orders
		if k.set != nil {
			ours = k.get(&want)
		}
		expect := k.def
		if theirs, ok := g.spoke[k.key]; ok {
			expect = k.outcome(ours, theirs)
		}
		switch k.key {
		case "MaxBurstLength":
			max = expect
		case "FirstBurstLength":
			expect = min(expect, max)
		}
		require.Equal(t, expect, k.get(&res), k.key)
		require.GreaterOrEqual(t, k.get(&res), k.lo)
		require.LessOrEqual(t, k.get(&res), k.hi)
	}
	require.Equal(t, g.mrdsl, res.MaxSendDataSegmentLength)
	require.Equal(t, g.cfg.Offer.MaxRecvDataSegmentLength, res.MaxRecvDataSegmentLength)
	require.Equal(t, 9, res.TargetPortalGroupTag)
	require.False(t, res.HeaderDigest || res.DataDigest, "nobody chose them")
}

// FuzzMachine: whatever a target sends, a login ends after a bounded number of
// rounds without a panic, its requests are well-formed and fit the limits of the
// login phase, and what it settles on is in range.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0x81, 0}, kv("AuthMethod=None"), kv("MaxBurstLength=65536"), uint8(0))
	f.Add([]byte{0x81, 0x87}, kv("TargetPortalGroupTag=1"), kv("HeaderDigest=CRC32C", "X-a=b"), uint8(1))
	f.Add([]byte{0x81, 0x44, 0x04, 0x87}, []byte("IFMar"), []byte("ker=Yes\x00"), uint8(2))
	f.Add([]byte{0x81, 0x87}, []byte("=\x00"), []byte("A"), uint8(3))
	f.Add([]byte{0x01}, kv("TargetAddress=[::1]:3260,1"), []byte{}, uint8(0x10))
	f.Add([]byte{0x81, 0x04, 0x87}, kv("AuthMethod=None"), kv("TaskReporting=FastAbort"), uint8(0x20))
	f.Fuzz(func(t *testing.T, flags, textA, textB []byte, mode uint8) {
		cfg := testConfig()
		cfg.Minimal, cfg.Discovery = mode&1 != 0, mode&2 != 0
		cfg.Offer.HeaderDigest, cfg.Offer.DataDigest = mode&4 != 0, mode&8 != 0
		cfg.TaskReporting = mode&0x20 != 0
		m := New(cfg)
		req := m.First()
		for n := 0; ; n++ {
			require.LessOrEqual(t, n, maxRounds)
			items(t, req.Text)
			require.LessOrEqual(t, len(req.Text), 8192)
			require.Equal(t, len(req.Text), req.Header.DataLen)
			resp, text := pdu.LoginResponse{Transit: true, CSG: req.Header.CSG, NSG: req.Header.NSG}, textA
			if n < len(flags) {
				c := flags[n]
				resp = pdu.LoginResponse{Transit: c&0x80 != 0, Continue: c&0x40 != 0, CSG: pdu.Stage(c >> 2 & 3), NSG: pdu.Stage(c & 3)}
				if mode&0x10 != 0 {
					resp.StatusClass = c & 3
				}
			}
			if n%2 == 1 {
				text = textB
			}
			var err error
			if req, err = m.Step(resp, text); err != nil {
				require.NotEmpty(t, err.Error())
				require.False(t, m.Done())
				return
			}
			if m.Done() {
				break
			}
		}
		res := m.Result()
		for _, k := range rules {
			require.LessOrEqual(t, k.get(&res), k.hi, k.key)
			require.GreaterOrEqual(t, k.get(&res), k.lo, k.key)
		}
		require.LessOrEqual(t, res.FirstBurstLength, res.MaxBurstLength)
		require.GreaterOrEqual(t, res.MaxSendDataSegmentLength, uint32(512))
		require.False(t, res.HeaderDigest && !cfg.Offer.HeaderDigest || res.DataDigest && !cfg.Offer.DataDigest)
	})
}
