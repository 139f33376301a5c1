# What the trials share. Sourced by guest.sh; each trial runs in a shell of its own, and `finish` takes away what it made.
#
# The guest is the machine: its ethN lead to namespaces ispN, and these to the namespace internet, as in the lab.

trials=/trials
echo_server=203.0.113.10

fail() {
    echo "$*" >&2
    exit 1
}

# until_true SECONDS COMMAND...: wait until it succeeds.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "never became true: $*"
        sleep 0.1
    done
}

# since NANOSECONDS: milliseconds from that `date +%s%N` on.
since() {
    echo $((($(date +%s%N) - $1) / 1000000))
}

internet() {
    local address
    ip netns add internet
    ip -n internet link set lo up
    ip -n internet link add core type bridge forward_delay 0
    ip -n internet addr add 198.51.100.254/24 dev core
    ip -n internet link set core up
    # What uplinkd asks through each uplink out of the box answers pings.
    for address in 203.0.113.{10..19} 1.1.1.1 1.0.0.1 8.8.8.8 8.8.4.4 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220; do
        ip -n internet addr add "$address/32" dev lo
    done
    ip netns exec internet python3 $trials/flow.py serve &
    until_true 20 sh -c "ip netns exec internet ss -Huln | grep -q $echo_server:7"
}

# isp N: masquerades to 198.51.100.N; towards the machine's ethN nothing but the cable.
isp() {
    local ns=isp$1
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    ip -n "$ns" link add wan type veth peer name "$ns" netns internet
    ip -n internet link set "$ns" master core up
    ip -n "$ns" addr add "198.51.100.$1/24" dev wan
    ip -n "$ns" link set wan up
    ip -n "$ns" route add default via 198.51.100.254
    ip netns exec "$ns" sysctl -qw net.ipv4.ip_forward=1
    ip -n "$ns" link add lan type veth peer name "eth$1" netns 1
    ip -n "$ns" link set lan up
    ip netns exec "$ns" nft -f - <<-'END'
	table ip isp {
	    chain gate { type filter hook forward priority 0; }
	    chain nat { type nat hook postrouting priority 100; oifname wan masquerade; }
	}
	END
}

# dhcp N: 192.168.N.0/24 at home, with a DHCP server.
dhcp() {
    # The one address may still be leased to another trial's cable.
    rm -f "/run/leases$1"
    ip -n "isp$1" addr add "192.168.$1.254/24" dev lan
    ip netns exec "isp$1" dnsmasq --conf-file=/dev/null --keep-in-foreground --port=0 --interface=lan --bind-interfaces \
        --dhcp-authoritative --dhcp-range="192.168.$1.10,192.168.$1.10,1h" --dhcp-option="3,192.168.$1.254" \
        --dhcp-leasefile="/run/leases$1" --pid-file= --user=root --log-facility=/dev/null &
}

# by_hand N METRIC: the machine's side of 192.168.N.0/24, without a manager.
by_hand() {
    ip -n "isp$1" addr replace "192.168.$1.254/24" dev lan
    ip link set "eth$1" up
    ip addr replace "192.168.$1.10/24" dev "eth$1"
    ip route replace default via "192.168.$1.254" dev "eth$1" metric "$2"
}

# silent N on|off: the ISP loses all that it should forward; its light stays on.
silent() {
    if [ "$2" = on ]; then ip netns exec "isp$1" nft add rule ip isp gate drop; else ip netns exec "isp$1" nft flush chain ip isp gate; fi
}

# A client in a LAN behind the machine, which forwards.
client() {
    ip netns add client
    ip -n client link set lo up
    ip link add lan0 type veth peer name eth0 netns client
    ip addr add 10.77.0.1/24 dev lan0
    ip link set lan0 up
    ip -n client addr add 10.77.0.10/24 dev eth0
    ip -n client link set eth0 up
    ip -n client route add default via 10.77.0.1
    sysctl -qw net.ipv4.ip_forward=1
}

flow() {
    python3 $trials/flow.py "$@"
}

# stream NAME steady|fresh [COMMAND...]: start counting packets, in a namespace for instance; `counted NAME` ends it.
stream() {
    local name=$1 kind=$2
    shift 2
    "$@" python3 $trials/flow.py "$kind" >"/run/stream.$name" &
    echo $! >"/run/stream.$name.pid"
}

counted() {
    kill "$(cat "/run/stream.$1.pid")"
    # Not `wait`: it may have been started by another shell.
    until_true 10 test -s "/run/stream.$1"
    cat "/run/stream.$1"
}

# active LIST: the uplinks' devices in use for IPv4, as in `active eth1,eth2`.
active() {
    [ "$(uplinkctl status --json | python3 -c '
import json, sys
status = json.load(sys.stdin)
print(",".join(sorted(u["interface"] for u in status["uplinks"] if u["name"] in status["active"]["ipv4"])))')" = "$1" ]
}

# uplinkd_with LIST: start it, and wait until these devices are in use.
uplinkd_with() {
    systemctl restart uplinkd
    until_true 120 active "$1"
}

# shares FILE ISP...: each of these ISPs carried some of the flows, nobody else any, and none was lost.
shares() {
    local line=$1 number
    shift
    [ "$(grep -o '198\.51\.100\.[0-9]*=' <<<"$line" | wc -l)" = $# ] || return 1
    for number; do grep -q "198\.51\.100\.$number=" <<<"$line" || return 1; done
    grep -q 'lost=0$' <<<"$line"
}

# Goes on after what fails: half a trial leaves half of it behind.
finish() {
    local job ns
    set +e
    systemctl stop uplinkd
    uplinkctl flush >/dev/null
    for job in $(jobs -p) $(cat /run/stream.*.pid 2>/dev/null); do kill "$job" 2>/dev/null; done
    rm -f /run/stream.*
    wait
    if declare -f tidy >/dev/null; then tidy; fi
    for ns in $(ip netns list | cut -d' ' -f1); do
        # What runs in it keeps it, and its cables, alive.
        ip netns pids "$ns" | xargs -r kill -KILL
        ip netns delete "$ns"
    done
    until_true 20 sh -c '! ip -br link | grep -qE "^(eth|ppp|lan)[0-9]"'
    conntrack -F 2>/dev/null
    sysctl -qw net.ipv4.ip_forward=0
}
