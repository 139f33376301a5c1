//! Makes the near ends of TCP connections speak up, so that those whose uplink is gone learn of it.
//!
//! Sends one packet a connection and waits for nothing. That the answer leads to a reset is our nft table's
//! business ([`core::nft`](crate::core::nft)); whether the near end is there it refuses to know.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::SndBufForce;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, setsockopt, socket,
};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::core::stream::Stream;

/// How many packets go out before others get their turn: some tenths of a millisecond.
const BATCH: usize = 64;

/// How long to wait when too many are on their way, and how often in all: a client that left long ago has its
/// packets wait seconds for its neighbour entry, and must not hold up those for the others.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSES: usize = 500;

/// Room for the packets of as many connections as a listing has, at 768 bytes of the kernel's memory each. The usual
/// 208 KiB would be taken by those that wait for clients that left.
const ROOM: usize = 8 << 20;

/// Why nobody could be roused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not allowed to send packets of other senders.
    #[error("cannot rouse connections: not permitted without CAP_NET_RAW")]
    Permission,
    /// Anything else.
    #[error("cannot rouse connections: {0}")]
    Io(#[source] io::Error),
}

/// Sends the near end of each connection a packet that it answers ([`Stream::rousing_packet`]), by ordinary
/// routing and without a mark; returns how many the kernel took.
///
/// To be done when their conntrack entries are gone. A packet that a route or a firewall refuses is left out.
/// Needs CAP_NET_RAW.
pub async fn rouse(streams: &[Stream]) -> Result<usize, Error> {
    let (mut sent, mut pauses) = (0, PAUSES);
    for v4 in [true, false] {
        let mut packets = streams
            .iter()
            .filter(|stream| stream.near.is_ipv4() == v4)
            .filter_map(|stream| Some((stream.rousing_packet()?, stream.near)))
            .peekable();
        if packets.peek().is_none() {
            continue;
        }
        let sender = open(v4).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Permission,
            _ => Error::Io(error),
        })?;
        for (n, (packet, to)) in packets.enumerate() {
            let mut outcome = send(&sender, &packet, to);
            while outcome == Err(Errno::EAGAIN) && pauses > 0 {
                pauses -= 1;
                sleep(PAUSE).await;
                outcome = send(&sender, &packet, to);
            }
            sent += usize::from(outcome.is_ok());
            if n % BATCH == BATCH - 1 {
                yield_now().await;
            }
        }
    }
    Ok(sent)
}

/// A socket for packets with a header of their own, which `IPPROTO_RAW` means in either family (raw(7);
/// for IPv6 since Linux 4.5, net/ipv6/raw.c).
fn open(v4: bool) -> io::Result<OwnedFd> {
    let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let sender = socket(family, SockType::Raw, flags, SockProtocol::Raw)?;
    // Without CAP_NET_ADMIN it stays as it is, and some may not be sent.
    let _ = setsockopt(&sender, SndBufForce, &ROOM);
    Ok(sender)
}

/// Sends a packet, never waiting; the runtime could wait for the socket only with `unsafe`.
fn send(sender: &OwnedFd, packet: &[u8], mut to: SocketAddr) -> Result<usize, Errno> {
    // A port would be taken for a protocol (`rawv6_sendmsg`, net/ipv6/raw.c).
    to.set_port(0);
    sendto(sender.as_raw_fd(), packet, &SockaddrStorage::from(to), MsgFlags::empty())
}
