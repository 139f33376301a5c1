# The kernel's own WireGuard, which remembers by which address it last sent, as a full tunnel over both uplinks.

# The far end, in the internet: it masquerades what comes out of the tunnel, so that a server sees 198.51.100.200.
wg_server() {
    (
        umask 077
        for end in server machine; do wg genkey >/run/wg.$end; done
    )
    # Made there: its socket stays where it was made.
    ip -n internet link add wg0 type wireguard
    ip netns exec internet wg set wg0 listen-port 51820 private-key /run/wg.server \
        peer "$(wg pubkey </run/wg.machine)" allowed-ips 10.99.0.2/32
    ip -n internet addr add 10.99.0.1/24 dev wg0
    ip -n internet link set wg0 up
}

by_wg_quick() {
    (
        umask 077
        mkdir -p /etc/wireguard
        cat >/etc/wireguard/wg0.conf <<-END
	[Interface]
	PrivateKey = $(cat /run/wg.machine)
	Address = 10.99.0.2/24
	[Peer]
	PublicKey = $(wg pubkey </run/wg.server)
	AllowedIPs = 0.0.0.0/0
	Endpoint = $echo_server:51820
	END
    )
    wg-quick up wg0
}

by_nmcli() {
    nmcli connection add type wireguard con-name wg0 ifname wg0 autoconnect no ipv4.method manual ipv4.addresses 10.99.0.2/24 \
        ipv6.method disabled wireguard.private-key "$(cat /run/wg.machine)"
    # nmcli has no word for peers; the file of the profile has.
    cat >>/etc/NetworkManager/system-connections/wg0.nmconnection <<-END

	[wireguard-peer.$(wg pubkey </run/wg.server)]
	endpoint=$echo_server:51820
	allowed-ips=0.0.0.0/0;
	END
    nmcli connection reload
    nmcli connection up wg0
}

by_networkd() {
    cat >/run/systemd/network/wg0.netdev <<-END
	[NetDev]
	Name=wg0
	Kind=wireguard
	[WireGuard]
	PrivateKey=$(cat /run/wg.machine)
	FirewallMark=0xca6c
	RouteTable=51820
	[WireGuardPeer]
	PublicKey=$(wg pubkey </run/wg.server)
	AllowedIPs=0.0.0.0/0
	Endpoint=$echo_server:51820
	END
    chgrp systemd-network /run/systemd/network/wg0.netdev
    chmod 640 /run/systemd/network/wg0.netdev
    cat >/run/systemd/network/wg0.network <<-'END'
	[Match]
	Name=wg0
	[Network]
	Address=10.99.0.2/24
	[RoutingPolicyRule]
	Table=main
	SuppressPrefixLength=0
	Priority=6000
	[RoutingPolicyRule]
	FirewallMark=0xca6c
	InvertRule=yes
	Table=51820
	Priority=6001
	END
    networkctl reload
}

tidy() {
    ip link delete wg0 2>/dev/null
    if [ -e /etc/wireguard/wg0.conf ]; then wg-quick down wg0 2>/dev/null; fi
    if systemctl -q is-active NetworkManager; then
        nmcli -t -f NAME connection show | xargs -rd '\n' -n 1 nmcli connection delete
    fi
    systemctl stop NetworkManager systemd-networkd systemd-networkd.socket
    rm -rf /run/wg.* /etc/wireguard/wg0.conf /run/systemd/network/*
    ip rule show | sed -n 's/^\([0-9]*\):.*\(51820\|suppress_prefixlength 0\).*/\1/p' | xargs -rn 1 ip rule delete pref
}

# What an ISP gets of a program's flows outside the tunnel.
watch_leaks() {
    local isp
    for isp in 1 2; do
        ip netns exec "isp$isp" nft -f - <<-'END'
	table ip leaks
	delete table ip leaks
	table ip leaks { chain c { type filter hook prerouting priority -300; iifname lan udp dport 7 counter; }; }
	END
    done
}

leaks() {
    local isp sum=0
    for isp in 1 2; do
        sum=$((sum + $(ip netns exec "isp$isp" nft list table ip leaks | sed -n 's/.*counter packets \([0-9]*\).*/\1/p')))
    done
    echo "$sum"
}

# The uplink that the tunnel's packets leave by now.
carrier_of_tunnel() {
    ip netns exec internet wg show wg0 endpoints | sed 's/.*198\.51\.100\.\([0-9]\).*/\1/'
}

only_by_tunnel() {
    [[ $1 =~ ^10\.99\.0\.2=[0-9]+\ lost=0$ ]]
}

assert_full_tunnel() {
    local flows lan
    until_true 40 sh -c "python3 $trials/flow.py many 1 | grep -q 10.99.0.2="
    until_true 20 sh -c "uplinkctl nudge --wait 5"
    watch_leaks
    flows=$(flow many 40)
    only_by_tunnel "$flows" || fail "$1: the machine's flows: $flows"
    # wg-quick masquerades nothing; the tunnel's far end knows one address only.
    nft add table ip wgnat
    nft -f - <<<'table ip wgnat { chain c { type nat hook postrouting priority 90; oifname wg0 masquerade; }; }'
    lan=$(ip netns exec client python3 $trials/flow.py many 40)
    nft delete table ip wgnat
    only_by_tunnel "$lan" || fail "$1: the client's flows: $lan"
    [ "$(leaks)" = 0 ] || fail "$1: $(leaks) packets outside the tunnel"
}

# outage silent|carrier: the uplink that carries the tunnel goes. Prints what a flow within the tunnel lost.
outage() {
    local isp report
    watch_leaks
    isp=$(carrier_of_tunnel)
    stream tunnel steady
    sleep 3
    if [ "$1" = silent ]; then silent "$isp" on; else ip -n "isp$isp" link set lan down; fi
    until_true 60 active "eth$((3 - isp))"
    # Longer than the 15 s after which the kernel itself gives up its address.
    sleep 20
    report=$(counted tunnel)
    [ "$(carrier_of_tunnel)" != "$isp" ] || fail "$1: the tunnel stays on uplink $isp: $report"
    [ "$(leaks)" = 0 ] || fail "$1: $(leaks) packets outside the tunnel"
    if [ "$1" = silent ]; then silent "$isp" off; else ip -n "isp$isp" link set lan up; fi
    until_true 60 active eth1,eth2
    echo "$1 loss of eth$isp: $report"
}

two_by_hand() {
    internet
    isp 1
    isp 2
    by_hand 1 100
    by_hand 2 200
    client
    wg_server
}

trial_wg_quick_after() {
    two_by_hand
    uplinkd_with eth1,eth2
    by_wg_quick
    assert_full_tunnel "wg-quick after us"
    local silent carrier
    silent=$(outage silent)
    carrier=$(outage carrier)
    wg-quick down wg0
    until_true 20 active eth1,eth2
    shares "$(flow many 60)" 1 2 || fail "not balanced after the tunnel"
    echo "0 packets outside; $silent; $carrier"
}

trial_wg_quick_before() {
    two_by_hand
    by_wg_quick
    uplinkd_with eth1,eth2
    assert_full_tunnel "wg-quick before us"
    local silent carrier
    silent=$(outage silent)
    carrier=$(outage carrier)
    echo "0 packets outside; $silent; $carrier"
}

trial_wg_networkmanager() {
    internet
    isp 1
    isp 2
    dhcp 1
    dhcp 2
    client
    wg_server
    systemctl start NetworkManager
    nmcli device set lan0 managed no
    for n in 1 2; do nmcli connection add type ethernet con-name "eth$n" ifname "eth$n" ipv6.method disabled; done
    for n in 1 2; do nmcli connection up "eth$n"; done
    uplinkd_with eth1,eth2
    by_nmcli
    assert_full_tunnel "NetworkManager's WireGuard"
    local silent carrier
    silent=$(outage silent)
    carrier=$(outage carrier)
    nmcli connection down wg0
    until_true 20 active eth1,eth2
    echo "0 packets outside; $silent; $carrier"
}

trial_wg_networkd() {
    internet
    isp 1
    isp 2
    dhcp 1
    dhcp 2
    client
    wg_server
    mkdir -p /run/systemd/network
    for n in 1 2; do
        printf '[Match]\nName=eth%s\n[Network]\nDHCP=ipv4\n[DHCPv4]\nRouteMetric=%s00\n' "$n" "$n" >"/run/systemd/network/eth$n.network"
    done
    systemctl start systemd-networkd
    uplinkd_with eth1,eth2
    by_networkd
    assert_full_tunnel "networkd's WireGuard"
    local silent carrier
    silent=$(outage silent)
    carrier=$(outage carrier)
    echo "0 packets outside; $silent; $carrier"
}
