package initiator

import (
	"log/slog"

	"github.com/iscsimp/iscsimp/session/chap"
)

// Secret is a CHAP secret. Printed, logged or marshaled it reads "[secret]".
// NewSecret and LoadSecretFile make one. The zero Secret is none.
type Secret = chap.Secret

// CHAPAlgorithm is a hash that CHAP can use; ParseCHAPAlgorithms reads a list.
type CHAPAlgorithm = chap.Algorithm

// CHAP is how this host authenticates itself to a target, and a target to this
// host (RFC 7143 §9.2.1, §12.1.3). The zero value is no authentication. The names
// in parentheses are those of open-iscsi; for discovery they begin with
// discovery.sendtargets.auth instead of node.session.auth.
type CHAP struct {
	// User is this host's name, CHAP_N (node.session.auth.username).
	User string
	// Secret proves this host to the target (node.session.auth.password). One of
	// at least 12 random bytes is safe; a shorter one is warned about.
	Secret Secret
	// MutualUser is the name the target must have; "" accepts any
	// (node.session.auth.username_in).
	MutualUser string
	// MutualSecret, when set, is what the target must prove itself with, or it is
	// not logged in to (node.session.auth.password_in). It must differ from
	// Secret. When not set, a target that asks for no authentication is logged in
	// to all the same, and a warning is logged.
	MutualSecret Secret
	// Algorithms are the hashes offered, best first
	// (node.session.auth.chap_algs). Default: SHA3-256, MD5, SHA256; package chap
	// says why.
	Algorithms []CHAPAlgorithm
}

// NewSecret makes a secret of 1 to 1024 bytes. Errors are *Error of kind
// KindInvalid, here and in the functions below, and hold no secret.
func NewSecret(value string) (Secret, error) {
	s, err := chap.NewSecret(value)
	return s, invalidCHAP(err)
}

// LoadSecretFile reads a secret from a file that only its owner may access. One
// line end is not part of it.
func LoadSecretFile(path string) (Secret, error) {
	s, err := chap.LoadSecretFile(path)
	return s, invalidCHAP(err)
}

// GenerateSecret gives a new random secret of 26 capital letters and digits, with
// 128 random bits (RFC 7143 §9.2.1), for use on both sides.
func GenerateSecret() string { return chap.GenerateSecret() }

// CreateSecretFile writes a new random secret into a file that must not be there
// yet, and that only its owner may access; LoadSecretFile reads it.
func CreateSecretFile(path string) error { return invalidCHAP(chap.CreateSecretFile(path)) }

// ParseCHAPAlgorithms reads names or numbers joined by commas, best first, such
// as "SHA3-256,MD5" or "8,5".
func ParseCHAPAlgorithms(list string) ([]CHAPAlgorithm, error) {
	a, err := chap.ParseAlgorithms(list)
	return a, invalidCHAP(err)
}

func invalidCHAP(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: KindInvalid, Err: err}
}

// isZero reports whether nothing is configured. Algorithms alone are nothing.
func (c CHAP) isZero() bool {
	return c.User == "" && c.MutualUser == "" && c.Secret.IsZero() && c.MutualSecret.IsZero()
}

// config is c as a session takes it.
func (c CHAP) config() *chap.Config {
	if c.isZero() {
		return nil
	}
	return &chap.Config{
		User: c.User, Secret: c.Secret, MutualUser: c.MutualUser, MutualSecret: c.MutualSecret, Algorithms: c.Algorithms,
	}
}

// checkCHAP refuses what cannot work, and secrets that serve both directions.
func checkCHAP(all ...CHAP) error {
	var configs []chap.Config
	for _, c := range all {
		cfg := c.config()
		if cfg == nil {
			continue
		}
		cfg.Registry = chap.NewRegistry() // of no use but to be checked
		if _, err := chap.New(*cfg); err != nil {
			return invalidCHAP(err)
		}
		configs = append(configs, *cfg)
	}
	return invalidCHAP(chap.CheckConfigs(configs...))
}

// warn logs what is allowed but should not stay so.
func (c CHAP) warn(log *slog.Logger) {
	if cfg := c.config(); cfg != nil {
		for _, w := range cfg.Warnings() {
			log.Warn(w)
		}
	}
}

// discoveryCHAP is how Open's discovery authenticates. By default that is this
// host's half of CHAP: a portal that asks for no authentication in discovery is
// asked all the same, since what it says is only where to log in.
func (c Config) discoveryCHAP() CHAP {
	if !c.DiscoveryCHAP.isZero() {
		return c.DiscoveryCHAP
	}
	return CHAP{User: c.CHAP.User, Secret: c.CHAP.Secret, Algorithms: c.CHAP.Algorithms}
}
