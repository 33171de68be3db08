package login

import (
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
)

// hints says what a user can do about each refusal (RFC 7143 §11.13.5).
var hints = map[pdu.LoginStatus]string{
	0x0200: "the target found the login request faulty; its log says more",
	0x0201: "the target wants authentication, or did not accept ours",
	0x0202: "the target knows this initiator name but does not let it in: add the initiator name to the target's access list",
	0x0203: "the target name does not exist at this portal: check its spelling with 'iscsimp discover'",
	0x0204: "the target was removed for good",
	0x0205: "the target speaks another version of iSCSI",
	0x0206: "the target allows no more connections",
	0x0207: "the target missed a login key",
	0x0208: "the target does not let this session use this portal",
	0x0209: "the target does not take this type of session",
	0x020a: "the target forgot the session",
	0x020b: "the target says the request is not allowed during login",
	0x0300: "the target has a problem of its own; it is tried again",
	0x0301: "the target is not ready for logins now; it is tried again",
	0x0302: "the target is out of resources, perhaps too many sessions; it is tried again",
}

// refused turns a response with a status into an Error.
func (m *Machine) refused(resp pdu.LoginResponse, text []byte) *Error {
	st := resp.LoginStatus()
	e := &Error{Status: st, Msg: "login refused: " + st.String(), Hint: hints[st]}
	if resp.StatusClass != 1 {
		return e
	}
	_ = pdu.WalkKeys(text, func(key, value []byte) error {
		if string(key) == "TargetAddress" {
			e.Redirect = redirectAddress(string(value))
		}
		return nil
	})
	if e.Redirect == "" {
		e.Msg = fmt.Sprintf("%s, but it names no address", e.Msg)
	}
	return e
}

// redirectAddress takes the portal group tag off "host:port,tag".
func redirectAddress(v string) string {
	for i := len(v) - 1; i >= 0; i-- {
		if v[i] == ',' {
			return v[:i]
		}
	}
	return v
}
