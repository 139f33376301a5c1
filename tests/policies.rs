//! The table of policies on a real kernel: which packets each criterion matches, who is first, and what never leaks.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

#[path = "policies/enforced.rs"]
mod enforced;
#[path = "policies/figures.rs"]
mod figures;
#[path = "policies/names.rs"]
mod names;
mod namespace;
#[path = "policies/replaced.rs"]
mod replaced;
#[path = "policies/sticky.rs"]
mod sticky;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use namespace::router::{Net, lead_out_by, net};
use namespace::{bound, nft as foreign, sh};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use uplinkd::config::{self, Config};
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{IfName, PerFamily};
use uplinkd::core::nft::{LoadedPolicies, PolicyTable, Ruleset, Standing, Surroundings, TABLE, Verdict};
use uplinkd::kernel::{nfnl, nft};

/// Longer than a packet takes over four namespaces of one machine.
const PATIENCE: Duration = Duration::from_millis(1500);
/// So long a packet may take; and so long none arrives where none is to.
const SILENCE: Duration = Duration::from_secs(1);

fn slot(n: u8) -> Slot {
    Slot::new(n).unwrap()
}

fn name(name: &str) -> IfName {
    IfName::new(name).unwrap()
}

fn configured(text: &str) -> Config {
    config::parse(Path::new("uplinkd.toml"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is about the policies.
fn around() -> Surroundings {
    let near = ["10.1.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "fd00::/64", "2001:db8:1::/64", "ff00::/8"];
    Surroundings {
        forwarded: true,
        uplinks: vec![(name("wan1"), slot(1)), (name("wan2"), slot(2))],
        denied: Default::default(),
        ruled: Default::default(),
        near: near.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

/// The table of a configuration, with a verdict for each policy.
fn table(config: &Config, verdict: impl Fn(usize) -> Verdict) -> PolicyTable {
    table_amid(&around(), config, verdict)
}

fn table_amid(around: &Surroundings, config: &Config, verdict: impl Fn(usize) -> Verdict) -> PolicyTable {
    let interface = |policy: &uplinkd::core::policy::Policy| {
        let fits = |one: &IfName| policy.traffic.interface.iter().any(|pattern| pattern.matches(one));
        ["lan", "wan1", "wan2"].map(name).into_iter().filter(fits).collect()
    };
    let standing: Vec<_> = (config.policies.iter().enumerate())
        .map(|(place, policy)| Standing {
            policy,
            interfaces: interface(policy),
            only: policy.uplinks.first().and_then(|name| {
                Some(slot(["one", "two"].iter().position(|n| *n == name.as_str())? as u8 + 1))
            }),
            cgroups: Vec::new(),
            verdict: PerFamily::from_fn(|_| verdict(place)),
        })
        .collect();
    PolicyTable::new(around, &standing, &config.prefixes)
}

fn by(n: u8) -> Verdict {
    Verdict::Take(vec![(slot(n), 1)])
}

/// Loads a table over the one that is loaded, and sees that it is what stands then, with no chain more.
async fn load(table: &PolicyTable) -> LoadedPolicies {
    let over = nfnl::loaded().await.unwrap().policies;
    let text = table.text(over.as_ref());
    nft::load(&text).await.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let loaded = nfnl::loaded().await.unwrap().policies.unwrap();
    assert!(loaded.generation.serves(table.generation()), "{loaded:?} for {:?}", table.generation());
    assert_eq!(loaded, table.loaded());
    loaded
}

/// The router, its table of marks, and the way out by the first uplink.
async fn router() -> Net {
    let net = net();
    lead_out_by(1);
    let uplinks = vec![(name("wan1"), slot(1)), (name("wan2"), slot(2))];
    nft::load(&Ruleset { uplinks, ..Ruleset::default() }.text()).await.unwrap();
    serve(&net, "203.0.113.2");
    serve(&net, "2001:db8:9::2");
    net.lan.sh(&["ip address add 10.1.0.10/24 dev eth", "ip address add fd00::10/64 dev eth nodad"]);
    meet(&net);
    net
}

/// One more address of the server's, to which both uplinks lead.
fn serve(net: &Net, address: &str) {
    net.server.sh(&[&format!("ip address add {address} dev lo")]);
    for (n, isp) in (1..).zip(&net.isps) {
        let gateway =
            if address.contains(':') { format!("2001:db8:1{n}::2") } else { format!("100.64.{n}.2") };
        isp.sh(&[&format!("ip route add {address} via {gateway}")]);
    }
}

/// Waits until all have met their neighbours: in IPv6 that may take a second in a new namespace.
fn meet(net: &Net) {
    let six: SocketAddr = "[2001:db8:9::1]:9".parse().unwrap();
    let server = net.server.run(move || bound(six, TcpListener::bind));
    let connects = move |near: IpAddr| {
        let start = Instant::now();
        let once = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::new(near, 0).into()).unwrap();
            socket.connect_timeout(&six.into(), PATIENCE)
        };
        while let Err(error) = once() {
            assert!(start.elapsed() < 6 * PATIENCE, "{near}: {error}");
        }
    };
    for near in ["2001:db8:1::2", "2001:db8:2::2"] {
        connects(near.parse().unwrap());
    }
    for near in ["fd00::9", "fd00::10"] {
        net.lan.run(move || connects(near.parse().unwrap()));
    }
    drop(server);
}

/// A packet that begins a flow.
#[derive(Debug, Clone, Copy)]
struct Probe {
    /// From a client on the LAN, with this address; else of this machine.
    from: Option<&'static str>,
    to: &'static str,
    port: u16,
    tcp: bool,
    tos: u32,
    user: u32,
    group: u32,
}

/// The port from which the next datagram is sent.
static NEXT: AtomicU16 = AtomicU16::new(10_000);

const LAN: Probe =
    Probe { from: Some("10.1.0.9"), to: "203.0.113.1", port: 7, tcp: false, tos: 0, user: 0, group: 0 };
const LAN6: Probe = Probe { from: Some("fd00::9"), to: "2001:db8:9::1", ..LAN };
const OWN: Probe = Probe { from: None, ..LAN };
const OWN6: Probe = Probe { from: None, ..LAN6 };

impl Probe {
    /// By which uplink it gets to the server; none where it does not.
    fn goes_by(&self, net: &Net) -> Option<u8> {
        let (to, tcp) = (SocketAddr::new(self.to.parse().unwrap(), self.port), self.tcp);
        let source = if tcp {
            let server = net.server.run(move || bound(to, TcpListener::bind));
            let probe = *self;
            let connect = move || {
                let _as = probe.takes_on();
                TcpStream::connect_timeout(&to, PATIENCE)
            };
            let client = if self.from.is_some() { net.lan.run(connect) } else { connect() };
            client.ok()?;
            server.accept().unwrap().1.ip()
        } else {
            let server = net.server.run(move || bound(to, UdpSocket::bind));
            server.set_read_timeout(Some(SILENCE)).unwrap();
            let probe = *self;
            let send = move || {
                let _as = probe.takes_on();
                let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
                let near = probe.from.map_or(any, |from| from.parse().unwrap());
                // One that had the port before would have left its mark in conntrack.
                let port = NEXT.fetch_add(1, Ordering::Relaxed);
                let socket = socket2::Socket::from(UdpSocket::bind((near, port)).unwrap());
                match to.is_ipv4() {
                    true => socket.set_tos_v4(probe.tos).unwrap(),
                    false => socket.set_tclass_v6(probe.tos).unwrap(),
                }
                // Refused, its sender may be told at once.
                drop(socket.send_to(b"?", &to.into()));
            };
            if self.from.is_some() {
                net.lan.run(send)
            } else {
                send()
            }
            server.recv_from(&mut [0; 8]).ok()?.1.ip()
        };
        let uplinks = [(1, ["192.0.2.2", "2001:db8:1::2"]), (2, ["198.51.100.2", "2001:db8:2::2"])];
        let of = |(_, addresses): &(u8, [&str; 2])| addresses.contains(&source.to_string().as_str());
        Some(uplinks.iter().find(|one| of(one)).unwrap_or_else(|| panic!("{self:?} came from {source}")).0)
    }

    fn takes_on(&self) -> Someone {
        setfsgid(Gid::from_raw(self.group));
        setfsuid(Uid::from_raw(self.user));
        Someone
    }
}

/// This thread makes sockets as somebody else, until this is dropped.
struct Someone;

impl Drop for Someone {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
    }
}

/// A policy of a match by which all goes by the second uplink.
fn second(matcher: &str) -> PolicyTable {
    let text = format!("[[policy]]\n{matcher}\nmethod = 'enforced'\nuplinks = 'two'\n");
    table(&configured(&text), |_| by(2))
}

#[test]
fn each_criterion_matches_its_packets_and_no_others() {
    namespace::run("each_criterion_matches_its_packets_and_no_others", &["nft"], || async {
        let net = router().await;
        let mac = {
            let text = net.lan.run(|| sh("ip -br link show dev eth"));
            text.split_whitespace().find(|word| word.len() == 17).unwrap().to_owned()
        };
        let tcp = |probe| Probe { tcp: true, ..probe };
        let port = |port, probe| Probe { port, ..probe };
        let tos = |tos, probe| Probe { tos, ..probe };
        let user = |user, probe| Probe { user, ..probe };
        let group = |group, probe| Probe { group, ..probe };
        let other = Probe { from: Some("10.1.0.10"), ..LAN };
        let other6 = Probe { from: Some("fd00::10"), ..LAN6 };
        let to2 = |probe| Probe { to: "203.0.113.2", ..probe };
        let to62 = |probe| Probe { to: "2001:db8:9::2", ..probe };
        let all = [LAN, LAN6, OWN, OWN6];
        let behind = [LAN, LAN6, other, other6];
        type Case = (String, Vec<Probe>, Vec<Probe>);
        let case = |matcher: &str, yes: Vec<Probe>, no: Vec<Probe>| (matcher.to_owned(), yes, no);
        let cases: Vec<Case> = vec![
            case("match.from = '10.1.0.9'", vec![LAN, tcp(LAN)], vec![other, LAN6, OWN]),
            case(
                "match.from = ['10.1.0.8/31', 'fd00::/124']",
                vec![LAN, LAN6],
                vec![other, other6, OWN, OWN6],
            ),
            case("match.to = '203.0.113.2'", vec![to2(LAN), to2(OWN)], all.to_vec()),
            case(
                "match.to = ['2001:db8:9::2', '203.0.113.0/31']",
                vec![to62(LAN6), to62(OWN6), LAN, OWN],
                vec![LAN6, OWN6, to2(LAN)],
            ),
            case("match.to = '0.0.0.0/0'", vec![LAN, OWN], vec![LAN6, OWN6]),
            case("match.interface = 'l*'", behind.to_vec(), vec![OWN, OWN6, tcp(OWN)]),
            case("match.interface = 'eth7'", vec![], all.to_vec()),
            case(&format!("match.mac = '{mac}'"), behind.to_vec(), vec![OWN, OWN6]),
            case("match.mac = '02:00:00:00:00:01'", vec![], all.to_vec()),
            case("match.protocol = 'tcp'", all.map(tcp).to_vec(), all.to_vec()),
            case("match.protocol = ['udp', 1]", all.to_vec(), all.map(tcp).to_vec()),
            case(
                "match.ports = [7, '100-200']",
                vec![LAN, tcp(OWN), port(100, LAN6), port(200, tcp(LAN))],
                vec![port(99, LAN), port(201, tcp(LAN6)), port(6, OWN), port(8, OWN6)],
            ),
            case(
                "match.ports = 7\nmatch.protocol = 'udp'",
                vec![LAN, OWN6],
                vec![tcp(LAN), tcp(OWN6), port(8, LAN)],
            ),
            case(
                "match.dscp = 'ef'",
                all.map(|p| tos(0xb8, p)).to_vec(),
                [all.to_vec(), vec![tos(0x88, LAN)]].concat(),
            ),
            case(
                "match.dscp = [8, 'af43']",
                vec![tos(0x20, LAN6), tos(0x98, OWN)],
                vec![tos(0x1c, LAN), tos(0x24, OWN6)],
            ),
            case(
                "match.user = '1000-1999'",
                vec![user(1000, OWN), user(1999, tcp(OWN6))],
                vec![user(999, OWN), user(2000, OWN6), LAN, user(1500, LAN)],
            ),
            // The hour is asked for elsewhere; packets are asked for nothing.
            case("match.time = '00:00-24:00'", all.into_iter().chain(all.map(tcp)).collect(), vec![]),
            case("match.group = 77", vec![group(77, OWN), group(77, OWN6)], vec![group(76, OWN), OWN6, LAN]),
            case(
                "match = { from = '10.1.0.0/28', to = '203.0.113.0/24', ports = 7, protocol = 'tcp', interface = 'lan' }",
                vec![tcp(LAN), tcp(other), to2(tcp(LAN))],
                vec![LAN, port(8, tcp(LAN)), tcp(OWN), tcp(LAN6)],
            ),
        ];
        for (matcher, yes, no) in cases {
            load(&second(&matcher)).await;
            for (probes, uplink) in [(yes, 2), (no, 1)] {
                for probe in probes {
                    assert_eq!(probe.goes_by(&net), Some(uplink), "{matcher}: {probe:?}");
                }
            }
        }
    });
}

#[test]
fn the_first_match_wins_among_many() {
    namespace::run("the_first_match_wins_among_many", &["nft"], || async {
        let net = router().await;
        // Three rounds. Each has a port of its own and another that is an earlier one's as well.
        let policy =
            |n: usize| format!("[[policy]]\nmatch.ports = [{}, {}]\nuplinks = 'u'\n", 1000 + n, 1000 + n / 2);
        let text: String = (0..70).map(policy).collect();
        let last = "[[policy]]\nmatch.to = '203.0.113.1'\nuplinks = 'u'\n";
        let config = configured(&(text + last));
        let way = |place: usize| if place % 3 == 0 { by(2) } else { by(1) };
        load(&table(&config, |place| if place == 70 { by(2) } else { way(place) })).await;
        let first = |port: usize| (0..70).find(|n| n == &(port - 1000) || n / 2 == port - 1000);
        for port in [1000, 1001, 1002, 1003, 1015, 1031, 1032, 1033, 1036, 1063, 1064, 1069, 1070] {
            let wanted = first(port).map_or(by(2), way);
            let probe = Probe { port: port.try_into().unwrap(), ..LAN };
            assert_eq!(probe.goes_by(&net).map(by), Some(wanted), "port {port}");
        }
        // One that is looked past leaves it to the next; one that lets pass ends it.
        let past = |place: usize| match place {
            36 => Verdict::Skip,
            37 => Verdict::Pass,
            _ => by(2),
        };
        load(&table(&config, past)).await;
        let seen = [1036, 1037, 1038].map(|port| Probe { port, ..OWN }.goes_by(&net));
        assert_eq!(seen, [Some(2), Some(1), Some(2)]);
    });
}

#[test]
fn shares_are_exact_and_no_reload_moves_a_flow() {
    namespace::run("shares_are_exact_and_no_reload_moves_a_flow", &["nft"], || async {
        let net = router().await;
        let config = configured("[[policy]]\nmatch.ports = 7\nuplinks = ['one', 'two']\n");
        let shared = |a, b| Verdict::Take(vec![(slot(1), a), (slot(2), b)]);
        load(&table(&config, |_| shared(2, 4))).await;
        for probe in [LAN, LAN6, OWN, OWN6] {
            // Two datagrams may by chance have one source port, and are one flow then.
            let probe = Probe { tcp: true, ..probe };
            let second = (0..60).filter(|_| probe.goes_by(&net) == Some(2)).count();
            assert_eq!(second, 40, "{probe:?}: of 60");
        }
        let server = net.server.run(|| bound("203.0.113.1:7".parse().unwrap(), TcpListener::bind));
        let connect = || TcpStream::connect("203.0.113.1:7").unwrap();
        let mut held: Vec<TcpStream> =
            (0..6).map(|n| if n % 2 == 0 { net.lan.run(connect) } else { connect() }).collect();
        let mut behind: Vec<TcpStream> = held.iter().map(|_| server.accept().unwrap().0).collect();
        for verdict in [by(1), by(2), shared(1, 1), Verdict::Refuse, Verdict::Skip] {
            load(&table(&config, |_| verdict.clone())).await;
            for (near, far) in held.iter_mut().zip(&mut behind) {
                far.set_read_timeout(Some(PATIENCE)).unwrap();
                std::io::Write::write_all(near, b"x").unwrap();
                far.read_exact(&mut [0]).unwrap_or_else(|error| panic!("{verdict:?}: {error}"));
            }
        }
    });
}

#[test]
fn long_lists_are_loaded_once_and_what_is_left_over_goes() {
    namespace::run("long_lists_are_loaded_once_and_what_is_left_over_goes", &["nft"], || async {
        let list = |count: u32| -> String {
            let net = |n: u32| format!("'{}.{}.{}.0/24'", 11 + (n >> 15), n >> 7 & 255, n << 1 & 255);
            (0..count).map(net).collect::<Vec<_>>().join(", ")
        };
        let text = |count: u32, policies: usize| {
            let more = (0..policies).map(|n| format!("[[policy]]\nmatch.from = '10.0.{n}.0/24'\n"));
            format!("[[policy]]\nmatch.to = [{}]\n", list(count)) + &more.collect::<String>()
        };
        for (count, policies) in [(3, 0), (20_000, 40), (20_000, 40), (20_000, 2), (0xff, 100), (1, 0)] {
            let config = configured(&text(count, policies));
            assert_eq!(config.prefixes.count, count as usize + policies);
            for verdict in [by(1), by(2), Verdict::Pass, Verdict::Skip, Verdict::Refuse] {
                let start = Instant::now();
                load(&table(&config, |_| verdict.clone())).await;
                println!("{count} prefixes, {policies} policies more, {verdict:?}: {:?}", start.elapsed());
            }
        }
        load(&table(&configured("[[policy]]\nmatch.ports = 1\n"), |_| by(1))).await;
        assert!(!sh("nft list maps").contains("11.0.0.0"), "no prefix is left over");
        foreign("flush chain inet uplinkd_policy policy_0");
        let left = nfnl::loaded().await.unwrap().policies.unwrap();
        let table = table(&configured("[[policy]]\nmatch.ports = 1\n"), |_| by(1));
        assert!(!left.generation.serves(table.generation()), "a chain was flushed");
        load(&table).await;
        nft::drop_table("uplinkd_policy").await.unwrap();
        assert_eq!(nfnl::loaded().await.unwrap().policies, None);
        assert!(!sh("nft list tables").contains(TABLE));
    });
}
