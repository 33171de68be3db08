package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/iscsimp/iscsimp/initiator"
)

// Flag names of authentication. None takes a secret: every user of a host can
// read the command lines of all its processes.
const (
	flagCHAPUser         = "chap-user"
	flagCHAPSecretFile   = "chap-secret-file"
	flagMutualUser       = "mutual-chap-user"
	flagMutualSecretFile = "mutual-chap-secret-file"
	flagCHAPAlgorithms   = "chap-algs"

	flagDiscoveryUser             = "discovery-chap-user"
	flagDiscoverySecretFile       = "discovery-chap-secret-file"
	flagDiscoveryMutualUser       = "discovery-mutual-chap-user"
	flagDiscoveryMutualSecretFile = "discovery-mutual-chap-secret-file"
)

// Environment variables that hold secrets.
const (
	variableCHAPSecret   = "ISCSIMP_CHAP_SECRET"
	variableMutualSecret = "ISCSIMP_MUTUAL_CHAP_SECRET"

	variableDiscoverySecret       = "ISCSIMP_DISCOVERY_CHAP_SECRET"
	variableDiscoveryMutualSecret = "ISCSIMP_DISCOVERY_MUTUAL_CHAP_SECRET"
)

var secretVariables = []string{variableCHAPSecret, variableMutualSecret, variableDiscoverySecret, variableDiscoveryMutualSecret}

// chapNames are the options and variables of one purpose.
type chapNames struct {
	user, secretFile, mutualUser, mutualFile string
	secretVariable, mutualVariable           string
}

var (
	chapOfTarget    = chapNames{flagCHAPUser, flagCHAPSecretFile, flagMutualUser, flagMutualSecretFile, variableCHAPSecret, variableMutualSecret}
	chapOfDiscovery = chapNames{flagDiscoveryUser, flagDiscoverySecretFile, flagDiscoveryMutualUser, flagDiscoveryMutualSecretFile, variableDiscoverySecret, variableDiscoveryMutualSecret}
)

// secretsVariable tells a process started by --background on which file
// descriptor the variables above come, which are not in its environment.
const secretsVariable = "ISCSIMP_SECRETS_FD"

func authFlags() []cli.Flag {
	return inCategory("Authentication",
		&cli.StringFlag{Name: flagCHAPUser, Usage: "log in with CHAP as `USER`; also the user of iscsi://USER@host/TARGET"},
		&cli.StringFlag{Name: flagCHAPSecretFile, Usage: "read the user's secret from `FILE`; default: " + variableCHAPSecret + " in the environment"},
		&cli.StringFlag{Name: flagMutualUser, Usage: "with mutual CHAP, the target must be called `USER`; default: whatever it is called"},
		&cli.StringFlag{Name: flagMutualSecretFile, Usage: "have the target prove itself with the secret in `FILE`; default: " + variableMutualSecret + " in the environment, if it is there"},
		&cli.StringFlag{Name: flagCHAPAlgorithms, Usage: "offer the hashes in `LIST`, best first: MD5, SHA1, SHA256, SHA3-256; default: SHA3-256,MD5,SHA256"},
		&cli.StringFlag{Name: flagDiscoveryUser, Usage: "in discovery log in as `USER`; default: the user and secret for the target"},
		&cli.StringFlag{Name: flagDiscoverySecretFile, Usage: "read that user's secret from `FILE`; default: " + variableDiscoverySecret + " in the environment"},
		&cli.StringFlag{Name: flagDiscoveryMutualUser, Usage: "in discovery the target must be called `USER`; default: whatever it is called"},
		&cli.StringFlag{Name: flagDiscoveryMutualSecretFile, Usage: "in discovery have the target prove itself with the secret in `FILE`; default: " + variableDiscoveryMutualSecret + " in the environment, if it is there"},
	)
}

// chapOf reads the options of authentication. addressUser is the user of an
// iscsi:// address.
func chapOf(c *cli.Context, addressUser string) (initiator.CHAP, error) {
	known := settingsOf(c)
	user := c.String(flagCHAPUser)
	if addressUser != "" && user != "" && user != addressUser && known.given(c, flagCHAPUser) {
		return initiator.CHAP{}, usagef("the address says user %q and --%s says %q; leave one out", addressUser, flagCHAPUser, user)
	}
	return chapOfTarget.read(c, cmp.Or(addressUser, user))
}

// discoveryCHAPOf reads the options of authentication in discovery; zero if none
// is set.
func discoveryCHAPOf(c *cli.Context) (initiator.CHAP, error) {
	return chapOfDiscovery.read(c, c.String(flagDiscoveryUser))
}

// discoveryCHAPOr is discoveryCHAPOf, or instead if none is set.
func discoveryCHAPOr(c *cli.Context, instead initiator.CHAP) (initiator.CHAP, error) {
	chap, err := discoveryCHAPOf(c)
	if err == nil && chap.User == "" {
		return instead, nil
	}
	return chap, err
}

// read reads the options for user.
func (n chapNames) read(c *cli.Context, user string) (chap initiator.CHAP, err error) {
	if user == "" {
		for _, flag := range []string{n.secretFile, n.mutualUser, n.mutualFile, flagCHAPAlgorithms} {
			if settingsOf(c).given(c, flag) && (flag != flagCHAPAlgorithms || n == chapOfTarget) {
				return chap, usagef("--%s is given, but no user: --%s USER is needed for CHAP", flag, n.user)
			}
		}
		return chap, nil // what else is set may be for other calls
	}
	chap.User = user
	if chap.Secret, err = n.secret(c, user, n.secretFile, n.secretVariable); err != nil {
		return chap, err
	}
	if chap.Secret.IsZero() {
		return chap, usagef("no secret for CHAP user %q: say where it is with --%s FILE, or set %s", user, n.secretFile, n.secretVariable)
	}
	if chap.MutualSecret, err = n.secret(c, user, n.mutualFile, n.mutualVariable); err != nil {
		return chap, err
	}
	chap.MutualUser = c.String(n.mutualUser)
	if chap.MutualUser != "" && chap.MutualSecret.IsZero() {
		return chap, usagef("no secret for --%s: say where it is with --%s FILE, or set %s", n.mutualUser, n.mutualFile, n.mutualVariable)
	}
	if list := c.String(flagCHAPAlgorithms); list != "" {
		if chap.Algorithms, err = initiator.ParseCHAPAlgorithms(list); err != nil {
			return chap, err
		}
	}
	if _, err := settingsOf(c).checkAccounts(chap); err != nil {
		return chap, usagef("%w; `iscsimp chap-secret` makes new ones", err)
	}
	return chap, nil
}

// secret reads a secret from the file of an option on the command line or in the
// environment, else from the environment, else from the configuration file or a
// file it names.
func (n chapNames) secret(c *cli.Context, user, flag, variableName string) (initiator.Secret, error) {
	known := settingsOf(c)
	path := c.String(flag)
	fromConfig := known.origin[flag] != "" && known.origin[flag] != originOf(flag) // it has one name
	if path != "" && !fromConfig {
		return initiator.LoadSecretFile(path)
	}
	if value, found := os.LookupEnv(variableName); found {
		s, err := initiator.NewSecret(value)
		if err != nil {
			return s, usagef("%s in the environment: %v", variableName, err)
		}
		return s, nil
	}
	if s, ok := known.secret(flag, n.user, user); ok {
		return s, nil
	}
	if path != "" && known.isFor(n.user, user, flag) {
		return initiator.LoadSecretFile(path)
	}
	return initiator.Secret{}, nil
}

// forgetSecrets keeps them from processes that are started later.
func forgetSecrets() {
	for _, name := range secretVariables {
		os.Unsetenv(name)
	}
}

// handOverSecrets gives cmd the secrets of our environment by a pipe instead of
// its environment, which would show them as long as it runs. done must be called
// when cmd was started or could not be.
func handOverSecrets(cmd *exec.Cmd) (done func(), err error) {
	var text bytes.Buffer
	cmd.Env = slices.DeleteFunc(cmd.Env, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		secret := slices.Contains(secretVariables, name)
		if secret {
			text.WriteString(pair)
			text.WriteByte(0) // which no variable can hold
		}
		return secret
	})
	if text.Len() == 0 {
		return func() {}, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	go func() { // it may be more than a pipe holds
		_, _ = w.Write(text.Bytes()) // if nobody reads it the process says why
		w.Close()
	}()
	cmd.ExtraFiles = append(cmd.ExtraFiles, r)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", secretsVariable, 2+len(cmd.ExtraFiles)))
	return func() { r.Close() }, nil
}

// takeSecrets is the other end of handOverSecrets. What os.Setenv sets later is
// not what the system shows of a process.
func takeSecrets() error {
	fd, err := strconv.Atoi(os.Getenv(secretsVariable))
	os.Unsetenv(secretsVariable)
	if err != nil {
		return nil // there are none
	}
	r := os.NewFile(uintptr(fd), "secrets")
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("cannot take over the secrets: %w", err)
	}
	for pair := range strings.SplitSeq(string(text), "\x00") {
		name, value, _ := strings.Cut(pair, "=")
		if slices.Contains(secretVariables, name) {
			if err := os.Setenv(name, value); err != nil {
				return fmt.Errorf("cannot take over the secrets: %w", err)
			}
		}
	}
	return nil
}
