package session

import (
	"crypto/sha256"
	"strings"
)

// DeriveISID makes an ISID of the random type (T=10b, RFC 7143 §11.12.5) from
// parts, such as initiator name, target name, LUN and portal. The same parts
// always give the same ISID, so that a session keeps its identity (its I_T
// nexus) over a restart of the process.
func DeriveISID(parts ...string) [6]byte {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	isid := [6]byte(h[:6])
	isid[0] = 0x80 // T=10b; the A field is reserved with this type
	return isid
}
