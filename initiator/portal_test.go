package initiator

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/scsi"
)

func TestParsePortal(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1":                   "10.0.0.1:3260",
		"10.0.0.1:860":               "10.0.0.1:860",
		"SAN.Example.com":            "san.example.com:3260",
		"san.example.com.":           "san.example.com:3260",
		"san_1:65535":                "san_1:65535",
		"::1":                        "[::1]:3260",
		"[::1]":                      "[::1]:3260",
		"[::1]:1":                    "[::1]:1",
		"2001:DB8:0:0::1":            "[2001:db8::1]:3260",
		"[fe80::1%eth0]:3260":        "[fe80::1%eth0]:3260",
		"::ffff:10.0.0.1":            "10.0.0.1:3260",
		"7.example":                  "7.example:3260",
		strings.Repeat("a", 63):      strings.Repeat("a", 63) + ":3260",
		"xn--bcher-kva.example:3261": "xn--bcher-kva.example:3261",
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParsePortal(in)
			require.NoError(t, err)
			assert.Equal(t, want, got)
			again, err := ParsePortal(got)
			require.NoError(t, err)
			assert.Equal(t, got, again, "the one form must be its own")
		})
	}
}

func TestParsePortalRefuses(t *testing.T) {
	for in, reason := range map[string]string{
		"":                        "is empty",
		":3260":                   "names no host",
		"host:":                   "not within",
		"host:0":                  "not within",
		"host:65536":              "not within",
		"host:iscsi":              "not a number",
		"host:+1":                 "not a number",
		"3260":                    "neither an address nor a host name",
		"10.0.0":                  "neither an address nor a host name",
		"10.0.0.256":              "neither an address nor a host name",
		"[::1":                    "no closing bracket",
		"[::1]x":                  "not a port",
		"[host]:3260":             "only an IPv6 address",
		"1:2:3":                   "not an IPv6 address",
		"[::1%]]":                 "not a port",
		"::1%]":                   "not an IPv6 address",
		"a b":                     "not a host name",
		"a/b":                     "not a host name",
		"-a":                      "not a host name",
		"a..b":                    "not a host name",
		"host,1":                  "not a host name",
		strings.Repeat("a", 64):   "not a host name",
		strings.Repeat("a.", 128): "longer than 253",
		"h\x00st":                 "not a host name",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := ParsePortal(in)
			require.Error(t, err)
			assert.Equal(t, KindInvalid, KindOf(err))
			assert.Contains(t, err.Error(), "host:port", "it must say how to write a portal")
			assert.Contains(t, err.Error(), reason)
		})
	}
}

func FuzzParsePortal(f *testing.F) {
	for _, s := range []string{"host", "host:3260", "[::1]:3260", "::1", "10.0.0.1:860", "[fe80::1%eth0]", "[", ":", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePortal(s)
		if err != nil {
			require.Equal(t, KindInvalid, KindOf(err))
			return
		}
		again, err := ParsePortal(p)
		require.NoError(t, err)
		require.Equal(t, p, again)
		_, _, err = net.SplitHostPort(p)
		require.NoError(t, err)
	})
}

func TestParseURL(t *testing.T) {
	for in, want := range map[string]Address{
		"iscsi://10.0.0.1/iqn.2026-01.test:a/3":          {Portal: "10.0.0.1:3260", Target: "iqn.2026-01.test:a", LUN: scsi.MakeLUN(3), HasLUN: true},
		"iscsi://san:861/iqn.2026-01.test:a":             {Portal: "san:861", Target: "iqn.2026-01.test:a"},
		"iscsi://san/iqn.2026-01.test:a/":                {Portal: "san:3260", Target: "iqn.2026-01.test:a"},
		"ISCSI://user@[::1]:3260/eui.02004567a425678d/0": {User: "user", Portal: "[::1]:3260", Target: "eui.02004567a425678d", HasLUN: true},
		"iscsi://a@b@san/iqn.2026-01.test:a/0":           {User: "a@b", Portal: "san:3260", Target: "iqn.2026-01.test:a", HasLUN: true},
	} {
		t.Run(in, func(t *testing.T) {
			got, err := ParseURL(in)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

func TestParseURLRefuses(t *testing.T) {
	for in, reason := range map[string]string{
		"http://x/y":                              "does not start with",
		"iscsi://":                                "no target",
		"iscsi://san":                             "no target",
		"iscsi://san/":                            "no target",
		"iscsi:///iqn.2026-01.test:a/0":           "is empty",
		"iscsi://u%secret@san/iqn.2026-01.t:a/0":  "password",
		"iscsi://u:secret@san/iqn.2026-01.t:a/0":  "password",
		"iscsi://@san/iqn.2026-01.t:a/0":          "user before @",
		"iscsi://san/notaname/0":                  "iSCSI name",
		"iscsi://san/iqn.2026-01.test:a/x":        "LUN",
		"iscsi://san/iqn.2026-01.test:a/0?x=y":    "not supported",
		"iscsi://san/iqn.2026-01.test:a/0/1":      "LUN",
		"iscsi://san/iqn.2026-01.test:a/99999999": "LUN",
	} {
		t.Run(in, func(t *testing.T) {
			_, err := ParseURL(in)
			require.Error(t, err)
			assert.Equal(t, KindInvalid, KindOf(err))
			assert.Contains(t, err.Error(), reason)
			assert.NotContains(t, err.Error(), "secret", "a password must not come back in an error")
		})
	}
}

func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"iscsi://10.0.0.1/iqn.2026-01.test:a/3", "iscsi://u@[::1]:1/eui.02004567a425678d", "iscsi://x%y@z/a/b", "iscsi:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseURL(s)
		if err != nil {
			require.Equal(t, KindInvalid, KindOf(err))
			return
		}
		require.NoError(t, CheckName(a.Target))
		_, err = ParsePortal(a.Portal)
		require.NoError(t, err)
	})
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"iqn.2026-01.com.example", "iqn.2026-01.com.example:disk1", "iqn.2026-01.com.example:a:b_C",
		"eui.02004567A425678D", "naa.52004567ba64678d", "naa.62004567ba64678d0123456789abcdef", "IQN.2026-12.x",
		"iqn.2026-01.com.example:Bücher",
	} {
		assert.NoError(t, CheckName(name), name)
	}
	for name, reason := range map[string]string{
		"":                      "empty",
		"iqn":                   "no type",
		"disk1":                 "does not begin",
		"iqn.2026-01":           "no naming authority",
		"iqn.2026-01.":          "no naming authority",
		"iqn.2026-01.:x":        "no naming authority",
		"iqn.2026.com":          "date",
		"iqn.26-01.com.example": "date",
		"iqn.2026-13.com":       "no month",
		"iqn.2026-00.com":       "no month",
		"iqn.2026-01.a b":       "not allowed",
		"iqn.2026-01.a:\xff":    "not UTF-8",
		"iqn.2026-01.a:\u00a0":  "not allowed",
		"iqn.2026-01.a:☃":       "not allowed",
		"iqn.2026-01.a/b":       "not allowed",
		"iqn.2026-01.a\n":       "not allowed",
		"iqn.2026-01.a,b":       "not allowed",
		"eui.123":               "hexadecimal",
		"eui.02004567a425678g":  "hexadecimal",
		"naa.1":                 "hexadecimal",
		"iqn.2026-01.com.example:" + strings.Repeat("x", 200): "longer",
	} {
		err := CheckName(name)
		require.Error(t, err, name)
		assert.Contains(t, err.Error(), reason)
		assert.Equal(t, KindInvalid, KindOf(err))
	}
}

func TestParsePortalURL(t *testing.T) {
	for in, want := range map[string]Address{
		"iscsi://h":                    {Portal: "h:3260"},
		"ISCSI://u@h:1/":               {User: "u", Portal: "h:1"},
		"iscsi://[::1]":                {Portal: "[::1]:3260"},
		"iscsi://h/iqn.2026-01.test:a": {Portal: "h:3260", Target: "iqn.2026-01.test:a"},
	} {
		a, err := ParsePortalURL(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, a, in)
	}
	for _, bad := range []string{"h", "iscsi:/h", "iscsi://", "iscsi:///", "iscsi://u:p@h", "iscsi://a b", "iscsi://h/disk"} {
		_, err := ParsePortalURL(bad)
		assert.Equal(t, KindInvalid, KindOf(err), bad)
	}
}
