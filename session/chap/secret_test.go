package chap

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// leaks gives the forms in which a secret might show.
func leaks(secret string) []string {
	decimal := strings.Trim(fmt.Sprint([]byte(secret)), "[]")
	return []string{
		secret, hex.EncodeToString([]byte(secret)), strings.ToUpper(hex.EncodeToString([]byte(secret))),
		fmt.Sprintf("% x", secret), decimal, strings.ReplaceAll(decimal, " ", ", "), strings.ReplaceAll(decimal, " ", ","),
		base64.StdEncoding.EncodeToString([]byte(secret)), "0x73, 0x65", "(uint8) 115", "00000000  73",
	}
}

const hidden = "secret of the house"

func requireHidden(t *testing.T, what, printed string) {
	t.Helper()
	for _, form := range leaks(hidden) {
		require.NotContains(t, printed, form, what)
	}
}

type holder struct {
	Open   Secret
	closed Secret
	list   []Secret
	table  map[string]*Secret
}

func holders(t *testing.T) []any {
	s := secretOf(t, hidden)
	cfg := Config{User: "u", Secret: s, Registry: NewRegistry()}
	h := holder{s, s, []Secret{s}, map[string]*Secret{"k": &s}}
	tg := target(t, TargetConfig{User: "u", Secret: s})
	return []any{
		s, &s,
		[]Secret{s},
		map[string]Secret{"k": s},
		[1]Secret{s},
		struct{ A any }{s},
		h, &h, cfg, &cfg,
		initiator(t, cfg), *initiator(t, cfg), tg, *tg,
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	for _, v := range holders(t) {
		for verb := byte('A'); verb <= 'z'; verb++ {
			if verb > 'Z' && verb < 'a' {
				continue
			}
			for _, flags := range []string{"", "+", "#", " ", "0", "-20", "# ", ".3", "#+"} {
				format := "%" + flags + string(verb)
				requireHidden(t, fmt.Sprintf("%s of %T", format, v), fmt.Sprintf(format, v))
			}
		}
		wrap, nothing := "%w", "" // variables: vet refuses these mistakes, but others may make them
		requireHidden(t, wrap, fmt.Errorf(wrap, v).Error())
		requireHidden(t, "Sprint", fmt.Sprint(v)+fmt.Sprintln(v, v))
		requireHidden(t, "too many", fmt.Sprintf(nothing, v))
	}
	s := secretOf(t, hidden)
	assert.Equal(t, "[secret] [secret] [secret] [secret]", fmt.Sprintf("%v %#v %x %d", s, s, s, &s))
	assert.Equal(t, "[secret]", s.String())
	assert.Equal(t, "[secret]", s.GoString())
}

func TestSecretIsNeverMarshalled(t *testing.T) {
	for _, v := range holders(t) {
		what := fmt.Sprintf("%T", v)
		text, _ := json.Marshal(v) // holders with functions fail, which is fine
		requireHidden(t, what, string(text))
		text, _ = xml.Marshal(v)
		requireHidden(t, what, string(text))
		var buf bytes.Buffer
		_ = gob.NewEncoder(&buf).Encode(v)
		requireHidden(t, what, buf.String())
		buf.Reset()
		for _, log := range []*slog.Logger{slog.New(slog.NewJSONHandler(&buf, nil)), slog.New(slog.NewTextHandler(&buf, nil))} {
			log.Info("x", "v", v, slog.Any("again", []any{v}))
			log.With("w", v).WithGroup("g").Info(fmt.Sprint(v))
		}
		requireHidden(t, what, buf.String())
		require.NotEmpty(t, buf.String())
	}
	text, err := json.Marshal(map[string]any{"s": secretOf(t, hidden)})
	require.NoError(t, err)
	assert.Equal(t, `{"s":"[secret]"}`, string(text))
	text, err = secretOf(t, hidden).MarshalText()
	require.NoError(t, err)
	assert.Equal(t, masked, string(text))
}

type recorder struct{ bytes.Buffer }

func (r *recorder) Errorf(format string, args ...any) { fmt.Fprintf(r, format, args...) }

func TestSecretIsNotDumpedByFailingTests(t *testing.T) {
	all := holders(t)
	for _, v := range all {
		var r recorder
		assert.Equal(&r, "something else", v)
		assert.Equal(&r, all[6], holder{})
		require.NotEmpty(t, r.String())
		requireHidden(t, fmt.Sprintf("%T", v), r.String())
	}
}

func TestSecretValues(t *testing.T) {
	raw := []byte{0, 1, 0xff, '\n', 'x'}
	s, err := NewSecret(raw)
	require.NoError(t, err)
	raw[0] = 9
	assert.Equal(t, []byte{0, 1, 0xff, '\n', 'x'}, s.bytes(), "copied, any bytes")
	assert.True(t, s.Equal(secretOf(t, "\x00\x01\xff\nx")))
	assert.False(t, s.Equal(secretOf(t, "\x00\x01\xff\ny")))
	assert.False(t, s.Equal(Secret{}))
	assert.True(t, Secret{}.IsZero())
	_, err = NewSecret("")
	requireReason(t, ReasonSecret, err)
	_, err = NewSecret(make([]byte, MaxSecretLen+1))
	requireReason(t, ReasonSecret, err)
	assert.Equal(t, MaxSecretLen, secretOf(t, strings.Repeat("s", MaxSecretLen)).Len())

	var conf struct{ Secret Secret }
	require.NoError(t, json.Unmarshal([]byte(`{"Secret":"from a file"}`), &conf))
	assert.True(t, conf.Secret.Equal(secretOf(t, "from a file")))
	assert.ErrorContains(t, json.Unmarshal([]byte(`{"Secret":"[secret]"}`), &conf), "masked")
	assert.Error(t, json.Unmarshal([]byte(`{"Secret":""}`), &conf))
	a, b := GenerateSecret(), GenerateSecret()
	assert.NotEqual(t, a, b)
	assert.Len(t, a, 26)
}

func TestLoadSecretFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	longest := strings.Repeat("s", MaxSecretLen)
	for content, want := range map[string]string{
		"plain": "plain", "line\n": "line", "two\n\n": "two\n", "dos\r\n": "dos", "cr\r": "cr\r", " spaces \n": " spaces ",
		"nul\x00\xff": "nul\x00\xff", longest + "\r\n": longest, longest: longest,
		"": "", "\n": "", longest + "s": "", longest + "s\n": "", longest + "\n\n": "", longest + longest + "\n": "",
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		s, err := LoadSecretFile(path)
		if want == "" {
			requireReason(t, ReasonSecret, err)
			assert.ErrorContains(t, err, path)
			assert.NotContains(t, err.Error(), "ssss")
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, want, string(s.bytes()))
	}

	_, err := LoadSecretFile(filepath.Join(dir, "missing"))
	requireReason(t, ReasonSecret, err)
	assert.ErrorIs(t, err, os.ErrNotExist)
	_, err = LoadSecretFile(dir)
	requireReason(t, ReasonSecret, err)
	if runtime.GOOS == "windows" {
		return
	}
	require.NoError(t, os.WriteFile(path, []byte(hidden), 0o600))
	for _, mode := range []os.FileMode{0o400, 0o600, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := LoadSecretFile(path)
		if mode&0o077 == 0 {
			require.NoError(t, err)
			continue
		}
		requireReason(t, ReasonSecret, err)
		assert.ErrorContains(t, err, "chmod 600 "+path)
		requireHidden(t, "error", err.Error())
	}
}

func TestSecretFromEnv(t *testing.T) {
	const name = "CHAP_TEST_SECRET"
	_, found, err := SecretFromEnv(name)
	require.NoError(t, err)
	assert.False(t, found)
	t.Setenv(name, hidden)
	s, found, err := SecretFromEnv(name)
	require.NoError(t, err)
	assert.True(t, found)
	assert.True(t, s.Equal(secretOf(t, hidden)))
	t.Setenv(name, "")
	_, found, err = SecretFromEnv(name)
	assert.True(t, found)
	requireReason(t, ReasonSecret, err)
	assert.ErrorContains(t, err, name)
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	e := &Error{Reason: ReasonSecret, Msg: "what", Hint: "do", Err: cause}
	assert.Equal(t, "chap: what: cause; do", e.Error())
	assert.ErrorIs(t, e, cause)
	for r := ReasonConfig; r <= ReasonRandom; r++ {
		assert.NotContains(t, r.String(), "reason", "%d has a name", r)
		assert.NotZero(t, (&Error{Reason: r}).Status(), "%v never reads as success", r)
	}
	assert.Equal(t, "reason 0", Reason(0).String())
	assert.Equal(t, "reason 200", Reason(200).String())
}
