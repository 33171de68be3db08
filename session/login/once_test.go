package login

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestKeysComeOnce: a key that comes with a second value ends the login, whatever
// it is about (RFC 7143 §6.3). One that comes again as it was means nothing new,
// and is not answered again.
func TestKeysComeOnce(t *testing.T) {
	cfg := reportingConfig()
	cfg.Offer.HeaderDigest, cfg.Offer.DataDigest = true, true
	for _, values := range []string{
		"TargetAlias a b", "TargetName iqn.a iqn.b", "InitiatorName iqn.a iqn.b", "InitiatorAlias a b",
		"SessionType Normal Discovery", "AuthMethod None CHAP", "TargetPortalGroupTag 1 2",
		"MaxRecvDataSegmentLength 4096 8192", "MaxBurstLength 4096 8192", "ImmediateData Yes No",
		"MaxBurstLength Reject 8192", "MaxBurstLength 8192 Reject", "MaxBurstLength Reject NotUnderstood",
		"HeaderDigest CRC32C None", "DataDigest Reject None", "TaskReporting NotUnderstood FastAbort",
		"IFMarker No Yes", "OFMarkInt Reject 8", "iSCSIProtocolLevel 1 2", "X-com.example.a 1 2", "X-com.example.a NotUnderstood 2",
	} {
		f := strings.Fields(values)
		key, first, second := f[0]+"="+f[1], f[0]+"="+f[1], f[0]+"="+f[2]
		t.Run(values, func(t *testing.T) {
			_, err := settle(t, cfg, first, second)
			broken(t, err, "twice")
			require.ErrorContains(t, err, f[0])
			m, _ := operational(t, cfg) // in responses of their own
			_, err = m.Step(stay, kv(first))
			require.NoError(t, err)
			_, err = m.Step(stay, kv(second))
			broken(t, err, "twice")

			m, _ = operational(t, cfg)
			once, err := m.Step(stay, kv(key, key))
			require.NoError(t, err)
			m, _ = operational(t, cfg)
			alone, err := m.Step(stay, kv(key))
			require.NoError(t, err)
			assert.Equal(t, string(alone.Text), string(once.Text))
			again, err := m.Step(stay, kv(key))
			require.NoError(t, err)
			assert.Empty(t, again.Text)
		})
	}
	_, err := settle(t, cfg, "TargetAddress=10.0.0.1,1", "TargetAddress=10.0.0.2,1")
	require.NoError(t, err, "there may be several")
	_, err = settle(t, cfg, "MaxBurstLength=4096", "MaxBurstLength=0x1000")
	require.NoError(t, err, "the same number")
}
