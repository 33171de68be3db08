package mpio

import "github.com/iscsimp/iscsimp/session"

// Link is what a path's session tells of itself that needs the loop's time to be
// understood. Durations are in seconds.
type Link struct {
	RetryIn   float64 `json:"retry_in"`   // until the next dial, 0 = none is planned
	LoggingIn bool    `json:"logging_in"` // it is dialing or logging in
	RejectAge float64 `json:"reject_age"` // since the last Reject (Session.LastReject), 0 = there was none
	AsyncAge  float64 `json:"async_age"`  // the same for Session.LastAsync
	// Lost says why the session was lost last, "" if it never was; LostAge since when.
	Lost    string  `json:"lost,omitempty"`
	LostAge float64 `json:"lost_age,omitempty"`
}

// link fills in Link from Session.
func (ps *PathSnapshot) link(now int64) {
	st := &ps.Session
	ps.Link.LoggingIn = st.State == session.StateLogin
	if st.RetryAt > now {
		ps.Link.RetryIn = seconds(st.RetryAt - now)
	}
	if st.LastReject.Count > 0 {
		ps.Link.RejectAge = seconds(now - st.LastReject.At)
	}
	if st.LastAsync.Count > 0 {
		ps.Link.AsyncAge = seconds(now - st.LastAsync.At)
	}
}
