package pdu

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Number of bytes of a peer's text that go into an error message.
const maxQuoted = 80

func valueError(what, value, why string) error {
	if len(value) > maxQuoted {
		value = value[:maxQuoted] + "…"
	}
	return fmt.Errorf("pdu: %q is not a %s: %s", value, what, why)
}

// ParseBool reads a boolean-value of RFC 7143 §6.1, "Yes" or "No".
func ParseBool[T string | []byte](value T) (bool, error) {
	switch string(value) {
	case "Yes":
		return true, nil
	case "No":
		return false, nil
	default:
		return false, valueError("boolean", string(value), "want Yes or No")
	}
}

// ParseNumber reads a numerical-value of RFC 7143 §6.1: decimal without leading
// zeros, or hexadecimal after 0x or 0X, less than 2^64.
func ParseNumber[T string | []byte](value T) (uint64, error) {
	n, why := parseNumber(value)
	if why != "" {
		return 0, valueError("number", string(value), why)
	}
	return n, nil
}

// parseNumber returns in why what is wrong with value, "" for nothing.
func parseNumber[T string | []byte](value T) (n uint64, why string) {
	if hasPrefix(value, 'x') {
		return parseHex(value[2:])
	}
	if len(value) == 0 {
		return 0, "it is empty"
	}
	if value[0] == '0' && len(value) > 1 {
		return 0, "decimal numbers have no leading zeros"
	}
	for i := range len(value) {
		c := value[i]
		if c < '0' || c > '9' {
			return 0, "only decimal digits, or hexadecimal ones after 0x, are allowed"
		}
		hi, lo := bits.Mul64(n, 10)
		digit := uint64(c - '0')
		if hi != 0 || lo > math.MaxUint64-digit {
			return 0, "it does not fit into 64 bits"
		}
		n = lo + digit
	}
	return n, ""
}

func parseHex[T string | []byte](digits T) (n uint64, why string) {
	if len(digits) == 0 {
		return 0, "no digits after 0x"
	}
	for i := range len(digits) {
		d, ok := hexDigit(digits[i])
		if !ok {
			return 0, "only hexadecimal digits are allowed after 0x"
		}
		if n>>60 != 0 {
			return 0, "it does not fit into 64 bits"
		}
		n = n<<4 | uint64(d)
	}
	return n, ""
}

// ParseRange reads a numerical-range of RFC 7143 §6.1, two numbers joined by a
// tilde, the second not lower than the first.
func ParseRange[T string | []byte](value T) (lo, hi uint64, err error) {
	left, right, found := strings.Cut(string(value), "~")
	if !found {
		return 0, 0, valueError("range", string(value), "want two numbers joined by '~'")
	}
	if lo, err = ParseNumber(left); err != nil {
		return 0, 0, err
	}
	if hi, err = ParseNumber(right); err != nil {
		return 0, 0, err
	}
	if hi < lo {
		return 0, 0, valueError("range", string(value), "the second number is lower than the first")
	}
	return lo, hi, nil
}

// ParseBinary reads a binary-value of RFC 7143 §6.1 of at most maxLen bytes: a
// hexadecimal constant after 0x, n digits giving (n+1)/2 bytes, or a base64
// constant (RFC 4648 §4, with padding) after 0b. Decimal constants, which have no
// length of their own, are refused; read those with ParseNumber. The length is
// checked before memory is asked for. The result is new memory.
//
// Errors do not quote the value, which may be a part of a CHAP exchange.
func ParseBinary[T string | []byte](value T, maxLen int) ([]byte, error) {
	switch {
	case hasPrefix(value, 'x'):
		return parseHexBinary(value[2:], maxLen)
	case hasPrefix(value, 'b'):
		return parseBase64(string(value[2:]), maxLen)
	default:
		return nil, errors.New("pdu: binary value starts with neither 0x nor 0b")
	}
}

func tooLongBinary(n, maxLen int) error {
	return fmt.Errorf("pdu: binary value of %d bytes, at most %d allowed", n, maxLen)
}

func parseHexBinary[T string | []byte](digits T, maxLen int) ([]byte, error) {
	n := (len(digits) + 1) / 2
	if n == 0 {
		return nil, errors.New("pdu: binary value has no digits after 0x")
	}
	if n > maxLen {
		return nil, tooLongBinary(n, maxLen)
	}
	out := make([]byte, n)
	// An odd number of digits fills the first byte by half.
	pos := len(digits) % 2
	for i := range len(digits) {
		d, ok := hexDigit(digits[i])
		if !ok {
			return nil, fmt.Errorf("pdu: binary value has a character that is no hexadecimal digit at offset %d", i+2)
		}
		out[(pos+i)/2] = out[(pos+i)/2]<<4 | d
	}
	return out, nil
}

func parseBase64(digits string, maxLen int) ([]byte, error) {
	if digits == "" {
		return nil, errors.New("pdu: binary value has no digits after 0b")
	}
	// encoding/base64 skips line ends; text keys must not have any.
	if i := strings.IndexAny(digits, "\r\n"); i >= 0 {
		return nil, fmt.Errorf("pdu: binary value has a line end at offset %d", i+2)
	}
	pad := len(digits) - len(strings.TrimRight(digits, "="))
	if pad > 2 || len(digits)%4 != 0 {
		return nil, errors.New("pdu: binary value is not padded base64")
	}
	if n := len(digits)/4*3 - pad; n > maxLen {
		return nil, tooLongBinary(n, maxLen)
	}
	out, err := base64.StdEncoding.Strict().DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("pdu: binary value: %w", err)
	}
	return out, nil
}

// hasPrefix reports whether value starts with 0 and letter, in either case.
func hasPrefix[T string | []byte](value T, letter byte) bool {
	return len(value) >= 2 && value[0] == '0' && value[1]|0x20 == letter
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	default:
		return 0, false
	}
}
