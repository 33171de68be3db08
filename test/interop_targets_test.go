package test

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/iscsimp/iscsimp/iscsitest"
	"github.com/iscsimp/iscsimp/session/chap"
	"github.com/iscsimp/iscsimp/test/peer"
)

const (
	interopMiB      = 64
	ignoresSegments = "sends 64 KiB whatever we take"
)

func contestants() []contestant {
	return []contestant{
		{name: "iscsitest", start: startIscsitest},
		{name: "gotgt", start: startGotgtParty, cannot: map[string]string{
			rowNOPIn: "it sends none", rowRedirect: "it has none", rowWindow: "its window cannot be set",
			rowMCS2: "a second connection kills it", rowMCS4: "a second connection kills it", rowMCSLoss: "a second connection kills it",
		}, faults: map[string]string{
			rowTinyBursts: "asks for more than MaxBurstLength at once", rowSegments512: ignoresSegments, rowSegments8K: ignoresSegments,
		}},
		{name: "tgtd", start: startTgtdParty},
		{
			name: "istgt", start: startIstgtParty, cannot: map[string]string{rowRedirect: "it has none", rowInitialR2TNo: "its configuration does not take No"},
			// It resets a session whose commands come over several connections, when its threads do not get their turn.
			moody: map[string]bool{rowMCS2: true, rowMCS4: true, rowMCSLoss: true},
		},
	}
}

func secret(t *testing.T, text string) chap.Secret {
	t.Helper()
	s, err := chap.NewSecret(text)
	require.NoError(t, err)
	return s
}

func startIscsitest(t *testing.T, d demand) party {
	cfg := iscsitest.Config{LUNs: []iscsitest.LUN{{Size: interopMiB << 20}}, Portals: []iscsitest.Portal{{}, {}}}
	p := &cfg.Params
	p.InitialR2T, p.NoImmediateData, p.MaxBurstLength, p.FirstBurstLength = !d.unsolicited, d.noImmediate, d.burst, d.burst
	p.MaxConnections, p.CmdWindow = uint16(d.connections), uint32(d.window)
	if d.connections > 1 {
		p.ErrorRecoveryLevel = 2
	}
	if d.headerDigest {
		p.HeaderDigest = iscsitest.DigestRequired
	}
	if d.dataDigest {
		p.DataDigest = iscsitest.DigestRequired
	}
	if d.chap != nil {
		cfg.CHAP = &iscsitest.CHAP{Users: map[string]chap.Secret{d.chap.User: secret(t, d.chap.Secret)}}
		if d.mutual != nil {
			cfg.CHAP.MutualUser, cfg.CHAP.MutualSecret = d.mutual.User, secret(t, d.mutual.Secret)
		}
	}
	recorder := &iscsitest.Recorder{}
	cfg.Recorder = recorder
	target, err := iscsitest.NewTarget(cfg)
	require.NoError(t, err)
	t.Cleanup(target.Close)
	if d.redirect {
		target.SetRedirect(0, &iscsitest.Redirect{Address: target.Addr(1)})
	}
	return party{
		portal: target.Addr(0), iqn: target.Name(),
		ping: func() { target.SendNOPIn(nil, true) },
		moved: func() bool {
			sessions := target.Sessions()
			return len(sessions) == 1 && sessions[0].Conns[0].Portal == 1
		},
		verdict: func() error {
			var all []error
			for _, v := range target.Violations() {
				all = append(all, errors.New(v.String()))
			}
			if len(target.Sessions()) > 0 {
				all = append(all, fmt.Errorf("%d sessions are left after the logout", len(target.Sessions())))
			}
			return errors.Join(append(all, recorder.CheckCmdSNOrder())...)
		},
	}
}

func startGotgtParty(t *testing.T, _ demand) party {
	target := peer.NeedGotgt(t, peer.Gotgt{SizeMiB: interopMiB})
	return party{portal: target.Portals[0], iqn: target.IQN, lun: target.LUN}
}

func startTgtdParty(t *testing.T, d demand) party {
	options := map[string]string{}
	yes := func(on bool, key, value string) {
		if on {
			options[key] = value
		}
	}
	yes(d.headerDigest, "HeaderDigest", "CRC32C")
	yes(d.dataDigest, "DataDigest", "CRC32C")
	yes(d.unsolicited, "InitialR2T", "No")
	yes(d.noImmediate, "ImmediateData", "No")
	yes(d.burst != 0, "MaxBurstLength", strconv.Itoa(int(d.burst)))
	yes(d.burst != 0, "FirstBurstLength", strconv.Itoa(int(d.burst)))
	yes(d.connections != 0, "MaxConnections", strconv.Itoa(d.connections))
	yes(d.window != 0, "MaxQueueCmd", strconv.Itoa(d.window))
	config := peer.Tgtd{LUNs: []peer.TgtdLUN{{File: peer.RAMFile(t, interopMiB)}}, Options: options, CHAP: d.chap, MutualCHAP: d.mutual}
	if d.pings {
		config.NOPInterval, config.NOPCount = 1, 2
	}
	var elsewhere *peer.TgtdTarget
	if d.redirect {
		elsewhere = peer.NeedTgtd(t, 1, peer.Tgtd{LUNs: config.LUNs})
		host, port, err := net.SplitHostPort(elsewhere.Portals[0])
		require.NoError(t, err)
		options["RedirectAddress"], options["RedirectPort"], options["RedirectReason"] = host, port, "Temporary"
	}
	target := peer.NeedTgtd(t, 1, config)
	return party{portal: target.Portals[0], iqn: target.IQN, lun: 1, moved: func() bool {
		ids, err := elsewhere.Sessions()
		return err == nil && len(ids) == 1
	}}
}

func startIstgtParty(t *testing.T, d demand) party {
	options, unit := map[string]string{}, map[string]string{}
	if d.noImmediate {
		options["ImmediateData"] = "No"
	}
	if d.burst != 0 {
		options["MaxBurstLength"], options["FirstBurstLength"] = strconv.Itoa(int(d.burst)), strconv.Itoa(int(d.burst))
	}
	if d.connections != 0 {
		options["MaxConnections"] = strconv.Itoa(d.connections)
	}
	if d.window != 0 {
		unit["QueueDepth"] = strconv.Itoa(d.window)
	}
	if d.pings {
		options["NopInInterval"] = "1"
	}
	digests := ""
	if d.headerDigest {
		digests += " Header"
	}
	if d.dataDigest {
		digests += " Data"
	}
	if digests != "" {
		unit["UseDigest"] = digests[1:]
	}
	file := peer.RAMFile(t, interopMiB)
	target := peer.NeedIstgt(t, 1, peer.Istgt{File: file, Options: options, Unit: unit, CHAP: d.chap, MutualCHAP: d.mutual})
	return party{portal: target.Portals[0], iqn: target.IQN, lun: target.LUN}
}
