# Sourced by measure/spread and measure/outage: brings up one contestant on the portals 127.0.0.1 to N.
# contestant NAME N: sets $dev, the block device it serves.
#   iscsimp[:POLICY[:OPTIONS]]     its NBD socket, attached to /dev/nbd0 by Debian's nbd-client; OPTIONS like --hedge=off,--marginal=off
#   dm:SELECTOR                    open-iscsi and dm-multipath, all paths in one group (multibus), else Debian's settings
#   dm:stock                       as Debian has it, but for user_friendly_names and find_multipaths no
#   dm:tuned, dm:best              all paths in one group, and timers as short as they go (see README)
. /vmlab/lib.sh

# In virtual time, a wait for this machine's disk is a wait of any length: have all programs in memory first.
{ find /usr/bin /usr/sbin /usr/lib/systemd /usr/lib/udev /etc -xdev -type f -exec cat {} +; cat /usr/lib/x86_64-linux-gnu/*.so*; } >/dev/null 2>&1 || true

lun=()    # what login needs besides, to find the LUN
contestant() {
    local portals=() i n=$2; for ((i = 1; i <= n; i++)); do portals+=(-p "127.0.0.$i"); done
    case $1 in
    iscsimp*)
        local policy options; IFS=: read -r _ policy options <<<"$1"; IFS=, read -ra options <<<"$options"
        login d "${portals[@]}" --only-given --wait all --policy "${policy:-latency}" "${options[@]}" "${lun[@]}"
        nbd-client -unix "$W/d.sock" -N d /dev/nbd0 >"$W/nbd-client.log" 2>&1
        dev=/dev/nbd0;;
    dm:stock) dev=$(openiscsi-up -n "$n" -D);;
    dm:tuned) dev=$(openiscsi-up -n "$n" -o 1:1 -f 1 -P 1);;
    dm:best) dev=$(openiscsi-up -n "$n" -o 1:1 -f off -R 0 -P 1);;
    dm:*) dev=$(openiscsi-up -n "$n" -s "${1#dm:}");;
    *) die "no contestant $1";;
    esac
    [ -b "$dev" ] || die "$1: no block device: $dev"
    case $1 in
    iscsimp*) iscsimp paths d;;
    *) wait_for 30 running "$n" || die "$1: not $n paths: $(multipath -ll)"
       udevadm settle; multipath -ll;;
    esac
}
running() { [ "$(multipath -ll | grep -c 'active ready running')" = "$1" ]; }

# carried N: what the answers that portal N sent amount to, in bytes, as TCP counts them
carried() { ss -Htin state established "dst 127.0.0.$1:3260" | grep -oE 'bytes_received:[0-9]+' | awk -F: '{ s += $2 } END { print s + 0 }'; }
