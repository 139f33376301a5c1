//! What is enforced, against whatever else would lead it out: only its own uplink, or none.

use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use uplinkd::core::net::Family;
use uplinkd::core::policy::running::{Claim, Claims};
use uplinkd::kernel::flows;

use super::*;

/// All to port 7 by the second uplink.
const SECOND: &str = "[[policy]]\nmatch.ports = 7\nmethod = 'enforced'\nuplinks = 'two'\n";

/// Counts what leaves by the first uplink for port 7.
fn count() {
    foreign(
        "add table inet count; add counter inet count out; \
         add chain inet count last { type filter hook postrouting priority 300; }; \
         add rule inet count last oifname wan1 meta l4proto { tcp, udp } th dport 7 counter name out",
    );
}

/// How many did.
fn leaked() -> u64 {
    let text = sh("nft list counter inet count out");
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

pub(crate) const fn tcp(probe: Probe) -> Probe {
    Probe { tcp: true, ..probe }
}

const ALL: [Probe; 8] = [LAN, LAN6, OWN, OWN6, tcp(LAN), tcp(LAN6), tcp(OWN), tcp(OWN6)];

/// None of these leaves by the first uplink, nor arrives.
fn none_leaks(net: &Net, what: &str) {
    for probe in ALL {
        let (start, by) = (Instant::now(), probe.goes_by(net));
        println!("{what}: {probe:?}: {by:?} after {:?}", start.elapsed());
        assert_eq!(by, None, "{what}: {probe:?}");
    }
    assert_eq!(leaked(), 0, "{what}: {}", sh("nft list table inet count"));
}

fn all_by(net: &Net, uplink: u8, what: &str) {
    for probe in ALL {
        assert_eq!(probe.goes_by(net), Some(uplink), "{what}: {probe:?}");
    }
}

#[test]
fn a_route_of_another_uplink_takes_nothing_that_is_enforced() {
    namespace::run("a_route_of_another_uplink_takes_nothing_that_is_enforced", &["nft"], || async {
        let net = router().await;
        count();
        load(&table(&configured(SECOND), |_| by(2))).await;
        all_by(&net, 2, "at first");
        // As DHCP's option 121 or an advertisement brings it.
        sh("ip route add 203.0.113.0/24 via 192.0.2.1");
        sh("ip route add 2001:db8:9::/64 via 2001:db8:1::1");
        none_leaks(&net, "a specific route");
        // While it is refused, and while nothing is known of its uplink.
        load(&table(&configured(SECOND), |_| Verdict::Refuse)).await;
        none_leaks(&net, "refused");
        load(&table(&configured(&SECOND.replace("two", "tow")), |_| Verdict::Refuse)).await;
        none_leaks(&net, "unknown");
        // What others need is let through, and what no policy is for.
        load(&table(&configured(&SECOND.replace('7', "8")), |_| by(2))).await;
        all_by(&net, 1, "another port");
    });
}

#[test]
fn nobody_on_the_link_of_another_uplink_is_near() {
    namespace::run("nobody_on_the_link_of_another_uplink_is_near", &["nft"], || async {
        let net = router().await;
        count();
        load(&table(&configured(SECOND), |_| by(2))).await;
        let try_all = |first: bool| {
            let to = if first {
                ["192.0.2.1:7", "[2001:db8:1::1]:7"]
            } else {
                ["198.51.100.1:7", "[2001:db8:2::1]:7"]
            };
            for to in to.map(|to| to.parse::<SocketAddr>().unwrap()) {
                let send = move || {
                    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
                    drop(UdpSocket::bind((any, 0)).unwrap().send_to(b"?", to));
                };
                net.lan.run(send);
                send();
            }
        };
        try_all(true);
        assert_eq!(leaked(), 0, "{}", sh("nft list table inet count"));
        foreign(
            "add rule inet count last oifname wan2 meta l4proto { tcp, udp } th dport 7 counter name out",
        );
        try_all(false);
        assert_eq!(leaked(), 4, "its own link is near");
        // Whoever is asked where its neighbours are still hears of it: else the other uplink would be lost.
        sh("ip -6 neigh flush dev wan1");
        load(&table(
            &configured(
                "[[policy]]\nmatch.to = ['0.0.0.0/0', '::/0']\nmethod = 'enforced'\nuplinks = 'two'\n",
            ),
            |_| by(2),
        ))
        .await;
        for name in ["wan1", "wan2"] {
            let socket = Socket::from(UdpSocket::bind("[::]:0").unwrap());
            socket.set_mark(slot(1).mark().value()).unwrap();
            let to: SocketAddr =
                if name == "wan1" { "[2001:db8:1::1]:9" } else { "[2001:db8:2::1]:9" }.parse().unwrap();
            let start = Instant::now();
            while !sh(&format!("ip -6 neigh show dev {name}")).contains("REACHABLE") {
                assert!(start.elapsed() < 4 * PATIENCE, "{}", sh("ip -6 neigh"));
                drop(socket.send_to(b"?", &to.into()));
            }
        }
    });
}

/// Sends the end of a connection that nobody knows.
fn send_reset(from: Option<&str>, to: &str) {
    let to: IpAddr = to.parse().unwrap();
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP)).unwrap();
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
    }
    assert!(socket.as_raw_fd() > 0);
    let mut header = [0u8; 20];
    header[..4].copy_from_slice(&[0x30, 0x39, 0, 7]);
    // Five words long, RST.
    header[12..14].copy_from_slice(&[0x50, 4]);
    drop(socket.send_to(&header, &SocketAddr::new(to, 0).into()));
}

#[test]
fn what_conntrack_does_not_know_is_held_as_well() {
    namespace::run("what_conntrack_does_not_know_is_held_as_well", &["nft"], || async {
        let net = router().await;
        count();
        sh("ip address add 2001:db8:77::1/64 dev lan nodad");
        net.lan.sh(&["ip address add 2001:db8:77::9/64 dev eth nodad"]);
        let send_all = || {
            net.lan.run(|| send_reset(Some("2001:db8:77::9"), "2001:db8:9::1"));
            send_reset(None, "203.0.113.1");
            send_reset(None, "2001:db8:9::1");
        };
        load(&table(&configured(&SECOND.replace('7', "8")), |_| by(2))).await;
        send_all();
        assert_eq!(leaked(), 3, "no policy is for them");
        foreign("reset counter inet count out");
        load(&table(&configured(SECOND), |_| by(2))).await;
        send_all();
        assert_eq!(leaked(), 0, "invalid: {}", sh("nft list table inet count"));
        foreign(
            "add table inet raw; \
             add chain inet raw behind { type filter hook prerouting priority raw; }; \
             add rule inet raw behind meta l4proto { tcp, udp } th dport 7 notrack; \
             add chain inet raw here { type filter hook output priority raw; }; \
             add rule inet raw here meta l4proto { tcp, udp } th dport 7 notrack",
        );
        none_leaks(&net, "untracked");
    });
}

#[test]
fn a_rule_by_interface_leads_nothing_past_a_policy() {
    namespace::run("a_rule_by_interface_leads_nothing_past_a_policy", &["nft"], || async {
        let net = router().await;
        count();
        for (family, gateway) in [("-4", "192.0.2.1"), ("-6", "2001:db8:1::1")] {
            sh(&format!("ip {family} route add default via {gateway} table 200"));
            sh(&format!("ip {family} rule add pref 6000 iif lan lookup 200"));
        }
        load(&table(&configured(SECOND), |_| by(2))).await;
        for probe in [LAN, LAN6, tcp(LAN), tcp(LAN6)] {
            assert_eq!(probe.goes_by(&net), None, "{probe:?}");
        }
        assert_eq!(leaked(), 0, "{}", sh("nft list table inet count"));
        // What is not enforced is left to the rule, wherever that leads; the rest of the interface's traffic is not touched.
        let ruled = [Family::V4, Family::V6].map(|family| (family, name("lan"))).into();
        let known = Surroundings { ruled, ..around() };
        for (text, verdict) in [
            (SECOND.replace("method = 'enforced'", ""), by(2)),
            (SECOND.replace("method = 'enforced'", "on-failure = 'block'"), Verdict::Refuse),
            (SECOND.replace("7", "8"), by(2)),
        ] {
            load(&table_amid(&known, &configured(&text), |_| verdict.clone())).await;
            for probe in [LAN, LAN6, tcp(LAN), tcp(LAN6)] {
                assert_eq!(probe.goes_by(&net), Some(1), "{text}: {probe:?}");
            }
        }
        foreign("reset counter inet count out");
        load(&table_amid(&known, &configured(SECOND), |_| by(2))).await;
        for probe in [LAN, LAN6, tcp(LAN), tcp(LAN6)] {
            assert_eq!(probe.goes_by(&net), None, "{probe:?}");
        }
        assert_eq!(leaked(), 0, "{}", sh("nft list table inet count"));
    });
}

#[test]
fn a_machine_that_is_no_router_moves_its_own_traffic_alone() {
    let title = "a_machine_that_is_no_router_moves_its_own_traffic_alone";
    namespace::run(title, &["nft"], || async {
        let net = router().await;
        let alone = Surroundings { forwarded: false, ..around() };
        for verdict in [by(2), Verdict::Refuse] {
            load(&table_amid(&alone, &configured(SECOND), |_| verdict.clone())).await;
            for probe in [LAN, LAN6, tcp(LAN), tcp(LAN6)] {
                assert_eq!(probe.goes_by(&net), Some(1), "{probe:?}");
            }
            for probe in [OWN, OWN6, tcp(OWN), tcp(OWN6)] {
                let wanted = (verdict == by(2)).then_some(2);
                assert_eq!(probe.goes_by(&net), wanted, "{probe:?}");
            }
        }
    });
}

#[test]
fn what_was_taken_out_of_the_table_comes_back() {
    namespace::run("what_was_taken_out_of_the_table_comes_back", &["nft"], || async {
        let net = router().await;
        let config = configured(
            "[[policy]]\nmatch.to = ['203.0.113.0/24', '2001:db8:9::/64']\nmethod = 'enforced'\nuplinks = 'two'\n",
        );
        let (first, other) = (table(&config, |_| by(2)), table(&config, |_| Verdict::Refuse));
        load(&first).await;
        all_by(&net, 2, "at first");
        // The same text over it, and another that has the same prefixes.
        foreign("flush map inet uplinkd_policy to_4_0");
        load(&first).await;
        all_by(&net, 2, "an empty map");
        foreign("delete element inet uplinkd_policy to_6_0 { 2001:db8:9::-2001:db8:9::ffff:ffff:ffff:ffff }");
        load(&other).await;
        assert_eq!(LAN6.goes_by(&net), None, "a lost element");
        load(&first).await;
        all_by(&net, 2, "and back");
        foreign("flush table inet uplinkd_policy; delete map inet uplinkd_policy from_4_0");
        load(&first).await;
        all_by(&net, 2, "without rules and a map");
    });
}

#[test]
fn what_is_refused_is_told_and_never_leaks() {
    namespace::run("what_is_refused_is_told_and_never_leaks", &["nft"], || async {
        let net = router().await;
        let text = "[[policy]]\nmatch.ports = 7\nmethod = 'enforced'\nuplinks = 'two'\n";
        let config = configured(text);
        foreign(
            "add table inet count; add chain inet count out { type filter hook postrouting priority 300; }; \
             add rule inet count out oifname wan1 udp dport 7 counter; \
             add rule inet count out oifname wan1 tcp dport 7 counter",
        );
        let tcp = |probe| Probe { tcp: true, ..probe };
        let all = [LAN, LAN6, OWN, OWN6];
        let marked = || {
            let socket = socket2::Socket::from(UdpSocket::bind("0.0.0.0:0").unwrap());
            socket.set_mark(0x10).unwrap();
            socket.send_to(b"?", &"203.0.113.1:7".parse::<SocketAddr>().unwrap().into()).unwrap();
        };
        let counted = || sh("nft list chain inet count out").matches("packets 0 ").count();
        load(&table(&config, |_| Verdict::Refuse)).await;
        for probe in all {
            assert_eq!(probe.goes_by(&net), None, "{probe:?}");
            let start = Instant::now();
            assert_eq!(tcp(probe).goes_by(&net), None, "{probe:?}");
            assert!(start.elapsed() < PATIENCE / 2, "{probe:?} was not told for {:?}", start.elapsed());
        }
        assert_eq!(counted(), 2, "{}", sh("nft list table inet count"));
        // The daemon is dead, and the uplink as well: its table leads nowhere, and a rule refuses.
        load(&table(&config, |_| by(2))).await;
        for family in ["-4", "-6"] {
            sh(&format!("ip {family} rule add pref 7199 fwmark {} unreachable", slot(2).mark()));
        }
        for probe in all {
            assert_eq!(probe.goes_by(&net), Some(2), "{probe:?}");
        }
        sh("ip link set wan2 down");
        for probe in [all, all.map(tcp)].concat() {
            assert_eq!(probe.goes_by(&net), None, "{probe:?}");
        }
        assert_eq!(counted(), 2, "{}", sh("nft list table inet count"));
        // What others marked is not ours; nor what is on the LAN.
        marked();
        assert_eq!(counted(), 1, "{}", sh("nft list table inet count"));
        let near = net.lan.run(|| UdpSocket::bind("10.1.0.9:7").unwrap());
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"?", "10.1.0.9:7").unwrap();
        near.recv_from(&mut [0; 8]).expect("the LAN is near");
    });
}

#[test]
fn what_runs_elsewhere_when_something_is_enforced_does_not_go_on_there() {
    let title = "what_runs_elsewhere_when_something_is_enforced_does_not_go_on_there";
    namespace::run(title, &["nft"], || async {
        let net = router().await;
        count();
        // Behind the machine without NAT as well.
        sh("ip address add 2001:db8:77::1/64 dev lan nodad");
        net.lan.sh(&["ip address add 2001:db8:77::9/64 dev eth nodad"]);
        net.isps[0].sh(&["ip route add 2001:db8:77::/64 via 2001:db8:1::2"]);
        net.server.sh(&["ip route add 2001:db8:77::/64 via 2001:db8:11::1"]);
        let clients: [(bool, &str, &str); 5] = [
            (true, "10.1.0.9:0", "203.0.113.1:7"),
            (true, "[fd00::9]:0", "[2001:db8:9::1]:7"),
            (true, "[2001:db8:77::9]:0", "[2001:db8:9::1]:7"),
            (false, "0.0.0.0:0", "203.0.113.1:7"),
            (false, "[::]:0", "[2001:db8:9::1]:7"),
        ];
        let mut held = Vec::new();
        for (behind, near, to) in clients {
            let (near, to): (SocketAddr, SocketAddr) = (near.parse().unwrap(), to.parse().unwrap());
            let server = net.server.run(move || bound(to, TcpListener::bind));
            let connect = move || {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
                socket.bind(&near.into()).unwrap();
                socket.connect_timeout(&to.into(), PATIENCE).unwrap();
                TcpStream::from(socket)
            };
            let client = if behind { net.lan.run(connect) } else { connect() };
            let far = server.accept().unwrap().0;
            far.set_read_timeout(Some(SILENCE)).unwrap();
            held.push((client, far));
        }
        load(&table(&configured(SECOND), |_| by(2))).await;
        for (near, far) in &mut held {
            std::io::Write::write_all(near, b"x").unwrap();
            far.read_exact(&mut [0]).unwrap();
        }
        assert!(leaked() > 0, "they ran on");
        let claims = Claims {
            policies: vec![Claim {
                traffic: configured(SECOND).policies[0].traffic.clone(),
                in_force: PerFamily { v4: true, v6: true },
                enforces: Some(Some(slot(2))),
            }],
            own: ["192.0.2.2", "2001:db8:1::2"].map(|ip| ip.parse().unwrap()).into(),
            behind: ["10.1.0.0/24", "fd00::/64", "2001:db8:77::/64"].map(|net| net.parse().unwrap()).into(),
        };
        for family in Family::BOTH {
            let released = flows::claim(family, &claims).await;
            println!("{family}: {released:?}");
            assert!(released.problems.is_empty() && released.evicted > 0, "{released:?}");
        }
        // What comes in for one that is forgotten is answered with a reset by this machine.
        foreign(
            "flush chain inet count last; \
             add rule inet count last oifname wan1 tcp dport 7 tcp flags & rst == 0 counter name out",
        );
        let before = leaked();
        for (near, far) in &mut held {
            drop(std::io::Write::write_all(near, b"x"));
            // The far end speaks first, too.
            drop(std::io::Write::write_all(far, b"y"));
            // Nobody can change where an end of it is; what has no NAT may live on by the other uplink.
            let goes_on = far.read_exact(&mut [0]).is_ok();
            let address = near.local_addr().unwrap().ip().to_string();
            assert!(!(goes_on && ["10.1.0.9", "fd00::9"].contains(&address.as_str())), "{near:?} goes on");
        }
        assert_eq!(leaked(), before, "{}", sh("nft list table inet count"));
        assert_eq!(tcp(LAN).goes_by(&net), Some(2), "what is new");
    });
}
