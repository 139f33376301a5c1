# IPsec by policies, without an interface of its own: what a branch's network is sent keeps its source, or it would leave
# in clear. The keys are set by hand, as a daemon like strongSwan's would.

tidy() {
    ip xfrm policy flush
    ip xfrm state flush
    rm -f /run/pings
}

# at WHERE WORDS...: ip, in a namespace or on the machine.
at() {
    if [ "$1" = machine ]; then ip "${@:2}"; else ip -n "$@"; fi
}

# key BYTES: so many, in hexadecimal digits.
key() {
    od -An -v -tx1 -N"$1" /dev/zero | tr -d ' \n' | sed 's/^/0x/'
}

# association WHERE SOURCE DESTINATION SPI
association() {
    at "$1" xfrm state add src "$2" dst "$3" proto esp spi "$4" mode tunnel \
        auth 'hmac(sha256)' "$(key 32)" enc 'cbc(aes)' "$(key 16)"
}

# through WHERE DIRECTION SOURCE DESTINATION OUTER_SOURCE OUTER_DESTINATION
through() {
    at "$1" xfrm policy add dir "$2" src "$3" dst "$4" tmpl src "$5" dst "$6" proto esp mode tunnel
}

# The branch, 10.88.0.0/24 behind 198.51.100.50; it sees the first ISP's address, which that one translates.
branch() {
    local near=10.77.0.0/24 far=10.88.0.0/24
    ip netns add branch
    ip -n branch link add wan type veth peer name branch netns internet
    ip -n internet link set branch master core up
    ip -n branch link set lo up
    ip -n branch addr add 10.88.0.1/32 dev lo
    ip -n branch addr add 198.51.100.50/24 dev wan
    ip -n branch link set wan up
    ip -n branch route add default via 198.51.100.1
    association machine 192.168.1.10 198.51.100.50 0x100
    association machine 198.51.100.50 192.168.1.10 0x200
    through machine out $near $far 192.168.1.10 198.51.100.50
    through machine fwd $far $near 198.51.100.50 192.168.1.10
    through machine in $far $near 198.51.100.50 192.168.1.10
    association branch 192.168.1.10 198.51.100.50 0x100
    association branch 198.51.100.50 198.51.100.1 0x200
    through branch out $far $near 198.51.100.50 198.51.100.1
    through branch in $near $far 192.168.1.10 198.51.100.50
}

# counting N: the ISP counts what comes by in clear, and what is encrypted.
counting() {
    ip netns exec "isp$1" nft -f - <<-'END'
	table ip seen {
	    counter clear { }
	    counter encrypted { }
	    chain counted {
	        type filter hook prerouting priority -300
	        ip daddr 10.88.0.0/24 counter name clear
	        iifname lan meta l4proto esp counter name encrypted
	    }
	}
	END
}

# seen N WHAT: how many packets.
seen() {
    ip netns exec "isp$1" nft list counter ip seen "$2" | sed -nE 's/.*packets ([0-9]+).*/\1/p'
}

trial_ipsec_by_policy_is_not_translated() {
    local number answers figures
    internet
    for number in 1 2; do
        isp $number
        by_hand $number $((100 + number))
        counting $number
    done
    client
    branch
    uplinkd_with eth1,eth2
    nft list chain inet uplinkd masquerade_private >/dev/null || fail "nothing is translated"
    for number in {1..10}; do
        ip netns exec client ping -c 2 -i 0.2 -W 2 10.88.0.1 >>/run/pings || true
        ping -I 10.77.0.1 -c 2 -i 0.2 -W 2 10.88.0.1 >>/run/pings || true
    done
    answers=$(grep -c 'bytes from 10.88.0.1' /run/pings || true)
    figures="answers: $answers of 40; encrypted: $(seen 1 encrypted) and $(seen 2 encrypted); in clear: $(seen 1 clear) and $(seen 2 clear)"
    [ "$(seen 1 clear)" = 0 ] && [ "$(seen 2 clear)" = 0 ] && [ "$answers" -ge 38 ] || fail "$figures"
    echo "$figures"
}
