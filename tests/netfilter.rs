//! Our nft table, its generation, its watch and the adoption of flows, on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod namespace;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use namespace::{Neighbour, nft as foreign, sh};
use socket2::{Domain, Socket, Type};
use tokio::time::timeout;
use uplinkd::core::forward::{PortForward, Protocol};
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{IfName, Mark, PerFamily, Weight};
use uplinkd::core::nft::{
    Door, Firewall, Forwards, Generation, Groups, Others, Pair, Ruleset, Steered, TABLE, Translation,
};
use uplinkd::kernel::conntrack::adopt;
use uplinkd::kernel::nfnl::{Watch, loaded};
use uplinkd::kernel::nft;

fn ruleset(uplinks: &[(&str, u8)]) -> Ruleset {
    let uplink = |&(name, slot): &(&str, u8)| (IfName::new(name).unwrap(), Slot::new(slot).unwrap());
    Ruleset { uplinks: uplinks.iter().map(uplink).collect(), ..Ruleset::default() }
}

/// Everything that can be said of IPv6 sources.
fn translation() -> Translation {
    let pair = |inside: &str, outside: &str, inbound| Pair {
        inside: inside.parse().unwrap(),
        outside: outside.parse().unwrap(),
        inbound,
    };
    Translation {
        own: ["2001:db8:1::/64", "2001:db8:a:a00::/56"].map(|net| net.parse().unwrap()).to_vec(),
        pairs: vec![
            pair("fd01::/64", "2001:db8:a:a01::/64", true),
            pair("2001:db8:b:1::/64", "2001:db8:a:a02::/64", false),
        ],
        others: Others::All,
    }
}

/// The same with all that can be said of a router.
fn router(plain: Ruleset) -> Ruleset {
    let names: Vec<IfName> = plain.uplinks.iter().map(|(name, _)| name.clone()).collect();
    let web = PortForward {
        protocol: Protocol::Both,
        ports: "80".parse().unwrap(),
        to: "10.1.0.9:81".parse().unwrap(),
    };
    let door = |(n, (device, slot)): (u8, &(IfName, Slot))| Door {
        slot: *slot,
        device: device.clone(),
        addresses: vec![IpAddr::from([192, 0, 2, n])],
        forwards: vec![web],
    };
    let shares =
        PerFamily::from_fn(|_| plain.uplinks.iter().map(|(_, slot)| (*slot, Weight::default())).collect());
    let groups = Groups {
        uplinks: names.clone(),
        members: names.iter().cloned().collect(),
        pairs: names.iter().map(|name| (name.clone(), names[0].clone())).collect(),
        steered: names.iter().map(|lan| Steered { lan: lan.clone(), shares: shares.clone() }).collect(),
    };
    let allow = ["tcp:22", "udp:5000-5010", "esp"].map(|text| text.parse().unwrap()).to_vec();
    Ruleset {
        forwards: Forwards { doors: (1..).zip(&plain.uplinks).map(door).collect(), lans: names.clone() },
        groups,
        firewall: Some(Firewall { uplinks: names.clone(), allow, log: true, lans: names }),
        ..plain
    }
}

fn mark(slot: u8) -> Mark {
    Slot::new(slot).unwrap().mark()
}

#[test]
fn rulesets_of_every_size_load_and_load_again() {
    namespace::run("rulesets_of_every_size_load_and_load_again", &["nft"], || async {
        let odd =
            ["wan.7", "veth@x", "a:b", "br-lan", "x%d!~^?=+[]", "-foo", "1", "table", "15-byte-long-nm"];
        for count in [1, 2, 63] {
            let plain = (odd.len()..).map(|n| format!("ppp{n}"));
            let names: Vec<_> = odd.map(String::from).into_iter().chain(plain).take(count).collect();
            let uplinks: Vec<_> = names.iter().map(String::as_str).zip(1..).collect();
            // All that only some machines need, as well.
            let narrow = uplinks.iter().map(|(name, n)| (IfName::new(name).unwrap(), 1280 + u32::from(*n)));
            let plain = ruleset(&uplinks);
            let nat6 = plain.uplinks.iter().map(|(_, slot)| (*slot, translation())).collect();
            let ruleset = Ruleset { nat6, narrow: narrow.collect(), restore_own: true, ..router(plain) };
            nft::drop_table(TABLE).await.unwrap();
            nft::check(&ruleset.text()).await.unwrap();
            assert_eq!(loaded().await.unwrap().ruleset, None, "a check changes nothing");
            nft::load(&ruleset.text()).await.unwrap();
            assert_eq!(loaded().await.unwrap().ruleset, Some(ruleset.generation()));
            let listed = sh("nft list ruleset");
            nft::load(&ruleset.text()).await.unwrap();
            assert_eq!(sh("nft list ruleset"), listed);
        }
        nft::load(&ruleset(&[("a", 1)]).text()).await.unwrap();
        assert_eq!(loaded().await.unwrap().ruleset, Some(ruleset(&[("a", 1)]).generation()));
        nft::drop_table(TABLE).await.unwrap();
        nft::drop_table(TABLE).await.unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn a_refused_ruleset_changes_nothing_and_says_why() {
    namespace::run("a_refused_ruleset_changes_nothing_and_says_why", &["nft"], || async {
        let good = ruleset(&[("a", 1)]);
        nft::load(&good.text()).await.unwrap();
        let bad = format!("delete table inet uplinkd\nfoo {}\n", "x ".repeat(1 << 20));
        for result in [nft::load(&bad).await, nft::check(&bad).await] {
            let error = result.unwrap_err();
            let nft::Error::Refused { complaint, .. } = &error else { panic!("{error}") };
            assert!(complaint.contains("syntax error") && complaint.len() <= 2048, "{error}");
        }
        assert_eq!(loaded().await.unwrap().ruleset, Some(good.generation()));
    });
}

#[test]
fn a_table_that_is_not_ours_is_another_generation() {
    namespace::run("a_table_that_is_not_ours_is_another_generation", &["nft"], || async {
        let marker = ruleset(&[("a", 1)]).generation().chain();
        foreign(&format!("add table ip uplinkd; add chain ip uplinkd {marker}"));
        foreign(&format!("add table inet uplinkd2; add chain inet uplinkd2 {marker}"));
        assert_eq!(loaded().await.unwrap().ruleset, None);
        foreign("add table inet uplinkd; add chain inet uplinkd x; add rule inet uplinkd x accept");
        assert_eq!(loaded().await.unwrap().ruleset, Some(Generation::UNKNOWN));
        foreign(&format!("add chain inet uplinkd {marker}"));
        let generation = loaded().await.unwrap().ruleset;
        assert_eq!(generation, Generation::of_chain(&marker, 1), "our marker and one rule");
        assert!(!generation.unwrap().serves(ruleset(&[("a", 1)]).generation()));
        foreign("add chain inet uplinkd generation_0123456789abcdef");
        assert_eq!(loaded().await.unwrap().ruleset, Some(Generation::UNKNOWN));
        // More than one datagram holds.
        let chains: String =
            (0..2000).map(|n| format!("add chain inet uplinkd2 chain_number_{n}\n")).collect();
        nft::load(&chains).await.unwrap();
        nft::load(&ruleset(&[("b", 2)]).text()).await.unwrap();
        assert_eq!(loaded().await.unwrap().ruleset, Some(ruleset(&[("b", 2)]).generation()));
    });
}

#[test]
fn a_table_without_its_rules_is_another_generation() {
    namespace::run("a_table_without_its_rules_is_another_generation", &["nft"], || async {
        const SOON: Duration = Duration::from_millis(100);
        let ours = ruleset(&[("a", 1), ("b", 2)]);
        let mut watch = Watch::open().unwrap();
        // Chains with a hook, and those that others jump to: these are still used when they are empty.
        let chains = ["restore", "masquerade_private", "slot_1", "nat6_2", "reset_evicted", "came_in_by"];
        let mut flushed = chains.map(|chain| format!("chain inet uplinkd {chain}")).to_vec();
        flushed.push("table inet uplinkd".to_owned());
        for flush in flushed {
            nft::load(&ours.text()).await.unwrap();
            while timeout(SOON, watch.next()).await.is_ok() {}
            assert_eq!(loaded().await.unwrap().ruleset, Some(ours.generation()));
            foreign("add rule inet uplinkd restore counter");
            assert!(loaded().await.unwrap().ruleset.unwrap().serves(ours.generation()), "more is no loss");
            nft::load(&ours.text()).await.unwrap();
            while timeout(SOON, watch.next()).await.is_ok() {}
            foreign(&format!("flush {flush}"));
            timeout(SOON, watch.next()).await.expect("it is heard").unwrap();
            let left = loaded().await.unwrap().ruleset.unwrap();
            assert!(!left.serves(ours.generation()), "{flush}: {left:?}");
        }
    });
}

#[test]
fn the_watch_hears_of_our_table_alone() {
    namespace::run("the_watch_hears_of_our_table_alone", &["nft"], || async {
        const SOON: Duration = Duration::from_millis(100);
        let mut watch = Watch::open().unwrap();
        nft::load(&ruleset(&[("a", 1)]).text()).await.unwrap();
        timeout(SOON, watch.next()).await.expect("a load is heard").unwrap();
        while timeout(SOON, watch.next()).await.is_ok() {}
        foreign("add table inet other; add set inet other s { type ipv4_addr; }; add chain inet other c");
        foreign("add element inet other s { 192.0.2.1, 192.0.2.2 }; add rule inet other c accept");
        foreign("delete table inet other; add table ip uplinkd; delete table ip uplinkd");
        assert!(timeout(SOON, watch.next()).await.is_err(), "foreign changes are not");
        sh("nft flush ruleset");
        timeout(SOON, watch.next()).await.expect("a flush is heard").unwrap();
        while timeout(SOON, watch.next()).await.is_ok() {}
        let chains: String = (0..20_000).map(|n| format!("add chain inet other c{n}\n")).collect();
        nft::load(&format!("add table inet other\n{chains}")).await.unwrap();
        timeout(SOON, watch.next()).await.expect("lost news may have been of ours").unwrap();
    });
}

/// The mark of every flow, by the original destination port (the id of a ping, the key of a GRE flow).
fn marks() -> BTreeMap<String, u32> {
    let word = |line: &str, key: &str| line.split(' ').find_map(|w| w.strip_prefix(key).map(str::to_owned));
    (sh("conntrack -L -f ipv4") + &sh("conntrack -L -f ipv6"))
        .lines()
        .map(|line| {
            let port = word(line, "dport=").or_else(|| word(line, "id=")).or_else(|| word(line, "srckey="));
            (port.unwrap(), word(line, "mark=").unwrap().parse().unwrap())
        })
        .collect()
}

#[test]
fn running_flows_are_adopted_by_address() {
    namespace::run("running_flows_are_adopted_by_address", &["conntrack", "nft", "ping"], || async {
        let tcp = "-p tcp --state ESTABLISHED -t 300 --sport 5000";
        for flow in [
            // Out of the LAN, masqueraded, with foreign bits in its mark.
            "-s 10.1.0.9 -d 203.0.113.1 --src-nat 192.0.2.2 --dport 1 --mark 0x80000005",
            // Of this machine.
            "-s 192.0.2.2 -d 203.0.113.1 --dport 2",
            // In to this machine; in to a port that is forwarded.
            "-s 203.0.113.1 -d 192.0.2.2 --dport 3",
            "-s 203.0.113.1 -d 192.0.2.2 --dst-nat 10.1.0.9 --dport 4",
            // By another uplink; by none; with our bits already.
            "-s 10.1.0.9 -d 203.0.113.1 --src-nat 198.51.100.2 --dport 5",
            "-s 10.1.0.9 -d 203.0.113.1 --dport 6 --mark 5",
            "-s 192.0.2.2 -d 203.0.113.1 --dport 7 --mark 0x07000001",
            // To an address of ours that is only its source or destination on the far side.
            "-s 10.1.0.9 -d 203.0.113.1 --dst-nat 192.0.2.2 --dport 8",
            // In a zone; and the same flow outside of it, by which it could be confused.
            "-s 192.0.2.2 -d 203.0.113.1 --dport 9 -w 7 --mark 6",
            "-s fd00::9 -d 2001:db8:9::1 --src-nat 2001:db8:1::2 --dport 10 --mark 9",
            "-s fd00::9 -d 2001:db8:9::1 --dport 11",
        ] {
            sh(&format!("conntrack -I {tcp} {flow}"));
        }
        sh("conntrack -I -p gre --srckey 12 --dstkey 12 -s 192.0.2.2 -d 203.0.113.2 -t 300 --mark 1");
        // The tool cannot make this one.
        foreign(
            "add table ip t; add chain ip t c { type filter hook output priority 0; }; add rule ip t c ct state new",
        );
        sh("ping -c 1 -e 13 127.0.0.1");
        let owners = [
            ("192.0.2.2".parse::<IpAddr>().unwrap(), mark(1)),
            ("198.51.100.2".parse().unwrap(), mark(63)),
            ("2001:db8:1::2".parse().unwrap(), mark(1)),
            ("127.0.0.1".parse().unwrap(), mark(2)),
        ];
        assert_eq!(adopt(&[]).await.unwrap(), 0);
        assert_eq!(adopt(&owners).await.unwrap(), 9);
        let marks = marks();
        let expected = [
            ("1", 0x8100_0005),
            ("2", 0x0100_0000),
            ("3", 0x0100_0000),
            ("4", 0x0100_0000),
            ("5", 0x3f00_0000),
            ("6", 5),
            ("7", 0x0700_0001),
            ("8", 0),
            ("9", 0x0100_0006),
            ("10", 0x0100_0009),
            ("11", 0),
            ("0xc", 0x0100_0001),
            ("13", 0x0200_0000),
        ];
        for (port, mark) in expected {
            assert_eq!(marks[port], mark, "flow {port}: {:#x}", marks[port]);
        }
        assert_eq!(adopt(&owners).await.unwrap(), 0, "what has our bits is left alone");
        let zone = sh("conntrack -L -w 7");
        assert!(zone.contains("dport=9") && zone.lines().count() == 1, "{zone}");
    });
}

/// A router with the uplinks `wan.1` and `wan.2`, the same provider at both, and a LAN.
fn two_uplinks() -> (Neighbour, Neighbour) {
    let (isp, lan) = (Neighbour::new(), Neighbour::new());
    for line in [
        format!("ip link add wan.1 type veth peer name one netns {}", isp.tid),
        format!("ip link add wan.2 type veth peer name two netns {}", isp.tid),
        format!("ip link add lan type veth peer name eth netns {}", lan.tid),
    ] {
        sh(&line);
    }
    for line in [
        "address add 192.0.2.2/24 dev wan.1",
        "address add 192.168.77.2/24 dev wan.1",
        "address add 2001:db8:1::2/64 dev wan.1 nodad",
        "address add 198.51.100.2/24 dev wan.2",
        "address add 10.1.0.1/24 dev lan",
        "address add fd00::1/64 dev lan nodad",
        "link set wan.1 up",
        "link set wan.2 up",
        "link set lan up",
        "route add default via 192.0.2.1",
        "route add default via 2001:db8:1::1",
        "route add 198.18.0.0/24 dev lan",
    ] {
        sh(&format!("ip {line}"));
    }
    sh("sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    isp.sh(&[
        "ip address add 192.0.2.1/24 dev one",
        "ip address add 2001:db8:1::1/64 dev one nodad",
        "ip address add 198.51.100.1/24 dev two",
        "ip address add 203.0.113.1/32 dev lo",
        "ip address add 2001:db8:9::1/128 dev lo nodad",
        "ip link set one up",
        "ip link set two up",
        "ip route add default via 192.0.2.2",
    ]);
    lan.sh(&[
        "ip address add 10.1.0.9/24 dev eth",
        "ip address add 198.18.0.9/24 dev eth",
        "ip address add fd00::9/64 dev eth nodad",
        "ip address add fd01::9/64 dev eth nodad",
        "ip address add 2001:db8:a:a00::9/64 dev eth nodad",
        "ip address add 2001:db8:b:1::9/64 dev eth nodad",
        "ip address add 2001:db8:b:2::9/64 dev eth nodad",
        "ip link set eth up",
        "ip route add default via 10.1.0.1",
        "ip route add default via fd00::1",
    ]);
    (isp, lan)
}

#[test]
fn flows_get_marks_and_addresses() {
    namespace::run("flows_get_marks_and_addresses", &["nft", "ip", "conntrack"], || async {
        let (isp, lan) = two_uplinks();
        let nat6 = BTreeMap::from([(Slot::new(1).unwrap(), translation())]);
        nft::load(&Ruleset { nat6, ..ruleset(&[("wan.1", 1), ("wan.2", 3)]) }.text()).await.unwrap();
        // Somebody else's bits in every flow, and a tunnel's mark on the packets to one port.
        for hook in ["prerouting", "output"] {
            foreign(&format!(
                "add table inet other; add chain inet other {hook} {{ type filter hook {hook} priority -160; }}; \
                 add rule inet other {hook} ct mark set ct mark | 0x80000005; \
                 add rule inet other {hook} udp dport 1006 meta mark set 0xca6c"
            ));
        }
        let seen = |from: Option<&Neighbour>, source: &str, to: &str| {
            let target: SocketAddr = to.parse().unwrap();
            let server = isp.run(move || UdpSocket::bind(target).unwrap());
            server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let source = source.parse::<IpAddr>().unwrap();
            let send = move || UdpSocket::bind((source, 0)).unwrap().send_to(b"?", target).map(drop);
            from.map_or_else(send, |from| from.run(send)).unwrap();
            server.recv_from(&mut [0; 8]).unwrap().1.ip().to_string()
        };
        // From the LAN: private and ULA sources are masqueraded, public ones routed as they are.
        assert_eq!(seen(Some(&lan), "10.1.0.9", "203.0.113.1:1001"), "192.0.2.2");
        assert_eq!(seen(Some(&lan), "fd00::9", "[2001:db8:9::1]:1002"), "2001:db8:1::2");
        assert_eq!(seen(Some(&lan), "198.18.0.9", "203.0.113.1:1003"), "198.18.0.9");
        // Of global IPv6 sources only those of the uplink's own prefixes; or prefix by prefix, host by host.
        assert_eq!(seen(Some(&lan), "2001:db8:a:a00::9", "[2001:db8:9::1]:1008"), "2001:db8:a:a00::9");
        assert_eq!(seen(Some(&lan), "fd01::9", "[2001:db8:9::1]:1009"), "2001:db8:a:a01::9");
        assert_eq!(seen(Some(&lan), "2001:db8:b:1::9", "[2001:db8:9::1]:1010"), "2001:db8:a:a02::9");
        assert_eq!(seen(Some(&lan), "2001:db8:b:2::9", "[2001:db8:9::1]:1011"), "2001:db8:1::2");
        // From here: an address of the interface stays, private or not; another interface's goes.
        assert_eq!(seen(None, "192.168.77.2", "203.0.113.1:1004"), "192.168.77.2");
        assert_eq!(seen(None, "198.51.100.2", "203.0.113.1:1005"), "192.0.2.2");
        assert_eq!(seen(None, "192.0.2.2", "203.0.113.1:1006"), "192.0.2.2");
        // In by the second.
        let server = UdpSocket::bind("198.51.100.2:1007").unwrap();
        isp.run(|| UdpSocket::bind("198.51.100.1:0").unwrap().send_to(b"?", "198.51.100.2:1007").map(drop))
            .unwrap();
        server.recv_from(&mut [0; 8]).unwrap();
        let marks = marks();
        for port in ["1001", "1002", "1003", "1004", "1005"] {
            assert_eq!(marks[port], 0x8100_0005, "flow {port}: {:#x}", marks[port]);
        }
        assert_eq!(marks["1006"], 0x8000_0005, "a packet with a foreign mark: {:#x}", marks["1006"]);
        assert_eq!(marks["1007"], 0x8300_0005, "{:#x}", marks["1007"]);
    });
}

/// Conntrack knows nothing of it, so nobody translates it.
#[test]
fn what_belongs_to_no_connection_leaves_with_no_private_address() {
    let name = "what_belongs_to_no_connection_leaves_with_no_private_address";
    namespace::run(name, &["nft", "ip", "conntrack"], || async {
        let (isp, lan) = two_uplinks();
        nft::load(&ruleset(&[("wan.1", 1), ("wan.2", 3)]).text()).await.unwrap();
        isp.sh(&[
            "nft add table inet seen",
            "nft add chain inet seen every { type filter hook prerouting priority raw; }",
        ]);
        isp.sh(&[
            "nft add rule inet seen every ip saddr 10.0.0.0/8 counter",
            "nft add rule inet seen every ip6 saddr fd00::/8 counter",
        ]);
        // The last, whose address nobody translates, tells that all of this arrives where nobody minds.
        let of_lan = ["10.1.0.9", "fd00::9", "198.18.0.9"];
        for (from, to) in
            of_lan.into_iter().zip(["203.0.113.1:2001", "[2001:db8:9::1]:2002", "203.0.113.1:2003"])
        {
            let (from, to): (IpAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let server = isp.run(move || TcpListener::bind(to).unwrap());
            let client = lan.run(move || {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
                socket.connect(&to.into()).map(|()| socket).unwrap()
            });
            let (mut accepted, _) = server.accept().unwrap();
            sh("conntrack -F");
            // Closed this way it sends a reset, and a reset begins no connection.
            client.set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            if from == IpAddr::from([198, 18, 0, 9]) {
                assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
        }
        let seen = isp.run(|| foreign("list chain inet seen every"));
        assert_eq!(seen.matches("counter packets 0 ").count(), 2, "{seen}");
    });
}
