//! Sockets that leave by one uplink and no other, and the words for what the kernel says of them.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Outcome, Way, failed};
use crate::core::net::Family;

/// A socket on the way's device and with its mark, and the address to connect it to.
///
/// Refuses a target that is not of the way's family, and one that is an address of this machine.
pub(super) fn towards(
    ip: IpAddr,
    port: u16,
    way: &Way,
    kind: Type,
    protocol: Protocol,
) -> Result<(Socket, SocketAddr), Outcome> {
    if Family::of(ip) != way.family {
        return Err(failed(format!("{ip} is not an address of {}", way.family)));
    }
    if is_own(ip).map_err(|error| failure(&error))? {
        return Err(failed(format!("{ip} is an address of this machine")));
    }
    let socket = bound(way, kind, protocol).map_err(|error| failure(&error))?;
    let target = match ip {
        // Link-local ones are only complete with the device that they are on.
        IpAddr::V6(ip) if ip.is_unicast_link_local() => SocketAddrV6::new(ip, port, 0, way.index.0).into(),
        ip => SocketAddr::new(ip, port),
    };
    Ok((socket, target))
}

fn bound(way: &Way, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = if way.family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.bind_device(Some(way.device.as_str().as_bytes()))?;
    socket.set_mark(way.mark.value())?;
    // Without it a raw or UDP socket is not told of a host or network that is unreachable (raw(7), ip(7)).
    match way.family {
        Family::V4 => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        Family::V6 => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(socket)
}

/// Whether this machine itself would answer: a socket that is bound to a device reaches the addresses of that device
/// over `lo`, and the wire never sees it (seen on Linux 6.18, both families).
pub(super) fn is_own(ip: IpAddr) -> io::Result<bool> {
    if ip.is_loopback() || ip.is_unspecified() {
        return Ok(true);
    }
    Ok(getifaddrs()?.filter_map(|interface| interface.address).any(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        v4.or(v6) == Some(ip)
    }))
}

/// What becomes of a question whose socket this machine has ended.
pub(super) const ENDED: &str = "ended by this machine";

/// What an error of a socket means for the question.
pub(super) fn failure(error: &io::Error) -> Outcome {
    match words(error) {
        Some(words) => failed(words),
        None => failed(error),
    }
}

fn words(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_raw(error.raw_os_error()?) {
        Errno::ECONNREFUSED => "connection refused",
        Errno::ECONNRESET | Errno::EPIPE => "connection reset",
        Errno::ECONNABORTED => ENDED,
        Errno::EHOSTUNREACH => "host unreachable",
        Errno::ENETUNREACH => "network unreachable",
        Errno::ENODEV | Errno::ENXIO => "the device has gone",
        Errno::ENETDOWN => "the device is down",
        Errno::EADDRNOTAVAIL => "the device has no address",
        // From socket() for want of a capability, from send() by order of a firewall.
        Errno::EPERM | Errno::EACCES => {
            "not permitted, by a firewall or for want of CAP_NET_RAW and CAP_NET_ADMIN"
        }
        Errno::ETIMEDOUT => "timed out",
        _ => return None,
    })
}

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Outcome> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
