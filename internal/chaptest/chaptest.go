// Package chaptest gives test targets CHAP. What the exchange is belongs to
// package chap, logins and stages to package iscsitest.
package chaptest

import (
	"errors"
	"strings"
	"testing"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
	"github.com/iscsimp/iscsimp/session/chap"
)

// The account of Config: what an initiator must have, and what the target proves
// itself with.
const (
	User         = "alice"
	Secret       = "alice's own secret"
	MutualUser   = "storage"
	MutualSecret = "what the storage knows"
)

// Authenticator is an iscsitest.Authenticator that asks for CHAP.
type Authenticator struct {
	Config chap.TargetConfig
	// Open takes initiators that offer None without authentication.
	Open bool
}

// New makes an Authenticator for the account of this package.
func New(t testing.TB) *Authenticator {
	return &Authenticator{Config: chap.TargetConfig{
		User: User, Secret: SecretOf(t, Secret), MutualUser: MutualUser, MutualSecret: SecretOf(t, MutualSecret),
	}}
}

// SecretOf makes a secret of value.
func SecretOf(t testing.TB, value string) chap.Secret {
	t.Helper()
	s, err := chap.NewSecret(value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Users is the account of Config as iscsitest.CHAP takes it.
func Users(t testing.TB) map[string]chap.Secret {
	return map[string]chap.Secret{User: SecretOf(t, Secret)}
}

// Begin implements iscsitest.Authenticator.
func (a *Authenticator) Begin(string, string) iscsitest.AuthExchange {
	tgt, err := chap.NewTarget(a.Config)
	if err != nil {
		panic(err) // the test's configuration is wrong
	}
	return &exchange{Authenticator: a, tgt: tgt}
}

type exchange struct {
	*Authenticator
	tgt  *chap.Target
	none bool
}

// Required implements iscsitest.AuthExchange.
func (x *exchange) Required() bool { return !x.Open }

// Step implements iscsitest.AuthExchange.
func (x *exchange) Step(keys map[string]string) (answer []iscsitest.KeyValue, done bool, status pdu.LoginStatus) {
	offer, k := keys["AuthMethod"], chap.KeysFromMap(keys)
	var text []byte
	var err error
	switch {
	case offer != "" && x.Open && strings.Contains(offer, "None"):
		x.none = true
		text = pdu.AppendKey(nil, "AuthMethod", "None")
	case strings.Contains(offer, "CHAP"):
		text = pdu.AppendKey(nil, "AuthMethod", "CHAP")
	case offer != "":
		return nil, false, pdu.LoginAuthFailure
	case k.Algorithm != "":
		text, err = x.tgt.Challenge(nil, k)
	case k.Response != "":
		text, err = x.tgt.Answer(nil, k)
	}
	if e, ok := errors.AsType[*chap.Error](err); ok {
		return nil, false, e.Status()
	}
	_ = pdu.WalkKeys(text, func(k, v []byte) error {
		answer = append(answer, iscsitest.KeyValue{Key: string(k), Value: string(v)})
		return nil
	})
	return answer, x.none || x.tgt.Done(), pdu.LoginSuccess
}
