package initiator

import (
	"fmt"
	"slices"
	"sync"

	"github.com/iscsimp/iscsimp/session/chap"
)

// Account is one use of CHAP among several, for CheckAccounts.
type Account struct {
	// Where says where it is configured, for errors and warnings.
	Where string
	// Target is the target it is for; "" if it is for none in particular, such as
	// one for discovery.
	Target string
	// CHAP is the account. What is missing in it counts as not set.
	CHAP CHAP
}

// CheckAccounts judges accounts together, such as all that a configuration holds
// (RFC 7143 §9.2.1). The error, of kind KindInvalid, is for a secret that proves
// this host at one place and a target at another, or the beginning of such a one:
// whoever knows it could pose as the other side. The warnings are for secrets that
// several targets prove themselves with, each of which could pose as the others, and
// for one that this host proves itself with under several names. That this host shows
// one secret to several targets is no reason for a warning.
func CheckAccounts(accounts ...Account) (warnings []string, err error) {
	for i, a := range accounts {
		for j, b := range accounts {
			// Names do not matter here, and may be missing.
			if err := chap.CheckConfigs(chap.Config{User: a.CHAP.User, Secret: a.CHAP.Secret}, chap.Config{User: b.CHAP.User, MutualSecret: b.CHAP.MutualSecret}); err != nil {
				return nil, &Error{Kind: KindInvalid, Msg: fmt.Sprintf("CHAP of %s and of %s", a.Where, b.Where), Err: err}
			}
			if j >= i {
				continue
			}
			if w := shared(b, a); w != "" && !slices.Contains(warnings, w) {
				warnings = append(warnings, w)
			}
		}
	}
	return warnings, nil
}

// shared words what two accounts should not have in common.
func shared(a, b Account) string {
	switch one := a.CHAP; {
	case !one.MutualSecret.IsZero() && one.MutualSecret.Equal(b.CHAP.MutualSecret) && a.Target != "" && b.Target != "" && a.Target != b.Target:
		return fmt.Sprintf("%s and %s have the same mutual secret: each of the targets can pose as the other; give each one of its own (RFC 7143 §9.2.1)", a.Where, b.Where)
	case !one.Secret.IsZero() && one.Secret.Equal(b.CHAP.Secret) && one.User != "" && b.CHAP.User != "" && one.User != b.CHAP.User:
		return fmt.Sprintf("%s and %s have the same secret for different users: each can pose as the other; give each one of its own (RFC 7143 §9.2.1)", a.Where, b.Where)
	}
	return ""
}

// inUse are the accounts of all devices that are open in this process.
var inUse = accountBook{devices: make(map[*Device][]Account)}

type accountBook struct {
	mu      sync.Mutex
	devices map[*Device][]Account
}

// open judges d's accounts together with those of all others. If they will do they
// are kept until close.
func (b *accountBook) open(d *Device) error {
	cfg := &d.cfg
	own := []Account{
		{"the login to " + cfg.Target, cfg.Target, cfg.CHAP},
		{"discovery for " + cfg.Target, "", cfg.DiscoveryCHAP},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := slices.Clone(own)
	for _, others := range b.devices {
		all = append(all, others...)
	}
	warnings, err := CheckAccounts(all...)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		d.log.Warn(w)
	}
	b.devices[d] = own
	return nil
}

func (b *accountBook) close(d *Device) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.devices, d)
}
