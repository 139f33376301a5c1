//! The TCP connections of this machine: which there are; and ends them, so that their programs hear of it now and not
//! after minutes.
//!
//! Sees of a socket its addresses and its state. Whose it is, and what it carries, it refuses to know.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use netlink_packet_core::NetlinkSerializable;
use netlink_sys::constants::NETLINK_SOCK_DIAG;
use nix::errno::Errno;
use nix::libc::{AF_INET, AF_INET6, IPPROTO_TCP};

use super::conntrack::Ends;
use super::request::RequestSocket;
use crate::core::stream::Stream;

// linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;

/// The states in which a connection waits for its far end, as bits (net/tcp_states.h): ESTABLISHED, SYN_SENT,
/// FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING. Those that are not begun by a program of this machine
/// or need no end (SYN_RECV, TIME_WAIT, CLOSE, LISTEN) are not among them.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;

/// Those of them that both ends know of: all but SYN_SENT.
const MUTUAL: u32 = CONNECTED & !(1 << 2);

/// `idiag_timer` of a socket of which only the wait for stray packets is left, whatever state it shows.
const TIMER_TIME_WAIT: u8 = 3;

/// Size of `struct inet_diag_sockid` (linux/inet_diag.h): ports, addresses, device, cookie.
const SOCKET_ID: usize = 48;

/// Why no connection could be ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not allowed to.
    #[error("cannot list or end connections of this machine: not permitted without CAP_NET_ADMIN")]
    Permission,
    /// The kernel was built without it: they end when their programs lose patience.
    #[error(
        "cannot list or end connections of this machine: this kernel lacks INET_DIAG_DESTROY or INET_TCP_DIAG"
    )]
    Unsupported,
    /// Anything else; [`io::ErrorKind::TimedOut`] where the kernel did not answer within a second.
    #[error("cannot list or end connections of this machine: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM | Errno::EACCES) => Error::Permission,
            // Without the destruction; without the whole of tcp_diag; without the whole of sock_diag.
            Some(Errno::EOPNOTSUPP | Errno::ENOENT | Errno::EPROTONOSUPPORT) => Error::Unsupported,
            _ => Error::Io(error),
        }
    }
}

/// Which connections are to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doomed {
    /// Those whose local address is one of these, unless their far end is one of these as well.
    pub addresses: Vec<IpAddr>,
    /// But none whose far end is in one of these networks.
    pub spare: Vec<IpNet>,
    /// And none of these, each with its local and its far end.
    pub but: BTreeSet<Ends>,
    /// And these, whatever has been said.
    pub these: BTreeSet<Ends>,
}

impl Doomed {
    /// Those from these addresses, but for what stays in these networks.
    pub fn at(addresses: &[IpAddr], spare: &[IpNet]) -> Self {
        Doomed { addresses: addresses.to_vec(), spare: spare.to_vec(), ..Doomed::default() }
    }
}

/// Ends TCP connections in the network namespace of this thread: their programs get ECONNABORTED at once. Returns how many
/// there were.
///
/// IPv4 connections of IPv6 sockets are among them (RFC 3493, 3.7). Listening sockets stay. The kernel also sends the far end a
/// reset (`tcp_abort`, net/ipv4/tcp.c). Needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY.
pub async fn destroy(these: &Doomed) -> Result<usize, Error> {
    if these.addresses.is_empty() && these.these.is_empty() {
        return Ok(0);
    }
    let mut sockets = RequestSocket::open(NETLINK_SOCK_DIAG)?;
    // All are listed before the first is ended: a listing goes on by counting, and would skip some.
    let mut doomed = Vec::new();
    let is_among = |c: &Connection| c.is_among(these);
    list(&mut sockets, CONNECTED, |c| doomed.extend(is_among(&c).then(|| c.destruction()))).await?;
    // One may end by itself meanwhile.
    Ok(sockets.change(doomed, Errno::ENOENT).await?)
}

/// The TCP connections in the network namespace of this thread that both ends know of, but for those within the machine.
/// Needs no privilege.
pub async fn connections() -> Result<Vec<Stream>, Error> {
    let mut found = Vec::new();
    let mut sockets = RequestSocket::open(NETLINK_SOCK_DIAG)?;
    list(&mut sockets, MUTUAL, |connection| found.extend(connection.stream())).await?;
    Ok(found)
}

/// Lists the connections in some states.
async fn list(
    sockets: &mut RequestSocket,
    states: u32,
    mut each: impl FnMut(Connection),
) -> Result<(), Error> {
    for family in [AF_INET, AF_INET6] {
        sockets.start_dump(Request::listing(family as u8, states)).await?;
        let mut read = |kind: u16, body: &[u8]| {
            let connection = (kind == SOCK_DIAG_BY_FAMILY).then(|| Connection::decode(body)).flatten();
            connection.filter(|c| c.timer != TIMER_TIME_WAIT).map_or((), &mut each)
        };
        while sockets.next_of_dump(&mut read).await? {}
    }
    Ok(())
}

/// A connection as the kernel lists it.
#[derive(Debug, PartialEq, Eq)]
struct Connection {
    family: u8,
    timer: u8,
    local: SocketAddr,
    remote: SocketAddr,
    id: [u8; SOCKET_ID],
}

impl Connection {
    /// Decodes the beginning of `struct inet_diag_msg`.
    fn decode(body: &[u8]) -> Option<Self> {
        let (head, rest) = body.split_first_chunk::<4>()?;
        let id = *rest.first_chunk::<SOCKET_ID>()?;
        let &[family, _, timer, _] = head;
        Some(Connection {
            family,
            timer,
            local: (address(family, &id[4..20])?, port([id[0], id[1]])).into(),
            remote: (address(family, &id[20..36])?, port([id[2], id[3]])).into(),
            id,
        })
    }

    fn is_among(&self, doomed: &Doomed) -> bool {
        let Doomed { addresses, spare, but, these } = doomed;
        let ends = (self.local, self.remote);
        let has_address = addresses.contains(&ends.0.ip())
            && !addresses.contains(&ends.1.ip())
            && !spare.iter().any(|network| network.contains(&ends.1.ip()));
        these.contains(&ends) || has_address && !but.contains(&ends)
    }

    fn stream(&self) -> Option<Stream> {
        let (local, remote) = (self.local.ip(), self.remote.ip());
        let is_within = local.is_loopback() || remote.is_loopback() || local == remote;
        (!is_within).then_some(Stream { near: self.local, far: self.remote })
    }

    /// Names the socket as the kernel named it, with the cookie that no later socket has.
    fn destruction(&self) -> Request {
        Request { kind: SOCK_DESTROY, family: self.family, states: CONNECTED, id: self.id }
    }
}

/// Ports are in the order of the network.
fn port(bytes: [u8; 2]) -> u16 {
    u16::from_be_bytes(bytes)
}

/// An address; a mapped one as the IPv4 address that it is.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        AF_INET => bytes.first_chunk::<4>().map(|&b| IpAddr::from(b)),
        AF_INET6 => bytes.first_chunk::<16>().map(|&b| Ipv6Addr::from(b).to_canonical()),
        _ => None,
    }
}

/// `struct inet_diag_req_v2`; the states choose what is listed and do not matter to a destruction.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    kind: u16,
    family: u8,
    states: u32,
    id: [u8; SOCKET_ID],
}

impl Request {
    fn listing(family: u8, states: u32) -> Self {
        Request { kind: SOCK_DIAG_BY_FAMILY, family, states, id: [0; SOCKET_ID] }
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        8 + SOCKET_ID
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let head = [self.family, IPPROTO_TCP as u8, 0, 0];
        let bytes = head.into_iter().chain(self.states.to_ne_bytes()).chain(self.id);
        buffer.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `struct inet_diag_msg` has it: 192.0.2.2:5000 to 203.0.113.1:80, plain or mapped.
    fn listed(mapped: bool, timer: u8) -> Vec<u8> {
        let mut body = vec![if mapped { AF_INET6 } else { AF_INET } as u8, 1, timer, 0, 0x13, 0x88, 0, 80];
        for octets in [[192, 0, 2, 2], [203, 0, 113, 1]] {
            let prefix: &[u8] = if mapped { &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff] } else { &[] };
            let start = body.len();
            body.extend(prefix);
            body.extend(octets);
            body.resize(start + 16, 0);
        }
        body.extend([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        body.resize(72, 0);
        body
    }

    fn doomed(body: &[u8], address: &str, spare: &str) -> bool {
        let spare: Vec<IpNet> = spare.split_whitespace().map(|s| s.parse().unwrap()).collect();
        let these = Doomed { addresses: vec![address.parse().unwrap()], spare, ..Doomed::default() };
        Connection::decode(body).unwrap().is_among(&these)
    }

    #[test]
    fn some_are_named_by_their_ends() {
        for mapped in [false, true] {
            let connection = Connection::decode(&listed(mapped, 0)).unwrap();
            let ends =
                BTreeSet::from([("192.0.2.2:5000".parse().unwrap(), "203.0.113.1:80".parse().unwrap())]);
            let addresses = vec!["192.0.2.2".parse().unwrap()];
            assert!(connection.is_among(&Doomed { these: ends.clone(), ..Doomed::default() }));
            assert!(!connection.is_among(&Doomed { addresses, but: ends, ..Doomed::default() }));
        }
    }

    #[test]
    fn the_local_address_decides_and_neighbours_are_spared() {
        for mapped in [false, true] {
            let body = listed(mapped, 0);
            assert!(doomed(&body, "192.0.2.2", "192.0.2.0/24 fe80::/10"));
            assert!(!doomed(&body, "203.0.113.1", ""));
            assert!(!doomed(&body, "192.0.2.2", "203.0.113.0/24"));
        }
    }

    #[test]
    fn a_connection_has_two_ends_and_one_within_the_machine_is_none() {
        for mapped in [false, true] {
            let connection = Connection::decode(&listed(mapped, 0)).unwrap();
            let [near, far] = ["192.0.2.2:5000", "203.0.113.1:80"].map(|end| end.parse().unwrap());
            assert_eq!(connection.stream(), Some(Stream { near, far }));
            let within = Connection { remote: connection.local, ..connection };
            assert_eq!(within.stream(), None);
        }
    }

    #[test]
    fn a_socket_is_named_as_it_was_listed() {
        let body = listed(true, 0);
        let request = Connection::decode(&body).unwrap().destruction();
        let mut sent = vec![0; request.buffer_len()];
        request.serialize(&mut sent);
        assert_eq!(sent[..4], [10, 6, 0, 0]);
        assert_eq!(sent[8..], body[4..52]);
    }

    #[test]
    fn a_listing_that_breaks_off_is_no_connection() {
        let body = listed(false, 0);
        for end in 0..body.len() {
            assert_eq!(Connection::decode(&body[..end]).is_some(), end >= 52, "{end}");
        }
        assert_eq!(Connection::decode(&[7; 72]), None, "an unknown family");
    }
}
