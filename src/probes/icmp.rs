//! One echo request (RFC 792, RFC 4443), by a raw socket: datagram ones are closed to everybody by default
//! (`ping_group_range`, icmp(7)).
//!
//! Decides which packet is the answer: one of the target with the request's id, sequence number and token. A raw
//! socket sees everybody's; others are not answers and no reason to stop waiting.

use std::io::{self, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recv, recvmsg};
use socket2::{Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::meter::Meter;
use super::socket::{failure, random, towards};
use super::{Outcome, Way, failed};
use crate::core::net::Family;
use crate::core::stream::checksum;

/// Type, code, checksum, id, sequence number.
const HEADER: usize = 8;
/// Octets of payload that nobody else can know.
const TOKEN: usize = 8;

type Packet = [u8; HEADER + TOKEN];

/// Sends one request and waits for its answer.
pub(super) async fn ask(ip: IpAddr, way: &Way, meter: &Meter) -> Result<Duration, Outcome> {
    let protocol = if way.family == Family::V4 { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
    let (socket, target) = towards(ip, 0, way, Type::RAW, protocol)?;
    let request = request(way.family, random()?);
    let connect = || {
        // From now on only the target's packets are received.
        socket.connect(&target.into())?;
        // To tokio all datagram sockets are alike, and this one is its only type that takes a foreign one safely.
        UdpSocket::from_std(socket.into())
    };
    let talk = async {
        let socket = connect()?;
        let since = Instant::now();
        socket.send(&request).await?;
        meter.sent(request.len());
        let outcome = wait(&socket, way.family, &request).await?;
        io::Result::Ok(outcome.map_or_else(
            |why| Err(failed(why)),
            |()| {
                meter.received(request.len());
                Ok(since.elapsed())
            },
        ))
    };
    talk.await.map_err(|error| failure(&error))?
}

/// Waits for the answer, or for word that there will be none.
async fn wait(socket: &UdpSocket, family: Family, request: &Packet) -> io::Result<Result<(), &'static str>> {
    let interest = Interest::READABLE | Interest::ERROR;
    loop {
        match socket.async_io(interest, || look(socket, family, request)).await? {
            Seen::Answer => return Ok(Ok(())),
            Seen::Unreachable(why) => return Ok(Err(why)),
            Seen::Other => {}
        }
    }
}

enum Seen {
    Answer,
    Unreachable(&'static str),
    Other,
}

/// Takes one packet, or one error, from the socket.
fn look(socket: &UdpSocket, family: Family, request: &Packet) -> io::Result<Seen> {
    let mut packet = [0; 1500];
    match recv(socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
        Ok(length) if answers(family, &packet[..length], request) => Ok(Seen::Answer),
        Ok(_) => Ok(Seen::Other),
        Err(error) => match error {
            Errno::EAGAIN | Errno::ENETDOWN | Errno::ENODEV | Errno::ENXIO => Err(error.into()),
            // Somebody's packet to this target was refused; whose, the queue of errors tells (ip(7), IP_RECVERR).
            _ => Ok(refusal(socket, request)),
        },
    }
}

/// Reads the queue of errors up to one that quotes our request.
fn refusal(socket: &UdpSocket, request: &Packet) -> Seen {
    loop {
        let mut quoted = [0; HEADER + TOKEN];
        let mut control = nix::cmsg_space!([u8; 256]);
        let mut parts = [IoSliceMut::new(&mut quoted)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let Ok(message) =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)
        else {
            return Seen::Other;
        };
        let errno = message.cmsgs().ok().and_then(|mut all| {
            all.find_map(|one| match one {
                ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
                    i32::try_from(error.ee_errno).ok()
                }
                _ => None,
            })
        });
        // As much as routers have to quote (RFC 792): of ours no more than the header. Not the checksum, which the
        // kernel fills in for IPv6.
        let ours = quoted[..2] == request[..2] && quoted[4..HEADER] == request[4..HEADER];
        if let (true, Some(errno)) = (ours, errno) {
            return Seen::Unreachable(match Errno::from_raw(errno) {
                Errno::ENETUNREACH => "network unreachable",
                Errno::EACCES => "unreachable: administratively prohibited",
                Errno::EPROTO => "unreachable: the packet was refused",
                _ => "host unreachable",
            });
        }
    }
}

fn request(family: Family, random: [u8; 4 + TOKEN]) -> Packet {
    let mut packet = [0; HEADER + TOKEN];
    packet[0] = if family == Family::V4 { 8 } else { 128 };
    packet[4..].copy_from_slice(&random);
    // Of ICMPv6 the kernel makes the checksum (RFC 3542, section 3.1).
    if family == Family::V4 {
        let sum = checksum(&[&packet]);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Whether a packet is the answer to the request. IPv4 comes with its header, IPv6 without (raw(7), RFC 3542).
fn answers(family: Family, packet: &[u8], request: &Packet) -> bool {
    let header = match (family, packet.first()) {
        (Family::V4, Some(first)) => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let reply = if family == Family::V4 { 0 } else { 129 };
    let Some(icmp) = packet.get(header..) else { return false };
    icmp.get(..2) == Some(&[reply, 0]) && icmp.get(4..) == Some(&request[4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: [u8; 12] = [0x12, 0x34, 0, 1, 9, 8, 7, 6, 5, 4, 3, 2];

    #[test]
    fn the_checksum_makes_the_sum_all_ones() {
        let packet = request(Family::V4, RANDOM);
        assert_eq!(checksum(&[&packet]), 0);
        assert_eq!(request(Family::V4, [0xff; 12])[2..4], [0xf7, 0xff]);
        assert_eq!(request(Family::V6, RANDOM)[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn only_the_answer_answers() {
        let request_v4 = request(Family::V4, RANDOM);
        let mut good = vec![0x46; 24];
        good.extend([0, 0, 0xab, 0xcd]);
        good.extend(RANDOM);
        assert!(answers(Family::V4, &good, &request_v4));
        assert!(answers(Family::V6, &[&[129, 0, 1, 2][..], &RANDOM].concat(), &request(Family::V6, RANDOM)));
        for at in (0..good.len()).filter(|at| !(1..24).contains(at) && !(26..28).contains(at)) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!answers(Family::V4, &bad, &request_v4), "{at}");
            assert!(!answers(Family::V4, &good[..at], &request_v4), "{at}");
        }
        assert!(!answers(Family::V4, &[], &request_v4));
    }
}
