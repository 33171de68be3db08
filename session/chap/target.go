package chap

import (
	"crypto/rand"
	"encoding/base64"
	"io"
	"slices"
	"strconv"
	"sync"

	"github.com/iscsimp/iscsimp/pdu"
)

// maxFaultChallenge keeps the longest faulty challenge within a text value.
const maxFaultChallenge = 4000

// TargetConfig is what a target brings to CHAP.
type TargetConfig struct {
	// User and Secret are the initiator's.
	User   string
	Secret Secret
	// Users are the secrets of further initiators, by user name.
	Users map[string]Secret
	// MutualUser and MutualSecret are the target's own, for initiators that ask
	// it to prove itself; without MutualSecret those are refused.
	MutualUser   string
	MutualSecret Secret
	// Algorithms are those the target knows; it takes the first of the
	// initiator's list that is among them. Default: DefaultAlgorithms.
	Algorithms []Algorithm
	// Rand gives the challenges. Default: crypto/rand.
	Rand io.Reader
	// Registry is shared by all logins of the target, and not with initiators of
	// the same process. Default: one for this login alone.
	Registry *Registry
	// Faults are for tests.
	Faults Faults
}

// Faults makes a Target break the rules. The zero value keeps them.
type Faults struct {
	// Algorithm, when not 0, is what CHAP_A says, whatever was offered. What is
	// computed is that algorithm if it is known, else MD5.
	Algorithm Algorithm
	// SHA1As7 takes algorithm 7 for SHA-1, as tgtd does.
	SHA1As7 bool
	// Identifier, when not "", is the text of CHAP_I.
	Identifier string
	// ChallengeLen is the length of the challenge in bytes, at most 4000; 0
	// stands for 16. istgt sends 1024; more than that is against the RFC.
	ChallengeLen int
	// Base64 writes binary values as base64, which is allowed.
	Base64 bool
	// Mirror, when not nil, sends the challenges of initiators back to them in
	// later logins with the same Mirror.
	Mirror *Mirror
	// NoAnswer leaves CHAP_N and CHAP_R out although the initiator asks for them.
	NoAnswer bool
	// WrongResponse flips a bit of the response.
	WrongResponse bool
	// ShortResponse leaves out the last byte of the response.
	ShortResponse bool
	// EchoResponse answers with the initiator's own response.
	EchoResponse bool
	// InitiatorSecret answers with the initiator's secret.
	InitiatorSecret bool
	// AnyInitiator does not look at the initiator's response, as a target that
	// does not know its secret has to.
	AnyInitiator bool
}

// Mirror holds the last challenge an initiator sent, for Faults.Mirror. The zero
// value is ready. Safe for concurrent use.
type Mirror struct {
	mu        sync.Mutex // guards all below
	id        byte
	challenge []byte
}

func (m *Mirror) keep(id byte, challenge []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id, m.challenge = id, challenge
}

func (m *Mirror) last() (byte, []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.id, m.challenge
}

// Target is the target's side of one login, for test targets. Make one with
// NewTarget for each connection. Not safe for concurrent use.
type Target struct {
	cfg       TargetConfig
	phase     phase
	err       error // sticky
	alg       Algorithm
	id        byte
	challenge []byte
}

// NewTarget checks cfg and makes a Target.
func NewTarget(cfg TargetConfig) (*Target, error) {
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = DefaultAlgorithms()
	}
	if cfg.Registry == nil {
		cfg.Registry = NewRegistry()
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	asInitiator := Config{
		User: cfg.User, Secret: cfg.Secret, MutualUser: cfg.MutualUser, MutualSecret: cfg.MutualSecret,
		Algorithms: cfg.Algorithms, Registry: cfg.Registry,
	}
	if err := asInitiator.check(); err != nil {
		return nil, err
	}
	if !cfg.MutualSecret.IsZero() && cfg.MutualUser == "" {
		return nil, configError("name the target", "mutual CHAP has a secret but no user")
	}
	if n := cfg.Faults.ChallengeLen; n < 0 || n > maxFaultChallenge {
		return nil, configError("use a length up to 4000", "a challenge cannot have %d bytes", n)
	}
	if pdu.CheckKey("CHAP_I", cfg.Faults.Identifier) != nil {
		return nil, configError("leave out null bytes", "Faults.Identifier cannot be sent")
	}
	cfg.Algorithms = slices.Clone(cfg.Algorithms)
	return &Target{cfg: cfg}, nil
}

// Done reports whether the initiator has proven itself, so that the login may
// leave the security stage.
func (t *Target) Done() bool { return t.phase == phaseDone && t.err == nil }

// Challenge takes the initiator's CHAP_A and appends CHAP_A, CHAP_I and CHAP_C.
// An *Error tells by Status how to refuse the login; it is final.
func (t *Target) Challenge(dst []byte, keys Keys) ([]byte, error) {
	if t.err != nil {
		return dst, t.err
	}
	if t.phase != phaseNew {
		return dst, t.fail(protocolError("CHAP_A is out of place here"))
	}
	if err := t.choose(keys); err != nil {
		return dst, t.fail(err)
	}
	n := t.cfg.Faults.ChallengeLen
	if n == 0 {
		n = challengeLen
	}
	id, challenge, err := newChallenge(t.cfg.Rand, t.cfg.Registry, n)
	if err != nil {
		return dst, t.fail(err)
	}
	t.id, t.challenge = id, challenge
	if m := t.cfg.Faults.Mirror; m != nil {
		if id, seen := m.last(); seen != nil {
			t.id, t.challenge = id, seen
		}
	}
	t.phase = phaseAnswered
	dst = appendNumber(dst, "CHAP_A", byte(t.alg))
	identifier := strconv.Itoa(int(t.id))
	if t.cfg.Faults.Identifier != "" {
		identifier = t.cfg.Faults.Identifier
	}
	dst = pdu.AppendKey(dst, "CHAP_I", identifier)
	return t.appendBinary(dst, "CHAP_C", t.challenge), nil
}

func (t *Target) choose(keys Keys) error {
	if err := keys.need("CHAP_A"); err != nil {
		return err
	}
	proposed, err := keys.parseProposal()
	if err != nil {
		return err
	}
	if t.alg = t.cfg.Faults.Algorithm; t.alg != 0 {
		return nil
	}
	for _, n := range proposed {
		if n <= 255 && slices.Contains(t.cfg.Algorithms, Algorithm(n)) {
			t.alg = Algorithm(n)
			return nil
		}
	}
	return newError(ReasonAlgorithm, "offer MD5 (5)", "none of the algorithms %s is known here", quote(keys.Algorithm))
}

// hash is the algorithm really computed.
func (t *Target) hash() Algorithm {
	switch {
	case t.alg == SHA256 && t.cfg.Faults.SHA1As7:
		return SHA1
	case t.alg.Size() == 0:
		return MD5
	default:
		return t.alg
	}
}

// Answer takes the initiator's CHAP_N and CHAP_R and, if the target is to prove
// itself, CHAP_I and CHAP_C, and then appends CHAP_N and CHAP_R. An *Error tells
// by Status how to refuse the login; it is final.
func (t *Target) Answer(dst []byte, keys Keys) ([]byte, error) {
	if t.err != nil {
		return dst, t.err
	}
	if t.phase != phaseAnswered {
		return dst, t.fail(protocolError("CHAP_R is out of place here"))
	}
	mutual := keys.Identifier != "" || keys.Challenge != ""
	wanted := []string{"CHAP_N", "CHAP_R"}
	if mutual {
		wanted = append(wanted, "CHAP_I", "CHAP_C")
	}
	if err := keys.need(wanted...); err != nil {
		return dst, t.fail(err)
	}
	if err := t.verify(keys); err != nil {
		return dst, t.fail(err)
	}
	if mutual {
		var err error
		if dst, err = t.prove(dst, keys); err != nil {
			return dst, t.fail(err)
		}
	}
	t.phase = phaseDone
	return dst, nil
}

func (t *Target) verify(keys Keys) error {
	if secret, ok := t.cfg.Users[keys.Name]; ok {
		t.cfg.User, t.cfg.Secret = keys.Name, secret
	}
	got, err := keys.parseResponse(t.hash())
	if t.cfg.Faults.AnyInitiator {
		return nil
	}
	if err != nil {
		return err
	}
	err = judge(got, t.hash(), t.id, t.challenge, t.cfg.Secret, t.cfg.MutualSecret)
	if err == nil && keys.Name != t.cfg.User {
		err = newError(ReasonName, "correct the CHAP user on either side", "CHAP_N=%s is not known here", quote(keys.Name))
	}
	return err
}

// prove appends the target's own name and response.
func (t *Target) prove(dst []byte, keys Keys) ([]byte, error) {
	id, err := keys.parseIdentifier()
	if err != nil {
		return dst, err
	}
	challenge, err := keys.parseChallenge()
	if err != nil {
		return dst, err
	}
	if m := t.cfg.Faults.Mirror; m != nil {
		m.keep(id, challenge)
	}
	if t.cfg.Registry.holds(challenge) {
		return dst, newError(ReasonReflection, hintAttack, "the initiator sends a challenge that this target issued itself")
	}
	if t.cfg.Faults.NoAnswer {
		return dst, nil
	}
	if t.cfg.MutualSecret.IsZero() {
		return dst, newError(ReasonNoAnswer, "configure mutual CHAP on the target", "the initiator wants a proof, but the target has no secret of its own")
	}
	dst = pdu.AppendKey(dst, "CHAP_N", t.cfg.MutualUser)
	return t.appendBinary(dst, "CHAP_R", t.response(id, challenge, keys)), nil
}

func (t *Target) response(id byte, challenge []byte, keys Keys) []byte {
	faults := t.cfg.Faults
	secret := t.cfg.MutualSecret
	if faults.InitiatorSecret {
		secret = t.cfg.Secret
	}
	r := t.hash().response(id, secret, challenge)
	if faults.EchoResponse {
		if own, err := pdu.ParseBinary(keys.Response, MaxBinary); err == nil {
			r = own
		}
	}
	if faults.WrongResponse {
		r[0] ^= 1
	}
	if faults.ShortResponse {
		r = r[:len(r)-1]
	}
	return r
}

func (t *Target) appendBinary(dst []byte, key string, value []byte) []byte {
	if t.cfg.Faults.Base64 {
		return pdu.AppendKey(dst, key, "0b"+base64.StdEncoding.EncodeToString(value))
	}
	return appendBinary(dst, key, value)
}

func (t *Target) fail(err error) error {
	t.err = err
	return err
}
