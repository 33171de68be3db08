package login

import (
	"slices"
	"strings"

	"github.com/iscsimp/iscsimp/pdu"
)

// TaskReporting is what the two sides agreed on about the end of tasks (RFC 7143
// §13.23). The zero value is the default, that of RFC 3720.
type TaskReporting uint8

const (
	// ReportRFC3720 promises nothing: the standard semantics of §4.2.3.3.
	ReportRFC3720 TaskReporting = iota
	// ReportResponseFence orders responses over all connections where that
	// matters (§4.2.2.3.3).
	ReportResponseFence
	// ReportFastAbort is that, and functions that end many tasks wait for none of
	// their data (§4.2.3.4).
	ReportFastAbort
)

const reportingKey = "TaskReporting"

var reportings = []string{"RFC3720", "ResponseFence", "FastAbort"}

// String is the value of the key.
func (r TaskReporting) String() string { return reportings[r] }

// reporting is the negotiation of TaskReporting.
type reporting struct {
	offered bool   // we sent the key
	told    string // the target's value
	outcome TaskReporting
}

// mayReport reports whether this login offers TaskReporting. The key is younger
// than many targets. One that leaves AuthMethod unanswered, against the RFC, is not
// given it: gotgt does, and hangs up on every key that it does not know.
func (n *negotiator) mayReport() bool {
	return n.cfg.TaskReporting && n.auth != "" && !n.cfg.Minimal && !n.cfg.Discovery && n.cfg.TSIH == 0
}

// offerReporting appends our list, the best first.
func (n *negotiator) offerReporting(dst []byte) []byte {
	if n.reporting.offered || n.reporting.told != "" || !n.mayReport() {
		return dst
	}
	n.reporting.offered = true
	best := slices.Clone(reportings)
	slices.Reverse(best)
	return pdu.AppendKey(dst, reportingKey, strings.Join(best, ","))
}

// takeReporting takes the target's answer to our list, or the first that is borne
// with here from a list of its own.
func (n *negotiator) takeReporting(answers []byte, value string) ([]byte, error) {
	r := &n.reporting
	if r.told != "" {
		if r.told != value {
			return nil, changed(reportingKey, r.told, value)
		}
		return answers, nil
	}
	r.told = value
	if isReply(value) {
		return answers, nil // RFC 3720 holds
	}
	if r.offered {
		i := slices.Index(reportings, value)
		if i < 0 {
			return nil, protocolError("the target answers %s=%q, which was not offered", reportingKey, value)
		}
		r.outcome = TaskReporting(i)
		return answers, nil
	}
	if n.cfg.Discovery {
		return pdu.AppendKey(answers, reportingKey, "Irrelevant"), nil // §13.23
	}
	for item := range strings.SplitSeq(value, ",") {
		i := slices.Index(reportings, item)
		if i == 0 || i > 0 && n.cfg.TaskReporting && n.cfg.TSIH == 0 {
			r.outcome = TaskReporting(i)
			return pdu.AppendKey(answers, reportingKey, item), nil
		}
	}
	return pdu.AppendKey(answers, reportingKey, "Reject"), nil
}
