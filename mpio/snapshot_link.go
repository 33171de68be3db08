package mpio

// Link is what a path's session tells of itself that needs the loop's time to be
// understood. Durations are in seconds.
type Link struct {
	RetryIn   float64 `json:"retry_in"`   // until the next dial, 0 = none is planned
	RejectAge float64 `json:"reject_age"` // since the last Reject (Session.LastReject), 0 = there was none
	AsyncAge  float64 `json:"async_age"`  // the same for Session.LastAsync
}

// link fills in Link from Session.
func (ps *PathSnapshot) link(now int64) {
	st := &ps.Session
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
