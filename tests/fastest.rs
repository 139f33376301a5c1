//! Fastest response on a real kernel: first packets that are copied, races, winners that lead, and what neither leaks nor
//! waits.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod namespace;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use namespace::router::{Net, lead_out_by, net};
use namespace::{bound, nft as foreign, sh};
use nix::net::if_::if_nametoindex;
use tokio::time::timeout;
use uplinkd::config;
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{Family, IfIndex, IfName, PerFamily, UplinkName};
use uplinkd::core::nft::{PolicyTable, Ruleset, Standing, Surroundings, Verdict};
use uplinkd::core::race::{Course, GROUP, LIMIT, OF_ONE, REMEMBERED, called};
use uplinkd::kernel::nflog::{Copied, Listener};
use uplinkd::kernel::{nfnl, nft, winners};
use uplinkd::probes::{self, Way};

/// Longer than a packet takes over four namespaces of one machine.
const PATIENCE: Duration = Duration::from_millis(1500);
/// So long no copy comes where none is to.
const SILENCE: Duration = Duration::from_millis(300);

fn slot(n: u8) -> Slot {
    Slot::new(n).unwrap()
}

fn name(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

fn shared(shares: &[(u8, u16)]) -> Verdict {
    Verdict::Take(shares.iter().map(|(n, weight)| (slot(*n), *weight)).collect())
}

/// Loads a policy for everything, by fastest response, over what is loaded.
async fn load(verdict: Verdict) {
    let text = "[[policy]]\nname = 'video'\nmatch.ports = '1-65535'\nmethod = 'fastest'\n";
    let config =
        config::parse(Path::new("uplinkd.toml"), text).unwrap_or_else(|problems| panic!("{problems}"));
    let near = ["10.1.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "fd00::/64", "2001:db8:1::/64", "ff00::/8"];
    let around = Surroundings {
        forwarded: true,
        denied: Default::default(),
        ruled: Default::default(),
        uplinks: vec![(name("wan1"), slot(1)), (name("wan2"), slot(2))],
        near: near.iter().map(|net| net.parse().unwrap()).collect(),
    };
    let policy = &config.policies[0];
    let verdict = PerFamily::from_fn(|_| verdict.clone());
    let standing = Standing { policy, interfaces: vec![], cgroups: vec![], only: None, verdict };
    let table = PolicyTable::new(&around, &[standing], &config.prefixes);
    let over = nfnl::loaded().await.unwrap().policies;
    let text = table.text(over.as_ref());
    nft::load(&text).await.unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(nfnl::loaded().await.unwrap().policies, Some(table.loaded()));
}

/// The router with its tables, the way out by the first uplink, and more addresses of the server.
async fn router() -> Net {
    let net = net();
    lead_out_by(1);
    for n in [1, 2] {
        for family in ["-4", "-6"] {
            sh(&format!("ip {family} rule add pref 730{n} oif wan{n} lookup 700{n}"));
        }
    }
    let uplinks = vec![(name("wan1"), slot(1)), (name("wan2"), slot(2))];
    nft::load(&Ruleset { uplinks, ..Ruleset::default() }.text()).await.unwrap();
    net.server.sh(&["ip route add local 203.0.113.0/25 dev lo"]);
    for (n, isp) in (1..).zip(&net.isps) {
        isp.sh(&[&format!("ip route add 203.0.113.0/25 via 100.64.{n}.2")]);
    }
    net
}

/// A connection of the LAN, or of this machine, and who led it: 1, 2, or nobody.
fn connect(net: &Net, behind: bool, to: SocketAddr) -> Option<u8> {
    let server = net.server.run(move || bound(to, TcpListener::bind));
    let once = move || TcpStream::connect_timeout(&to, PATIENCE).is_ok();
    let done = if behind { net.lan.run(once) } else { once() };
    done.then(|| by(server.accept().unwrap().1.ip()))
}

fn by(source: IpAddr) -> u8 {
    match source.to_string().as_str() {
        "192.0.2.2" | "2001:db8:1::2" => 1,
        "198.51.100.2" | "2001:db8:2::2" => 2,
        other => panic!("from {other}"),
    }
}

fn ways(family: Family) -> [Way; 2] {
    [1, 2].map(|n: u8| {
        let device = name(&format!("wan{n}"));
        Way {
            uplink: UplinkName::new(&format!("isp{n}")).unwrap(),
            index: IfIndex(if_nametoindex(device.as_str()).unwrap()),
            device,
            mark: slot(n).mark(),
            family,
            gateway: None,
            resolvers: Vec::new(),
        }
    })
}

fn course(family: Family) -> Course {
    Course::of("video", family)
}

/// What has been copied meanwhile.
async fn heard(listener: &mut Listener) -> Vec<Copied> {
    let mut all = Vec::new();
    while let Ok(copies) = timeout(SILENCE, listener.next()).await {
        all.extend(copies.unwrap());
    }
    all
}

/// An ISP loses what is sent to a server from now on, or does so no longer.
fn loses(net: &Net, isp: usize, loses: bool) {
    net.isps[isp - 1].run(move || {
        let text = "add table inet lossy; delete table inet lossy";
        foreign(text);
        if loses {
            foreign(
                "add table inet lossy; add chain inet lossy c { type filter hook forward priority 0; }; \
                 add rule inet lossy c iifname home drop",
            );
        }
    });
}

#[test]
fn who_answers_first_leads_what_comes_later() {
    namespace::run("who_answers_first_leads_what_comes_later", &["nft"], || async {
        let net = router().await;
        load(shared(&[(1, 1), (2, 1)])).await;
        let mut listener = Listener::open(GROUP).await.unwrap();
        let second = Listener::open(GROUP).await.err().expect("it is taken");
        assert!(second.to_string().starts_with("cannot hear first packets by nflog"), "{second}");
        for (family, behind, to) in [
            (Family::V4, true, "203.0.113.1:7"),
            (Family::V6, true, "[2001:db8:9::1]:7"),
            (Family::V4, false, "203.0.113.2:7"),
        ] {
            let to: SocketAddr = to.parse().unwrap();
            // In IPv6 neighbours may have to be met, for a second.
            let start = Instant::now();
            while connect(&net, behind, to).is_none() {
                assert!(start.elapsed() < 6 * PATIENCE);
            }
            let copies = heard(&mut listener).await;
            let first = copies.iter().find(|copied| called(&copied.packet) == Some(to));
            assert_eq!(
                first.map(|copied| copied.prefix.clone()),
                Some(course(family).to_string()),
                "{copies:?}"
            );
            // The first does not get there, so the second wins.
            let server = net.server.run(move || bound(to, TcpListener::bind));
            loses(&net, 1, true);
            let finish = probes::race(to, &ways(family), LIMIT).await;
            loses(&net, 1, false);
            assert_eq!(finish.winner.map(|(n, _)| n), Some(1), "{finish:?}");
            drop(server);
            winners::put(&course(family), to.ip(), slot(2).mark(), REMEMBERED).await.unwrap();
            let before = winners::counted().await.unwrap()[&course(family).hits()];
            for turn in 0..6 {
                assert_eq!(connect(&net, behind, to), Some(2), "{to}, connection {turn}");
            }
            let after = winners::counted().await.unwrap()[&course(family).hits()];
            assert_eq!(after - before, 6, "{to}: each followed");
            assert_eq!(heard(&mut listener).await, [], "neither who follows nor a race is a first contact");
        }
        let led = winners::led(&course(Family::V4)).await.unwrap();
        assert_eq!(led.into_iter().collect::<Vec<_>>(), [(slot(2).mark().value(), 2)]);
        // What is no TCP follows too.
        let server = net.server.run(|| bound("203.0.113.1:7".parse().unwrap(), UdpSocket::bind));
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..4 {
            net.lan.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"?", "203.0.113.1:7").unwrap());
            assert_eq!(by(server.recv_from(&mut [0; 8]).unwrap().1.ip()), 2);
        }
    });
}

#[test]
fn who_has_won_is_kept_and_who_is_lost_leads_nobody() {
    namespace::run("who_has_won_is_kept_and_who_is_lost_leads_nobody", &["nft"], || async {
        let net = router().await;
        load(shared(&[(1, 1), (2, 1)])).await;
        let to: SocketAddr = "203.0.113.1:7".parse().unwrap();
        let four = course(Family::V4);
        let put = async |n: u8| winners::put(&four, to.ip(), slot(n).mark(), REMEMBERED).await;
        let led = async || winners::led(&four).await.unwrap().into_iter().collect::<Vec<_>>();
        put(2).await.unwrap();
        put(1).await.expect_err("somebody leads already");
        let follow = |who: u8, what: &str| {
            for behind in [true, false, true, false] {
                assert_eq!(connect(&net, behind, to), Some(who), "{what}");
            }
        };
        follow(2, "the winner");
        // Other weights, and one alone: the memory stays.
        load(shared(&[(1, 7), (2, 3)])).await;
        follow(2, "over a reload");
        load(shared(&[(1, 1)])).await;
        follow(1, "the winner is lost");
        load(Verdict::Pass).await;
        load(shared(&[(1, 1), (2, 1)])).await;
        follow(2, "the winner is back");
        assert_eq!(led().await, [(slot(2).mark().value(), 1)]);
        // The winner is lost, and others are there: it is forgotten with the next flow, and another may win.
        let mut listener = Listener::open(GROUP).await.unwrap();
        load(shared(&[(1, 256), (3, 1)])).await;
        assert_eq!(connect(&net, true, to), Some(1));
        assert_eq!(led().await, []);
        let copies = heard(&mut listener).await;
        assert_eq!(copies.iter().map(|copied| called(&copied.packet)).collect::<Vec<_>>(), [Some(to)]);
        put(1).await.unwrap();
        assert_eq!(led().await, [(slot(1).mark().value(), 1)]);
        // Another policy: all of it goes.
        let config = config::parse(Path::new("a.toml"), "[[policy]]\nmatch.ports = 1\n").unwrap();
        let policy = &config.policies[0];
        let standing = Standing {
            policy,
            interfaces: vec![],
            cgroups: vec![],
            only: None,
            verdict: PerFamily::default(),
        };
        let table = PolicyTable::new(&Surroundings::default(), &[standing], &config.prefixes);
        nft::load(&table.text(nfnl::loaded().await.unwrap().policies.as_ref())).await.unwrap();
        let left = sh("nft list table inet uplinkd_policy");
        assert!(!left.contains("winners_") && !left.contains("hits_") && !left.contains("asked_"), "{left}");
        assert_eq!(led().await, []);
        put(2).await.expect_err("there is no such map");
    });
}

#[test]
fn who_scans_is_copied_seldom_and_others_still_are() {
    namespace::run("who_scans_is_copied_seldom_and_others_still_are", &["nft"], || async {
        let net = router().await;
        load(shared(&[(1, 1), (2, 1)])).await;
        net.lan.sh(&["ip address add 10.1.0.10/24 dev eth"]);
        let mut listener = Listener::open(GROUP).await.unwrap();
        let begin = |from: &'static str, to: SocketAddr| {
            net.lan.run(move || {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.bind(&format!("{from}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
                socket.set_nonblocking(true).unwrap();
                drop(socket.connect(&to.into()));
                socket
            })
        };
        let start = Instant::now();
        let mut sockets = Vec::new();
        for turn in 0..2u8 {
            for n in 1..=120 {
                sockets.push(begin("10.1.0.9", SocketAddr::from(([203, 0, 113, n], 80 + u16::from(turn)))));
            }
        }
        let took = start.elapsed();
        let scanned = heard(&mut listener).await.len();
        let most = f64::from(OF_ONE.1) + took.as_secs_f64() * f64::from(OF_ONE.0) + 1.0;
        println!("240 connections to 120 destinations in {took:?}: {scanned} copied");
        assert!(scanned >= 20 && scanned as f64 <= most, "{scanned} of at most {most}");
        sockets.push(begin("10.1.0.10", "203.0.113.126:80".parse().unwrap()));
        sockets.push(begin("10.1.0.10", "203.0.113.126:81".parse().unwrap()));
        assert_eq!(heard(&mut listener).await.len(), 1, "another client, and each destination once");
    });
}

#[test]
fn nothing_but_handshakes_is_sent() {
    namespace::run("nothing_but_handshakes_is_sent", &["nft"], || async {
        let net = router().await;
        load(shared(&[(1, 1), (2, 1)])).await;
        let counted = |packets: &str| format!("add rule inet count out oifname wan* {packets} counter name ");
        let rules =
            [("syns", "tcp flags == syn"), ("acks", "tcp flags == ack"), ("rsts", "tcp flags & rst == rst")];
        foreign(
            "add table inet count; add chain inet count out { type filter hook postrouting priority 300; }",
        );
        for (counter, packets) in rules {
            foreign(&format!("add counter inet count {counter}; {}{counter}", counted(packets)));
        }
        foreign("add counter inet count tcps; add rule inet count out meta l4proto tcp counter name tcps");
        let read = || -> Vec<u64> {
            let of = |name: &str| {
                let text = sh(&format!("nft list counter inet count {name}"));
                let mut words = text.split_whitespace().skip_while(|word| *word != "packets").skip(1);
                words.next().unwrap().parse().unwrap()
            };
            ["syns", "acks", "rsts", "tcps"].map(of).to_vec()
        };
        let to: SocketAddr = "203.0.113.1:7".parse().unwrap();
        let ways = ways(Family::V4);
        let server = net.server.run(move || bound(to, TcpListener::bind));
        let finish = probes::race(to, &ways, LIMIT).await;
        let (_, time) = finish.winner.expect("somebody answers");
        tokio::time::sleep(SILENCE).await;
        let sent = read();
        println!(
            "a race: won after {time:?}, {} bytes by our own estimate, packets sent {sent:?}",
            finish.bytes
        );
        // Each SYN once; an end for each that was answered; no acknowledgement, so that nobody is told of a connection.
        assert_eq!(sent, [2, 0, 2, 4]);
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.accept().map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        drop(server);
        // A refusal by everybody is no win, and nobody waits for more.
        let start = Instant::now();
        let refused = probes::race("203.0.113.1:8".parse().unwrap(), &ways, LIMIT).await;
        assert!(
            refused.winner.is_none() && start.elapsed() < LIMIT,
            "{refused:?} after {:?}",
            start.elapsed()
        );
        // An address of this machine is asked by nobody.
        let own = probes::race("192.0.2.2:7".parse().unwrap(), &ways, LIMIT).await;
        assert_eq!((own.winner, own.bytes), (None, 0));
        let before = read();
        loses(&net, 1, true);
        loses(&net, 2, true);
        let start = Instant::now();
        let lost = probes::race(to, &ways, LIMIT).await;
        assert!(lost.winner.is_none() && start.elapsed() >= LIMIT);
        let after = read();
        assert_eq!((after[0] - before[0], after[3] - before[3]), (2, 2), "each is asked once");
    });
}
