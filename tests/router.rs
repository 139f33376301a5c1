//! What is rewritten for hosts behind the machine, on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod namespace;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use namespace::router::{Net, lead_out_by, net};
use namespace::{Neighbour, sh};
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use uplinkd::core::forward::{PortForward, Protocol};
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{IfName, PerFamily, Weight};
use uplinkd::core::nft::{Door, Firewall, Forwards, Groups, Ruleset, Steered, TABLE};
use uplinkd::core::stream::Stream;
use uplinkd::kernel::conntrack::introduce;
use uplinkd::kernel::nfnl::loaded;
use uplinkd::kernel::nft;
use uplinkd::kernel::sockets::connections;

const PATIENCE: Duration = Duration::from_secs(2);

fn forward(protocol: Protocol, ports: &str, to: &str) -> PortForward {
    PortForward { protocol, ports: ports.parse().unwrap(), to: to.parse().unwrap() }
}

fn door(slot: u8, addresses: [&str; 2], forwards: Vec<PortForward>) -> Door {
    Door {
        slot: Slot::new(slot).unwrap(),
        device: IfName::new(&format!("wan{slot}")).unwrap(),
        addresses: addresses.map(|ip| ip.parse().unwrap()).to_vec(),
        forwards,
    }
}

/// The machine of [`net`], with forwards on both uplinks and one more on the first.
async fn forwarding() -> Ruleset {
    let both = vec![
        forward(Protocol::Both, "5000-5010", "10.1.0.9"),
        forward(Protocol::Both, "5000-5010", "fd00::9"),
        forward(Protocol::Both, "8080-8081", "10.1.0.9:5000-5001"),
        forward(Protocol::Both, "8080", "[fd00::9]:5000"),
    ];
    let first = [both.clone(), vec![forward(Protocol::Tcp, "9000", "10.1.0.9:5000")]].concat();
    let uplink = |n| (IfName::new(&format!("wan{n}")).unwrap(), Slot::new(n).unwrap());
    let doors = vec![
        door(1, ["192.0.2.2", "2001:db8:1::2"], first),
        door(2, ["198.51.100.2", "2001:db8:2::2"], both),
    ];
    let forwards = Forwards { doors, lans: vec![IfName::new("lan").unwrap()] };
    let ruleset = Ruleset { uplinks: [1, 2].map(uplink).to_vec(), forwards, ..Ruleset::default() };
    nft::load(&ruleset.text()).await.unwrap();
    assert_eq!(loaded().await.unwrap().ruleset, Some(ruleset.generation()));
    ruleset
}

/// A host's services on port 5000, both families: each tells whom it sees.
fn serve(host: &Neighbour) {
    host.run(serve_here);
}

/// The same in the namespace of this thread.
fn serve_here() {
    let listener = TcpListener::bind("[::]:5000").unwrap();
    let socket = UdpSocket::bind("[::]:5000").unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, peer)) = socket.recv_from(&mut [0; 8]) {
            let _ = socket.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
        }
    });
}

/// Whom the service behind an address sees, over TCP and over UDP; none where nobody answers.
fn visit(from: Option<&Neighbour>, source: &str, to: &str) -> [Option<String>; 2] {
    let (source, to) = (SocketAddr::new(source.parse().unwrap(), 0), to.parse::<SocketAddr>().unwrap());
    let tcp = move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
        let mut seen = String::new();
        stream.read_to_string(&mut seen).ok().map(|_| seen)
    };
    let udp = move || {
        let socket = UdpSocket::bind(source).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).ok()?;
        socket.send(b"?").ok()?;
        let mut seen = [0; 64];
        let length = socket.recv(&mut seen).ok()?;
        Some(String::from_utf8_lossy(&seen[..length]).into_owned())
    };
    from.map_or_else(|| [tcp(), udp()], |from| from.run(move || [tcp(), udp()]))
}

fn both(seen: &str) -> [Option<String>; 2] {
    [Some(seen.to_owned()), Some(seen.to_owned())]
}

#[test]
fn visitors_get_in_by_every_door_and_are_answered_by_it() {
    namespace::run("visitors_get_in_by_every_door_and_are_answered_by_it", &["nft", "ip"], || async {
        let Net { lan, isps, server } = net();
        forwarding().await;
        serve(&lan);
        // Each ISP lets out what it has given out, and nothing else.
        for (n, isp) in (1..).zip(&isps) {
            let own = if n == 1 { "192.0.2.0/24" } else { "198.51.100.0/24" };
            let other = 3 - n;
            isp.run(move || {
                namespace::nft(&format!(
                    "add table inet t; add chain inet t c {{ type filter hook forward priority 0; }}; \
                     add rule inet t c iifname home ip saddr != {own} drop; \
                     add rule inet t c iifname home ip6 saddr 2001:db8:{other}::/64 drop"
                ))
            });
        }
        for door in [1, 2] {
            lead_out_by(door);
            for to in ["192.0.2.2:5000", "198.51.100.2:5000", "192.0.2.2:8080", "198.51.100.2:8080"] {
                assert_eq!(
                    visit(Some(&server), "203.0.113.1", to),
                    both("203.0.113.1"),
                    "{to} while {door} leads"
                );
            }
        }
        lead_out_by(1);
        for to in ["[2001:db8:1::2]:5000", "[2001:db8:2::2]:8080"] {
            let [tcp, udp] = visit(Some(&server), "::", to);
            assert!(tcp.is_some() && udp.is_some(), "{to}");
        }
        // A port of one uplink, one protocol, one family; and one that nothing is said of.
        assert_eq!(visit(Some(&server), "203.0.113.1", "192.0.2.2:9000"), [Some("203.0.113.1".into()), None]);
        for closed in ["198.51.100.2:9000", "192.0.2.2:5011", "[2001:db8:1::2]:9000"] {
            let source = if closed.starts_with('[') { "::" } else { "203.0.113.1" };
            assert_eq!(visit(Some(&server), source, closed), [None, None], "{closed}");
        }
    });
}

#[test]
fn who_asks_from_inside_for_an_uplinks_address_is_let_in_as_well() {
    namespace::run(
        "who_asks_from_inside_for_an_uplinks_address_is_let_in_as_well",
        &["nft", "ip"],
        || async {
            let Net { lan, isps: _isps, server: _server } = net();
            let dmz = second_lan("dmz");
            lead_out_by(1);
            forwarding().await;
            serve(&lan);
            for to in ["192.0.2.2:5000", "198.51.100.2:8080"] {
                // In its own LAN with the machine's address there, from another LAN with its own, and the machine itself.
                assert_eq!(visit(Some(&lan), "10.1.0.9", to), both("10.1.0.1"), "{to}");
                assert_eq!(visit(Some(&dmz), "10.2.0.9", to), both("10.2.0.9"), "{to}");
                let [tcp, udp] = visit(None, "0.0.0.0", to);
                assert!(tcp.is_some() && udp.is_some(), "{to}");
            }
            assert_eq!(visit(Some(&lan), "::", "[2001:db8:2::2]:5000"), both("fd00::1"));
            // On the machine's own address in the LAN it has its own services.
            let own = TcpListener::bind("10.1.0.1:8080").unwrap();
            let reached =
                lan.run(|| TcpStream::connect_timeout(&"10.1.0.1:8080".parse().unwrap(), PATIENCE).is_ok());
            assert!(reached && own.accept().is_ok());
        },
    );
}

/// A second LAN of the machine, with one host.
fn second_lan(name: &str) -> Neighbour {
    let host = Neighbour::new();
    sh(&format!("ip link add {name} type veth peer name eth netns {}", host.tid));
    sh(&format!("ip address add 10.2.0.1/24 dev {name}"));
    sh(&format!("ip link set {name} up"));
    host.sh(&[
        "ip address add 10.2.0.9/24 dev eth",
        "ip link set eth up",
        "ip route add default via 10.2.0.1",
    ]);
    host
}

/// A LAN with the first uplink, guests with the second, and a port of the second that leads into the LAN.
async fn grouped(steered: Vec<Steered>) {
    let name = |name: &str| IfName::new(name).unwrap();
    let uplink = |n| (name(&format!("wan{n}")), Slot::new(n).unwrap());
    let pairs = [
        ("lan", "lan"),
        ("guest", "guest"),
        ("lan", "wan1"),
        ("wan1", "lan"),
        ("guest", "wan2"),
        ("wan2", "guest"),
    ];
    let groups = Groups {
        uplinks: ["wan1", "wan2"].map(name).to_vec(),
        members: ["lan", "guest", "wan1", "wan2"].map(name).into(),
        pairs: pairs.map(|(from, to)| (name(from), name(to))).into(),
        steered,
    };
    let forwards = vec![forward(Protocol::Both, "5000", "10.1.0.9")];
    let doors = vec![door(2, ["198.51.100.2", "2001:db8:2::2"], forwards)];
    let forwards = Forwards { doors, lans: vec![name("lan")] };
    let uplinks = [1, 2].map(uplink).to_vec();
    let ruleset = Ruleset { uplinks, groups, forwards, ..Ruleset::default() };
    nft::load(&ruleset.text()).await.unwrap();
    assert_eq!(loaded().await.unwrap().ruleset, Some(ruleset.generation()));
}

#[test]
fn who_is_in_no_group_with_somebody_does_not_reach_him() {
    namespace::run("who_is_in_no_group_with_somebody_does_not_reach_him", &["nft", "ip"], || async {
        let Net { lan, isps: _isps, server } = net();
        let guest = second_lan("guest");
        serve(&lan);
        serve(&server);
        grouped(vec![]).await;
        lead_out_by(1);
        let internet = "203.0.113.1:5000";
        assert_eq!(visit(Some(&lan), "10.1.0.9", internet), both("192.0.2.2"));
        assert_eq!(
            visit(Some(&guest), "10.2.0.9", internet),
            [None, None],
            "the guests' uplink is not this one"
        );
        assert_eq!(visit(Some(&guest), "10.2.0.9", "10.1.0.9:5000"), [None, None], "another LAN");
        assert_eq!(visit(None, "0.0.0.0", "10.1.0.9:5000"), both("10.1.0.1"), "the machine itself");
        assert_eq!(
            visit(Some(&server), "203.0.113.1", "198.51.100.2:5000"),
            both("203.0.113.1"),
            "a forward"
        );
        let shares = PerFamily { v4: vec![(Slot::new(2).unwrap(), Weight::default())], v6: vec![] };
        grouped(vec![Steered { lan: IfName::new("guest").unwrap(), shares }]).await;
        assert_eq!(
            visit(Some(&guest), "10.2.0.9", internet),
            both("198.51.100.2"),
            "led to the guests' uplink"
        );
        assert_eq!(visit(Some(&guest), "10.2.0.9", "10.1.0.9:5000"), [None, None]);
        assert_eq!(visit(Some(&lan), "10.1.0.9", internet), both("192.0.2.2"));
        lead_out_by(2);
        assert_eq!(visit(Some(&lan), "10.1.0.9", internet), [None, None], "the LAN's uplink is not this one");
    });
}

/// The machine of [`net`] with a firewall, and a forward to the LAN that nothing else is let in to.
async fn closed(allow: &[&str]) {
    let uplink = |n| (IfName::new(&format!("wan{n}")).unwrap(), Slot::new(n).unwrap());
    let lans = vec![IfName::new("lan").unwrap()];
    let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
    let uplinks: Vec<_> = [1, 2].map(uplink).to_vec();
    let devices = uplinks.iter().map(|(name, _)| name.clone()).collect();
    let firewall = Some(Firewall { uplinks: devices, allow, log: true, lans: lans.clone() });
    let doors = vec![door(
        2,
        ["198.51.100.2", "2001:db8:2::2"],
        vec![
            forward(Protocol::Both, "8080", "10.1.0.9:5000"),
            forward(Protocol::Tcp, "8082", "10.1.0.1:6001"),
        ],
    )];
    let forwards = Forwards { doors, lans };
    let ruleset = Ruleset { uplinks, forwards, firewall, ..Ruleset::default() };
    nft::load(&ruleset.text()).await.unwrap();
    assert_eq!(loaded().await.unwrap().ruleset, Some(ruleset.generation()));
}

/// Sends an ACK that belongs to no connection; whether anything is said to it within a moment. Who is let in to a listener
/// is answered with a reset.
fn answers_to_ack(from: &str, port: u16, to: (&str, u16)) -> bool {
    let far = SocketAddr::new(from.parse().unwrap(), port);
    let near: SocketAddr = SocketAddr::new(to.0.parse().unwrap(), to.1);
    let mut packet = Stream { near, far }.rousing_packet().unwrap();
    // The SYN+ACK becomes an ACK: a bit less, which the checksum has to make up for.
    packet[33] = 0x10;
    let sum = u16::from_be_bytes([packet[36], packet[37]]);
    let sum = u32::from(sum) + 0x0002;
    let sum = (sum & 0xffff) as u16 + (sum >> 16) as u16;
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    let raw = |protocol| socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), protocol).unwrap();
    let (out, back) = (raw(SockProtocol::Raw), raw(SockProtocol::Tcp));
    setsockopt(&back, ReceiveTimeout, &TimeVal::milliseconds(500)).unwrap();
    let SocketAddr::V4(near) = near else { unreachable!("IPv4 only") };
    sendto(out.as_raw_fd(), &packet, &SockaddrIn::from(near), MsgFlags::empty()).unwrap();
    let mut packet = [0; 128];
    while recv(back.as_raw_fd(), &mut packet, MsgFlags::empty()).is_ok() {
        if packet[22..24] == port.to_be_bytes() {
            return true;
        }
    }
    false
}

#[test]
fn nothing_gets_in_while_the_table_is_replaced() {
    namespace::run("nothing_gets_in_while_the_table_is_replaced", &["nft", "ip"], || async {
        let Net { lan, isps, server } = net();
        lead_out_by(1);
        isps[0].sh(&["ip route add 10.1.0.0/24 via 192.0.2.2"]);
        server.sh(&["ip route add 10.1.0.0/24 via 100.64.1.1"]);
        let inside = lan.run(|| UdpSocket::bind("10.1.0.9:9").unwrap());
        let here = UdpSocket::bind("192.0.2.2:9").unwrap();
        let reached = |socket: &UdpSocket| {
            socket.set_nonblocking(true).unwrap();
            socket.recv(&mut [0; 8]).is_ok()
        };
        let flood = |target: &'static str, end: Arc<AtomicBool>| {
            server.run(move || {
                let socket = UdpSocket::bind("203.0.113.1:0").unwrap();
                socket.connect(target).unwrap();
                std::thread::spawn(move || {
                    let mut sent = 0;
                    while !end.load(Ordering::Relaxed) {
                        sent += u32::from(socket.send(b"?").is_ok());
                    }
                    sent
                })
            })
        };
        closed(&[]).await;
        for (target, socket) in [("192.0.2.2:9", &here), ("10.1.0.9:9", &inside)] {
            let end = Arc::new(AtomicBool::new(false));
            let flood = flood(target, end.clone());
            // Another table each time, as when an uplink comes or goes.
            for round in 0..20 {
                closed(if round % 2 == 0 { &["tcp:22"] } else { &[] }).await;
            }
            end.store(true, Ordering::Relaxed);
            let sent = flood.join().unwrap();
            assert!(!reached(socket) && sent > 100, "{sent} packets to {target}, and one got in");
            println!("20 tables, {sent} packets to {target}: none got in");
        }
        nft::drop_table(TABLE).await.unwrap();
        server.run(|| UdpSocket::bind("203.0.113.1:0").unwrap().send_to(b"?", "192.0.2.2:9").unwrap());
        server.run(|| UdpSocket::bind("203.0.113.1:0").unwrap().send_to(b"?", "10.1.0.9:9").unwrap());
        for socket in [&here, &inside] {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.recv(&mut [0; 8]).expect("without the table it would have");
        }
    });
}

#[test]
fn a_firewall_lets_in_what_is_listed_and_what_the_network_needs() {
    namespace::run(
        "a_firewall_lets_in_what_is_listed_and_what_the_network_needs",
        &["nft", "ip", "ping"],
        || async {
            let Net { lan, isps, server } = net();
            lead_out_by(1);
            let [outside, inside] = ["203.0.113.1", "10.1.0.9"];
            // Begun before anybody tracked it, and at a port that nobody opens.
            let listener = TcpListener::bind("192.0.2.2:6000").unwrap();
            let mut visitor = server
                .run(|| TcpStream::connect_timeout(&"192.0.2.2:6000".parse().unwrap(), PATIENCE).unwrap());
            let mut visited = listener.accept().unwrap().0;
            visited.set_read_timeout(Some(PATIENCE)).unwrap();
            introduce(&connections().await.unwrap()).await.unwrap();
            closed(&["tcp:5000", "udp:7000-7010", "esp"]).await;
            visitor.write_all(b"still here").unwrap();
            let mut heard = [0; 10];
            visited.read_exact(&mut heard).unwrap();

            // A packet that only looks like one of a connection opens nothing.
            for (port, answered) in [(6000, false), (5000, true)] {
                let _listener = TcpListener::bind(("192.0.2.2", port)).ok();
                let answers = server.run(move || answers_to_ack("203.0.113.1", 4444, ("192.0.2.2", port)));
                assert_eq!(answers, answered, "a bare ACK to port {port}");
            }

            serve(&lan);
            serve_here();
            for to in ["192.0.2.2:5000", "198.51.100.2:5000", "[2001:db8:1::2]:5000"] {
                let source = if to.starts_with('[') { "::" } else { outside };
                let [tcp, udp] = visit(Some(&server), source, to);
                assert!(tcp.is_some() && udp.is_none(), "only TCP is listed: {to}");
            }
            assert_eq!(visit(Some(&server), outside, "198.51.100.2:8080"), both(outside), "a forward");
            let _own = TcpListener::bind("10.1.0.1:6001").unwrap();
            let reached = |to: &'static str| {
                server.run(|| TcpStream::connect_timeout(&to.parse().unwrap(), PATIENCE).is_ok())
            };
            assert!(reached("198.51.100.2:8082"), "a forward to the machine itself");
            assert_eq!(visit(Some(&lan), inside, "10.1.0.1:5000"), both(inside), "the LAN is free");
            serve(&server);
            assert_eq!(visit(Some(&lan), inside, "203.0.113.1:5000"), both("192.0.2.2"), "and goes out");
            assert!(
                visit(None, "0.0.0.0", "203.0.113.1:5000").iter().all(Option::is_some),
                "as does the machine"
            );
            // What the ISP routes to a host of the LAN does not get there.
            isps[0].sh(&["ip route add 10.1.0.0/24 via 192.0.2.2"]);
            assert_eq!(visit(Some(&isps[0]), "192.0.2.1", "10.1.0.9:5000"), [None, None], "a host behind");
            // A source that is the LAN's, at a port that is open.
            let socket = UdpSocket::bind("192.0.2.2:7000").unwrap();
            socket.set_read_timeout(Some(PATIENCE / 4)).unwrap();
            isps[0].sh(&["ip address add 10.1.0.77/32 dev lo"]);
            for (source, comes) in [("192.0.2.1:0", true), ("10.1.0.77:0", false)] {
                isps[0]
                    .run(move || UdpSocket::bind(source).unwrap().send_to(b"?", "192.0.2.2:7000").map(drop))
                    .unwrap();
                assert_eq!(socket.recv_from(&mut [0; 8]).is_ok(), comes, "from {source}");
            }
            // Echoes, neighbours, and the size of packets.
            isps[0].sh(&[
                "ping -c 1 -W 2 192.0.2.2",
                "ip neigh flush dev home",
                "ping -c 1 -W 2 2001:db8:1::2",
            ]);
            isps[0].sh(&["ip link set net mtu 1300"]);
            for (to, told) in [("203.0.113.1", "mtu = 1300"), ("2001:db8:9::1", "mtu=1300")] {
                let sized = ["-c", "1", "-W", "2", "-M", "do", "-s", "1400", to];
                let ping = std::process::Command::new("ping").args(sized).output().unwrap();
                let ping = String::from_utf8_lossy(&ping.stdout).into_owned();
                assert!(ping.contains(told), "{ping}");
            }
        },
    );
}

#[test]
fn as_many_forwards_load_as_a_file_can_hold() {
    namespace::run("as_many_forwards_load_as_a_file_can_hold", &["nft"], || async {
        let forwards = |first: u16| {
            let range = forward(Protocol::Both, &format!("{first}-{}", first + 999), "10.1.0.9");
            let moved = format!("{}-{}", first + 1000, first + 1999);
            vec![range, forward(Protocol::Both, &moved, "10.1.0.9:1-1000")]
        };
        let all: Vec<_> = (0..30).flat_map(|n| forwards(1 + n * 2000)).collect();
        let uplink = |n: u8| (IfName::new(&format!("wan{n}")).unwrap(), Slot::new(n).unwrap());
        let doors: Vec<_> =
            (1..=4).map(|n| door(n, [&format!("192.0.2.{n}"), "2001:db8::1"], all.clone())).collect();
        let forwards = Forwards { doors, lans: vec![IfName::new("lan").unwrap()] };
        let ruleset = Ruleset { uplinks: (1..=4).map(uplink).collect(), forwards, ..Ruleset::default() };
        let begun = std::time::Instant::now();
        nft::load(&ruleset.text()).await.unwrap();
        println!("240 forwards, 240 000 ports of them to others: loaded in {:?}", begun.elapsed());
        assert_eq!(loaded().await.unwrap().ruleset, Some(ruleset.generation()));
    });
}
