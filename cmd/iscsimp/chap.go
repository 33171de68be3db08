package main

import (
	"bytes"
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
)

// Environment variables that hold secrets.
const (
	variableCHAPSecret   = "ISCSIMP_CHAP_SECRET"
	variableMutualSecret = "ISCSIMP_MUTUAL_CHAP_SECRET"
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
	)
}

// chapOf reads the options of authentication. addressUser is the user of an
// iscsi:// address.
func chapOf(c *cli.Context, addressUser string) (chap initiator.CHAP, err error) {
	chap.User = c.String(flagCHAPUser)
	if addressUser != "" && chap.User != "" && chap.User != addressUser {
		return chap, usagef("the address says user %q and --%s says %q; leave one out", addressUser, flagCHAPUser, chap.User)
	}
	if chap.User == "" {
		chap.User = addressUser
	}
	if chap.User == "" {
		for _, flag := range []string{flagCHAPSecretFile, flagMutualUser, flagMutualSecretFile, flagCHAPAlgorithms} {
			if c.String(flag) != "" {
				return chap, usagef("--%s is given, but no user: --%s USER is needed for CHAP", flag, flagCHAPUser)
			}
		}
		return chap, nil // secrets in the environment may be for other calls
	}
	if chap.Secret, err = secretOf(c, flagCHAPSecretFile, variableCHAPSecret); err != nil {
		return chap, err
	}
	if chap.Secret.IsZero() {
		return chap, usagef("no secret for CHAP user %q: say where it is with --%s FILE, or set %s", chap.User, flagCHAPSecretFile, variableCHAPSecret)
	}
	if chap.MutualSecret, err = secretOf(c, flagMutualSecretFile, variableMutualSecret); err != nil {
		return chap, err
	}
	chap.MutualUser = c.String(flagMutualUser)
	if chap.MutualUser != "" && chap.MutualSecret.IsZero() {
		return chap, usagef("no secret for --%s: say where it is with --%s FILE, or set %s", flagMutualUser, flagMutualSecretFile, variableMutualSecret)
	}
	if list := c.String(flagCHAPAlgorithms); list != "" {
		chap.Algorithms, err = initiator.ParseCHAPAlgorithms(list)
	}
	return chap, err
}

// secretOf reads a secret from the file of an option, else from the environment.
func secretOf(c *cli.Context, flag, variable string) (initiator.Secret, error) {
	if path := c.String(flag); path != "" {
		return initiator.LoadSecretFile(path)
	}
	value, found := os.LookupEnv(variable)
	if !found {
		return initiator.Secret{}, nil
	}
	s, err := initiator.NewSecret(value)
	if err != nil {
		return s, usagef("%s in the environment: %v", variable, err)
	}
	return s, nil
}

// forgetSecrets keeps them from processes that are started later.
func forgetSecrets() {
	os.Unsetenv(variableCHAPSecret)
	os.Unsetenv(variableMutualSecret)
}

// handOverSecrets gives cmd the secrets of our environment by a pipe instead of
// its environment, which would show them as long as it runs. done must be called
// when cmd was started or could not be.
func handOverSecrets(cmd *exec.Cmd) (done func(), err error) {
	var text bytes.Buffer
	cmd.Env = slices.DeleteFunc(cmd.Env, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		secret := name == variableCHAPSecret || name == variableMutualSecret
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
		if name == variableCHAPSecret || name == variableMutualSecret {
			if err := os.Setenv(name, value); err != nil {
				return fmt.Errorf("cannot take over the secrets: %w", err)
			}
		}
	}
	return nil
}
