package session

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConfigDefaults(t *testing.T) {
	cfg, err := Config{InitiatorName: "iqn.i", TargetName: "iqn.t", Portal: "p:1"}.withDefaults()
	require.NoError(t, err)
	assert.EqualValues(t, 262144, cfg.MaxRecvDataSegmentLength)
	assert.EqualValues(t, 16776192, cfg.MaxBurstLength)
	assert.EqualValues(t, 262144, cfg.FirstBurstLength)
	assert.EqualValues(t, 8, cfg.MaxOutstandingR2T)
	assert.Equal(t, 128, cfg.CmdsMax)
	assert.Equal(t, 10*time.Second, cfg.LoginTimeout)
	assert.Equal(t, 5*time.Second, cfg.LogoutTimeout)
	assert.Equal(t, time.Second, cfg.NoopInterval)
	assert.Equal(t, 2*time.Second, cfg.NoopTimeout)
	assert.Equal(t, 200*time.Millisecond, cfg.SuspectAfter)
	assert.Equal(t, 100*time.Millisecond, cfg.ReconnectMin)
	assert.Equal(t, 5*time.Second, cfg.ReconnectMax)
	assert.NotNil(t, cfg.Logger)
}

func TestConfigRefused(t *testing.T) {
	for msg, change := range map[string]func(c *Config){
		"no initiator name":                func(c *Config) { c.InitiatorName = "" },
		"initiator name is 224 bytes long": func(c *Config) { c.InitiatorName = strings.Repeat("i", 224) },
		`initiator name "a b" contains`:    func(c *Config) { c.InitiatorName = "a b" },
		"no target name":                   func(c *Config) { c.TargetName = "" },
		`target name "a\x00b" contains`:    func(c *Config) { c.TargetName = "a\x00b" },
		`target name "a\x7f" contains`:     func(c *Config) { c.TargetName = "a\x7f" },
		"no portal":                        func(c *Config) { c.Portal = "" },
		"MaxRecvDataSegmentLength is 511":  func(c *Config) { c.MaxRecvDataSegmentLength = 511 },
		"MaxBurstLength is 16777216":       func(c *Config) { c.MaxBurstLength = 1 << 24 },
		"FirstBurstLength is 1,":           func(c *Config) { c.FirstBurstLength = 1 },
		"CmdsMax is -1":                    func(c *Config) { c.CmdsMax = -1 },
		"CmdsMax is 4097":                  func(c *Config) { c.CmdsMax = 4097 },
		"LoginTimeout is -1ns":             func(c *Config) { c.LoginTimeout = -1 },
		"LogoutTimeout is -1ns":            func(c *Config) { c.LogoutTimeout = -1 },
		"NoopTimeout is -1s":               func(c *Config) { c.NoopTimeout = -time.Second },
		"SuspectAfter is -1ns":             func(c *Config) { c.SuspectAfter = -1 },
		"ReconnectMin is -1ns":             func(c *Config) { c.ReconnectMin = -1 },
		"ReconnectMax is -1ns":             func(c *Config) { c.ReconnectMax = -1 },
	} {
		cfg := Config{InitiatorName: "iqn.i", TargetName: "iqn.t", Portal: "p:1"}
		change(&cfg)
		s, err := New(cfg, nil, nil)
		assert.ErrorContains(t, err, msg)
		assert.Nil(t, s)
	}
}

func TestConfigAdjusted(t *testing.T) {
	cfg, err := Config{
		InitiatorName: strings.Repeat("i", 223), Discovery: true, Portal: "p:1", NoopInterval: -1,
		MaxBurstLength: 4096, FirstBurstLength: 8192, ReconnectMin: time.Minute, CmdsMax: 4096,
	}.withDefaults()
	require.NoError(t, err)
	assert.EqualValues(t, 4096, cfg.FirstBurstLength, "no more than MaxBurstLength")
	assert.Equal(t, time.Minute, cfg.ReconnectMax)
	assert.Negative(t, cfg.NoopInterval)
}

func TestErrorText(t *testing.T) {
	e := &Error{Kind: KindTransport, Portal: "p:1", Msg: "what", Err: io.EOF, Hint: "do this"}
	assert.Equal(t, "p:1: connection lost: what (EOF); do this", e.Error())
	assert.ErrorIs(t, e, io.EOF)
	assert.Equal(t, "error", (&Error{}).Error())
	assert.False(t, (&Error{Kind: KindLogin, Login: 0x0301}).Permanent())
	assert.True(t, (&Error{Kind: KindLogin, Login: 0x0203}).Permanent())
	assert.False(t, (&Error{Kind: KindTarget, Login: 0x0203}).Permanent())
	assert.True(t, SafeToRetry(errors.Join(errors.New("x"), e)))
	seen := map[string]bool{}
	for k := KindTransport; k <= KindResponse; k++ {
		assert.NotEqual(t, "error", k.String())
		assert.False(t, seen[k.String()])
		seen[k.String()] = true
	}
}

func TestDeriveISID(t *testing.T) {
	a := DeriveISID("iqn.i", "iqn.t", "p:1")
	assert.Equal(t, a, DeriveISID("iqn.i", "iqn.t", "p:1"))
	assert.NotEqual(t, a, DeriveISID("iqn.i", "iqn.t", "p:2"))
	assert.NotEqual(t, a, DeriveISID("iqn.i", "iqn.tp:1"))
	assert.Equal(t, byte(0x80), a[0], "the random type")
}
