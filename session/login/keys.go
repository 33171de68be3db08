package login

import (
	"fmt"
	"strconv"

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
	offered [numKeys]bool   // we sent the key, so a value from the target is its answer
	value   [numKeys]uint64 // the outcome; for kMaxRecv the target's declaration
	digest  [2]bool         // header, data: CRC32C settled
	digSent bool
	tpgt    int
	alias   string
	auth    string
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
		kPDUInOrder: 1, kSeqInOrder: 1,
		kERL: uint64(o.ErrorRecoveryLevel),
	}
	for i := range numbers {
		n.value[i] = numbers[i].def
	}
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
	for i, on := range [2]bool{n.cfg.Offer.HeaderDigest, n.cfg.Offer.DataDigest} {
		if on {
			dst = pdu.AppendKey(dst, digestKeys[i], "CRC32C,None")
		} else if !n.cfg.Minimal {
			dst = pdu.AppendKey(dst, digestKeys[i], "None")
		}
	}
	n.digSent = true
	for i := range numbers {
		k := &numbers[i]
		if n.offered[i] || (n.cfg.Discovery && k.leading) || (n.cfg.Minimal && i != kMaxRecv) {
			continue
		}
		dst = n.appendOurs(dst, i)
	}
	return dst
}

func (n *negotiator) appendOurs(dst []byte, i int) []byte {
	n.offered[i] = true
	return pdu.AppendKey(dst, numbers[i].name, n.format(i, n.ours[i]))
}

func (n *negotiator) format(i int, v uint64) string {
	if !numbers[i].boolean() {
		return strconv.FormatUint(v, 10)
	}
	if v == 1 {
		return "Yes"
	}
	return "No"
}

// take handles one key of the target and appends an answer if one is due.
func (n *negotiator) take(answers []byte, stage pdu.Stage, key, value string) ([]byte, error) {
	for i := range numbers {
		if numbers[i].name == key {
			return n.takeNumber(answers, i, value)
		}
	}
	switch key {
	case "AuthMethod":
		return answers, n.takeAuth(value)
	case "TargetPortalGroupTag":
		tag, err := pdu.ParseNumber(value)
		if err != nil || tag > 65535 {
			return nil, protocolError("TargetPortalGroupTag=%q is not a number up to 65535", value)
		}
		n.tpgt = int(tag)
		return answers, nil
	case "TargetAlias":
		n.alias = value
		return answers, nil
	case "TargetAddress", "TargetName", "InitiatorName", "InitiatorAlias", "SessionType":
		return answers, nil // declarations, or echoes of ours: no answer is due
	case digestKeys[0], digestKeys[1]:
		return n.takeDigest(answers, key, value)
	case "IFMarker", "OFMarker":
		return pdu.AppendKey(answers, key, "No"), nil // obsolete: never NotUnderstood (§13.25)
	case "IFMarkInt", "OFMarkInt":
		return pdu.AppendKey(answers, key, "Reject"), nil
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

func (n *negotiator) takeAuth(value string) error {
	n.auth = value
	if value == "None" {
		return nil
	}
	return &Error{
		Status: 0x0201,
		Msg:    fmt.Sprintf("the target wants AuthMethod=%s", value),
		Hint:   "this target does not let initiators in without authentication",
	}
}

func (n *negotiator) takeNumber(answers []byte, i int, value string) ([]byte, error) {
	k := &numbers[i]
	if isReply(value) {
		return answers, nil // the default holds
	}
	v, err := k.parse(value)
	if err != nil {
		return nil, err
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
		answers = pdu.AppendKey(answers, k.name, n.format(i, n.value[i]))
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
func (n *negotiator) takeDigest(answers []byte, key, value string) ([]byte, error) {
	i := 0
	if key == digestKeys[1] {
		i = 1
	}
	want := n.cfg.Offer.HeaderDigest
	if i == 1 {
		want = n.cfg.Offer.DataDigest
	}
	if n.digSent {
		switch {
		case value == "None", isReply(value):
			n.digest[i] = false
		case value == "CRC32C" && want:
			n.digest[i] = true
		default:
			return nil, &Error{
				Msg:  fmt.Sprintf("the target insists on %s=%s", key, value),
				Hint: "switch the digest on with --header-digest or --data-digest",
			}
		}
		return answers, nil
	}
	for len(value) > 0 {
		var item string
		item, value = cutItem(value)
		if item == "None" || item == "CRC32C" && want {
			n.digest[i] = item == "CRC32C"
			return pdu.AppendKey(answers, key, item), nil
		}
	}
	return pdu.AppendKey(answers, key, "Reject"), nil
}

func cutItem(list string) (item, rest string) {
	for i := range len(list) {
		if list[i] == ',' {
			return list[:i], list[i+1:]
		}
	}
	return list, ""
}

// finish checks what holds only between keys.
func (n *negotiator) finish() error {
	// §13.14: FirstBurstLength must not exceed MaxBurstLength. A target that
	// leaves it larger gets the smaller of the two.
	n.value[kFirstBurst] = min(n.value[kFirstBurst], n.value[kMaxBurst])
	return nil
}

func (n *negotiator) result() Result {
	v := &n.value
	return Result{
		Offer: Offer{
			HeaderDigest: n.digest[0], DataDigest: n.digest[1],
			MaxRecvDataSegmentLength: uint32(n.ours[kMaxRecv]),
			MaxBurstLength:           uint32(v[kMaxBurst]),
			FirstBurstLength:         uint32(v[kFirstBurst]),
			MaxOutstandingR2T:        uint16(v[kMaxR2T]),
			InitialR2T:               v[kInitialR2T] == 1,
			ImmediateData:            v[kImmediateData] == 1,
			MaxConnections:           uint16(v[kMaxConnections]),
			ErrorRecoveryLevel:       uint8(v[kERL]),
			DefaultTime2Wait:         uint16(v[kTime2Wait]),
			DefaultTime2Retain:       uint16(v[kTime2Retain]),
		},
		MaxSendDataSegmentLength: uint32(v[kMaxRecv]),
		DataPDUInOrder:           v[kPDUInOrder] == 1,
		DataSeqInOrder:           v[kSeqInOrder] == 1,
		TargetPortalGroupTag:     n.tpgt,
		TargetAlias:              n.alias,
		AuthMethod:               n.auth,
	}
}
