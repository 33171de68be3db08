package initiator

import (
	"fmt"
	"strings"

	"github.com/iscsimp/iscsimp/scsi"
)

// Address is where a LUN lives: the parts of an iscsi:// URI.
type Address struct {
	User   string   // CHAP user, empty if none is given
	Portal string   // as ParsePortal returns it
	Target string   // iSCSI name
	LUN    scsi.LUN // 0 if HasLUN is false
	HasLUN bool     // the URI names a LUN
}

const urlForm = "write it as iscsi://host[:port]/TARGET/LUN"

// IsURL reports whether s is meant as an iscsi:// URI.
func IsURL(s string) bool {
	return len(s) >= 8 && strings.EqualFold(s[:8], "iscsi://")
}

// ParseURL reads iscsi://[user@]host[:port]/TARGET[/LUN], the form libiscsi
// and QEMU use. A password in it is refused, because command lines are readable
// by every user of a host. Errors are *Error of kind KindInvalid.
func ParseURL(s string) (Address, error) {
	a, err := parseURL(s)
	if err != nil {
		return Address{}, &Error{Kind: KindInvalid, Msg: "address: " + err.Error(), Hint: urlForm}
	}
	return a, nil
}

// ParsePortalURL is ParseURL for those who ask for a portal only: the target may
// be missing.
func ParsePortalURL(s string) (Address, error) {
	if !IsURL(s) {
		return ParseURL(s)
	}
	authority, path, _ := strings.Cut(s[8:], "/")
	if path != "" {
		return ParseURL(s)
	}
	var a Address
	if err := a.parseAuthority(authority); err != nil {
		return Address{}, &Error{Kind: KindInvalid, Msg: "address: " + err.Error(), Hint: "write it as iscsi://host[:port]"}
	}
	return a, nil
}

func parseURL(s string) (a Address, err error) {
	if !IsURL(s) {
		return a, fmt.Errorf("%q does not start with iscsi://", s)
	}
	authority, path, ok := strings.Cut(s[8:], "/")
	if !ok || path == "" {
		return a, fmt.Errorf("no target is named after the host")
	}
	if err = a.parseAuthority(authority); err != nil {
		return a, err
	}
	if strings.ContainsAny(path, "?#") {
		return a, fmt.Errorf("parameters after the path are not supported; use options instead")
	}
	target, lun, hasLUN := strings.Cut(path, "/")
	if err = CheckName(target); err != nil {
		return a, err
	}
	a.Target = target
	if hasLUN && lun != "" {
		if a.LUN, err = ParseLUN(lun); err != nil {
			return a, err
		}
		a.HasLUN = true
	}
	return a, nil
}

// parseAuthority reads what stands between iscsi:// and the target.
func (a *Address) parseAuthority(authority string) error {
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		a.User, authority = authority[:i], authority[i+1:]
		if strings.ContainsAny(a.User, ":%") {
			return fmt.Errorf("a password must not stand in an address, where every user of this host can read it: give it in a file or the environment, see --help")
		}
		if a.User == "" {
			return fmt.Errorf("the user before @ is empty")
		}
	}
	var err error
	a.Portal, err = ParsePortal(authority)
	return err
}

// ParseLUN reads a LUN as scsi.ParseLUN does: a number within 0..65535, or "0x"
// and the 16 hexadecimal digits of an address. Errors are *Error of kind KindInvalid.
func ParseLUN(s string) (scsi.LUN, error) {
	lun, err := scsi.ParseLUN(s)
	if err != nil {
		return 0, invalidf("`iscsimp luns` lists the LUNs of a target", "LUN %q is neither a number from 0 to 65535 nor 0x and 16 hexadecimal digits", s)
	}
	return lun, nil
}
