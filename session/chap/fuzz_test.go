package chap

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/pdu"
)

// FuzzStep: whatever a target sends, what leaves is one right response to a
// challenge that keeps the rules, or nothing.
func FuzzStep(f *testing.F) {
	f.Add("5", "7", "0x0102", "", "")
	f.Add("8", "0xff", "0bAQID", "", "")
	f.Add("7", "256", "0x", "storage", "0x00")
	f.Fuzz(func(t *testing.T, a, i, c, n, r string) {
		in := initiator(t, mutual(t))
		in.AppendOffer(nil)
		out, err := in.Step([]byte("dst"), Keys{a, i, c, n, r})
		require.False(t, in.Done())
		if err != nil {
			require.Equal(t, "dst", string(out))
			_, again := in.Step(nil, Keys{a, i, c, n, r})
			require.Same(t, err, again)
			return
		}
		require.Contains(t, []Algorithm{MD5, SHA256, SHA3256}, in.Chosen())
		id, err := pdu.ParseNumber(i)
		require.NoError(t, err)
		require.LessOrEqual(t, id, uint64(255))
		challenge, err := pdu.ParseBinary(c, MaxBinary)
		require.NoError(t, err)
		sent := keysOf(t, bytes.TrimPrefix(out, []byte("dst")))
		got, err := pdu.ParseBinary(sent.Response, MaxBinary)
		require.NoError(t, err)
		require.Equal(t, in.Chosen().response(byte(id), secretOf(t, aliceSecret), challenge), got)
		require.NotContains(t, string(out), aliceSecret)
	})
}

// FuzzVerify: nothing but the right name and response is accepted.
func FuzzVerify(f *testing.F) {
	fixed := bytes.Repeat([]byte{7}, 1+challengeLen)
	want := func(t testing.TB) []byte {
		return MD5.response(7, secretOf(t, storageSecret), fixed[1:])
	}
	f.Add("", "", "", "storage", fmt.Sprintf("0x%x", want(f)))
	f.Add("", "", "", "storage", "0b"+"AAAAAAAAAAAAAAAAAAAAAA==")
	f.Add("5", "1", "0x00", "", "0x")
	f.Fuzz(func(t *testing.T, a, i, c, n, r string) {
		cfg := mutual(t)
		cfg.Rand = bytes.NewReader(fixed)
		in := initiator(t, cfg)
		in.AppendOffer(nil)
		_, err := in.Step(nil, Keys{Algorithm: "5", Identifier: "1", Challenge: "0x00"})
		require.NoError(t, err)
		err = in.Verify(Keys{a, i, c, n, r})
		got, parseErr := pdu.ParseBinary(r, MaxBinary)
		right := a == "" && i == "" && c == "" && n == "storage" && parseErr == nil && bytes.Equal(got, want(t))
		require.Equal(t, right, err == nil, "%v", err)
		require.Equal(t, right, in.Done())
	})
}

// FuzzTarget: the target's side does not fall over, and takes nobody for Alice.
func FuzzTarget(f *testing.F) {
	f.Add("5,7", "alice", "0x00112233445566778899aabbccddeeff", "1", "0x01")
	f.Add("8", "bob", "0b", "", "")
	f.Fuzz(func(t *testing.T, a, n, r, i, c string) {
		tg := target(t, targetConfig(t))
		if _, err := tg.Challenge(nil, Keys{Algorithm: a}); err != nil {
			require.False(t, tg.Done())
		}
		_, err := tg.Answer(nil, Keys{Identifier: i, Challenge: c, Name: n, Response: r})
		require.Error(t, err)
		require.False(t, tg.Done())
	})
}
