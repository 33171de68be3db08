package login

import (
	"fmt"
	"strings"

	"github.com/iscsimp/iscsimp/pdu"
)

// refused turns a response with a status into an Error.
func (m *Machine) refused(resp pdu.LoginResponse, text []byte) *Error {
	st := resp.LoginStatus()
	e := &Error{Status: st, Msg: st.String()}
	m.auth.explain(e)
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

// redirectAddress reads "host[:port][,tag]" (RFC 7143 §13.8); the port defaults
// to 3260, and the portal group tag says nothing here.
func redirectAddress(v string) string {
	addr, _, _ := strings.Cut(v, ",")
	if addr == "" {
		return ""
	}
	if !strings.Contains(addr, ":") || strings.HasSuffix(addr, "]") {
		addr += ":3260"
	}
	return addr
}
