package initiator

import (
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session"
)

// TraceFunc is told about one PDU: the portal, its direction, and its header,
// which is only valid during the call. It is called on the loop and must not
// block; pdu.AppendTrace makes a line of text of a header.
type TraceFunc func(portal string, fromInitiator bool, bhs pdu.BHS)

// DialFunc makes a connection to address, "host:port"; network is "tcp". It is
// called in a goroutine of its own and must heed ctx.
type DialFunc = session.DialFunc

// bindTrace makes the session's trace hook for one portal.
func bindTrace(f TraceFunc, portal string) func(bool, pdu.BHS) {
	if f == nil {
		return nil
	}
	return func(fromInitiator bool, bhs pdu.BHS) { f(portal, fromInitiator, bhs) }
}
