//! Probes against a server in a namespace of its own: what counts as an answer, and what does not.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod echo;
mod gateway;
mod names;
#[path = "../namespace/mod.rs"]
mod namespace;
mod pages;
mod programs;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
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
