package initiator_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/iscsitest"
)

func TestCheckAccounts(t *testing.T) {
	account := func(where, target, user, own, mutual string) initiator.Account {
		a := initiator.Account{Where: where, Target: target, CHAP: initiator.CHAP{User: user}}
		if own != "" {
			a.CHAP.Secret = secret(t, own)
		}
		if mutual != "" {
			a.CHAP.MutualSecret = secret(t, mutual)
		}
		return a
	}
	const one, two, three = "the first secret", "the second secret", "the third secret"
	for name, tt := range map[string]struct {
		accounts []initiator.Account
		err      string
		warning  string
	}{
		"nothing": {},
		"apart": {accounts: []initiator.Account{
			account("a", "t1", "me", one, two), account("b", "t2", "me", one, three), account("c", "", "", "", ""),
		}},
		"own secret of one, target's of another": {err: "CHAP of b and of a", accounts: []initiator.Account{
			account("a", "t1", "me", one, two), account("b", "t2", "", two, ""),
		}},
		"the beginning of one": {err: "CHAP of a and of b", accounts: []initiator.Account{
			account("a", "t1", "me", one, ""), account("b", "", "", "", one+" goes on"),
		}},
		"in one account": {err: "CHAP of a and of a", accounts: []initiator.Account{account("a", "t1", "me", one, one)}},
		"several targets": {warning: "a and b have the same mutual secret", accounts: []initiator.Account{
			account("a", "t1", "me", one, two), account("b", "t2", "me", one, two),
		}},
		"one target, several places": {accounts: []initiator.Account{
			account("a", "t1", "me", one, two), account("b", "t1", "me", one, two), account("c", "", "me", one, two),
		}},
		"several users": {warning: "a and b have the same secret for different users", accounts: []initiator.Account{
			account("a", "t1", "me", one, ""), account("b", "t1", "you", one, ""),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			warnings, err := initiator.CheckAccounts(tt.accounts...)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				require.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
				return
			}
			require.NoError(t, err)
			if tt.warning == "" {
				require.Empty(t, warnings)
				return
			}
			require.Len(t, warnings, 1)
			assert.Contains(t, warnings[0], tt.warning)
		})
	}
}

// TestAccountsOfOpenDevices: what one device of a process proves itself with must
// not be what a target proves itself with to another.
func TestAccountsOfOpenDevices(t *testing.T) {
	tgt, err := iscsitest.NewTarget(iscsitest.Config{Authenticate: chaptest.New(t)})
	require.NoError(t, err)
	t.Cleanup(tgt.Close)
	cfg := withCHAP(initiator.Config{Target: tgt.Name(), Portals: tgt.Addrs(), InitiatorName: me}, mutual(t))
	d, err := initiator.Open(t.Context(), cfg)
	require.NoError(t, err)
	turned := withCHAP(cfg, initiator.CHAP{User: "else", Secret: secret(t, chaptest.MutualSecret)})
	_, err = initiator.Open(t.Context(), turned)
	require.ErrorContains(t, err, "CHAP of the login")
	require.Equal(t, initiator.KindInvalid, initiator.KindOf(err))
	require.NoError(t, d.Close(t.Context()))
	_, err = initiator.Open(t.Context(), turned)
	require.Error(t, err)
	require.NotEqual(t, initiator.KindInvalid, initiator.KindOf(err), "the other device is closed: %v", err)
}
