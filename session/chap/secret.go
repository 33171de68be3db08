package chap

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"syscall"
)

// Limits on the length of secrets, in bytes.
const (
	MinSafeSecretLen = 12   // 96 bits; RFC 7143 §9.2.1 demands IPsec below
	MaxSecretLen     = 1024 // longest secret accepted
)

const masked = "[secret]"

// Secret is a CHAP secret: any bytes. Printed, logged or marshaled in whatever
// way it reads "[secret]", and it cannot be read back outside this package. The
// zero Secret is none at all. A Secret does not change and may be copied and used
// by several goroutines.
//
// Compare with Equal: neither == nor reflect.DeepEqual works.
type Secret struct {
	// A function, since everything else is open to reflection: fmt prints
	// unexported fields without asking their methods, and so do bad verbs and
	// the dumps of test libraries.
	get func() []byte
}

// NewSecret makes a Secret of a copy of value, 1 to MaxSecretLen bytes.
func NewSecret[T string | []byte](value T) (Secret, error) {
	if len(value) == 0 {
		return Secret{}, secretError("give at least 12 random bytes", "the secret is empty")
	}
	if len(value) > MaxSecretLen {
		return Secret{}, secretError("give a shorter one, or check that this is the right file", "the secret has more than %d bytes", MaxSecretLen)
	}
	own := []byte(string(value))
	return Secret{func() []byte { return own }}, nil
}

// GenerateSecret gives a new random secret of 26 letters and digits with 128
// random bits (RFC 7143 §9.2.1), to be stored by the caller.
func GenerateSecret() string { return rand.Text() }

func (s Secret) bytes() []byte {
	if s.get == nil {
		return nil
	}
	return s.get()
}

// Len is the length in bytes, 0 for the zero Secret.
func (s Secret) Len() int { return len(s.bytes()) }

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.Len() == 0 }

// Equal reports whether two secrets are the same, in a time that tells nothing
// but whether their lengths are.
func (s Secret) Equal(other Secret) bool {
	return subtle.ConstantTimeCompare(s.bytes(), other.bytes()) == 1
}

// akin reports whether one secret is the beginning of the other, or the same; see
// the package documentation.
func (s Secret) akin(other Secret) bool {
	n := min(s.Len(), other.Len())
	return n > 0 && subtle.ConstantTimeCompare(s.bytes()[:n], other.bytes()[:n]) == 1
}

// String gives "[secret]".
func (s Secret) String() string { return masked }

// GoString gives "[secret]".
func (s Secret) GoString() string { return masked }

// Format writes "[secret]" whatever the verb.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, masked) }

// MarshalJSON gives "[secret]".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + masked + `"`), nil }

// MarshalText gives "[secret]".
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// LogValue gives "[secret]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// UnmarshalText takes a secret from a configuration file. It refuses "[secret]",
// which is what a Secret leaves in a file written by a program.
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == masked {
		return secretError("write the secret itself, or name a file that holds it", "%q stands for a secret that was masked", masked)
	}
	made, err := NewSecret(text)
	if err != nil {
		return err
	}
	*s = made
	return nil
}

// LoadSecretFile reads a secret from a regular file that only its owner may
// access (on Windows the permissions are not looked at). One newline at the end
// is not part of the secret, nor is a carriage return right before it.
func LoadSecretFile(path string) (Secret, error) {
	// O_NONBLOCK: opening a named pipe must not hang.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		hint := "check the path and who owns the file"
		if errors.Is(err, fs.ErrNotExist) {
			hint = "create it with the secret as its only line, then: chmod 600 " + path
		}
		return Secret{}, &Error{Reason: ReasonSecret, Msg: "cannot read the secret", Hint: hint, Err: err}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Secret{}, &Error{Reason: ReasonSecret, Msg: "cannot read the secret", Hint: "check the file", Err: err}
	}
	if !info.Mode().IsRegular() {
		return Secret{}, secretError("put the secret into a file, or use the environment", "%s is not a regular file", path)
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 && runtime.GOOS != "windows" {
		return Secret{}, secretError("run: chmod 600 "+path, "others than its owner may access the secret file %s (mode %04o)", path, perm)
	}
	text, err := io.ReadAll(io.LimitReader(f, MaxSecretLen+3)) // the longest secret, its line end, and one byte too many
	if err != nil {
		return Secret{}, &Error{Reason: ReasonSecret, Msg: "cannot read the secret", Hint: "check the file", Err: err}
	}
	return nameSource("file "+path, trimNewline(text))
}

func trimNewline(text []byte) []byte {
	line, found := bytes.CutSuffix(text, []byte("\n"))
	if found {
		line = bytes.TrimSuffix(line, []byte("\r"))
	}
	return line
}

// nameSource makes a Secret; its error says where the value came from.
func nameSource[T string | []byte](source string, value T) (Secret, error) {
	s, err := NewSecret(value)
	if e, ok := errors.AsType[*Error](err); ok {
		e.Msg = source + ": " + e.Msg
	}
	return s, err
}

// SecretFromEnv reads a secret from an environment variable as it stands. found
// is false when there is no such variable; one that is empty is an error. The
// variable stays: unset it before starting other programs.
func SecretFromEnv(name string) (s Secret, found bool, err error) {
	value, found := os.LookupEnv(name)
	if !found {
		return Secret{}, false, nil
	}
	s, err = nameSource("environment variable "+name, value)
	return s, true, err
}
