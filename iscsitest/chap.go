package iscsitest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

// CHAP has a Target authenticate initiators (RFC 7143 §12.1.3), on every
// connection of the sessions it holds for. Logins that do not offer CHAP, fail,
// or skip the security stage are refused with status 0201.
type CHAP struct {
	// Users are the initiators' secrets, by user name. At least one.
	Users map[string]chap.Secret
	// MutualUser and MutualSecret are the target's own, for initiators that want
	// it to prove itself; without MutualSecret those are refused.
	MutualUser   string
	MutualSecret chap.Secret
	// Algorithms are those the target knows. Default: chap.DefaultAlgorithms.
	Algorithms []chap.Algorithm
	// Sessions are those CHAP holds for. Default: all.
	Sessions CHAPSessions
	// Optional also takes AuthMethod=None, if the initiator lists it first, and
	// logins that skip the security stage.
	Optional bool
	// Faults make the target break the rules of CHAP.
	Faults chap.Faults

	registry *chap.Registry // of all logins of the Target
}

// CHAPSessions says which sessions need CHAP.
type CHAPSessions uint8

// The choices of sessions.
const (
	CHAPAllSessions CHAPSessions = iota
	CHAPNormalSessions
	CHAPDiscoverySessions
)

func (a *CHAP) covers(discovery bool) bool {
	switch a.Sessions {
	case CHAPNormalSessions:
		return !discovery
	case CHAPDiscoverySessions:
		return discovery
	}
	return true
}

// config is what chap.NewTarget wants.
func (a *CHAP) config() chap.TargetConfig {
	cfg := chap.TargetConfig{
		Users: a.Users, MutualUser: a.MutualUser, MutualSecret: a.MutualSecret,
		Algorithms: a.Algorithms, Registry: a.registry, Faults: a.Faults,
	}
	for user, secret := range a.Users { // any: the name that comes decides
		cfg.User, cfg.Secret = user, secret
	}
	return cfg
}

func (a *CHAP) validate() error {
	if len(a.Users) == 0 {
		return errors.New("CHAP has no Users")
	}
	for user, secret := range a.Users {
		one := *a
		one.Users = map[string]chap.Secret{user: secret}
		if _, err := chap.NewTarget(one.config()); err != nil {
			return fmt.Errorf("CHAP user %s: %w", user, err)
		}
	}
	return nil
}

// begin starts the authentication of one login.
func (a *CHAP) begin(t *Target) AuthExchange {
	x := &chapExchange{chap: a, logf: t.cfg.Logf}
	x.target, x.err = chap.NewTarget(a.config())
	return x
}

// chapExchange is the security stage of one login with CHAP.
type chapExchange struct {
	chap   *CHAP
	logf   func(format string, args ...any)
	target *chap.Target
	err    error
	method string // agreed on; empty until then
}

func (x *chapExchange) Required() bool { return !x.chap.Optional }

func (x *chapExchange) Step(keys map[string]string) ([]KeyValue, bool, pdu.LoginStatus) {
	out, done, err := x.step(keys)
	if err == nil {
		return out, done, pdu.LoginSuccess
	}
	x.logf("%v", err)
	if refused, ok := errors.AsType[*chap.Error](err); ok {
		return nil, false, refused.Status()
	}
	return nil, false, pdu.LoginAuthFailure
}

func (x *chapExchange) step(keys map[string]string) (out []KeyValue, done bool, err error) {
	if x.err != nil {
		return nil, false, x.err
	}
	if x.method == "" {
		if out, err = x.choose(keys["AuthMethod"]); err != nil {
			return nil, false, err
		}
	}
	text, ck := []byte(nil), chap.KeysFromMap(keys)
	switch {
	case x.method == "None":
		return out, true, nil
	case ck.Algorithm != "":
		text, err = x.target.Challenge(nil, ck)
	case ck != (chap.Keys{}):
		text, err = x.target.Answer(nil, ck)
	}
	if err != nil {
		return nil, false, err
	}
	more, err := parseKeys(text)
	return append(out, more...), x.target.Done(), err
}

// choose answers AuthMethod (§12.1).
func (x *chapExchange) choose(offered string) ([]KeyValue, error) {
	known := []string{"CHAP"}
	if x.chap.Optional {
		known = append(known, "None")
		if offered == "" { // the initiator is ready to do without
			x.method = "None"
			return nil, nil
		}
	}
	x.method = firstOf(offered, known...)
	if x.method == "Reject" {
		return nil, fmt.Errorf("AuthMethod=%q has none of %s", offered, strings.Join(known, ","))
	}
	return []KeyValue{{"AuthMethod", x.method}}, nil
}
