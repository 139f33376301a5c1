# Runs in the guest, as the service that mkimage made: the functions trial_NAME of trials/*.sh that run chose.
# The lines PASS, FAIL and END are what run looks for.
set -euo pipefail
modprobe -a wireguard pppoe ppp_async vrf dummy sch_netem nf_flow_table
DEBIAN_FRONTEND=noninteractive dpkg -i /trials/uplinkd.deb >/run/dpkg 2>&1 || {
    cat /run/dpkg
    exit 1
}
systemctl stop uplinkd NetworkManager
echo "guest: $(uname -r), $(systemctl --version | head -n 1), $(uplinkctl --version), booted in $(cut -d' ' -f1 /proc/uptime) s"

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

# Written by run: which trials, with their files.
while read -r file name <&3; do
    one "/trials/trials/$file" "$name"
done 3</trials/chosen
echo END
