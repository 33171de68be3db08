package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/iscsimp/iscsimp/scsi"
)

// maxDeviceName leaves room in a socket's path, which is limited to about 100 bytes.
const maxDeviceName = 40

// checkDeviceName reports why s cannot be a device's short name, or nil.
// A name is part of file names and is typed by people.
func checkDeviceName(s string) error {
	if s == "" || len(s) > maxDeviceName {
		return usagef("device name %q: it must have 1 to %d characters", s, maxDeviceName)
	}
	if s[0] == '.' || s[0] == '-' || strings.Trim(s, deviceNameAlphabet) != "" || strings.ContainsFunc(s, notInDeviceName) {
		return usagef("device name %q: use letters, digits, '.', '_' and '-', and begin with a letter or digit", s)
	}
	return nil
}

const deviceNameAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

func notInDeviceName(r rune) bool { return !strings.ContainsRune(deviceNameAlphabet, r) }

// deriveDeviceName makes a short name from target and LUN: what follows the
// last colon of the target's name, and the LUN. "iqn.2026-01.com.example:disk1"
// LUN 0 becomes "disk1-0".
func deriveDeviceName(target string, lun scsi.LUN) string {
	suffix := "-" + lun.String()
	base := target
	if i := strings.LastIndexByte(target, ':'); i >= 0 && i+1 < len(target) {
		base = target[i+1:]
	}
	clean := strings.Map(func(r rune) rune {
		if notInDeviceName(r) {
			return '_'
		}
		return r
	}, base)
	clean = strings.TrimLeft(clean, "._-")
	if clean == "" {
		clean = "lun"
	}
	if len(clean)+len(suffix) > maxDeviceName { // keep distinct names distinct
		tag := "-" + shortHash(target)
		clean = clean[:maxDeviceName-len(suffix)-len(tag)] + tag
	}
	return clean + suffix
}

// shortHash is a tag of 8 characters that tells parts apart.
func shortHash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:4])
}
