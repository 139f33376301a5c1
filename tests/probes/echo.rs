//! Echo requests and connections, and what the kernel says of them.

use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use uplinkd::probes::{Outcome, ask};

use super::namespace::sh;
use super::{LONG, SHORT, namespace, resolved, run};

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
