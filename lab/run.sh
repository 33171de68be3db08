#!/bin/bash
# Run a command in a fresh guest: run.sh [options] -- 'command'
#   -s DIR   host folder mounted read-write at /lab (the command starts there);
#            default: an empty one that is thrown away; no blanks or commas
#   -t SECS  time limit for everything (default 600); exit status 124 when hit
#   -l FILE  keep the guest's kernel console in FILE
#   -m MEM   guest memory (default 2G)      -c N  CPUs (default 2)
#   -a ARGS  more kernel arguments          -C    cold boot (no snapshot)
#   -V       virtual time: the guest's clock counts the instructions of its one CPU, a
#            nanosecond each, and jumps over idle time. What is measured then does not
#            depend on how busy this machine is; -t still means seconds here.
#   -v       tell on stderr how long the start took
# The command's stdout+stderr come out on stdout, its exit status is passed on;
# 125 = the guest did not get that far (the console's tail is then on stderr).
# /vmlab in the guest is ./guest here, read-only, and in PATH.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd); C=${VMLAB_CACHE:-$here/cache}
share='' limit=600 log='' mem=2G cpus=2 boot='' args='' cold='' verbose='' accel=(-accel tcg,thread=multi)
usage() { sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2; }
while getopts s:t:l:m:c:a:CVv f; do case $f in
    s) share=$OPTARG;; t) limit=$OPTARG;; l) log=$OPTARG;; m) mem=$OPTARG;; c) cpus=$OPTARG;;
    a) args=$OPTARG; cold=1;; V) cpus=1 accel=(-accel tcg,thread=single -icount shift=0,sleep=off) boot="sysctl.kernel.hung_task_timeout_secs=0";; C) cold=1;; v) verbose=1;; *) usage;; esac; done
shift $((OPTIND-1)); [ $# -gt 0 ] || usage
[ -e "$C/stamp" ] || { echo "lab/run.sh: run lab/build.sh first" >&2; exit 2; }

T=$(mktemp -d); pid=
finish() { [ -z "$pid" ] || { kill "$pid"; wait "$pid"; } 2>/dev/null; rm -rf "$T"; }
trap finish EXIT; trap 'exit 143' TERM INT HUP
mkdir "$T/ctl" "$T/lab"
q=(qemu-system-x86_64 -M q35 "${accel[@]}" -cpu "${VMLAB_CPU:-Nehalem,-spec-ctrl}" -smp "$cpus" -m "$mem"
   -nodefaults -no-user-config -display none -nic none -no-reboot -kernel "$C/vmlinux" -initrd "$C/initrd.cpio"
   -append "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic softlockup_panic=1 watchdog_thresh=30 mitigations=off tsc=reliable no_timer_check random.trust_cpu=on net.ifnames=0 ${VMLAB_APPEND:-} $boot $args"
   -drive "if=none,id=root,file=$C/root.ext4,format=raw,readonly=on" -device virtio-blk-pci,drive=root
   -device virtio-serial-pci -device "virtserialport,nr=1,name=io,chardev=io")
security=passthrough; [ "$(id -u)" = 0 ] || security=none
shares() { # the 9p folders; $1 is what the guest sees at /lab
    local s
    for s in "vmlab,path=$here/guest,readonly=on" "lab,path=$1" "ctl,path=$T/ctl"; do
        p9+=(-fsdev "local,id=$s,security_model=$security,multidevs=remap" -device "virtio-9p-pci,fsdev=${s%%,*},mount_tag=${s%%,*}")
    done
}

# The snapshot of the booted guest, made at first use for this set of options.
id=$( (echo "${q[*]}"; cat "$C/stamp"; qemu-system-x86_64 --version) | sha256sum | cut -c1-12)
snap=$C/snap/$id
make_snapshot() {
    p9=(); shares "$T/lab"
    ( for _ in {1..3000}; do grep -q 'vmlab: ready' "$T/con" 2>/dev/null && break; sleep .1; done
      sleep 1; echo "migrate \"exec:cat > $snap.new\""; echo quit ) |
    timeout 400 "${q[@]}" "${p9[@]}" -chardev null,id=io -serial "file:$T/con" -monitor stdio >"$T/mon" 2>&1
    grep -q 'vmlab: ready' "$T/con" && [ -s "$snap.new" ] && mv "$snap.new" "$snap" && return
    echo "lab/run.sh: no snapshot made; cold boot" >&2; tail -5 "$T/mon" "$T/con" >&2; rm -f "$snap.new"; cold=1
}
if [ -z "$cold" ] && [ ! -e "$snap" ]; then
    mkdir -p "$C/snap"
    exec 9>"$C/snap/lock"; flock 9
    [ -e "$snap" ] || make_snapshot 9>&-
    exec 9>&-
fi
[ -n "$cold" ] || q+=(-incoming "exec:cat $snap")

printf '%s\n' "$*" >"$T/ctl/cmd"
mkfifo "$T/in"; exec 3<>"$T/in"
echo "go $(date +%s.%N) $(head -c32 /dev/urandom | base64 -w0)" >&3
p9=(); shares "${share:-$T/lab}"
t0=$(date +%s%N)
timeout -k 5 "$limit" "${q[@]}" "${p9[@]}" -chardev stdio,id=io,signal=off -serial "file:$T/con" -monitor none <&3 &
pid=$!
wait $pid; st=$?; pid=
t1=$(date +%s%N)
[ -z "$log" ] || cp "$T/con" "$log"
[ -z "$verbose" ] || echo "lab/run.sh: start $(( ($(stat -c %.9Y "$T/ctl/start" | tr -d .) - t0)/1000000 )) ms, total $(( (t1-t0)/1000000 )) ms" >&2
if [ $st -eq 124 ] || [ $st -eq 137 ]; then echo "lab/run.sh: time limit ($limit s)" >&2; exit 124; fi
if [ ! -e "$T/ctl/rc" ]; then tail -"${VMLAB_TAIL:-40}" "$T/con" >&2; exit 125; fi
exit "$(cat "$T/ctl/rc")"
