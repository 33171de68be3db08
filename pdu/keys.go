package pdu

import (
	"bytes"
	"errors"
	"fmt"
)

// Limits of key=value text (RFC 7143 §6.1).
const (
	MaxKeyLen   = 63   // longest key in bytes
	MaxValueLen = 8192 // longest value accepted, in bytes; §6.1 asks for 8192 bytes of text in all
)

// AppendKey appends one key=value pair with its closing null byte. It panics when
// CheckKey refuses the pair, because a null byte in a value would smuggle in
// another key; check text that comes from users with CheckKey first.
func AppendKey(dst []byte, key, value string) []byte {
	if err := CheckKey(key, value); err != nil {
		panic(err.Error())
	}
	dst = append(dst, key...)
	dst = append(dst, '=')
	dst = append(dst, value...)
	return append(dst, 0)
}

// CheckKey reports what keeps key and value from being sent as a pair: key must
// be a key-name of §6.1 and value at most MaxValueLen bytes without a null byte.
func CheckKey(key, value string) error {
	if err := checkKeyName(key); err != nil {
		return err
	}
	if len(value) > MaxValueLen {
		return fmt.Errorf("pdu: value of key %s has %d bytes, at most %d allowed", key, len(value), MaxValueLen)
	}
	for i := range len(value) {
		if value[i] == 0 {
			return fmt.Errorf("pdu: value of key %s has a null byte at offset %d", key, i)
		}
	}
	return nil
}

// WalkKeys calls fn for each key=value pair in data until fn returns an error,
// which it passes on. data is one whole logical text data segment: the data
// segments of a series of PDUs joined up to the one with the C bit clear (§6.1).
// Every pair must end in a null byte; further null bytes at the very end, which
// targets that count padding into DataSegmentLength send, are ignored. Pairs come
// in wire order and the same key may come more than once. key and value are parts
// of data: they are valid as long as data is.
func WalkKeys(data []byte, fn func(key, value []byte) error) error {
	for off := 0; off < len(data); {
		rest := data[off:]
		if rest[0] == 0 && len(bytes.TrimLeft(rest, "\x00")) == 0 {
			return nil
		}
		end := bytes.IndexByte(rest, 0)
		if end < 0 {
			return fmt.Errorf("pdu: text at byte %d: %q… has no closing null byte", off, keyOnly(rest))
		}
		pair := rest[:end:end]
		key, value, found := bytes.Cut(pair, []byte{'='})
		if !found {
			return fmt.Errorf("pdu: text at byte %d: %q is not key=value", off, keyOnly(pair))
		}
		if err := checkKeyName(key); err != nil {
			return fmt.Errorf("text at byte %d: %w", off, err)
		}
		if len(value) > MaxValueLen {
			return fmt.Errorf("pdu: text at byte %d: value of key %s has %d bytes, at most %d allowed", off, key, len(value), MaxValueLen)
		}
		if err := fn(key, value); err != nil {
			return err
		}
		off += end + 1
	}
	return nil
}

// keyOnly shortens text from a peer for an error message. It leaves out the value,
// which may be a part of a CHAP exchange.
func keyOnly(p []byte) []byte {
	key, _, _ := bytes.Cut(p, []byte{'='})
	return key[:min(len(key), MaxKeyLen)]
}

// protocolLevelKey is registered (RFC 7143 §13.24, RFC 7144) although it is no
// standard-label: it does not start with a capital letter.
const protocolLevelKey = "iSCSIProtocolLevel"

// checkKeyName checks for a standard-label of §6.1: a capital letter, then
// letters, digits and .-+@_, at most 63 characters. The form X#name, which
// RFC 3720 had for registered keys and X#NodeArchitecture still has (§13.26), is
// accepted too.
func checkKeyName[T string | []byte](key T) error {
	if len(key) == 0 {
		return errors.New("pdu: empty key before '='")
	}
	if len(key) > MaxKeyLen {
		return fmt.Errorf("pdu: key %q… has %d characters, at most %d allowed", string(key[:MaxKeyLen]), len(key), MaxKeyLen)
	}
	if (key[0] < 'A' || key[0] > 'Z') && string(key) != protocolLevelKey {
		return fmt.Errorf("pdu: key %q does not start with a capital letter", string(key))
	}
	for i := 1; i < len(key); i++ {
		if !isLabelChar(key[i]) && !(i == 1 && key[i] == '#' && key[0] >= 'X') {
			return fmt.Errorf("pdu: key %q has a character not allowed in keys at offset %d", string(key), i)
		}
	}
	return nil
}

func isLabelChar(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	default:
		return c == '.' || c == '-' || c == '+' || c == '@' || c == '_'
	}
}
