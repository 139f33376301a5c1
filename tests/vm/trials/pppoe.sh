# A real PPPoE session (pppd with its own plugin, against rp-pppoe's server) beside an uplink of another kind.

# ISP 1 is a PPPoE server; it gives each session the next address. Not with -k: the kernel's PPPoE at both ends of one
# kernel was seen to hang up at once.
pppoe_isp() {
    isp 1
    cat >/etc/ppp/server-options <<-'END'
	noauth
	lcp-echo-interval 1
	lcp-echo-failure 3
	END
    ip netns exec isp1 pppoe-server -F -I lan -L 10.64.0.1 -R 10.64.0.10 -N 20 -O /etc/ppp/server-options >/run/pppoe-server.log 2>&1 &
}

# The subscriber: dials again a second after each loss, as profiles of providers do.
dial() {
    cat >/etc/ppp/peers/isp1 <<-'END'
	plugin pppoe.so
	nic-eth1
	user subscriber
	noauth
	noipdefault
	defaultroute
	defaultroute-metric 100
	persist
	maxfail 0
	holdoff 1
	mtu 1492
	mru 1492
	lcp-echo-interval 1
	lcp-echo-failure 3
	nodetach
	END
    ip link set eth1 up
    pppd call isp1 >/run/pppd.log 2>&1 &
    pppd_pid=$!
    until_true 120 ppp_has_default
}

ppp_has_default() {
    ip route show default proto boot | grep -q 'dev ppp0'
}

ppp_address() {
    ip -4 -br addr show dev ppp0 2>/dev/null | awk '{print $3}' | cut -d/ -f1
}

tidy() {
    rm -f /etc/ppp/peers/isp1 /etc/ppp/server-options
}

ppp_and_ethernet() {
    internet
    pppoe_isp
    isp 2
    by_hand 2 200
    client
    dial
    uplinkd_with eth2,ppp0
}

trial_pppoe_is_an_uplink() {
    local slot local_flows lan_flows syn
    ppp_and_ethernet
    ip route show proto uplinkd
    ip route show default proto uplinkd | tr '\n' ' ' | grep -q 'nexthop dev ppp0' || fail "no leg by ppp0: $(ip route show default)"
    slot=$(ip rule | sed -n 's/.*oif ppp0 lookup \([^ ]*\).*/\1/p')
    ip route show table "$slot"
    ip route show table "$slot" | grep -q '^default dev ppp0.*scope link' || fail "table $slot: $(ip route show table "$slot")"
    ip rule | grep -q "from $(ppp_address) lookup" || fail "no rule for $(ppp_address): $(ip rule)"
    local_flows=$(flow many 60)
    shares "$local_flows" 1 2 || fail "the machine's flows: $local_flows"
    lan_flows=$(ip netns exec client python3 $trials/flow.py many 60)
    shares "$lan_flows" 1 2 || fail "the client's flows: $lan_flows"
    # What a client's SYN asks for when it leaves by the smaller link.
    ip netns exec isp1 timeout 20 tcpdump -lni any -c 1 -v 'tcp[tcpflags] == tcp-syn and dst net 203.0.113.0/24' >/run/syn 2>/dev/null &
    for _ in {1..20}; do ip netns exec client timeout 0.3 bash -c "exec 3<>/dev/tcp/$echo_server/80" 2>/dev/null || true; done
    syn=$(grep -o 'mss [0-9]*' /run/syn | head -n 1 || true)
    [ "$syn" = "mss 1452" ] || fail "a client's SYN leaves by ppp0 with ${syn:-no size}"
    echo "ppp0 $(ppp_address), $(cat /sys/class/net/ppp0/mtu) bytes; machine $local_flows; client $lan_flows; SYN by ppp0: $syn"
}

has_new_address() {
    local now
    now=$(ppp_address)
    [ -n "$now" ] && [ "$now" != "$1" ]
}

# A leg of the balanced default, and a rule for the address.
is_used() {
    ip route show default proto uplinkd | grep -q "dev $1" && ip rule | grep -q "from $2 lookup"
}

# The server's end of the session ends: pppd dials again, and gets a new interface with a new address.
trial_pppoe_redial() {
    local before index after started dialled used
    ppp_and_ethernet
    before=$(ppp_address)
    index=$(cat /sys/class/net/ppp0/ifindex)
    stream machine fresh
    stream lan fresh ip netns exec client
    sleep 3
    # Not the server itself, which takes the next call.
    ip netns pids isp1 | xargs ps -o pid=,comm= -p | awk '$2 == "pppd" { print $1 }' >/run/sessions
    [ -s /run/sessions ] || fail "no session at the server"
    started=$(date +%s%N)
    xargs kill </run/sessions
    # Whether uplinkd was seen to do without it depends on who is quicker; what the flows lost tells.
    until_true 120 has_new_address "$before"
    dialled=$(since "$started")
    after=$(ppp_address)
    until_true 120 is_used ppp0 "$after"
    used=$(since "$started")
    until_true 120 active eth2,ppp0
    ip route show default proto uplinkd | grep -q eth2 || fail "no leg by eth2: $(ip route)"
    [ "$(cat /sys/class/net/ppp0/ifindex)" != "$index" ] || fail "the same ifindex, so no new session"
    ! ip rule | grep -q "from $before lookup" || fail "a rule for the old address: $(ip rule)"
    shares "$(flow many 60)" 1 2 || fail "not balanced again"
    echo "$before -> $after, dialled after $dialled ms, in use after $used ms; machine $(counted machine); client $(counted lan)"
}

# The provider's side dies without a word: only LCP echoes and uplinkd's probes can tell.
trial_pppoe_silent() {
    local started gone
    ppp_and_ethernet
    stream machine fresh
    sleep 2
    started=$(date +%s%N)
    silent 1 on
    until_true 60 active eth2
    gone=$(since "$started")
    silent 1 off
    until_true 120 active eth2,ppp0
    echo "out of use after $gone ms; machine $(counted machine)"
}
