package scsi

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unhex makes bytes of hexadecimal digits with blanks and line breaks between.
func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(tb, err)
	return b
}

// requireNeed checks that err says the data is too short and how much is needed.
func requireNeed(t *testing.T, err error, need int) {
	t.Helper()
	require.ErrorIs(t, err, ErrShort)
	var f *FormatError
	require.ErrorAs(t, err, &f)
	require.Equal(t, need, f.Need)
	require.Less(t, f.Have, need)
}

// requireFromPrefixes checks that a parser refuses each proper prefix of good
// that is shorter than enough and accepts every longer one.
func requireFromPrefixes(t *testing.T, good []byte, enough int, parse func([]byte) error) {
	t.Helper()
	for n := range len(good) + 1 {
		// A copy with nothing behind it: reading past n panics.
		err := parse(append(make([]byte, 0, n), good[:n]...))
		if n < enough {
			require.ErrorIs(t, err, ErrShort, "%d bytes", n)
		} else {
			require.NoError(t, err, "%d bytes", n)
		}
	}
}
