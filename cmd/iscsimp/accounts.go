package main

import (
	"cmp"

	"github.com/iscsimp/iscsimp/initiator"
)

// accounts are the uses of CHAP that the configuration file holds, for every target
// and device it names. Secret files that cannot be read are left out: they may be
// another user's, and whoever needs one says what is wrong with it.
func (cfg *config) accounts() (all []initiator.Account) {
	add := func(where, target string, sections ...*section) {
		s := &settings{sections: sections}
		login := initiator.Account{Where: where, Target: target, CHAP: s.account(chapOfTarget)}
		discovery := initiator.Account{Where: "discovery for " + where, CHAP: s.account(chapOfDiscovery)}
		all = append(all, login, discovery)
	}
	add("defaults", "", cfg.defaults)
	for _, name := range sortedKeys(cfg.targets) {
		add("target "+name, name, cfg.targets[name], cfg.defaults)
	}
	for _, name := range sortedKeys(cfg.devices) {
		d := cfg.devices[name]
		sections := []*section{d, cfg.defaults}
		if t := cfg.targets[d.target]; t != nil {
			sections = []*section{d, t, cfg.defaults}
		}
		add("device "+name, cmp.Or(d.target, "of device "+name), sections...)
	}
	return all
}

// account is what the sections say of one use of CHAP.
func (s *settings) account(n chapNames) (chap initiator.CHAP) {
	if at, set := s.nearest(n.user); at >= 0 {
		chap.User = set.values[0]
	}
	if at, set := s.nearest(n.mutualUser); at >= 0 {
		chap.MutualUser = set.values[0]
	}
	secret := func(flag string) initiator.Secret {
		if found, ok := s.secret(flag, n.user, chap.User); ok {
			return found
		}
		if at, set := s.nearest(flag); at >= 0 && s.isFor(n.user, chap.User, flag) {
			found, _ := initiator.LoadSecretFile(set.values[0])
			return found
		}
		return initiator.Secret{}
	}
	chap.Secret, chap.MutualSecret = secret(n.secretFile), secret(n.mutualFile)
	return chap
}

// checkAccounts judges what the configuration file holds together with what this
// call authenticates itself with.
func (s *settings) checkAccounts(own ...initiator.CHAP) (warnings []string, err error) {
	if s.config == nil {
		return nil, nil
	}
	all := s.config.accounts()
	for _, chap := range own {
		all = append(all, initiator.Account{Where: "this call", CHAP: chap})
	}
	return initiator.CheckAccounts(all...)
}

// checkSecrets is the finding of the doctor about secrets in the wrong places.
func checkSecrets(s *settings) []finding {
	warnings, err := s.checkAccounts()
	var findings []finding
	if err != nil {
		findings = append(findings, finding{
			Check: "CHAP secrets", Status: verdictFail, Detail: err.Error(), code: exitInvalid,
			Remedy: "`iscsimp chap-secret` makes new ones",
		})
	}
	for _, w := range warnings {
		findings = append(findings, finding{
			Check: "CHAP secrets", Status: verdictWarn, Detail: w, Remedy: "`iscsimp chap-secret` makes new ones",
		})
	}
	return findings
}

// checkAuthentication tells who proves what to whom (RFC 7143 §9): a login says
// nothing of it, since it is up to whoever set up target and network.
func checkAuthentication(chap initiator.CHAP) finding {
	f := finding{Check: "authentication", Status: verdictOK, Detail: "CHAP in both directions"}
	switch {
	case chap.User == "":
		f.Status, f.Detail = verdictNote, "none: whoever reaches the network can pose as this host, or as the target"
		f.Remedy = "unless the network is closed, set up CHAP on the target, and give --" + flagCHAPUser + " and --" + flagCHAPSecretFile +
			"; `iscsimp chap-secret` makes secrets"
	case chap.MutualSecret.IsZero():
		f.Status, f.Detail = verdictNote, "CHAP of this host: the target does not have to prove itself"
		f.Remedy = "unless the network is closed, set up mutual CHAP on the target, and give --" + flagMutualSecretFile
	}
	return f
}
