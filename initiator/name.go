package initiator

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxNameLen is the longest iSCSI name (RFC 7143 §4.2.7.1).
const maxNameLen = 223

// CheckName reports why s cannot be an iSCSI name, or nil. It knows the three
// types of RFC 7143 §4.2.7: iqn., eui. and naa. Upper case and underscores are
// let through although RFC 3722 maps or forbids them, because targets in the
// field use them. Beyond ASCII a name must be UTF-8 and have letters, marks and
// digits only; that it is in the form NFKC is not checked. Errors are *Error of kind KindInvalid.
func CheckName(s string) error {
	if err := checkName(s); err != nil {
		return &Error{
			Kind: KindInvalid,
			Msg:  fmt.Sprintf("iSCSI name %q: %v", s, err),
			Hint: "names look like iqn.2026-01.com.example:disk1, eui.02004567a425678d or naa.52004567ba64678d",
		}
	}
	return nil
}

func checkName(s string) error {
	if s == "" {
		return fmt.Errorf("is empty")
	}
	if len(s) > maxNameLen {
		return fmt.Errorf("is longer than %d bytes", maxNameLen)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("is not UTF-8")
	}
	for _, c := range s {
		if c <= ',' || c == '/' || strings.ContainsRune(";<=>?@[\\]^`{|}~", c) ||
			c >= 0x7f && !unicode.In(c, unicode.Letter, unicode.Mark, unicode.Nd) {
			return fmt.Errorf("the character %q is not allowed in it", c)
		}
	}
	if len(s) < 4 {
		return fmt.Errorf("has no type")
	}
	switch kind, rest := strings.ToLower(s[:4]), s[4:]; kind {
	case "iqn.":
		return checkIQN(rest)
	case "eui.":
		return checkHex(rest, 16)
	case "naa.":
		if len(rest) == 32 {
			return checkHex(rest, 32)
		}
		return checkHex(rest, 16)
	}
	return fmt.Errorf("does not begin with iqn., eui. or naa")
}

// checkIQN checks what follows "iqn.": yyyy-mm.reversed-domain[:anything].
func checkIQN(s string) error {
	date, rest, ok := strings.Cut(s, ".")
	if !ok || rest == "" || rest[0] == ':' {
		return fmt.Errorf("no naming authority follows the date")
	}
	if len(date) != 7 || date[4] != '-' || !digits(date[:4]) || !digits(date[5:]) {
		return fmt.Errorf("iqn. must be followed by a date, yyyy-mm")
	}
	if month := date[5:]; month < "01" || month > "12" {
		return fmt.Errorf("there is no month %s", month)
	}
	return nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func checkHex(s string, n int) error {
	if len(s) != n {
		return fmt.Errorf("has %d hexadecimal digits, not %d", len(s), n)
	}
	for i := range len(s) {
		if strings.IndexByte("0123456789abcdefABCDEF", s[i]) < 0 {
			return fmt.Errorf("%q is not a hexadecimal digit", s[i])
		}
	}
	return nil
}
