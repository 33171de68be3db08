package login

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/iscsimp/iscsimp/pdu"
)

// Offer is what this side proposes for each operational key (RFC 7143 §13).
type Offer struct {
	HeaderDigest, DataDigest bool // CRC32C; false: None
	MaxRecvDataSegmentLength uint32
	MaxBurstLength           uint32
	FirstBurstLength         uint32
	MaxOutstandingR2T        uint16
	InitialR2T               bool
	ImmediateData            bool
	MaxConnections           uint16
	ErrorRecoveryLevel       uint8
	// AnyPDUOrder and AnySequenceOrder are DataPDUInOrder=No and
	// DataSequenceInOrder=No.
	AnyPDUOrder, AnySequenceOrder bool
	// DefaultTime2Wait (function: maximum) and DefaultTime2Retain (minimum) are
	// offered as 0: nothing is gained by waiting at ErrorRecoveryLevel 0, and a
	// target that discards a lost session's state at once settles its writes.
	DefaultTime2Wait, DefaultTime2Retain uint16
}

// Result is what the two sides settled on.
type Result struct {
	Offer
	// MaxSendDataSegmentLength is the target's MaxRecvDataSegmentLength.
	MaxSendDataSegmentLength       uint32
	DataPDUInOrder, DataSeqInOrder bool
	TargetPortalGroupTag           int // -1: not told
	TargetAlias                    string
	TaskReporting                  TaskReporting
	AuthMethod                     string // as answered; empty from targets that leave it out
}

// function is how two values of a key become one (RFC 7143 §6.2, §13).
type function uint8

const (
	fnMin     function = iota // numerical minimum
	fnMax                     // numerical maximum
	fnOr                      // boolean or
	fnAnd                     // boolean and
	fnDeclare                 // each side tells its own
)

// number is a numerical or boolean key: booleans are 0 and 1.
type number struct {
	name    string
	fn      function
	lo, hi  uint64
	def     uint64 // the RFC's default: holds when a side does not speak of the key
	leading bool   // meaningless in discovery sessions
}

func (k *number) boolean() bool { return k.fn == fnOr || k.fn == fnAnd }

// The indexes of numbers, in the order in which they are offered.
const (
	kMaxConnections = iota
	kInitialR2T
	kImmediateData
	kMaxRecv
	kMaxBurst
	kFirstBurst
	kTime2Wait
	kTime2Retain
	kMaxR2T
	kPDUInOrder
	kSeqInOrder
	kERL
	numKeys
)

const maxLen = 1<<24 - 1

var numbers = [numKeys]number{
	kMaxConnections: {"MaxConnections", fnMin, 1, 65535, 1, true},
	kInitialR2T:     {"InitialR2T", fnOr, 0, 1, 1, true},
	kImmediateData:  {"ImmediateData", fnAnd, 0, 1, 1, true},
	kMaxRecv:        {"MaxRecvDataSegmentLength", fnDeclare, 512, maxLen, 8192, false},
	kMaxBurst:       {"MaxBurstLength", fnMin, 512, maxLen, 262144, true},
	kFirstBurst:     {"FirstBurstLength", fnMin, 512, maxLen, 65536, true},
	kTime2Wait:      {"DefaultTime2Wait", fnMax, 0, 3600, 2, false},
	kTime2Retain:    {"DefaultTime2Retain", fnMin, 0, 3600, 20, false},
	kMaxR2T:         {"MaxOutstandingR2T", fnMin, 1, 65535, 1, true},
	kPDUInOrder:     {"DataPDUInOrder", fnOr, 0, 1, 1, true},
	kSeqInOrder:     {"DataSequenceInOrder", fnOr, 0, 1, 1, true},
	kERL:            {"ErrorRecoveryLevel", fnMin, 0, 2, 0, true},
}

// negotiator keeps both sides' values of all keys.
type negotiator struct {
	cfg     Config
	ours    [numKeys]uint64
	offered [numKeys]bool // we sent the key, so a value from the target is its answer
	told    [numKeys]bool // the target gave a value, and this one:
	theirs  [numKeys]uint64
	refusal [numKeys]string   // what the target said instead of a value
	others  map[string]string // the target's values of keys that have no place here
	value   [numKeys]uint64   // the outcome; for kMaxRecv the target's declaration
	digests [2]digest
	tpgt    int
	alias   string
	auth    string

	reporting reporting
}

// digest is the negotiation of HeaderDigest or DataDigest.
type digest struct {
	want    bool   // CRC32C is welcome
	offered bool   // we sent the key, or answered it
	told    string // the target's value
	on      bool   // the outcome: CRC32C
}

var digestKeys = [2]string{"HeaderDigest", "DataDigest"}

func newNegotiator(cfg Config) negotiator {
	n := negotiator{cfg: cfg, tpgt: -1}
	o := cfg.Offer
	n.ours = [numKeys]uint64{
		kMaxConnections: uint64(o.MaxConnections),
		kInitialR2T:     bit(o.InitialR2T), kImmediateData: bit(o.ImmediateData),
		kMaxRecv:  uint64(o.MaxRecvDataSegmentLength),
		kMaxBurst: uint64(o.MaxBurstLength), kFirstBurst: uint64(o.FirstBurstLength),
		kTime2Wait: uint64(o.DefaultTime2Wait), kTime2Retain: uint64(o.DefaultTime2Retain),
		kMaxR2T:     uint64(o.MaxOutstandingR2T),
		kPDUInOrder: bit(!o.AnyPDUOrder), kSeqInOrder: bit(!o.AnySequenceOrder),
		kERL: uint64(o.ErrorRecoveryLevel),
	}
	for i := range numbers {
		n.value[i] = numbers[i].def
	}
	n.digests[0].want, n.digests[1].want = o.HeaderDigest, o.DataDigest
	return n
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// offer appends our operational keys.
func (n *negotiator) offer(dst []byte) []byte {
	for i := range n.digests {
		d := &n.digests[i]
		switch {
		case d.offered || (n.cfg.Minimal && !d.want):
			continue
		case d.want:
			dst = pdu.AppendKey(dst, digestKeys[i], "CRC32C,None")
		default:
			dst = pdu.AppendKey(dst, digestKeys[i], "None")
		}
		d.offered = true
	}
	for i := range numbers {
		k := &numbers[i]
		joins := n.cfg.TSIH != 0 && i != kMaxRecv // the session's keys are settled already
		if n.offered[i] || joins || (n.cfg.Discovery && k.leading) || (n.cfg.Minimal && i != kMaxRecv) {
			continue
		}
		dst = n.appendOurs(dst, i)
	}
	return n.offerReporting(dst)
}

func (n *negotiator) appendOurs(dst []byte, i int) []byte {
	n.offered[i] = true
	return pdu.AppendKey(dst, numbers[i].name, numbers[i].format(n.ours[i]))
}

// format is a value as text.
func (k *number) format(v uint64) string {
	if !k.boolean() {
		return strconv.FormatUint(v, 10)
	}
	if v == 1 {
		return "Yes"
	}
	return "No"
}

// take handles one key of the target and appends an answer if one is due. A key
// may come again with the value it had; one that comes with another value ends
// the login (RFC 7143 §6.3), since nobody could say which of the two holds.
func (n *negotiator) take(answers []byte, key, value string) ([]byte, error) {
	for i := range numbers {
		if numbers[i].name == key {
			return n.takeNumber(answers, i, value)
		}
	}
	switch key {
	case "AuthMethod":
		return answers, n.takeAuth(value)
	case "TargetPortalGroupTag":
		return answers, n.takeTag(value)
	case digestKeys[0]:
		return n.takeDigest(answers, 0, value)
	case digestKeys[1]:
		return n.takeDigest(answers, 1, value)
	case reportingKey:
		return n.takeReporting(answers, value)
	case "TargetAddress": // the only one that may come several times (§6.3)
		return answers, nil
	}
	return n.takeOther(answers, key, value)
}

// takeOther handles a key of which nothing but its value has to be kept.
func (n *negotiator) takeOther(answers []byte, key, value string) ([]byte, error) {
	if first, again := n.others[key]; again {
		if first != value {
			return nil, changed(key, first, value)
		}
		return answers, nil
	}
	if n.others == nil {
		n.others = make(map[string]string)
	}
	n.others[key] = value
	switch key {
	case "TargetAlias":
		n.alias = value
		return answers, nil
	case "TargetName", "InitiatorName", "InitiatorAlias", "SessionType":
		return answers, nil // declarations, or echoes of ours: no answer is due
	case "IFMarker", "OFMarker":
		return pdu.AppendKey(answers, key, "No"), nil // obsolete: never NotUnderstood (§13.25)
	case "IFMarkInt", "OFMarkInt":
		return pdu.AppendKey(answers, key, "Reject"), nil
	case "iSCSIProtocolLevel":
		if isReply(value) {
			return answers, nil
		}
		return pdu.AppendKey(answers, key, "1"), nil // RFC 7143 alone (§13.24)
	}
	if isReply(value) {
		return answers, nil // an answer to a key we never sent; nothing to answer
	}
	return pdu.AppendKey(answers, key, "NotUnderstood"), nil
}

// isReply reports whether value can only be an answer (RFC 7143 §6.2).
func isReply(value string) bool {
	return value == "NotUnderstood" || value == "Irrelevant" || value == "Reject"
}

func (n *negotiator) takeTag(value string) error {
	tag, err := pdu.ParseNumber(value)
	if err != nil || tag > 65535 {
		return protocolError("TargetPortalGroupTag=%q is not a number up to 65535", value)
	}
	if n.tpgt >= 0 && n.tpgt != int(tag) {
		return changed("TargetPortalGroupTag", strconv.Itoa(n.tpgt), value)
	}
	n.tpgt = int(tag)
	if want := n.cfg.TPGT; want >= 0 && want != n.tpgt {
		return &Error{
			Msg:  fmt.Sprintf("the portal is in portal group %d, discovery said %d", n.tpgt, want),
			Hint: "the target was reconfigured; run discovery again",
		}
	}
	return nil
}

func (n *negotiator) takeAuth(value string) error {
	if n.auth != "" && n.auth != value {
		return changed("AuthMethod", n.auth, value)
	}
	n.auth = value
	if value == "None" {
		return nil
	}
	msg := fmt.Sprintf("the target wants AuthMethod=%s", value)
	if isReply(value) {
		msg = fmt.Sprintf("the target answers AuthMethod=%s to a login without authentication", value)
	}
	return &Error{Status: 0x0201, Msg: msg, Hint: "this target lets no initiator in without authentication: give a CHAP user and secret"}
}

// changed is the error for a key that comes a second time with another value.
func changed(key, first, second string) error {
	return protocolError("the target gives %s twice, as %s and as %s", key, first, second)
}

func (n *negotiator) takeNumber(answers []byte, i int, value string) ([]byte, error) {
	k := &numbers[i]
	if isReply(value) { // the default holds
		switch {
		case n.told[i]:
			return nil, changed(k.name, k.format(n.theirs[i]), value)
		case n.refusal[i] != "" && n.refusal[i] != value:
			return nil, changed(k.name, n.refusal[i], value)
		}
		n.refusal[i] = value
		return answers, nil
	}
	if n.refusal[i] != "" {
		return nil, changed(k.name, n.refusal[i], value)
	}
	v, err := k.parse(value)
	if err != nil {
		return nil, err
	}
	if n.told[i] {
		if v != n.theirs[i] {
			return nil, changed(k.name, k.format(n.theirs[i]), value)
		}
		return answers, nil
	}
	n.told[i], n.theirs[i] = true, v
	if n.cfg.Discovery && i == kERL {
		return pdu.AppendKey(answers, k.name, "0"), nil // §7.4.1
	}
	if n.cfg.Discovery && k.leading {
		return pdu.AppendKey(answers, k.name, "Irrelevant"), nil
	}
	if k.fn == fnDeclare {
		n.value[i] = v
		return answers, nil
	}
	// Whether v is the target's answer or its offer, the function over both
	// values gives the outcome: some targets answer with their own value
	// instead of the outcome.
	n.value[i] = k.combine(n.ours[i], v)
	if !n.offered[i] {
		n.offered[i] = true
		answers = pdu.AppendKey(answers, k.name, k.format(n.value[i]))
	}
	return answers, nil
}

func (k *number) parse(value string) (uint64, error) {
	if k.boolean() {
		switch value {
		case "Yes":
			return 1, nil
		case "No":
			return 0, nil
		}
		return 0, protocolError("%s=%q is neither Yes nor No", k.name, value)
	}
	v, err := pdu.ParseNumber(value)
	if err != nil || v < k.lo || v > k.hi {
		return 0, protocolError("%s=%q is not a number from %d to %d", k.name, value, k.lo, k.hi)
	}
	return v, nil
}

func (k *number) combine(a, b uint64) uint64 {
	if k.fn == fnMin || k.fn == fnAnd {
		return min(a, b)
	}
	return max(a, b)
}

// takeDigest settles one of the two digests: as the target's answer, or as its
// offer of a list of which the first we can do is taken.
func (n *negotiator) takeDigest(answers []byte, i int, value string) ([]byte, error) {
	d, key := &n.digests[i], digestKeys[i]
	if d.told != "" {
		if d.told != value {
			return nil, changed(key, d.told, value)
		}
		return answers, nil
	}
	d.told = value
	if d.offered {
		return answers, d.settle(key, value)
	}
	if isReply(value) {
		return answers, nil // to a key we never sent: None, the default, holds
	}
	d.offered = true
	for item := range strings.SplitSeq(value, ",") {
		if item == "None" || item == "CRC32C" && d.want {
			d.on = item == "CRC32C"
			return pdu.AppendKey(answers, key, item), nil
		}
	}
	return pdu.AppendKey(answers, key, "Reject"), nil
}

// settle takes the target's answer to our offer.
func (d *digest) settle(key, value string) error {
	switch {
	case value == "None", isReply(value):
		return nil
	case value == "CRC32C" && d.want:
		d.on = true
		return nil
	case value == "CRC32C":
		return &Error{
			Msg:  fmt.Sprintf("the target insists on %s=%s", key, value),
			Hint: "switch the digest on with --header-digest or --data-digest",
		}
	}
	return protocolError("the target answers %s=%q, which was not offered", key, value)
}

func (n *negotiator) result() Result {
	v := &n.value
	return Result{
		Offer: Offer{
			HeaderDigest: n.digests[0].on, DataDigest: n.digests[1].on,
			MaxRecvDataSegmentLength: uint32(n.ours[kMaxRecv]),
			MaxBurstLength:           uint32(v[kMaxBurst]),
			// §13.14: it must not exceed MaxBurstLength. A target that leaves it
			// larger gets the smaller of the two.
			FirstBurstLength:   uint32(min(v[kFirstBurst], v[kMaxBurst])),
			MaxOutstandingR2T:  uint16(v[kMaxR2T]),
			InitialR2T:         v[kInitialR2T] == 1,
			ImmediateData:      v[kImmediateData] == 1,
			MaxConnections:     uint16(v[kMaxConnections]),
			ErrorRecoveryLevel: uint8(v[kERL]),
			DefaultTime2Wait:   uint16(v[kTime2Wait]),
			DefaultTime2Retain: uint16(v[kTime2Retain]),
			AnyPDUOrder:        v[kPDUInOrder] == 0,
			AnySequenceOrder:   v[kSeqInOrder] == 0,
		},
		MaxSendDataSegmentLength: uint32(v[kMaxRecv]),
		DataPDUInOrder:           v[kPDUInOrder] == 1,
		DataSeqInOrder:           v[kSeqInOrder] == 1,
		TargetPortalGroupTag:     n.tpgt,
		TargetAlias:              n.alias,
		TaskReporting:            n.reporting.outcome,
		AuthMethod:               n.auth,
	}
}
