# Runs in the guest, as the service that mkimage made: each function trial_NAME of trials/*.sh.
# The lines PASS, FAIL and END are what run looks for.
set -euo pipefail
# Which trials, as a pattern: written by run.
. /trials/settings

modprobe -a wireguard pppoe ppp_async vrf dummy sch_netem nf_flow_table
DEBIAN_FRONTEND=noninteractive dpkg -i /trials/uplinkd.deb >/run/dpkg 2>&1 || {
    cat /run/dpkg
    exit 1
}
systemctl stop uplinkd NetworkManager
echo "guest: $(uname -r), $(systemd --version | head -n 1), $(uplinkctl --version), booted in $(cut -d' ' -f1 /proc/uptime) s"

one() {
    local started=$SECONDS verdict=PASS
    # A trial prints its figures on its last line; the rest is for whoever reads why it failed.
    timeout --kill-after 60 600 bash /trials/one.sh "$1" "$2" >/run/said 2>&1 </dev/null || verdict=FAIL
    echo "$verdict $2: $(tail -n 1 /run/said) ($((SECONDS - started)) s)"
    if [ $verdict = FAIL ]; then
        cat /run/said
        journalctl -b -u uplinkd --no-pager -o short-precise --since "-$((SECONDS - started)) s"
    fi
}

for file in /trials/trials/*.sh; do
    for name in $(sed -n 's/^trial_\([a-z_]*\)() {$/\1/p' "$file"); do
        case $name in $TRIALS) one "$file" "$name" ;; esac
    done
done
echo END
