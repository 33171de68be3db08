#!/bin/bash
# Build the lab's kernel, initramfs and root image from Debian packages.
#   build.sh        build what is missing or out of date in $VMLAB_CACHE
#   build.sh -f     build again (downloaded .debs are kept)
# Result, in ${VMLAB_CACHE:-./cache}: vmlinux initrd.cpio root.ext4 packages.lock
# $VMLAB_MIRROR: where Debian is (default http://deb.debian.org); $KPKG: another kernel package.
# Needs Debian 12 on amd64 and 0.7 GB of disk. Host tools that are missing are installed with apt,
# which needs root; the rest does not.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C
C=${VMLAB_CACHE:-$here/cache}
t0=$(date +%s%N)
say() { local ms=$((($(date +%s%N) - t0) / 1000000)); printf 'lab build [%3d.%ds] %s\n' $((ms / 1000)) $((ms % 1000 / 100)) "$*"; }
die() { echo "lab/build.sh: $*" >&2; exit 1; }

mkdir -p "$C"
exec 9>"$C/build.lock"; flock 9                    # one build at a time
[ "${1:-}" = -f ] && rm -f "$C/stamp"
want=$(cat "$here"/{build.sh,packages.txt,modules.txt,initramfs-init,guest-init} | sha256sum | cut -c1-16)
[ "$(cat "$C/stamp" 2>/dev/null)" = "$want" ] && { say "up to date: $C"; exit 0; }
{ command -v apt-get && command -v dpkg-deb; } >/dev/null || die "the lab is made of Debian packages: build it on Debian 12"
[ "$(dpkg --print-architecture)" = amd64 ] || die "only for amd64"
mkdir -p "$C"/archives/partial "$C"/apt/lists/partial
rm -rf "$C"/{stamp,root,ird,kern,snap}; :>"$C/apt/status"

# 1. Host tools.
need=()
for t in qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs cpio:cpio xz:xz-utils depmod:kmod; do
    command -v "${t%%:*}" >/dev/null || need+=("${t##*:}")
done
if (( ${#need[@]} )); then
    [ "$(id -u)" = 0 ] || die "as root, run: apt-get install --no-install-recommends ${need[*]}"
    say "installing: ${need[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy --no-install-recommends "${need[@]}"; } \
        >"$C/apt.log" 2>&1 || { tail -20 "$C/apt.log" >&2; die "cannot install ${need[*]} (see above)"; }
fi

# 2. Packages: from Debian alone, whatever else this machine's apt knows. Resolved as for an empty
#    system, and only downloaded.
for s in '/debian bookworm' '/debian bookworm-updates' '/debian-security bookworm-security'; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${VMLAB_MIRROR:-http://deb.debian.org}$s main"
done >"$C/apt/sources.list"
from=(-o Dir::Etc::sourcelist="$C/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
      -o Dir::State::lists="$C/apt/lists" -o Dir::State::status="$C/apt/status" -o Dir::Cache::archives="$C/archives"
      -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Install-Recommends=0
      -o Acquire::Retries=3 -o Acquire::http::Timeout=60 -o Acquire::https::Timeout=60
      -o APT::Keep-Downloaded-Packages=true -o APT::Sandbox::User=)
apt=(apt-get -qqy "${from[@]}")
mapfile -t pkgs < <(sed 's/#.*//' "$here/packages.txt" | xargs -n1)
"${apt[@]}" update >"$C/apt.log" 2>&1 || { tail -5 "$C/apt.log" >&2; say "no news from the mirror; going on with what is here"; }
"${apt[@]}" --download-only install "${pkgs[@]}" >"$C/apt.log" 2>&1 || { tail -20 "$C/apt.log" >&2; die "cannot fetch the packages (see above)"; }
# "Inst NAME (VERSION ... [ARCH])" -> NAME_VERSION_ARCH.deb
mapfile -t debs < <("${apt[@]}" -s install "${pkgs[@]}" |
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*\[\([a-z0-9]*\)\]).*/\1_\2_\3.deb/p' | sed 's/:/%3a/g')
# The kernel: the package that linux-image-amd64 names now, or $KPKG.
K=${KPKG:-$(apt-cache "${from[@]}" depends linux-image-amd64 | awk '/Depends: linux-image-/{print $2; exit}')}
(cd "$C/archives"; "${apt[@]}" download "$K" >"$C/apt.log" 2>&1 || compgen -G "${K}_*.deb" >/dev/null) || { tail -5 "$C/apt.log" >&2; die "cannot fetch the kernel $K"; }
kdeb=$(cd "$C/archives"; printf '%s\n' "${K}"_*.deb | sort -V | tail -1)
(cd "$C/archives"; sha256sum "${debs[@]}" "$kdeb") >"$C/packages.lock"
say "$(wc -l <"$C/packages.lock") packages, $(cut -c67- "$C/packages.lock" | sed "s|^|$C/archives/|" | xargs du -shc | tail -1 | cut -f1) of .deb"

# 3. Root tree: unpack without running maintainer scripts (merged /usr).
R=$C/root; mkdir -p "$R"/usr/{bin,sbin,lib,lib64} "$R"/{dev,proc,sys,run,tmp,lab,vmlab,root,mnt,etc,var}
for d in bin sbin lib lib64; do ln -s usr/$d "$R/$d"; done
for d in "${debs[@]}"; do
    dpkg-deb --fsys-tarfile "$C/archives/$d" | tar -x -C "$R" --keep-directory-symlink \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*' \
        --exclude='./usr/share/lintian/*' --exclude='./usr/share/bash-completion/*' --exclude='./usr/lib/x86_64-linux-gnu/gconv/*'
done
# What the skipped scripts would have done and we need.
cp "$R"/usr/share/base-passwd/passwd.master "$R/etc/passwd"; cp "$R"/usr/share/base-passwd/group.master "$R/etc/group"
for g in input:101 kvm:102 render:103 sgx:104; do echo "${g%:*}:x:${g#*:}:" >>"$R/etc/group"; done
echo 'nbd:x:105:105::/:/usr/sbin/nologin' >>"$R/etc/passwd"; echo 'nbd:x:105:' >>"$R/etc/group"
printf '127.0.0.1 localhost vmlab\n' >"$R/etc/hosts"; echo vmlab >"$R/etc/hostname"
printf 'passwd: files\ngroup: files\nhosts: files\nservices: files\n' >"$R/etc/nsswitch.conf"
ln -sf /proc/self/mounts "$R/etc/mtab"; ln -sf bash "$R/usr/bin/sh"; ln -sf gawk "$R/usr/bin/awk"
mkdir -p "$R"/etc/iscsi "$R"/var/{log,lib/iscsi,lib/misc,tmp}; ln -sfn /run "$R/var/run"; ln -sfn /run/lock "$R/var/lock"
echo 'InitiatorName=iqn.1993-08.org.debian:01:vmlab' >"$R/etc/iscsi/initiatorname.iscsi"
ldconfig -r "$R"
say "root tree $(du -sh "$R" | cut -f1)"

# 4. Kernel: the ELF inside the bzImage (QEMU starts it by PVH: no firmware,
#    no unpacking under emulation), and the modules listed in modules.txt.
dpkg-deb -x "$C/archives/$kdeb" "$C/kern"
KV=${K#linux-image-}; cp "$C/kern/boot/config-$KV" "$C/kernel-config"
at=$(grep -abo -P '\xfd7zXZ\x00' "$C/kern/boot/vmlinuz-$KV" | sed -n '1s/:.*//p')
# The rest of the bzImage follows the compressed kernel: xz complains, and is done.
tail -c +$((at + 1)) "$C/kern/boot/vmlinuz-$KV" | xz -dc --single-stream >"$C/vmlinux" 2>/dev/null || true
[ "$(head -c4 "$C/vmlinux" | tail -c3)" = ELF ] || die "no ELF kernel found in $kdeb"
src=$C/kern/lib/modules/$KV; dst=$R/usr/lib/modules/$KV; mkdir -p "$dst"
depmod -b "$C/kern" "$KV"
modules() { sed -n "$1" "$here/modules.txt" | sed 's/#.*//' | xargs -n1; }
deps() { # MODULE...: their files in the order to load them
    local m
    for m; do
        modprobe -d "$C/kern" -S "$KV" --show-depends "$m" || die "kernel $KV has no module $m"
    done | sed -n 's/^insmod //p' | awk '!s[$1]++ {print $1}'
}
mapfile -t mods < <(modules 's/@early//p;t;p'); mapfile -t early < <(modules 's/^@early//p')
deps "${mods[@]}" >"$C/modules.list"; deps "${early[@]}" >"$C/modules.early"
while read -r f; do install -D -m644 "$f" "$dst/${f#"$src"/}"; done <"$C/modules.list"
cp "$src"/modules.{builtin,builtin.modinfo,order} "$dst/"; depmod -b "$R" "$KV"

# 5. Initramfs: static busybox, the early modules in load order, initramfs-init.
I=$C/ird; mkdir -p "$I"/{bin,dev,proc,sys,new,mod}
cp "$R/usr/bin/busybox" "$I/bin/"; install -m755 "$here/initramfs-init" "$I/init"; install -m755 "$here/guest-init" "$I/guest-init"
while read -r f; do cp "$f" "$I/mod/"; echo "/mod/$(basename "$f")"; done <"$C/modules.early" >"$I/mod/order"
(cd "$I"; find . | sort | cpio -o -H newc -R 0:0 --quiet) >"$C/initrd.cpio"

# 6. Root image: read-only ext4 (run.sh puts a tmpfs over it).
kb=$(du -sk "$R" | cut -f1); rm -f "$C/root.ext4"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -m0 -E root_owner=0:0 -N 24000 -d "$R" "$C/root.ext4" $((kb + kb / 12 + 16384))k >/dev/null
rm -rf "$R" "$I" "$C/kern" "$C"/modules.{list,early}
say "vmlinux $(du -h "$C/vmlinux" | cut -f1) ($KV), initrd $(du -h "$C/initrd.cpio" | cut -f1), root.ext4 $(du -h "$C/root.ext4" | cut -f1)"
echo "$want" >"$C/stamp"
say done
