package iscsitest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/iscsimp/iscsimp/pdu"
)

// defaultMRDSL is MaxRecvDataSegmentLength until declared (RFC 7143 §13.12).
const defaultMRDSL = 8192

// Negotiated is the outcome of the operational negotiation (RFC 7143 §13).
// Lengths are in bytes, times in seconds.
type Negotiated struct {
	HeaderDigest, DataDigest bool
	MaxConnections           uint32
	InitialR2T               bool
	ImmediateData            bool
	SendMRDSL                uint32 // declared by the initiator: the most we may send
	RecvMRDSL                uint32 // declared by us: the most we take
	MaxBurstLength           uint32
	FirstBurstLength         uint32
	MaxOutstandingR2T        uint32
	DefaultTime2Wait         uint32
	DefaultTime2Retain       uint32
	ErrorRecoveryLevel       uint32
	AnyPDUOrder              bool // DataPDUInOrder=No
	AnySequenceOrder         bool // DataSequenceInOrder=No
	TaskReporting            TaskReporting
}

// negotiation is the target's side of the operational keys (RFC 7143 §6.2,
// §13), without I/O. Keys that nobody mentions keep their defaults.
type negotiation struct {
	params    Params
	quirks    Quirks
	discovery bool
	joins     bool // the connection is not the first of its session
	res       Negotiated
	seen      map[string]bool   // keys of the initiator, to find those sent twice
	asked     map[string]string // our proposals, until answered
	declared  bool              // we told our MaxRecvDataSegmentLength
	complaint func(format string, args ...any)
}

func newNegotiation(p Params, q Quirks, complaint func(string, ...any)) *negotiation {
	return &negotiation{
		params: p, quirks: q, complaint: complaint,
		seen: make(map[string]bool), asked: make(map[string]string),
		res: Negotiated{
			MaxConnections: 1, InitialR2T: true, ImmediateData: true,
			SendMRDSL: defaultMRDSL, RecvMRDSL: defaultMRDSL,
			MaxBurstLength: 262144, FirstBurstLength: 65536, MaxOutstandingR2T: 1,
			DefaultTime2Wait: 2, DefaultTime2Retain: 20,
		},
	}
}

// function is how two wishes become one value.
type function uint8

const (
	fnMin function = iota
	fnMax
	fnAnd
	fnOr
)

// numericKey is a key whose value is a number, or a boolean as 0 and 1.
type numericKey struct {
	name       string
	fn         function
	lo, hi     uint64
	own        func(p *Params) uint64
	set        func(r *Negotiated, v uint64)
	irrelevant bool // in discovery sessions
}

func (k *numericKey) isBool() bool { return k.fn == fnAnd || k.fn == fnOr }

func asNumber(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

var numericKeys = []numericKey{
	{
		"MaxConnections", fnMin, 1, 65535,
		func(p *Params) uint64 { return uint64(p.MaxConnections) },
		func(r *Negotiated, v uint64) { r.MaxConnections = uint32(v) }, true,
	},
	{
		"InitialR2T", fnOr, 0, 1,
		func(p *Params) uint64 { return asNumber(p.InitialR2T) },
		func(r *Negotiated, v uint64) { r.InitialR2T = v == 1 }, true,
	},
	{
		"ImmediateData", fnAnd, 0, 1,
		func(p *Params) uint64 { return asNumber(!p.NoImmediateData) },
		func(r *Negotiated, v uint64) { r.ImmediateData = v == 1 }, true,
	},
	{
		"MaxBurstLength", fnMin, 512, pdu.MaxDataLen,
		func(p *Params) uint64 { return uint64(p.MaxBurstLength) },
		func(r *Negotiated, v uint64) { r.MaxBurstLength = uint32(v) }, true,
	},
	{
		"FirstBurstLength", fnMin, 512, pdu.MaxDataLen,
		func(p *Params) uint64 { return uint64(p.FirstBurstLength) },
		func(r *Negotiated, v uint64) { r.FirstBurstLength = uint32(v) }, true,
	},
	{
		"DefaultTime2Wait", fnMax, 0, 3600,
		func(p *Params) uint64 { return uint64(p.DefaultTime2Wait) },
		func(r *Negotiated, v uint64) { r.DefaultTime2Wait = uint32(v) }, false,
	},
	{
		"DefaultTime2Retain", fnMin, 0, 3600,
		func(p *Params) uint64 { return uint64(p.DefaultTime2Retain) },
		func(r *Negotiated, v uint64) { r.DefaultTime2Retain = uint32(v) }, false,
	},
	{
		"MaxOutstandingR2T", fnMin, 1, 65535,
		func(p *Params) uint64 { return uint64(p.MaxOutstandingR2T) },
		func(r *Negotiated, v uint64) { r.MaxOutstandingR2T = uint32(v) }, true,
	},
	{
		"DataPDUInOrder", fnOr, 0, 1,
		func(p *Params) uint64 { return asNumber(!p.AnyPDUOrder) },
		func(r *Negotiated, v uint64) { r.AnyPDUOrder = v == 0 }, true,
	},
	{
		"DataSequenceInOrder", fnOr, 0, 1,
		func(p *Params) uint64 { return asNumber(!p.AnySequenceOrder) },
		func(r *Negotiated, v uint64) { r.AnySequenceOrder = v == 0 }, true,
	},
	{
		"ErrorRecoveryLevel", fnMin, 0, 2,
		func(p *Params) uint64 { return uint64(p.ErrorRecoveryLevel) },
		func(r *Negotiated, v uint64) { r.ErrorRecoveryLevel = uint32(v) }, false,
	},
	{
		"iSCSIProtocolLevel", fnMin, 0, 31,
		func(*Params) uint64 { return 1 }, func(*Negotiated, uint64) {}, false,
	},
}

func findNumeric(name string) *numericKey {
	i := slices.IndexFunc(numericKeys, func(k numericKey) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return &numericKeys[i]
}

// answer takes the operational keys of one request and returns the answers. A
// status other than success fails the login for the reason given.
func (n *negotiation) answer(keys []KeyValue) (out []KeyValue, status pdu.LoginStatus, why string) {
	// FirstBurstLength must not exceed MaxBurstLength, so that is settled first.
	for _, kv := range keys {
		if kv.Key == "MaxBurstLength" && !n.joins {
			n.numeric(findNumeric(kv.Key), kv.Value)
		}
	}
	for _, kv := range keys {
		if proposed, ok := n.asked[kv.Key]; ok {
			delete(n.asked, kv.Key)
			if why := n.conclude(kv, proposed); why != "" {
				return nil, pdu.LoginInitiatorError, why
			}
			continue
		}
		if n.seen[kv.Key] {
			n.complaint("key %s was sent twice (§6.2)", kv.Key)
			return nil, pdu.LoginInitiatorError, "key sent twice"
		}
		n.seen[kv.Key] = true
		value, status, why := n.one(kv)
		if status != pdu.LoginSuccess {
			return nil, status, why
		}
		if value != "" {
			out = append(out, KeyValue{kv.Key, value})
		}
	}
	n.res.FirstBurstLength = min(n.res.FirstBurstLength, n.res.MaxBurstLength)
	return out, pdu.LoginSuccess, ""
}

// one answers one key; an empty answer is none.
func (n *negotiation) one(kv KeyValue) (value string, status pdu.LoginStatus, why string) {
	switch kv.Key {
	case "InitiatorName", "InitiatorAlias", "TargetName", "SessionType":
		return "", 0, "" // declarations, dealt with before
	case "AuthMethod":
		return "", pdu.LoginInitiatorError, "AuthMethod outside the security stage"
	case "HeaderDigest":
		return n.digest(kv, n.params.HeaderDigest, &n.res.HeaderDigest)
	case "DataDigest":
		return n.digest(kv, n.params.DataDigest, &n.res.DataDigest)
	case "MaxRecvDataSegmentLength":
		if !n.declaredByInitiator(kv) {
			return "Reject", 0, ""
		}
		return "", 0, "" // a declaration
	case "TaskReporting":
		return n.report(kv.Value), 0, ""
	case "IFMarker", "OFMarker":
		return "No", 0, "" // obsolete, §13.25
	case "IFMarkInt", "OFMarkInt":
		return "Reject", 0, ""
	case "TargetAddress", "TargetAlias", "TargetPortalGroupTag", "SendTargets":
		n.complaint("an initiator must not send %s in a login (§13)", kv.Key)
		return "", pdu.LoginInitiatorError, "key not allowed in a login"
	}
	if k := findNumeric(kv.Key); k != nil {
		if n.joins {
			n.complaint("%s is negotiated on the leading connection only (§13)", kv.Key)
			return "Irrelevant", 0, ""
		}
		if k.irrelevant && n.discovery {
			return "Irrelevant", 0, ""
		}
		return n.numeric(k, kv.Value), 0, ""
	}
	if n.quirks.CloseOnUnknownKey {
		return "", pdu.LoginInitiatorError, "unknown key " + kv.Key
	}
	return "NotUnderstood", 0, ""
}

// report takes the first of a list of kinds of task reporting that this target can do.
func (n *negotiation) report(list string) string {
	switch {
	case n.discovery:
		return "Irrelevant"
	case n.joins:
		n.complaint("TaskReporting is negotiated on the leading connection only (§13.23)")
		return "Irrelevant"
	}
	if !strings.Contains(list, "RFC3720") || !strings.Contains(list, "ResponseFence") {
		n.complaint("TaskReporting=%s does not offer both RFC3720 and ResponseFence (§13.23)", list)
	}
	value := firstOf(list, reportings[:n.params.TaskReporting+1]...)
	n.res.TaskReporting = TaskReporting(max(0, slices.Index(reportings, value)))
	return value
}

// isOperational reports whether a key belongs to the operational stage only.
func isOperational(key string) bool {
	switch key {
	case "HeaderDigest", "DataDigest", "MaxRecvDataSegmentLength", "TaskReporting":
		return true
	}
	return findNumeric(key) != nil
}

// declaredByInitiator takes the initiator's MaxRecvDataSegmentLength; false if it
// is not admissible.
func (n *negotiation) declaredByInitiator(kv KeyValue) bool {
	v, err := pdu.ParseNumber(kv.Value)
	if err != nil || v < 512 || v > pdu.MaxDataLen {
		n.complaint("%s=%s is not 512 to 2^24-1 (§13.12)", kv.Key, kv.Value)
		return false
	}
	n.res.SendMRDSL = uint32(v)
	return true
}

// firstOf returns the first item of a list that is one of those known, else Reject.
func firstOf(list string, known ...string) string {
	for item := range strings.SplitSeq(list, ",") {
		if slices.Contains(known, item) {
			return item
		}
	}
	return "Reject"
}

func (n *negotiation) digest(kv KeyValue, policy DigestPolicy, set *bool) (string, pdu.LoginStatus, string) {
	var value string
	switch policy {
	case DigestNone:
		value = firstOf(kv.Value, "None")
	case DigestRequired:
		value = firstOf(kv.Value, "CRC32C")
	default:
		value = firstOf(kv.Value, "None", "CRC32C")
	}
	if value == "Reject" && policy != DigestAccept {
		return "", pdu.LoginInitiatorError, fmt.Sprintf("%s=%s does not offer what this target wants", kv.Key, kv.Value)
	}
	*set = value == "CRC32C"
	return value, 0, ""
}

// numeric settles one key and returns the answer.
func (n *negotiation) numeric(k *numericKey, value string) string {
	offered, ok := parseNumeric(k, value)
	if !ok {
		n.complaint("%s=%s is not an admissible value (§13)", k.name, value)
		return "Reject"
	}
	own := k.own(&n.params)
	if k.name == "FirstBurstLength" {
		// The initiator cannot know the outcome of MaxBurstLength; the answer
		// sets FirstBurstLength right (§13.14).
		own = min(own, uint64(n.res.MaxBurstLength))
	}
	var v uint64
	switch k.fn {
	case fnMin:
		v = min(offered, own)
	case fnMax:
		v = max(offered, own)
	case fnAnd:
		v = offered & own
	case fnOr:
		v = offered | own
	}
	k.set(&n.res, v)
	return formatNumeric(k, v)
}

func parseNumeric(k *numericKey, value string) (uint64, bool) {
	if k.isBool() {
		b, err := pdu.ParseBool(value)
		return asNumber(b), err == nil
	}
	v, err := pdu.ParseNumber(value)
	return v, err == nil && v >= k.lo && v <= k.hi
}

func formatNumeric(k *numericKey, v uint64) string {
	switch {
	case !k.isBool():
		return strconv.FormatUint(v, 10)
	case v == 1:
		return "Yes"
	}
	return "No"
}

// declare returns what the target says of its own accord, once: its
// MaxRecvDataSegmentLength, and proposals for what it insists on.
func (n *negotiation) declare() (out []KeyValue) {
	if !n.declared {
		n.declared = true
		n.res.RecvMRDSL = n.params.MaxRecvDataSegmentLength
		out = append(out, KeyValue{"MaxRecvDataSegmentLength", strconv.FormatUint(uint64(n.res.RecvMRDSL), 10)})
		if n.quirks.OfferKeys && !n.joins {
			out = append(out, n.propose("MaxOutstandingR2T", strconv.Itoa(int(n.params.MaxOutstandingR2T)))...)
			out = append(out, n.propose("DefaultTime2Retain", strconv.Itoa(int(n.params.DefaultTime2Retain)))...)
		}
		if n.params.HeaderDigest == DigestRequired {
			out = append(out, n.propose("HeaderDigest", "CRC32C")...)
		}
		if n.params.DataDigest == DigestRequired {
			out = append(out, n.propose("DataDigest", "CRC32C")...)
		}
	}
	return out
}

func (n *negotiation) propose(key, value string) []KeyValue {
	if n.seen[key] {
		return nil
	}
	n.seen[key] = true
	n.asked[key] = value
	return []KeyValue{{key, value}}
}

// conclude takes the initiator's answer to a proposal of ours.
func (n *negotiation) conclude(kv KeyValue, proposed string) (why string) {
	switch kv.Key {
	case "HeaderDigest", "DataDigest":
		if kv.Value != proposed {
			return fmt.Sprintf("%s=%s is not what this target requires", kv.Key, kv.Value)
		}
		if kv.Key == "HeaderDigest" {
			n.res.HeaderDigest = true
		} else {
			n.res.DataDigest = true
		}
		return ""
	}
	k := findNumeric(kv.Key)
	v, ok := parseNumeric(k, kv.Value)
	own, _ := parseNumeric(k, proposed)
	if ok && k.fn == fnMin {
		ok = v <= own
	}
	if ok && k.fn == fnMax {
		ok = v >= own
	}
	if !ok {
		n.complaint("%s=%s is no answer to %s (§6.2.2)", kv.Key, kv.Value, proposed)
		return "bad answer to a proposal"
	}
	k.set(&n.res, v)
	return ""
}

// open reports whether the initiator owes answers.
func (n *negotiation) open() bool { return len(n.asked) > 0 }
