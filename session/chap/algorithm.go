package chap

import (
	"crypto/fips140"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"

	"github.com/iscsimp/iscsimp/pdu"
)

// Algorithm is a value of CHAP_A: the number of a hash in IANA's registry of PPP
// authentication algorithms.
type Algorithm uint8

// Algorithms this package has.
const (
	MD5     Algorithm = 5 // 16-byte responses; RFC 7143 §12.1.3 has it always offered
	SHA1    Algorithm = 6 // 20 bytes
	SHA256  Algorithm = 7 // 32 bytes; SHA-1 to tgtd
	SHA3256 Algorithm = 8 // 32 bytes
)

var algorithmNames = map[Algorithm]string{MD5: "MD5", SHA1: "SHA1", SHA256: "SHA256", SHA3256: "SHA3-256"}

// String is the name open-iscsi uses: MD5, SHA1, SHA256 or SHA3-256.
func (a Algorithm) String() string {
	if name, ok := algorithmNames[a]; ok {
		return name
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// Size is the length of a response in bytes, 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case MD5:
		return md5.Size
	case SHA1:
		return sha1.Size
	case SHA256, SHA3256:
		return 32
	default:
		return 0
	}
}

// usable reports whether the algorithm is known and allowed: Go's FIPS-only mode
// panics on MD5 and SHA-1.
func (a Algorithm) usable() bool {
	return a.Size() != 0 && (!fips140.Enforced() || a == SHA256 || a == SHA3256)
}

func (a Algorithm) newHash() hash.Hash {
	switch a {
	case MD5:
		return md5.New()
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	default:
		return sha3.New256()
	}
}

// response is that of RFC 1994 §4.1: the hash of identifier, secret and challenge.
func (a Algorithm) response(id byte, secret Secret, challenge []byte) []byte {
	h := a.newHash()
	h.Write([]byte{id})
	h.Write(secret.bytes())
	h.Write(challenge)
	return h.Sum(nil)
}

// DefaultAlgorithms is what an empty Config.Algorithms stands for: SHA3-256, MD5,
// SHA256. The package documentation has the reasons. In Go's FIPS-only mode MD5,
// which cannot be computed then, is missing.
func DefaultAlgorithms() []Algorithm {
	return slices.DeleteFunc([]Algorithm{SHA3256, MD5, SHA256}, func(a Algorithm) bool { return !a.usable() })
}

// ParseAlgorithms reads a list as users write it: names or numbers in order of
// preference, joined by commas, such as "SHA3-256,MD5" or "8,5". Case and spaces
// around names do not matter; SHA-1 and SHA-256 are taken too.
func ParseAlgorithms(list string) ([]Algorithm, error) {
	var out []Algorithm
	for item := range strings.SplitSeq(list, ",") {
		a, ok := parseAlgorithm(strings.TrimSpace(item))
		if !ok {
			return nil, configError("write MD5, SHA1, SHA256 or SHA3-256, joined by commas", "%s is not a CHAP algorithm", quote(item))
		}
		out = append(out, a)
	}
	if err := checkAlgorithms(out); err != nil {
		return nil, err
	}
	return out, nil
}

func parseAlgorithm(item string) (Algorithm, bool) {
	for a, name := range algorithmNames {
		if item == strconv.Itoa(int(a)) || strings.EqualFold(item, name) {
			return a, true
		}
	}
	switch strings.ToUpper(item) {
	case "SHA-1":
		return SHA1, true
	case "SHA-256":
		return SHA256, true
	default:
		return 0, false
	}
}

// checkAlgorithms refuses lists that are empty, name an algorithm twice, or name
// one that cannot be computed here.
func checkAlgorithms(list []Algorithm) error {
	if len(list) == 0 {
		return configError("name one at least", "the list of CHAP algorithms is empty")
	}
	for i, a := range list {
		switch {
		case a.Size() == 0:
			return configError("use 5 (MD5), 6 (SHA1), 7 (SHA256) or 8 (SHA3-256)", "CHAP algorithm %d is unknown", uint8(a))
		case !a.usable():
			return configError("take it off the list or leave FIPS-only mode", "CHAP algorithm %v is not allowed in FIPS-only mode", a)
		case slices.Contains(list[:i], a):
			return configError("list each once", "CHAP algorithm %v is listed twice", a)
		}
	}
	return nil
}

// joinAlgorithms gives the value of CHAP_A.
func joinAlgorithms(list []Algorithm) string {
	var b strings.Builder
	for i, a := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(a)))
	}
	return b.String()
}

// Fallback says whether a login that failed is worth a second attempt with other
// algorithms, and with which. offered is the list of the failed login, chosen
// what the target took of it ([Initiator.Chosen]), status how it refused our
// response. It is worth it when the target took SHA256, MD5 was on the list as
// well, and the status is 0200 or 0201 (tgtd, which means SHA-1 by 7, answers
// 0200). The list to offer then is MD5 alone, and a further failure is final.
//
// Against a target that knows SHA256, a wrong secret fails twice this way; mind
// targets that lock accounts.
func Fallback(offered []Algorithm, chosen Algorithm, status pdu.LoginStatus) ([]Algorithm, bool) {
	refused := status == pdu.LoginInitiatorError || status == pdu.LoginAuthFailure
	if !refused || chosen != SHA256 || !slices.Contains(offered, MD5) {
		return nil, false
	}
	return []Algorithm{MD5}, true
}
