package peer

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// clientLimit bounds one run of a client program: an NBD server that stops answering must fail the test, not hang it.
const clientLimit = 60 * time.Second

// Run runs a program to its end and returns what it printed; a program that is missing, fails or runs for more than a minute fails the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	path := NeedTool(t, name)
	ctx, cancel := context.WithTimeout(context.Background(), clientLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("%s %s did not end within %v; its output:\n%s", name, strings.Join(args, " "), clientLimit, shortened(output))
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, shortened(output))
	}
	return string(output)
}

// shortened keeps the beginning of a long output: the first error matters.
func shortened(output []byte) string {
	const limit = 2000
	if len(output) <= limit {
		return string(output)
	}
	return fmt.Sprintf("%s\n… (%d bytes more)", output[:limit], len(output)-limit)
}

// NBDURI is the address of the default export behind a unix socket, as libnbd, qemu and fio write it.
func NBDURI(socket string) string { return "nbd+unix:///?socket=" + socket }

// Fio runs fio against the NBD export behind socket; args are its options without the leading dashes ("rw=randwrite", "verify=crc32c").
func Fio(t testing.TB, socket string, args ...string) string {
	t.Helper()
	all := []string{"--name=job", "--ioengine=nbd", "--uri=" + NBDURI(socket), "--verify_state_save=0"} // fio would leave a file behind
	for _, arg := range args {
		all = append(all, "--"+arg)
	}
	return Run(t, "fio", all...)
}

// QemuIO runs qemu-io commands ("write -P 0x11 0 1M", "read -P 0x11 0 1M", …) in order against the NBD export behind socket. qemu-io reports a pattern that
// does not match in its output and goes on, so that the output is checked here.
func QemuIO(t testing.TB, socket string, commands ...string) string {
	t.Helper()
	var args []string
	for _, command := range commands {
		args = append(args, "-c", command)
	}
	output := Run(t, "qemu-io", append(append([]string{"-f", "raw"}, args...), NBDURI(socket))...)
	if strings.Contains(output, "Pattern verification failed") || strings.Contains(output, "failed:") {
		t.Fatalf("qemu-io %q:\n%s", commands, output)
	}
	return output
}

// NeedQemuISCSI makes sure that the qemu tools of this machine have an initiator of their own, which Debian packages apart.
func NeedQemuISCSI(t testing.TB) {
	t.Helper()
	output, _ := exec.Command(NeedTool(t, "qemu-img"), "info", "iscsi://").CombinedOutput() // fails either way, with different words
	if strings.Contains(string(output), "Unknown protocol") {
		failOrSkip(t, "qemu has no iSCSI driver; run: apt-get install qemu-block-extra")
	}
}
