//! What becomes of running flows when their uplink is down, on a real kernel: they move or end at once.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod namespace;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use namespace::router::{lead_out_by, net};
use namespace::{NO_DAD, Neighbour, nft as foreign, sh};
use uplinkd::core::layout::{MARK_MASK, Slot};
use uplinkd::core::net::{Family, IfName, Mark};
use uplinkd::core::nft::Ruleset;
use uplinkd::core::stream::Stream;
use uplinkd::kernel::conntrack::{MOST_STREAMS, evict, streams};
use uplinkd::kernel::flows::release;
use uplinkd::kernel::nft;
use uplinkd::kernel::rouse::rouse;
use uplinkd::kernel::sockets::{Doomed, destroy};

const SOON: Duration = Duration::from_secs(1);

fn mark(slot: u8) -> Mark {
    Slot::new(slot).unwrap().mark()
}

fn ruleset() -> Ruleset {
    let uplink = |(name, slot)| (IfName::new(name).unwrap(), Slot::new(slot).unwrap());
    Ruleset { uplinks: [("wan1", 1), ("wan2", 2)].map(uplink).to_vec(), ..Ruleset::default() }
}

/// How many conntrack entries have these bits of ours, and how many have none.
fn entries(family: &str) -> [usize; 3] {
    let text = sh(&format!("conntrack -L -f {family}"));
    let marks = text.split_whitespace().filter_map(|w| w.strip_prefix("mark=")?.parse::<u32>().ok());
    let slots: Vec<_> = marks.map(|mark| (mark & MARK_MASK) >> 24).collect();
    [0, 1, 2].map(|slot| slots.iter().filter(|&&s| s == slot).count())
}

/// Makes conntrack entries, one by one.
fn make(count: usize, each: impl Fn(usize) -> String) {
    // The tool reads a file of commands, which is quicker than a process for each.
    let path = std::env::temp_dir().join(format!("uplinkd-flows-{}", nix::unistd::gettid()));
    let lines: String =
        (0..count).map(|n| format!("-I -p tcp --state ESTABLISHED -t 300 {}\n", each(n))).collect();
    std::fs::write(&path, lines).unwrap();
    sh(&format!("conntrack -R {}", path.display()));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn exactly_the_flows_of_one_uplink_are_evicted() {
    let name = "exactly_the_flows_of_one_uplink_are_evicted";
    namespace::run(name, &["conntrack"], || async {
        // Of each family 50 by the first, 50 by the second, 10 of a stranger, 10 of nobody.
        let bits = |n: usize| match n {
            0..25 => "0x01000000",
            25..50 => "0x81000005",
            50..75 => "0x02000000",
            75..100 => "0x3000000",
            100..110 => "0x80000005",
            _ => "0",
        };
        make(120, |n| {
            let nat = if n % 2 == 0 { "--src-nat 192.0.2.2" } else { "" };
            format!("-s 10.1.0.9 -d 203.0.113.1 --sport {} --dport 80 {nat} --mark {}", 1000 + n, bits(n))
        });
        make(120, |n| {
            let nat = if n % 2 == 0 { "--src-nat 2001:db8:1::2" } else { "" };
            format!("-s fd00::9 -d 2001:db8:9::1 --sport {} --dport 80 {nat} --mark {}", 1000 + n, bits(n))
        });
        make(1, |_| "-s 10.1.0.9 -d 203.0.113.1 --sport 9 --dport 9 -w 7 --mark 0x01000000".to_owned());
        make(1, |_| "-s 10.1.0.9 -d 203.0.113.1 --sport 9 --dport 9 --mark 0x02000000".to_owned());
        assert_eq!(entries("ipv4"), [20, 51, 26]);
        for family in Family::BOTH {
            assert!(evict(family, Mark::new(0, MARK_MASK)).await.is_err());
            assert!(evict(family, Mark::new(0, 0)).await.is_err());
            assert!(streams(family, Mark::new(0, MARK_MASK)).await.is_err());
        }
        assert_eq!((entries("ipv4"), entries("ipv6")), ([20, 51, 26], [20, 50, 25]));

        let mut found = streams(Family::V4, mark(1)).await.unwrap();
        found.sort();
        let expected = |n: u16| Stream {
            near: SocketAddr::new([10, 1, 0, 9].into(), 1000 + n),
            far: SocketAddr::new([203, 0, 113, 1].into(), 80),
        };
        assert_eq!(found, (0..50).step_by(2).map(expected).collect::<Vec<_>>(), "those with NAT");
        assert_eq!(streams(Family::V6, mark(1)).await.unwrap().len(), 25);

        assert_eq!(evict(Family::V4, mark(1)).await.unwrap(), 51);
        assert_eq!((entries("ipv4"), entries("ipv6")), ([20, 0, 26], [20, 50, 25]), "only the one family");
        assert_eq!(evict(Family::V6, mark(1)).await.unwrap(), 50);
        assert_eq!((entries("ipv4"), entries("ipv6")), ([20, 0, 26], [20, 0, 25]));
        assert_eq!(evict(Family::V4, mark(1)).await.unwrap(), 0);
        assert!(sh("conntrack -L -f ipv4").contains("sport=9 dport=9"), "the same flow outside of the zone");
    });
}

#[test]
fn what_uses_an_address_that_has_gone_is_evicted() {
    let name = "what_uses_an_address_that_has_gone_is_evicted";
    namespace::run(name, &["conntrack"], || async {
        for flow in [
            // Out of the LAN, by somebody's own snat; of this machine; in to this machine; in to a port that is forwarded.
            "-s 10.1.0.9 -d 203.0.113.1 --src-nat 192.0.2.2 --sport 1",
            "-s 192.0.2.2 -d 203.0.113.1 --sport 2",
            "-s 203.0.113.1 -d 192.0.2.2 --sport 3",
            "-s 203.0.113.1 -d 192.0.2.2 --dst-nat 10.1.0.9 --sport 4",
            // By another address, with the mark of whoever had the one that has gone; within the LAN.
            "-s 10.1.0.9 -d 203.0.113.1 --src-nat 192.0.2.20 --sport 5 --mark 0x01000000",
            "-s 10.1.0.9 -d 10.1.0.1 --sport 6",
        ] {
            sh(&format!("conntrack -I -p tcp --state ESTABLISHED -t 300 --dport 80 {flow}"));
        }
        let gone: IpAddr = "192.0.2.2".parse().unwrap();
        let mut near: Vec<_> =
            streams(Family::V4, gone).await.unwrap().iter().map(|s| s.near.to_string()).collect();
        near.sort();
        assert_eq!(near, ["10.1.0.9:1", "10.1.0.9:80"], "who has to hear of it");
        assert_eq!(evict(Family::V4, gone).await.unwrap(), 4);
        let left = sh("conntrack -L -f ipv4");
        assert!(
            left.contains("sport=5 ") && left.contains("sport=6 ") && left.lines().count() == 2,
            "{left}"
        );
        assert_eq!(evict(Family::V4, gone).await.unwrap(), 0);
    });
}

#[test]
fn twenty_thousand_flows_go_quickly() {
    namespace::run("twenty_thousand_flows_go_quickly", &["conntrack", "nft"], || async {
        nft::load(&ruleset().text()).await.unwrap();
        make(40_000, |n| {
            let (host, port, slot) = (n / 20_000, 1000 + n % 20_000, 1 + n % 2);
            let nat = format!("--src-nat 192.0.2.{} --mark 0x0{slot}000000", 2 + host);
            format!("-s 10.1.{host}.9 -d 203.0.113.1 --sport {port} --dport 80 {nat}")
        });
        let began = Instant::now();
        let found = streams(Family::V4, mark(1)).await.unwrap();
        let listed = began.elapsed();
        nft::condemn(&found).await.unwrap();
        let condemned = began.elapsed() - listed;
        assert_eq!(evict(Family::V4, mark(1)).await.unwrap(), 20_000);
        let evicted = began.elapsed() - listed - condemned;
        assert_eq!(found.len(), MOST_STREAMS);
        println!(
            "of 40000 flows: 10000 listed in {listed:?} and condemned in {condemned:?}, 20000 evicted in {evicted:?}"
        );
        let [_, first, second] = entries("ipv4");
        assert_eq!((first, second), (0, 20_000));
        // A set that is full forgets what was before.
        for host in 0..8 {
            let stream = |port| Stream {
                near: SocketAddr::new([10, 2, host, 9].into(), port),
                far: SocketAddr::new([203, 0, 113, 1].into(), 80),
            };
            nft::condemn(&(1..10_001).map(stream).collect::<Vec<_>>()).await.unwrap();
        }
        assert!(sh("nft list set inet uplinkd evicted_4").contains("10.2.7.9 . 10000 . 203.0.113.1 . 80"));
    });
}

/// What a thread that reads has to tell: how its reading ended, and when.
type Fate = Receiver<(std::io::Result<usize>, Instant)>;

/// Connects, receives the address by which the server sees this end, and then reads on in vain.
fn download(server: &str) -> (SocketAddr, Fate) {
    read_on(TcpStream::connect(server).unwrap())
}

/// The same from an address and port of one's own.
fn download_from(source: &str, server: &str) -> (SocketAddr, Fate) {
    let [source, server] = [source, server].map(|a| a.parse::<SocketAddr>().unwrap());
    // std cannot bind ahead of connecting, and a runtime cannot run within another.
    let connect = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(source).unwrap();
            socket.connect(server).await.unwrap().into_std().unwrap()
        })
    };
    let connection = thread::spawn(connect).join().unwrap();
    connection.set_nonblocking(false).unwrap();
    read_on(connection)
}

fn read_on(mut connection: TcpStream) -> (SocketAddr, Fate) {
    let mut seen = [0; 64];
    let length = connection.read(&mut seen).unwrap();
    let seen = std::str::from_utf8(&seen[..length]).unwrap().parse().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || tell.send((connection.read(&mut [0; 8]), Instant::now())));
    (seen, told)
}

/// Tells every connection whence it comes, then nothing more.
fn serve(address: &'static str) {
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let peer = connection.peer_addr().unwrap().to_string();
            connection.write_all(peer.as_bytes()).unwrap();
            kept.push(connection);
        }
    });
}

#[track_caller]
fn assert_ends(fate: &Fate, kind: ErrorKind, since: Instant) {
    let (outcome, at) = fate.recv_timeout(SOON).expect("it hangs");
    assert_eq!(outcome.unwrap_err().kind(), kind);
    println!("{kind:?} after {:?}", at - since);
}

#[test]
fn connections_of_this_machine_are_ended_by_address() {
    namespace::run("connections_of_this_machine_are_ended_by_address", &["ip"], || async {
        let far = Neighbour::new();
        sh(NO_DAD);
        far.sh(&[NO_DAD]);
        sh(&format!("ip link add wan1 type veth peer name one netns {}", far.tid));
        for line in ["address add 192.0.2.2/24 dev wan1", "address add 2001:db8:1::2/64 dev wan1 nodad"] {
            sh(&format!("ip {line}"));
        }
        for line in
            ["address add 198.51.100.2/32 dev lo", "link set wan1 up", "route add default via 192.0.2.1"]
        {
            sh(&format!("ip {line}"));
        }
        sh("ip route add default via 2001:db8:1::1");
        far.sh(&[
            "ip address add 192.0.2.1/24 dev one",
            "ip address add 2001:db8:1::1/64 dev one nodad",
            "ip address add 203.0.113.1/32 dev lo",
            "ip address add 2001:db8:9::1/128 dev lo nodad",
            "ip link set one up",
            "ip route add 198.51.100.2 via 192.0.2.2",
        ]);
        far.run(|| ["203.0.113.1:80", "192.0.2.1:80", "[2001:db8:9::1]:80"].map(serve));
        serve("0.0.0.0:81");
        serve("[::]:82");
        let (_, four) = download("203.0.113.1:80");
        let (_, six) = download("[2001:db8:9::1]:80");
        let (seen, mapped) = download("[::ffff:203.0.113.1]:80");
        assert_eq!(seen.ip().to_canonical(), "192.0.2.2".parse::<IpAddr>().unwrap());
        // In to a socket of both families; and these survive: to the modem, to itself, from another address.
        let inward = far.run(|| download("192.0.2.2:82")).1;
        let modem = download("192.0.2.1:80").1;
        let itself = download("192.0.2.2:81").1;
        sh("ip route replace default via 192.0.2.1 src 198.51.100.2");
        let (seen, other) = download("203.0.113.1:80");
        assert_eq!(seen.ip(), "198.51.100.2".parse::<IpAddr>().unwrap());
        // One that still tries, as nobody answers.
        far.sh(&["ip route add blackhole 203.0.113.7/32"]);
        sh("ip route add 203.0.113.7 via 192.0.2.1 src 192.0.2.2");
        let (tell, trying) = channel();
        thread::spawn(move || tell.send((TcpStream::connect("203.0.113.7:80").map(|_| 0), Instant::now())));
        thread::sleep(Duration::from_millis(100));

        assert_eq!(destroy(&Doomed::default()).await.unwrap(), 0);
        let addresses = ["192.0.2.2".parse().unwrap(), "2001:db8:1::2".parse().unwrap()];
        let spare = ["192.0.2.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()];
        let began = Instant::now();
        assert_eq!(destroy(&Doomed::at(&addresses, &spare)).await.unwrap(), 4);
        println!("destroy took {:?}", began.elapsed());
        for fate in [&four, &six, &mapped, &trying] {
            assert_ends(fate, ErrorKind::ConnectionAborted, began);
        }
        for fate in [&inward, &modem, &itself, &other] {
            assert!(fate.try_recv().is_err(), "is left alone");
        }
        // With the modem's network not spared, what came in from there goes as well; who listens stays.
        assert_eq!(destroy(&Doomed::at(&addresses[..1], &[])).await.unwrap(), 2);
        assert_ends(&modem, ErrorKind::ConnectionAborted, began);
        assert_ends(&inward, ErrorKind::ConnectionReset, began);
        assert!(itself.try_recv().is_err() && other.try_recv().is_err());
        download("192.0.2.2:81");
        far.run(|| download("192.0.2.2:82"));
    });
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A carrier that says nothing to connections that it has not seen begin.
const DEAF: &str = "add table inet t; add chain inet t f { type filter hook forward priority 0; }; \
     add rule inet t f tcp flags & (syn | ack) == ack ct state new counter drop; \
     add rule inet t f ct state invalid counter drop";

/// A machine that lets in nothing but answers, and what a port is forwarded to.
const WALL: &str = "add table inet t; add chain inet t i { type filter hook input priority 0; }; \
     add rule inet t i tcp dport 8080 accept; \
     add rule inet t i ct state invalid counter drop; \
     add rule inet t i ct state established accept; \
     add rule inet t i meta l4proto tcp counter drop";

#[test]
fn flows_of_the_lan_move_or_end_at_once() {
    namespace::run("flows_of_the_lan_move_or_end_at_once", &["ip", "nft", "conntrack"], || async {
        let net = net();
        nft::load(&ruleset().text()).await.unwrap();
        foreign(
            "add table ip forward; add chain ip forward p { type nat hook prerouting priority dstnat; }; \
                 add rule ip forward p tcp dport 8080 iifname wan* dnat to 10.1.0.9:8080",
        );
        for isp in &net.isps {
            isp.run(|| foreign(DEAF));
        }
        net.lan.run(|| foreign(WALL));
        let servers = ["203.0.113.1:80", "[2001:db8:9::1]:80"];
        net.server.run(move || servers.map(serve));

        lead_out_by(2);
        let stays = servers.map(|to| net.lan.run(move || download(to)));
        let own_stays = download(servers[0]);
        lead_out_by(1);
        let goes = servers.map(|to| net.lan.run(move || download(to)));
        let own_goes = servers.map(download);
        // Of this machine as well, but by an address that is no uplink's, as programs in a container have it.
        let inner = download_from("10.1.0.1:0", servers[0]);
        // Of the LAN, and done with sending.
        let half = net.lan.run(|| {
            let connection = TcpStream::connect("203.0.113.1:80").unwrap();
            connection.shutdown(std::net::Shutdown::Write).unwrap();
            read_on(connection)
        });
        let froms =
            |flows: &[(SocketAddr, Fate)]| flows.iter().map(|f| f.0.ip().to_string()).collect::<Vec<_>>();
        assert_eq!(froms(&stays), ["198.51.100.2", "2001:db8:2::2"]);
        assert_eq!(froms(&goes), ["192.0.2.2", "2001:db8:1::2"]);
        assert_eq!(froms(&own_goes), ["192.0.2.2", "2001:db8:1::2"]);
        // One that sends, and needs nobody to rouse it.
        let mut upload = net.lan.run(|| TcpStream::connect("203.0.113.1:80").unwrap());
        let mut seen = [0; 64];
        assert_ne!(upload.read(&mut seen).unwrap(), 0);
        // One that came in by a port that is forwarded.
        let listener = net.lan.run(|| TcpListener::bind("10.1.0.9:8080").unwrap());
        let _visitor = net.server.run(|| TcpStream::connect("192.0.2.2:8080").unwrap());
        let mut visited = listener.accept().unwrap().0;
        visited.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(visited.peer_addr().unwrap().ip(), ip("203.0.113.1"));
        // A call.
        let call = net.lan.run(|| UdpSocket::bind("10.1.0.9:4000").unwrap());
        let answering = net.server.run(|| UdpSocket::bind("203.0.113.1:4000").unwrap());
        answering.set_read_timeout(Some(SOON)).unwrap();
        let caller = || {
            call.send_to(b"?", "203.0.113.1:4000").unwrap();
            answering.recv_from(&mut [0; 8]).unwrap().1.ip()
        };
        assert_eq!(caller(), ip("192.0.2.2"));

        // The ISP goes dark, as far as this machine can see.
        net.isps[0].sh(&["ip link set net down"]);
        lead_out_by(2);
        let addresses = [ip("192.0.2.2"), ip("2001:db8:1::2")];
        let spare = ["192.0.2.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()];
        for (family, own, roused) in [(Family::V4, 1, 5), (Family::V6, 1, 1)] {
            let began = Instant::now();
            let released = release(family, mark(1), &addresses, &spare).await;
            println!("{family}: {released:?} after {:?}", began.elapsed());
            assert_eq!((released.ended, released.roused, released.problems), (own, roused, vec![]));
            let n = usize::from(family == Family::V6);
            assert_ends(&goes[n].1, ErrorKind::ConnectionReset, began);
            assert_ends(&own_goes[n].1, ErrorKind::ConnectionAborted, began);
        }
        assert_ends(&half.1, ErrorKind::ConnectionReset, Instant::now());
        assert_ends(&inner.1, ErrorKind::ConnectionReset, Instant::now());
        assert_eq!(visited.read(&mut seen).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let ended = upload.write(b"x").and_then(|_| upload.read(&mut seen));
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(caller(), ip("198.51.100.2"), "the call goes on");

        for (_, fate) in stays.iter().chain([&own_stays]) {
            assert!(fate.try_recv().is_err(), "the other uplink's are left alone");
        }
        let left = sh("conntrack -L -f ipv4") + &sh("conntrack -L -f ipv6");
        assert_eq!(left.matches("ESTABLISHED").count(), 3, "nothing was picked up again: {left}");
        // They begin anew, from the very port as well.
        let port = upload.local_addr().unwrap();
        drop(upload);
        let again = net.lan.run(move || download_from(&port.to_string(), servers[0]));
        assert_eq!(again.0.ip(), ip("198.51.100.2"));
    });
}

#[test]
fn without_the_reset_here_nobody_else_sends_one() {
    namespace::run("without_the_reset_here_nobody_else_sends_one", &["ip", "nft", "conntrack"], || async {
        let net = net();
        nft::load(&ruleset().text()).await.unwrap();
        net.isps[1].run(|| foreign(DEAF));
        net.server.run(|| serve("203.0.113.1:80"));
        lead_out_by(1);
        let lost = net.lan.run(|| download("203.0.113.1:80")).1;
        lead_out_by(2);
        let found = streams(Family::V4, mark(1)).await.unwrap();
        evict(Family::V4, mark(1)).await.unwrap();
        assert_eq!(rouse(&found).await.unwrap(), 1);
        assert!(lost.recv_timeout(SOON / 2).is_err());
        let heard = net.isps[1].run(|| sh("nft list chain inet t f"));
        assert!(heard.contains("counter packets 1"), "the carrier got the answer and kept it: {heard}");
        // And nothing is reset that was not told of.
        let other = net.lan.run(|| download("203.0.113.1:80")).1;
        sh("conntrack -F");
        nft::condemn(&found).await.unwrap();
        assert_eq!(rouse(&found).await.unwrap(), 1);
        assert_ends(&lost, ErrorKind::ConnectionReset, Instant::now());
        assert!(other.try_recv().is_err());
    });
}

#[test]
fn clients_that_left_hold_up_nobody() {
    namespace::run("clients_that_left_hold_up_nobody", &["ip", "nft"], || async {
        let net = net();
        net.lan.run(|| {
            foreign(
                "add table t; add chain t i { type filter hook input priority 0; }; \
             add rule t i tcp flags & (syn | ack) == syn | ack counter drop",
            )
        });
        lead_out_by(1);
        // The only one that is there is the last.
        let stream = |n: u16| Stream {
            near: SocketAddr::new([10, 1, 0, if n < 9_999 { 100 + (n % 100) as u8 } else { 9 }].into(), n),
            far: SocketAddr::new([203, 0, 113, 1].into(), 80),
        };
        let all: Vec<_> = (0..10_000).map(stream).collect();
        let began = Instant::now();
        let sent = rouse(&all).await.unwrap();
        println!("{sent} of 10000 roused in {:?}", began.elapsed());
        assert!(began.elapsed() < 2 * SOON);
        let heard = net.lan.run(|| sh("nft list chain t i"));
        assert!(heard.contains("counter packets 1 "), "{heard}");
    });
}

#[test]
fn a_step_that_fails_does_not_stop_the_rest() {
    namespace::run("a_step_that_fails_does_not_stop_the_rest", &["conntrack", "nft"], || async {
        make(2, |n| {
            format!("-s 10.1.0.9 -d 203.0.113.1 --src-nat 192.0.2.2 --sport {n} --dport 80 --mark 0x01000000")
        });
        let released = release(Family::V4, mark(1), &[], &[]).await;
        assert_eq!(
            (released.evicted, released.problems.len()),
            (2, 1),
            "our table is not loaded: {released:?}"
        );
        assert!(released.problems[0].starts_with("cannot name lost connections in nft table inet uplinkd: "));
    });
}
