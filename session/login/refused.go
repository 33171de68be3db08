package login

import (
	"fmt"

	"github.com/iscsimp/iscsimp/pdu"
)

// refused turns a response with a status into an Error.
func (m *Machine) refused(resp pdu.LoginResponse, text []byte) *Error {
	st := resp.LoginStatus()
	e := &Error{Status: st, Msg: st.String()}
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
