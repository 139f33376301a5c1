# Other things that only a whole kernel has.

tidy() {
    rm -f /etc/uplinkd/conf.d/vrf.toml
    ip link delete blue 2>/dev/null
}

# Loss on a line that works: not down, but nothing new goes there while another is good.
trial_netem_degrades() {
    local flows started seen state
    internet
    isp 1
    isp 2
    by_hand 1 100
    by_hand 2 200
    uplinkd_with eth1,eth2
    ip netns exec isp1 tc qdisc add dev wan root netem loss 50%
    started=$(date +%s%N)
    until_true 120 active eth2
    seen=$(since "$started")
    state=$(uplinkctl status --json | python3 -c '
import json, sys
print(next(u for u in json.load(sys.stdin)["uplinks"] if u["interface"] == "eth1")["ipv4"]["state"])')
    [ "$state" = degraded ] || fail "eth1 is $state: $(uplinkctl status)"
    flows=$(flow many 40)
    shares "$flows" 2 || fail "$flows"
    ip netns exec isp1 tc qdisc delete dev wan root
    started=$(date +%s%N)
    until_true 120 active eth1,eth2
    echo "50 % loss: eth1 $state and left after $seen ms; good again $(since "$started") ms after the end"
}

three_with_vrf() {
    internet
    isp 1
    isp 2
    isp 3
    by_hand 1 100
    by_hand 2 200
    ip link add blue type vrf table 100
    ip link set blue up
    ip -n isp3 addr add 192.168.3.254/24 dev lan
    ip link set eth3 master blue up
    ip addr add 192.168.3.10/24 dev eth3
    ip route add default via 192.168.3.254 dev eth3 table 100
    uplinkd_with eth1,eth2
}

is_listed() {
    uplinkctl status --json | grep -q "\"$1\""
}

# An interface in a VRF is another machine's business.
trial_vrf_is_left_alone() {
    three_with_vrf
    ! is_listed eth3 || fail "taken for an uplink: $(uplinkctl status)"
    echo "eth3 in a VRF is no uplink: $(uplinkctl status --json | grep -c '"interface"') others"
}

# Also where the configuration names it, which is said.
trial_vrf_when_named() {
    three_with_vrf
    printf '[[uplink]]\nmatch = { interface = "eth3" }\nname = "blue"\n' >/etc/uplinkd/conf.d/vrf.toml
    systemctl reload uplinkd
    uplinkctl nudge --wait 5
    ! is_listed eth3 || fail "taken: $(uplinkctl status)"
    uplinkctl status | grep 'belongs to VRF blue' || fail "no word of it: $(uplinkctl status)"
}
