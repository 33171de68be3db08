package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// What a configuration file may say. Every option of login and the common ones can
// be set there under its long name, with underscores for hyphens. Besides, the
// names of open-iscsi and dm-multipath are understood where they mean the same.

// notInConfig are options that make no sense in a file.
var notInConfig = []string{flagJSON, flagConfig, flagBackground, flagName, flagLUN, flagTrace, "help", "version"}

// synonym is another name for an option in a configuration file, with the values
// its origin gives it.
type synonym struct {
	flag    string
	convert func(string) (string, error) // to the option's value; nil: the same
}

// synonyms by name. Those of iscsid.conf are known by their full name as well as
// by the last part of it.
var synonyms = map[string]synonym{
	"portals": {flag: flagPortal},
	"exports": {flag: flagExport},

	"node.session.timeo.replacement_timeout":      {flagNoPathTimeout, replacementTimeout},
	"node.conn[0].timeo.login_timeout":            {flag: flagLoginTimeout},
	"node.conn[0].timeo.logout_timeout":           {flag: flagLogoutTimeout},
	"node.conn[0].timeo.noop_out_interval":        {flag: flagNoopInterval},
	"node.conn[0].timeo.noop_out_timeout":         {flag: flagNoopTimeout},
	"node.session.err_timeo.abort_timeout":        {flag: flagAbortTimeout},
	"node.session.err_timeo.lu_reset_timeout":     {flag: flagResetTimeout},
	"node.session.cmds_max":                       {flag: flagCommandsMax},
	"node.session.iscsi.MaxConnections":           {flag: flagConnections},
	"node.session.iscsi.ERL":                      {flag: flagRecoveryLevel},
	"node.session.iscsi.InitialR2T":               {flag: flagInitialR2T},
	"node.session.iscsi.ImmediateData":            {flag: flagImmediateData},
	"node.session.iscsi.DataPDUInOrder":           {flag: flagPDUInOrder},
	"node.session.iscsi.DataSequenceInOrder":      {flag: flagSequenceInOrder},
	"node.session.iscsi.FirstBurstLength":         {flag: flagFirstBurst},
	"node.session.iscsi.MaxBurstLength":           {flag: flagMaxBurst},
	"node.session.iscsi.MaxOutstandingR2T":        {flag: flagMaxOutstandingR2T},
	"node.conn[0].iscsi.MaxRecvDataSegmentLength": {flag: flagMaxRecv},
	"node.conn[0].iscsi.HeaderDigest":             {flagHeaderDigest, digestValue},
	"node.conn[0].iscsi.DataDigest":               {flagDataDigest, digestValue},
	"node.session.auth.username":                  {flag: flagCHAPUser},
	"node.session.auth.username_in":               {flag: flagMutualUser},
	"node.session.auth.chap_algs":                 {flag: flagCHAPAlgorithms},
	"discovery.sendtargets.auth.username":         {flag: flagDiscoveryUser},
	"discovery.sendtargets.auth.username_in":      {flag: flagDiscoveryMutualUser},
	"discovery.sendtargets.iscsi.InitiatorName":   {flag: flagInitiatorName},
	"InitiatorName":                               {flag: flagInitiatorName},
	"path_selector":                               {flagPolicy, pathSelector},
	"no_path_retry":                               {flagNoPathTimeout, noPathRetry},
}

// secretKeys are the keys whose values are secrets, by the option that names a
// file with the same secret.
var secretKeys = map[string]string{
	"chap_secret":                            flagCHAPSecretFile,
	"node.session.auth.password":             flagCHAPSecretFile,
	"password":                               flagCHAPSecretFile,
	"mutual_chap_secret":                     flagMutualSecretFile,
	"node.session.auth.password_in":          flagMutualSecretFile,
	"password_in":                            flagMutualSecretFile,
	"discovery_chap_secret":                  flagDiscoverySecretFile,
	"discovery.sendtargets.auth.password":    flagDiscoverySecretFile,
	"discovery_mutual_chap_secret":           flagDiscoveryMutualSecretFile,
	"discovery.sendtargets.auth.password_in": flagDiscoveryMutualSecretFile,
}

// configKeys are all keys that set an option, with the flag each sets.
type configKeys struct {
	flags map[string]cli.Flag // by the option's long name
	names map[string]synonym  // by key
}

// newConfigKeys makes them from the options themselves.
func newConfigKeys() configKeys {
	k := configKeys{flags: map[string]cli.Flag{}, names: map[string]synonym{}}
	for _, f := range loginCommand().Flags {
		name := f.Names()[0]
		if slices.Contains(notInConfig, name) {
			continue
		}
		k.flags[name] = f
		for _, n := range f.Names() {
			if len(n) > 1 {
				k.names[strings.ReplaceAll(n, "-", "_")] = synonym{flag: name}
			}
		}
	}
	for name, s := range synonyms {
		if k.flags[s.flag] == nil {
			panic("a name in the configuration for an option that login does not have: " + s.flag)
		}
		k.names[name] = s
		if last := name[strings.LastIndexByte(name, '.')+1:]; strings.HasPrefix(name, "node.") {
			k.names[last] = s
		}
	}
	return k
}

// words are all keys that may stand in a section, for suggestions.
func (k configKeys) words(more ...string) []string {
	for name := range k.names {
		more = append(more, name)
	}
	for name := range secretKeys {
		more = append(more, name)
	}
	slices.Sort(more)
	return more
}

// truth reads a truth value as YAML, iscsid.conf and people write it.
func truth(s string) (value, ok bool) {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		return true, true
	case "false", "no", "off", "0":
		return false, true
	}
	return false, false
}

// replacementTimeout: open-iscsi takes a negative time for no limit.
func replacementTimeout(s string) (string, error) {
	if strings.HasPrefix(s, "-") {
		return "forever", nil
	}
	return s, nil
}

// digestValue reads a list in order of preference (RFC 7143 §13.1). Targets may
// decline a digest in any case.
func digestValue(s string) (string, error) {
	first, _, _ := strings.Cut(s, ",")
	switch strings.ToLower(strings.TrimSpace(first)) {
	case "crc32c":
		return "true", nil
	case "none":
		return "false", nil
	}
	if v, ok := truth(s); ok {
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("%q is neither None nor CRC32C", s)
}

// pathSelector reads the value of multipath.conf: a selector and its arguments.
func pathSelector(s string) (string, error) {
	name, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	switch name {
	case "round-robin":
		return "round-robin-subset", nil
	case "queue-length":
		return "queue-depth", nil
	case "service-time":
		return "service-time", nil
	}
	return "", fmt.Errorf("%q is no selector of dm-multipath; use round-robin, queue-length or service-time, or the key policy", s)
}

// noPathRetry: the words mean the same, but dm-multipath counts in checks.
func noPathRetry(s string) (string, error) {
	switch s {
	case "fail":
		return "fail", nil
	case "queue":
		return "forever", nil
	}
	return "", fmt.Errorf("%q: only fail and queue mean the same here; for a limit use no_path_timeout, in seconds", s)
}
