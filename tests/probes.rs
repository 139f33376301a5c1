//! Probes against a server in a namespace of its own: what counts as an answer, and what does not.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod namespace;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record};
use namespace::{Neighbour, sh};
use uplinkd::core::net::{Family, IfIndex, IfName, Mark, UplinkName};
use uplinkd::probes::{Answer, Outcome, Way, ask};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);

/// A device `e0` with a rule as the daemon makes it, and behind it a server that has 203.0.113.1 and 2001:db8:9::1.
struct World {
    server: Neighbour,
    way: Way,
}

impl World {
    fn new() -> Self {
        let server = Neighbour::new();
        sh("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0");
        sh(&format!("ip link add e0 type veth peer name p0 netns {}", server.tid));
        server.sh(&[
            "ip address add 192.0.2.1/24 dev p0",
            "ip address add 2001:db8:1::1/64 dev p0 nodad",
            "ip address add 203.0.113.1/32 dev lo",
            "ip address add 2001:db8:9::1/128 dev lo nodad",
            "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0",
            // Not by a route of type unreachable: the errors of these have a limit of their own.
            "ip address add 203.0.113.99/32 dev lo",
            "ip address add 2001:db8:9::99/128 dev lo nodad",
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            "ip link set p0 up",
        ]);
        server.run(|| {
            namespace::nft(
                "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                 add rule inet t c ip daddr 203.0.113.99 reject with icmp host-unreachable; \
                 add rule inet t c ip6 daddr 2001:db8:9::99 reject with icmpv6 addr-unreachable",
            );
        });
        for line in [
            "ip link set e0 up",
            "ip address add 192.0.2.2/24 dev e0",
            "ip address add 2001:db8:1::2/64 dev e0 nodad",
            "ip route add default via 192.0.2.1 dev e0 table 77",
            "ip -6 route add default via 2001:db8:1::1 dev e0 table 77",
            "ip rule add oif e0 lookup 77",
            "ip -6 rule add oif e0 lookup 77",
        ] {
            sh(line);
        }
        let index = nix::net::if_::if_nametoindex("e0").unwrap();
        let way = Way {
            uplink: UplinkName::new("fibre").unwrap(),
            device: IfName::new("e0").unwrap(),
            index: IfIndex(index),
            mark: Mark::new(0x0100_0000, 0x3f00_0000),
            family: Family::V4,
            gateway: Some("192.0.2.1".parse().unwrap()),
            resolvers: vec!["203.0.113.1".parse().unwrap(), "2001:db8:9::1".parse().unwrap()],
        };
        World { server, way }
    }

    fn v6(&self) -> Way {
        Way { family: Family::V6, gateway: Some("2001:db8:1::1".parse().unwrap()), ..self.way.clone() }
    }

    async fn ask(&self, probe: &str, limit: Duration) -> Answer {
        let way = if probe.contains("[2001:") { self.v6() } else { self.way.clone() };
        ask(&probe.parse().unwrap(), &way, limit).await
    }

    async fn answered(&self, probe: &str) -> Answer {
        let answer = self.ask(probe, LONG).await;
        assert!(
            matches!(answer.outcome, Outcome::Answered(time) if time < Duration::from_secs(1)),
            "{probe}: {answer:?}"
        );
        answer
    }

    async fn failed(&self, probe: &str, limit: Duration, why: &str) {
        let since = Instant::now();
        match self.ask(probe, limit).await.outcome {
            Outcome::Failed(said) => assert!(said.contains(why), "{probe}: {said}"),
            other => panic!("{probe}: {other:?}"),
        }
        assert!(since.elapsed() < limit + Duration::from_secs(1), "{probe}: {:?}", since.elapsed());
    }

    async fn portal(&self, probe: &str, why: &str) {
        match self.ask(probe, LONG).await.outcome {
            Outcome::Portal(said) => assert!(said.contains(why), "{probe}: {said}"),
            other => panic!("{probe}: {other:?}"),
        }
    }

    /// Serves connections, each by this function and one after the other.
    fn serve(&self, address: &'static str, mut each: impl FnMut(std::net::TcpStream) + Send + 'static) {
        let listener = self.server.run(move || TcpListener::bind(address).unwrap());
        thread::spawn(move || listener.incoming().flatten().for_each(&mut each));
    }

    /// Serves pages.
    fn pages(&self, address: &'static str, answer: &'static str) {
        self.serve(address, move |mut stream| {
            let mut request = [0; 1024];
            // A probe that only connects resets the connection.
            let Ok(length) = stream.read(&mut request) else { return };
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            if request.is_empty() {
                return;
            }
            assert!(
                request.contains("\r\nConnection: close\r\n") && request.contains("\r\nHost: "),
                "{request}"
            );
            let _ = stream.write_all(answer.as_bytes());
        });
    }

    /// Answers queries with whatever datagrams this function makes of them.
    fn dns(&self, address: &'static str, each: impl Fn(Message) -> Vec<Message> + Send + 'static) {
        let socket = self.server.run(move || UdpSocket::bind(address).unwrap());
        thread::spawn(move || {
            let mut datagram = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut datagram) {
                for answer in each(Message::from_vec(&datagram[..length]).unwrap()) {
                    socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
                }
            }
        });
    }
}

fn run<T: Future<Output = ()>>(name: &str, test: impl FnOnce(World) -> T + Send + 'static) {
    namespace::run(name, &["ip", "nft", "openssl"], || test(World::new()));
}

fn reply(question: &Message, code: ResponseCode) -> Message {
    let mut reply = question.clone();
    reply.set_message_type(MessageType::Response).set_response_code(code);
    reply
}

fn resolved(question: &Message, addresses: &[IpAddr]) -> Message {
    let mut message = reply(question, ResponseCode::NoError);
    let query = question.queries()[0].clone();
    for address in addresses {
        let data = match *address {
            IpAddr::V4(ip) => RData::A(A(ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
        };
        if data.record_type() == query.query_type() {
            message.add_answer(Record::from_rdata(query.name().clone(), 1, data));
        }
    }
    message
}

#[test]
fn echoes_and_connections_are_answered() {
    run("echoes_and_connections_are_answered", |world| async move {
        world.serve("203.0.113.1:80", drop);
        world.serve("[2001:db8:9::1]:80", drop);
        let answer = world.answered("icmp:203.0.113.1").await;
        assert_eq!((answer.bytes, answer.packets), (72, 1));
        let answer = world.answered("icmp:[2001:db8:9::1]").await;
        assert_eq!((answer.bytes, answer.packets), (112, 1));
        let answer = world.answered("tcp:203.0.113.1:80").await;
        assert_eq!((answer.bytes, answer.packets), (60 + 60 + 52 + 52, 3));
        world.answered("tcp:[2001:db8:9::1]:80").await;
        world.failed("tcp:203.0.113.1:81", LONG, "connection refused").await;
        world.failed("tcp:[2001:db8:9::1]:81", LONG, "connection refused").await;
    });
}

#[test]
fn what_is_unreachable_fails_at_once() {
    run("what_is_unreachable_fails_at_once", |world| async move {
        for kind in ["icmp:", "tcp:", "dns:"] {
            for target in ["203.0.113.99", "[2001:db8:9::99]"] {
                let port = if kind == "tcp:" { ":80" } else { "" };
                world.failed(&format!("{kind}{target}{port}"), LONG, "unreachable").await;
            }
        }
        world.failed("dns:203.0.113.1", LONG, "connection refused").await;
        world.failed("http://203.0.113.1/", LONG, "connection refused").await;
        // Nobody there to say so.
        world.failed("icmp:192.0.2.9", SHORT, "no answer within 300ms").await;
        let answer = world.ask("tcp:192.0.2.9:80", Duration::from_millis(1200)).await;
        assert_eq!(answer.packets, 2, "{answer:?}");
        sh("ip link set e0 down");
        world.failed("icmp:203.0.113.1", LONG, "").await;
        sh("ip link del e0");
        world.failed("icmp:203.0.113.1", LONG, "the device has gone").await;
    });
}

#[test]
fn this_machine_is_no_answer() {
    run("this_machine_is_no_answer", |world| async move {
        let _here = TcpListener::bind("[::]:80").unwrap();
        for probe in ["icmp:192.0.2.2", "tcp:192.0.2.2:80", "tcp:[2001:db8:1::2]:80", "icmp:[2001:db8:1::2]"]
        {
            world.failed(probe, LONG, "an address of this machine").await;
        }
        world.dns("203.0.113.1:53", |question| vec![resolved(&question, &["127.0.0.1".parse().unwrap()])]);
        world.failed("http://portal.example/", LONG, "127.0.0.1 is an address of this machine").await;
        let answer = ask(&"icmp:1.1.1.1".parse().unwrap(), &world.v6(), LONG).await;
        assert_eq!(answer.outcome, Outcome::Failed("1.1.1.1 is not an address of ipv6".to_owned()));
    });
}

/// Every packet carries the mark and leaves by the device, so that a firewall that drops all others lets it through.
#[test]
fn every_packet_has_the_mark() {
    run("every_packet_has_the_mark", |world| async move {
        world.pages("203.0.113.1:80", "HTTP/1.1 204 X\r\n\r\n");
        world.dns("203.0.113.1:53", |question| vec![resolved(&question, &["203.0.113.1".parse().unwrap()])]);
        namespace::nft(
            "add table inet t; add chain inet t c { type filter hook output priority 0; }; \
             add rule inet t c meta l4proto { icmp, tcp, udp } meta mark != 0x01000000 drop",
        );
        for probe in
            ["icmp:203.0.113.1", "tcp:203.0.113.1:80", "dns:203.0.113.1", "http://x.example/ status=204"]
        {
            world.answered(probe).await;
        }
        namespace::nft("add rule inet t c meta mark 0x01000000 drop");
        world.failed("icmp:203.0.113.1", LONG, "not permitted").await;
    });
}

/// Echo replies that differ from the right one in one thing each, and errors that quote another packet.
#[test]
fn forged_echo_replies_are_ignored() {
    run("forged_echo_replies_are_ignored", |world| async move {
        use socket2::{Domain, Protocol, Socket, Type};
        world
            .server
            .sh(&["sysctl -qw net.ipv4.icmp_echo_ignore_all=1", "ip address add 203.0.113.2/32 dev lo"]);
        let socket =
            world.server.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap());
        let forger = thread::spawn(move || {
            let mut packet = [0; 100];
            let length = (&socket).read(&mut packet).unwrap();
            let to = "192.0.2.2:0".parse::<std::net::SocketAddr>().unwrap().into();
            // Id, sequence number, token.
            for at in [4, 6, 8, 15] {
                let mut forged = packet[20..length].to_vec();
                (forged[0], forged[at]) = (0, forged[at] ^ 1);
                send_icmp(&socket, forged, &to);
            }
            // Destination unreachable, quoting somebody else's packet.
            let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
            error.extend(&packet[..length]);
            error[8 + 20 + 5] ^= 1;
            send_icmp(&socket, error, &to);
            // All of it right, but from another address.
            socket.bind(&"203.0.113.2:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
            let mut forged = packet[20..length].to_vec();
            forged[0] = 0;
            send_icmp(&socket, forged, &to);
        });
        world.failed("icmp:203.0.113.1", SHORT, "no answer").await;
        forger.join().unwrap();
    });
}

fn send_icmp(socket: &socket2::Socket, mut packet: Vec<u8>, to: &socket2::SockAddr) {
    packet[2..4].fill(0);
    let sum: u32 = packet
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.send_to(&packet, to).unwrap();
}

#[test]
fn dns_is_answered_and_lies_are_ignored() {
    run("dns_is_answered_and_lies_are_ignored", |world| async move {
        for address in ["203.0.113.1:53", "[2001:db8:9::1]:53"] {
            world.dns(address, |question| {
                let name = question.queries()[0].name().to_string();
                let code = match name.as_str() {
                    "none.example." => ResponseCode::NXDomain,
                    "broken.example." => ResponseCode::ServFail,
                    "refused.example." => ResponseCode::Refused,
                    _ => ResponseCode::NoError,
                };
                let right = reply(&question, code);
                let mut other_id = right.clone();
                other_id.set_id(right.id() ^ 1);
                let mut other_question = right.clone();
                other_question.queries_mut()[0].set_query_type(hickory_proto::rr::RecordType::TXT);
                let lies = vec![question, other_id, other_question];
                if name == "lies.example." { lies } else { [lies, vec![right]].concat() }
            });
        }
        for probe in ["dns:203.0.113.1", "dns:203.0.113.1/none.example", "dns:[2001:db8:9::1]"] {
            world.answered(probe).await;
        }
        world.failed("dns:203.0.113.1/lies.example", SHORT, "no answer").await;
        world.failed("dns:203.0.113.1/broken.example", LONG, "server failure").await;
        world.failed("dns:203.0.113.1/refused.example", LONG, "refused").await;
    });
}

#[test]
fn names_are_resolved_through_the_uplink() {
    run("names_are_resolved_through_the_uplink", |world| async move {
        world.server.sh(&["ip address add 9.9.9.9/32 dev lo", "ip address add 203.0.113.3/32 dev lo"]);
        world.serve("203.0.113.1:80", drop);
        world.dns("203.0.113.1:53", |question| {
            let name = question.queries()[0].name().to_string();
            match name.as_str() {
                "x.example." => vec![resolved(&question, &["203.0.113.1".parse().unwrap()])],
                "mute.example." => vec![],
                _ => vec![reply(&question, ResponseCode::ServFail)],
            }
        });
        world.dns("9.9.9.9:53", |question| match question.queries()[0].name().to_string().as_str() {
            "nowhere.example." => vec![reply(&question, ResponseCode::NXDomain)],
            _ => vec![resolved(&question, &["203.0.113.1".parse().unwrap()])],
        });
        let answer = world.answered("tcp:x.example:80").await;
        assert!(answer.packets == 4 && answer.bytes > 224, "{answer:?}");
        // The second server is asked when the first fails, or is silent for a second.
        world.answered("icmp:second.example").await;
        let since = Instant::now();
        world.answered("icmp:mute.example").await;
        assert!((1.0..1.5).contains(&since.elapsed().as_secs_f32()), "{:?}", since.elapsed());
        world.failed("icmp:nowhere.example", LONG, "cannot resolve nowhere.example").await;
    });
}

#[test]
fn pages_and_portals_are_told_apart() {
    run("pages_and_portals_are_told_apart", |world| async move {
        world.pages("203.0.113.1:80", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsuccess\n");
        world.pages("203.0.113.1:81", "HTTP/1.1 302 Found\r\nLocation: http://login.example/?x\r\n\r\n");
        world.pages("203.0.113.1:82", "SSH-2.0-OpenSSH\r\n");
        world.pages("203.0.113.1:83", "");
        world.serve("203.0.113.1:84", |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
        world.serve("203.0.113.1:85", |stream| {
            thread::sleep(Duration::from_secs(1));
            drop(stream);
        });
        world.pages("[2001:db8:9::1]:80", "HTTP/1.1 204 X\r\n\r\n");
        world.answered("http://203.0.113.1/ body=success").await;
        world.answered("http://203.0.113.1/").await;
        world.answered("http://[2001:db8:9::1]/ status=204").await;
        world.portal("http://203.0.113.1/ status=204", "status 200 instead of 204").await;
        world.portal("http://203.0.113.1/ body=no", "another text").await;
        world.portal("http://203.0.113.1:81/ body=success", "redirected to login.example").await;
        world.failed("http://203.0.113.1:82/", LONG, "not HTTP").await;
        world.failed("http://203.0.113.1:83/", LONG, "closed without an answer").await;
        world.portal("http://203.0.113.1:84/ body=success", "another text").await;
        world.failed("http://203.0.113.1:85/", SHORT, "no answer within 300ms").await;
    });
}

#[test]
fn gateways_are_asked_by_the_kernel() {
    run("gateways_are_asked_by_the_kernel", |world| async move {
        let ask_via = |way: &Way, gateway: Option<&str>, limit| {
            let way = Way { gateway: gateway.map(|ip| ip.parse().unwrap()), ..way.clone() };
            async move { ask(&"arp".parse().unwrap(), &way, limit).await }
        };
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        for (way, gateway, nobody, silence) in [
            (world.way.clone(), "192.0.2.1", "192.0.2.9", "no answer to ARP"),
            (world.v6(), "2001:db8:1::1", "2001:db8:1::9", "no answer to neighbour discovery"),
        ] {
            // Without an entry, reachable, stale.
            for _ in 0..2 {
                let answer = ask_via(&way, Some(gateway), LONG).await;
                assert!(matches!(answer.outcome, Outcome::Answered(_)) && answer.packets == 1, "{answer:?}");
            }
            sh(&format!("ip neigh change {gateway} dev e0 nud stale"));
            let answer = ask_via(&way, Some(gateway), LONG).await;
            assert!(matches!(answer.outcome, Outcome::Answered(_)), "{answer:?}");
            // The kernel's verdict, and our own limit.
            let answer = ask_via(&way, Some(nobody), LONG).await;
            assert!(answer.outcome == failed(silence) && answer.packets == 3, "{answer:?}");
            assert_eq!(ask_via(&way, Some(nobody), SHORT).await.outcome, failed(silence));
            assert_eq!(ask_via(&way, None, LONG).await.outcome, failed("the link has no gateway to ask"));
            // Another machine takes over the address without a word.
            world.server.sh(&["ip link set p0 address 02:00:00:00:00:77"]);
            let answer = ask_via(&way, Some(gateway), LONG).await;
            assert!(matches!(answer.outcome, Outcome::Answered(_)), "{answer:?}");
            world.server.sh(&["ip link set p0 address 02:00:00:00:00:78"]);
            // What somebody fixed stays.
            sh(&format!("ip neigh replace {gateway} dev e0 lladdr 02:00:00:00:00:01 nud permanent"));
            assert!(
                matches!(ask_via(&way, Some(gateway), LONG).await.outcome, Outcome::Failed(why) if why.contains("fixed"))
            );
            assert!(sh(&format!("ip neigh show {gateway} dev e0")).contains("PERMANENT"));
        }
        sh("ip -6 neigh replace 2001:db8:1::7 dev e0 lladdr 02:00:00:00:00:01 router nud reachable");
        ask_via(&world.v6(), Some("2001:db8:1::7"), SHORT).await;
        let entry = sh("ip -6 neigh show 2001:db8:1::7 dev e0");
        assert!(entry.contains("router") && entry.contains("PROBE"), "{entry}");
    });
}

fn descriptors() -> usize {
    Path::new("/proc/thread-self/fd").read_dir().unwrap().count()
}

/// Processes with this in their command line.
fn processes(word: &str) -> usize {
    let lines = Path::new("/proc").read_dir().unwrap().flatten();
    lines
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(word))
        })
        .count()
}

fn script(name: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    format!("command:/bin/sh {}", path.display())
}

#[test]
fn programs_are_run_and_none_is_left() {
    run("programs_are_run_and_none_is_left", |world| async move {
        let way = "test \"$(env | grep -c UPLINKD_)\" = 5 -a \"$UPLINKD_UPLINK $UPLINKD_DEVICE $UPLINKD_FAMILY \
                   $UPLINKD_GATEWAY $UPLINKD_MARK\" = 'fibre e0 ipv4 192.0.2.1 16777216' -a -z \"$HOME\"";
        world.answered(&script("env", way)).await;
        world
            .failed(
                &script("status", "echo out; echo; echo >&2 '\u{1b}[31mwhy'; echo >&2 more; exit 3"),
                LONG,
                "exit status 3: [31mwhy",
            )
            .await;
        world.failed(&script("signal", "kill -9 $$"), LONG, "killed by signal 9").await;
        world.failed("command:/nonexistent", LONG, "cannot run").await;
        world.failed(&script("hang", "sleep 7771 & sleep 7771"), SHORT, "did not end within 300ms").await;
        world
            .failed(
                &script("flood", "sleep 7771 & while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"),
                LONG,
                "4 KiB",
            )
            .await;
        // Children that hold the pipes, in the group and outside of it.
        world.answered(&script("fork", "sleep 7771 & exit 0")).await;
        world.answered(&script("escape", "setsid sleep 1.5 & exit 0")).await;
        let hang = script("dropped", "sleep 7771 & sleep 7771");
        let asked = world.ask(&hang, LONG);
        assert!(tokio::time::timeout(SHORT, asked).await.is_err());
        tokio::time::sleep(SHORT).await;
        assert_eq!(processes("7771"), 0);
        let own = format!("/proc/{}/task", std::process::id());
        let children = std::fs::read_dir(own).unwrap().flatten();
        let children: String =
            children.flat_map(|task| std::fs::read_to_string(task.path().join("children"))).collect();
        let zombie =
            |id: &&str| std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name == "sh\n");
        assert_eq!(children.split_whitespace().filter(zombie).count(), 0, "{children}");
    });
}

#[test]
fn a_dropped_question_leaves_nothing_open() {
    run("a_dropped_question_leaves_nothing_open", |world| async move {
        // Of the other tests' descriptors nothing is to be seen.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
        // What the runtime opens on first use stays.
        world.ask("arp", LONG).await;
        world.ask(&script("none", "exit 0"), LONG).await;
        let before = descriptors();
        for probe in
            ["icmp:192.0.2.9", "tcp:192.0.2.9:80", "dns:192.0.2.9", "http://x.example/", "https://192.0.2.9/"]
        {
            let asked = world.ask(probe, LONG);
            assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err(), "{probe}");
            assert_eq!(descriptors(), before, "{probe}");
        }
        let nobody = Way { gateway: Some("192.0.2.9".parse().unwrap()), ..world.way.clone() };
        let arp = "arp".parse().unwrap();
        assert!(tokio::time::timeout(SHORT, ask(&arp, &nobody, LONG)).await.is_err());
        assert_eq!(descriptors(), before, "arp");
    });
}

/// A server with a certificate that nobody signed; where its certificate is.
fn secure_server(world: &World) -> std::path::PathBuf {
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
    let path = |name: &str| {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}.pem", std::process::id()))
    };
    let (key, cert) = (path("key"), path("cert"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=x.example", "-addext", "subjectAltName=DNS:x.example,IP:203.0.113.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let config = ServerConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&cert).unwrap()],
            PrivateKeyDer::from_pem_file(&key).unwrap(),
        )
        .unwrap();
    let config = std::sync::Arc::new(config);
    world.serve("203.0.113.1:443", move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n");
    });
    cert
}

#[test]
fn a_certificate_that_nobody_signed_is_a_portal() {
    run("a_certificate_that_nobody_signed_is_a_portal", |world| async move {
        secure_server(&world);
        world.portal("https://203.0.113.1/", "certificate is not valid for 203.0.113.1").await;
        world.pages("203.0.113.1:80", "HTTP/1.1 204 X\r\n\r\n");
        world.serve("203.0.113.1:444", |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 400 Speak TLS no more\r\n\r\n");
        });
        world.failed("https://203.0.113.1:444/", LONG, "TLS").await;
    });
}

/// Runs the test below once more with this root in the environment, as it is read but once in a process.
#[test]
fn a_certificate_of_a_trusted_root_is_answered() {
    const ROOT: &str = "UPLINKD_TEST_INNER";
    let name = "a_certificate_of_a_trusted_root_is_answered";
    run(name, move |world| async move {
        if std::env::var_os(ROOT).is_none() {
            let root =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-root.pem", std::process::id()));
            let inner = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(ROOT, "1")
                .env("SSL_CERT_FILE", &root)
                .output()
                .unwrap();
            assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stderr));
            return;
        }
        std::fs::copy(secure_server(&world), std::env::var_os("SSL_CERT_FILE").unwrap()).unwrap();
        world.dns("203.0.113.1:53", |question| vec![resolved(&question, &["203.0.113.1".parse().unwrap()])]);
        let answer = world.answered("https://x.example/ status=204").await;
        assert!(answer.bytes > 1000 && answer.packets > 6, "{answer:?}");
        world.portal("https://y.example/", "certificate is not valid for y.example").await;
    });
}
