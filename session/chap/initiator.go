package chap

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/iscsimp/iscsimp/pdu"
)

// challengeLen is the length of our challenges: 128 bits never repeat, and some
// targets refuse long ones.
const challengeLen = 16

// Config is what an initiator brings to CHAP.
type Config struct {
	// User is our CHAP_N, 1 to MaxNameLen bytes (open-iscsi: node.session.auth.username).
	User string
	// Secret proves us to the target (node.session.auth.password).
	Secret Secret
	// MutualUser is the CHAP_N the target must answer with; "" accepts any
	// (node.session.auth.username_in).
	MutualUser string
	// MutualSecret, when set, makes the target prove itself with it
	// (node.session.auth.password_in). It must not be akin to Secret.
	MutualSecret Secret
	// Algorithms are those offered, best first (node.session.auth.chap_algs).
	// Default: DefaultAlgorithms.
	Algorithms []Algorithm
	// Rand gives the challenges. Default: crypto/rand.
	Rand io.Reader
	// Registry is the one of the process; it must be given.
	Registry *Registry
}

// Mutual reports whether the target is to prove itself too.
func (c *Config) Mutual() bool { return !c.MutualSecret.IsZero() }

// Warnings lists what is allowed but should not stay so, one sentence each: short
// secrets and lists of algorithms that ask for trouble.
func (c *Config) Warnings() []string {
	var out []string
	short := func(what string, s Secret) {
		if n := s.Len(); n > 0 && n < MinSafeSecretLen {
			out = append(out, fmt.Sprintf("the %s has only %d bytes: use at least %d random ones, or protect the connection with IPsec (RFC 7143 §9.2.1)", what, n, MinSafeSecretLen))
		}
	}
	short("CHAP secret", c.Secret)
	short("mutual CHAP secret", c.MutualSecret)
	if len(c.Algorithms) == 0 {
		return out
	}
	md5, sha256 := slices.Index(c.Algorithms, MD5), slices.Index(c.Algorithms, SHA256)
	switch {
	case md5 < 0:
		out = append(out, "MD5 is not among the CHAP algorithms: many targets have no other, and RFC 7143 §12.1.3 wants it always offered")
	case sha256 >= 0 && sha256 < md5:
		out = append(out, "SHA256 is listed before MD5 among the CHAP algorithms: tgtd mistakes it for SHA1 and refuses the first login")
	}
	return out
}

func (c *Config) check() error {
	if err := checkName("user", c.User); err != nil {
		return err
	}
	switch {
	case c.Secret.IsZero():
		return configError("give one by file or environment", "there is no CHAP secret for user %s", quote(c.User))
	case c.Registry == nil:
		return configError("share one chap.NewRegistry among all logins of the process", "Config.Registry is nil")
	case c.MutualUser != "" && !c.Mutual():
		return configError("give the target's secret too, or leave its name out", "mutual CHAP has a user but no secret")
	}
	if c.MutualUser != "" {
		if err := checkName("mutual user", c.MutualUser); err != nil {
			return err
		}
	}
	if err := checkPair(c.Secret, c.MutualSecret); err != nil {
		return err
	}
	return checkAlgorithms(c.Algorithms)
}

// checkPair refuses secrets of the two directions that are akin.
func checkPair(own, mutual Secret) error {
	switch {
	case own.Equal(mutual):
		return configError(hintOwnSecret, "the CHAP secrets of both directions are the same, which RFC 7143 §9.2.1 forbids")
	case own.akin(mutual):
		return configError(hintOwnSecret, "one CHAP secret is the beginning of the other, which lets the target be impersonated like the same secret would")
	default:
		return nil
	}
}

func checkName(what, name string) error {
	if name == "" {
		return configError("set it to the name the other side expects as CHAP_N", "the CHAP %s is empty", what)
	}
	if len(name) > MaxNameLen || !utf8.ValidString(name) || pdu.CheckKey("CHAP_N", name) != nil {
		return configError("use UTF-8 without null bytes", "the CHAP %s %s is not text of at most %d bytes", what, quote(name), MaxNameLen)
	}
	return nil
}

// CheckConfigs refuses a set of configurations, such as those of all targets in
// a configuration file, in which a secret of one proves us and that of another
// proves a target (RFC 7143 §9.2.1).
func CheckConfigs(configs ...Config) error {
	for i := range configs {
		for j := range configs {
			if !configs[j].Mutual() {
				continue
			}
			if err := checkPair(configs[i].Secret, configs[j].MutualSecret); err != nil {
				return &Error{Reason: ReasonConfig, Msg: fmt.Sprintf("users %s and %s", quote(configs[i].User), quote(configs[j].User)), Err: err}
			}
		}
	}
	return nil
}

type phase uint8

const (
	phaseNew      phase = iota
	phaseProposed       // the list of algorithms was sent
	phaseAnswered       // our response and challenge were sent (initiator), our challenge (target)
	phaseDone
)

// Initiator is the initiator's side of one login. Make one with New for each
// connection. Not safe for concurrent use.
type Initiator struct {
	cfg       Config
	phase     phase
	err       error // sticky
	chosen    Algorithm
	id        byte   // of our challenge
	challenge []byte // ours, when mutual
	response  []byte // as sent
	peer      string // CHAP_N of a target that has proven itself
}

// New checks cfg and makes an Initiator.
func New(cfg Config) (*Initiator, error) {
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = DefaultAlgorithms()
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Algorithms = slices.Clone(cfg.Algorithms)
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	return &Initiator{cfg: cfg}, nil
}

// Warnings is Config.Warnings.
func (in *Initiator) Warnings() []string { return in.cfg.Warnings() }

// Offered is the list of algorithms offered, best first.
func (in *Initiator) Offered() []Algorithm { return slices.Clone(in.cfg.Algorithms) }

// Chosen is the algorithm the target took, 0 as long as that is open.
func (in *Initiator) Chosen() Algorithm { return in.chosen }

// Mutual reports whether Verify must be called before the login may go on.
func (in *Initiator) Mutual() bool { return in.cfg.Mutual() }

// Done reports whether this side is content: our response was made and, when
// mutual, the target has proven itself. Whether the target is content only the
// status of its next Login Response tells. A login must not leave the security
// stage while Done is false.
func (in *Initiator) Done() bool { return in.phase == phaseDone && in.err == nil }

// AppendOffer appends CHAP_A with the list of algorithms, the first step.
func (in *Initiator) AppendOffer(dst []byte) []byte {
	if in.phase == phaseNew {
		in.phase = phaseProposed
	}
	return pdu.AppendKey(dst, "CHAP_A", joinAlgorithms(in.cfg.Algorithms))
}

// Step takes the target's CHAP_A, CHAP_I and CHAP_C and appends to dst what to
// answer: CHAP_N and CHAP_R, followed by our own CHAP_I and CHAP_C when mutual.
// After an error, which all later calls repeat, dst comes back unchanged.
func (in *Initiator) Step(dst []byte, keys Keys) ([]byte, error) {
	if in.err != nil {
		return dst, in.err
	}
	if in.phase != phaseProposed {
		return dst, in.fail(newError(ReasonUse, "call AppendOffer, Step, Verify, in this order and once each", "Step is out of turn"))
	}
	challenge, id, err := in.readChallenge(keys)
	if err != nil {
		return dst, in.fail(err)
	}
	if in.cfg.Mutual() {
		if in.id, in.challenge, err = newChallenge(in.cfg.Rand, in.cfg.Registry, challengeLen); err != nil {
			return dst, in.fail(err)
		}
		if bytes.Equal(in.challenge, challenge) {
			return dst, in.fail(newError(ReasonRandom, "check the source of random bytes", "our challenge is the target's"))
		}
	}
	in.response = in.chosen.response(id, in.cfg.Secret, challenge)
	dst = pdu.AppendKey(dst, "CHAP_N", in.cfg.User)
	dst = appendBinary(dst, "CHAP_R", in.response)
	if !in.cfg.Mutual() {
		in.phase = phaseDone
		return dst, nil
	}
	in.phase = phaseAnswered
	dst = appendNumber(dst, "CHAP_I", in.id)
	return appendBinary(dst, "CHAP_C", in.challenge), nil
}

func (in *Initiator) readChallenge(keys Keys) (challenge []byte, id byte, err error) {
	// The list has been refused when one of these stands where a number should.
	switch keys.Algorithm {
	case "Reject", "None", "NotUnderstood", "Irrelevant":
		return nil, 0, newError(ReasonAlgorithm, "offer others; MD5 is what every target must have",
			"the target has none of the algorithms offered (%s)", joinAlgorithms(in.cfg.Algorithms))
	}
	if err := keys.need("CHAP_A", "CHAP_I", "CHAP_C"); err != nil {
		return nil, 0, err
	}
	n, err := pdu.ParseNumber(keys.Algorithm)
	if err != nil {
		return nil, 0, protocolError("CHAP_A=%s is not a number", quote(keys.Algorithm))
	}
	if n > 255 || !slices.Contains(in.cfg.Algorithms, Algorithm(n)) {
		return nil, 0, newError(ReasonAlgorithm, hintTargetBroken,
			"the target takes algorithm %d, which was not offered (%s)", n, joinAlgorithms(in.cfg.Algorithms))
	}
	if id, err = keys.parseIdentifier(); err != nil {
		return nil, 0, err
	}
	if challenge, err = keys.parseChallenge(); err != nil {
		return nil, 0, err
	}
	if in.cfg.Registry.holds(challenge) {
		return nil, 0, newError(ReasonReflection, hintAttack, "the target sends a challenge that we issued ourselves in another login")
	}
	in.chosen = Algorithm(n)
	return challenge, id, nil
}

// Verify takes the target's CHAP_N and CHAP_R. When Mutual, it must be called
// with whatever the response that follows ours holds, even nothing; it is not to
// be called otherwise. After an error, which all later calls repeat, the
// connection must be closed.
func (in *Initiator) Verify(keys Keys) error {
	if in.err != nil {
		return in.err
	}
	if in.phase != phaseAnswered {
		return in.fail(newError(ReasonUse, "call Verify once, after Step, for mutual CHAP only", "Verify is out of turn"))
	}
	if keys.Name == "" && keys.Response == "" {
		return in.fail(newError(ReasonNoAnswer, "configure mutual CHAP on the target too, or take the mutual secret out here",
			"the target was asked to prove itself and does not"))
	}
	if err := keys.need("CHAP_N", "CHAP_R"); err != nil {
		return in.fail(err)
	}
	if err := in.verifyResponse(keys); err != nil {
		return in.fail(err)
	}
	if len(keys.Name) > MaxNameLen {
		return in.fail(protocolError("CHAP_N has %d bytes, at most %d allowed", len(keys.Name), MaxNameLen))
	}
	if in.cfg.MutualUser != "" && keys.Name != in.cfg.MutualUser {
		return in.fail(newError(ReasonName, "correct the mutual user on either side",
			"the target calls itself %s, expected %s", quote(keys.Name), quote(in.cfg.MutualUser)))
	}
	in.phase, in.peer = phaseDone, keys.Name
	return nil
}

// Peer is the name under which the target has proven itself; "" as long as it has
// not, or was not asked to.
func (in *Initiator) Peer() string { return in.peer }

func (in *Initiator) verifyResponse(keys Keys) error {
	got, err := keys.parseResponse(in.chosen)
	if err != nil {
		return err
	}
	if !in.cfg.Registry.holds(in.challenge) {
		return newError(ReasonExpired, "log in again; see why the target takes so long", "the target's answer took more than %v, or too many logins went on meanwhile", RegistryTTL)
	}
	if subtle.ConstantTimeCompare(got, in.response) == 1 {
		return newError(ReasonReflection, hintAttack, "the target sends our own response back")
	}
	return judge(got, in.chosen, in.id, in.challenge, in.cfg.MutualSecret, in.cfg.Secret)
}

// judge checks the response to our challenge: it must be made with the peer's
// secret and must not be what we would have answered ourselves.
func judge(got []byte, a Algorithm, id byte, challenge []byte, peers, own Secret) error {
	ours := subtle.ConstantTimeCompare(got, a.response(id, own, challenge))
	right := subtle.ConstantTimeCompare(got, a.response(id, peers, challenge))
	switch {
	case ours == 1:
		return newError(ReasonSameSecret, hintOwnSecret, "the other side proves itself with our own secret, which RFC 7143 §9.2.1 forbids")
	case right != 1:
		return newError(ReasonResponse, "check that both sides have the same secret for this direction; if they do, someone poses as the other side", "the CHAP response is wrong")
	default:
		return nil
	}
}

func (in *Initiator) fail(err error) error {
	in.err = err
	return err
}

// newChallenge makes an identifier and a challenge and has the registry guard it.
func newChallenge(random io.Reader, registry *Registry, n int) (byte, []byte, error) {
	buf := make([]byte, 1+n)
	if _, err := io.ReadFull(random, buf); err != nil {
		return 0, nil, &Error{Reason: ReasonRandom, Msg: "no random bytes for the challenge", Hint: "check the source of random bytes", Err: err}
	}
	if !registry.add(buf[1:]) {
		return 0, nil, newError(ReasonRandom, "check the source of random bytes", "a random challenge came a second time")
	}
	return buf[0], buf[1:], nil
}
