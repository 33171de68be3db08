package initiator_test

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/initiator"
	"github.com/iscsimp/iscsimp/internal/chaptest"
	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/pdu"
)

// TestTargetThatHangsUpWithoutCHAP: LIO does not answer a login that brings no
// authentication when it demands CHAP. That must not look like a lost connection.
func TestTargetThatHangsUpWithoutCHAP(t *testing.T) {
	tgt := target(t, iscsitest.Config{
		CHAP:   &iscsitest.CHAP{Users: chaptest.Users(t), Sessions: iscsitest.CHAPNormalSessions},
		Quirks: iscsitest.Quirks{SilentFailure: true},
	})
	cfg := config(tgt)
	_, err := initiator.Open(t.Context(), cfg)
	assert.Equal(t, initiator.KindAuth, initiator.KindOf(err), "%v", err)
	assert.ErrorContains(t, err, "probably demands CHAP")
	ask := initiator.DiscoverConfig{Portals: cfg.Portals, InitiatorName: me}
	_, err = initiator.Luns(t.Context(), tgt.Name(), ask)
	assert.Equal(t, initiator.KindAuth, initiator.KindOf(err), "%v", err)
	// With CHAP configured a rebuff has another reason.
	cfg.CHAP, cfg.OnlyGiven = oneWay(t), true
	cfg.Portals = []string{server(t, func(net.Conn) {})}
	_, err = initiator.Open(t.Context(), cfg)
	assert.Equal(t, initiator.KindConnect, initiator.KindOf(err), "%v", err)
}

// chapInDiscovery picks the first login request of a discovery session that offers CHAP.
func chapInDiscovery() iscsitest.Predicate {
	return iscsitest.Func("CHAP offered in discovery", func(e *iscsitest.Event) bool {
		text := string(e.Data)
		return e.Opcode() == pdu.OpLogin && strings.Contains(text, "SessionType=Discovery") && strings.Contains(text, "AuthMethod=CHAP")
	})
}

// TestDiscoveryThatRefusesCHAP: LIO refuses CHAP in discovery while no user is set
// up there. It is asked again without, once, unless it is to prove itself.
func TestDiscoveryThatRefusesCHAP(t *testing.T) {
	bothLoops(t, func(t *testing.T, portable bool) {
		tgt := target(t, iscsitest.Config{
			Portals: portals(2),
			CHAP:    &iscsitest.CHAP{Users: chaptest.Users(t), Sessions: iscsitest.CHAPNormalSessions},
		})
		refused := tgt.Inject(chapInDiscovery(), iscsitest.FailLogin(pdu.LoginAuthFailure))
		log := &lines{}
		cfg := withCHAP(config(tgt), oneWay(t))
		cfg.Portable, cfg.Wait, cfg.Logger = portable, 2, slog.New(slog.NewTextHandler(log, nil))
		dev := open(t, cfg)
		require.NoError(t, dev.Close(t.Context()))
		assert.Equal(t, 1, refused.Hits())
		assert.Contains(t, log.String(), "refuses CHAP in discovery")
		noSecret(t, log.String())

		ask := initiator.DiscoverConfig{Portals: cfg.Portals, InitiatorName: me, CHAP: mutual(t), Portable: portable}
		_, err := initiator.Discover(t.Context(), ask)
		assert.Equal(t, 2, refused.Hits(), "who is to prove itself is not asked without")
		assert.Equal(t, initiator.KindAuth, initiator.KindOf(err), "%v", err)
		assert.ErrorContains(t, err, "leave out the mutual secret for discovery")
	})
}

// TestDiscoveryThatDemandsCHAP: a wrong secret is wrong; that the second attempt,
// without CHAP, fails too is not what the user should read.
func TestDiscoveryThatDemandsCHAP(t *testing.T) {
	tgt := target(t, iscsitest.Config{CHAP: &iscsitest.CHAP{Users: chaptest.Users(t)}})
	wrong := oneWay(t)
	wrong.Secret = secret(t, "a wrong secret indeed")
	_, err := initiator.Discover(t.Context(), initiator.DiscoverConfig{Portals: []string{tgt.Addr(0)}, InitiatorName: me, CHAP: wrong})
	assert.Equal(t, initiator.KindAuth, initiator.KindOf(err), "%v", err)
	assert.ErrorContains(t, err, "does not accept the CHAP response")
	noSecret(t, err.Error())
}
