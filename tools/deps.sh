#!/bin/bash
# Install the Debian packages that the tests and benchmarks use, if missing.
# Needs root for that; does nothing when everything is there.
set -euo pipefail
declare -A need=(
	[tgtd]=tgt [fio]=fio [nbdinfo]=libnbd-bin [nbdcopy]=libnbd-bin [qemu-img]=qemu-utils
	[qemu-io]=qemu-utils [qemu-nbd]=qemu-utils [iscsi-test-cu]=libiscsi-bin [jq]=jq [ss]=iproute2
	[spin]=spin [gcc]=gcc [istgt]=istgt [tshark]=tshark [dumpcap]=tshark
)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for tool in "${!need[@]}"; do
	command -v "$tool" >/dev/null || missing+=("${need[$tool]}")
done
# qemu reads iscsi:// through a module of its own, which the benchmarks compare with.
compgen -G '/usr/lib/*/qemu/block-iscsi.so' >/dev/null || missing+=(qemu-block-extra)
# spin's programs are compiled with gcc.
[ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
(( ${#missing[@]} )) || exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
echo "installing: ${missing[*]}"
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
	echo "tools/deps.sh: install these packages (or what your system calls them) and try again: ${missing[*]}" >&2
	exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends "${missing[@]}" >/dev/null
# Debian starts tgt's own daemon on port 3260; the tests run their own.
if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then systemctl disable --now tgt >/dev/null 2>&1 || :; fi
