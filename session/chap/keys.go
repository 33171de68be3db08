package chap

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"github.com/iscsimp/iscsimp/pdu"
)

// MaxBinary is the most bytes a challenge or a response may have (RFC 7143 §12.1.3).
const MaxBinary = 1024

// MaxNameLen is the most bytes of a name, ours or the peer's.
const MaxNameLen = 255

// maxProposed bounds the algorithms a target looks at in an initiator's list.
const maxProposed = 64

// Keys holds the CHAP keys of one response or request, as text; "" for those that
// were not sent. Printed or logged it shows only which keys are there: challenge
// and response together are enough to guess at the secret.
type Keys struct {
	Algorithm  string // CHAP_A
	Identifier string // CHAP_I
	Challenge  string // CHAP_C
	Name       string // CHAP_N
	Response   string // CHAP_R
}

func (k *Keys) field(key string) *string {
	switch key {
	case "CHAP_A":
		return &k.Algorithm
	case "CHAP_I":
		return &k.Identifier
	case "CHAP_C":
		return &k.Challenge
	case "CHAP_N":
		return &k.Name
	case "CHAP_R":
		return &k.Response
	default:
		return nil
	}
}

// Set notes one key=value pair. known is false for keys that are not CHAP's. A
// key that comes twice is an error (RFC 7143 §6.2).
func (k *Keys) Set(key, value string) (known bool, err error) {
	p := k.field(key)
	if p == nil {
		return false, nil
	}
	if *p != "" {
		return true, protocolError("%s came twice", key)
	}
	*p = value
	return true, nil
}

// KeysFromMap picks the CHAP keys of m.
func KeysFromMap(m map[string]string) Keys {
	return Keys{Algorithm: m["CHAP_A"], Identifier: m["CHAP_I"], Challenge: m["CHAP_C"], Name: m["CHAP_N"], Response: m["CHAP_R"]}
}

// present names the keys that are there.
func (k Keys) present() string {
	var names []string
	for _, key := range []string{"CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"} {
		if *k.field(key) != "" {
			names = append(names, key)
		}
	}
	return strings.Join(names, " ")
}

// Format writes the names of the keys that are there.
func (k Keys) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "["+k.present()+"]") }

// LogValue gives the names of the keys that are there.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.present()) }

func protocolError(format string, args ...any) *Error {
	return newError(ReasonProtocol, hintPeerBroken, format, args...)
}

// need returns an error unless exactly the wanted ones of the keys are there.
func (k Keys) need(wanted ...string) error {
	there := k.present()
	for _, key := range wanted {
		if *k.field(key) == "" {
			return protocolError("%s is missing or empty (there is %q)", key, there)
		}
		*k.field(key) = "" // k is our copy
	}
	if rest := k.present(); rest != "" {
		return protocolError("%s is out of place here", rest)
	}
	return nil
}

func (k Keys) parseIdentifier() (byte, error) {
	n, err := pdu.ParseNumber(k.Identifier)
	if err != nil {
		return 0, protocolError("CHAP_I=%s is not a number", quote(k.Identifier))
	}
	if n > 255 {
		return 0, protocolError("CHAP_I=%d is not in 0…255", n)
	}
	return byte(n), nil
}

func (k Keys) parseChallenge() ([]byte, error) {
	c, err := pdu.ParseBinary(k.Challenge, MaxBinary)
	if err != nil {
		return nil, &Error{Reason: ReasonProtocol, Msg: "CHAP_C cannot be read", Hint: hintPeerBroken, Err: err}
	}
	return c, nil
}

func (k Keys) parseResponse(a Algorithm) ([]byte, error) {
	r, err := pdu.ParseBinary(k.Response, MaxBinary)
	if err != nil {
		return nil, &Error{Reason: ReasonProtocol, Msg: "CHAP_R cannot be read", Hint: hintPeerBroken, Err: err}
	}
	if len(r) != a.Size() {
		return nil, protocolError("CHAP_R has %d bytes, but those of %v have %d", len(r), a, a.Size())
	}
	return r, nil
}

// parseProposal reads a list of CHAP_A, unknown numbers included.
func (k Keys) parseProposal() ([]uint64, error) {
	items := strings.Split(k.Algorithm, ",")
	if len(items) > maxProposed {
		return nil, protocolError("CHAP_A lists %d algorithms, at most %d allowed", len(items), maxProposed)
	}
	out := make([]uint64, len(items))
	for i, item := range items {
		n, err := pdu.ParseNumber(item)
		if err != nil {
			return nil, protocolError("CHAP_A=%s is not a list of numbers", quote(k.Algorithm))
		}
		out[i] = n
	}
	return out, nil
}

// appendBinary appends a key with a binary value in hexadecimal, which every peer
// reads; base64 is not understood by all.
func appendBinary(dst []byte, key string, value []byte) []byte {
	return pdu.AppendKey(dst, key, fmt.Sprintf("0x%x", value))
}

func appendNumber(dst []byte, key string, n byte) []byte {
	return pdu.AppendKey(dst, key, strconv.Itoa(int(n)))
}
