//! Tells conntrack of connections of this machine that it has not seen, so that a firewall takes them for what they are.
//!
//! Conntrack sees nothing in a network namespace before somebody asks for it there, so to a firewall that does, and is the
//! first, everything that runs is new. The sockets know better. Refuses to know which connections there are.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_sys::constants::NETLINK_NETFILTER;

use super::attributes::{
    CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_PROTO_DST_PORT, CTA_PROTO_NUM,
    CTA_PROTO_SRC_PORT, CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_FLAGS_ORIGINAL,
    CTA_PROTOINFO_TCP_FLAGS_REPLY, CTA_PROTOINFO_TCP_STATE, CTA_STATUS, CTA_TIMEOUT, CTA_TUPLE_IP,
    CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, IPCTNL_MSG_CT_NEW,
};
use super::{message, number};
use crate::core::net::Family;
use crate::core::stream::{Stream, TCP};
use crate::kernel::nfnl::Error;
use crate::kernel::request::RequestSocket;

/// Both sides have spoken, so that it outlives early eviction: `IPS_SEEN_REPLY`, `IPS_ASSURED` and `IPS_CONFIRMED`
/// (linux/netfilter/nf_conntrack_common.h).
const STATUS: u32 = 1 << 1 | 1 << 2 | 1 << 3;

/// `TCP_CONNTRACK_ESTABLISHED` (linux/netfilter/nf_conntrack_tcp.h).
const ESTABLISHED: u8 = 3;

/// `IP_CT_TCP_FLAG_BE_LIBERAL`: nobody knows the windows and their scale any more.
const BE_LIBERAL: u8 = 0x08;

/// As long as the kernel keeps a silent connection that it has seen begin, in seconds
/// (`nf_conntrack_tcp_timeout_established`, Documentation/networking/nf_conntrack-sysctl.rst).
const SILENCE: u32 = 432_000;

/// Tells conntrack of these connections, and returns how many it did not know. Needs CAP_NET_ADMIN.
pub async fn introduce(streams: &[Stream]) -> Result<usize, Error> {
    let failed = Error::of("tell conntrack of this machine's connections");
    if streams.is_empty() {
        return Ok(0);
    }
    let mut flows = RequestSocket::open(NETLINK_NETFILTER).map_err(&failed)?;
    flows.create(streams.iter().map(entry).collect()).await.map_err(&failed)
}

/// As if this end had begun it: so it is found by its tuple, whichever end an earlier entry says did, and whether or not
/// NAT has changed the other.
fn entry(stream: &Stream) -> NetfilterMessage {
    let liberal = |kind| DefaultNla::new(kind, vec![BE_LIBERAL, BE_LIBERAL]);
    let tcp = vec![
        DefaultNla::new(CTA_PROTOINFO_TCP_STATE, vec![ESTABLISHED]),
        liberal(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL),
        liberal(CTA_PROTOINFO_TCP_FLAGS_REPLY),
    ];
    let attributes = vec![
        tuple(CTA_TUPLE_ORIG, stream.near, stream.far),
        tuple(CTA_TUPLE_REPLY, stream.far, stream.near),
        number(CTA_STATUS, STATUS),
        number(CTA_TIMEOUT, SILENCE),
        nested(CTA_PROTOINFO, vec![nested(CTA_PROTOINFO_TCP, tcp)]),
    ];
    message(Family::of(stream.near.ip()), IPCTNL_MSG_CT_NEW, attributes)
}

fn tuple(kind: u16, from: SocketAddr, to: SocketAddr) -> DefaultNla {
    let address = |ip: IpAddr, v4, v6| match ip {
        IpAddr::V4(ip) => DefaultNla::new(v4, ip.octets().to_vec()),
        IpAddr::V6(ip) => DefaultNla::new(v6, ip.octets().to_vec()),
    };
    let port = |kind, port: u16| DefaultNla::new(kind, port.to_be_bytes().to_vec());
    let ip = vec![
        address(from.ip(), CTA_IP_V4_SRC, CTA_IP_V6_SRC),
        address(to.ip(), CTA_IP_V4_DST, CTA_IP_V6_DST),
    ];
    let protocol = vec![
        DefaultNla::new(CTA_PROTO_NUM, vec![TCP]),
        port(CTA_PROTO_SRC_PORT, from.port()),
        port(CTA_PROTO_DST_PORT, to.port()),
    ];
    nested(kind, vec![nested(CTA_TUPLE_IP, ip), nested(CTA_TUPLE_PROTO, protocol)])
}

fn nested(kind: u16, inner: Vec<DefaultNla>) -> DefaultNla {
    let mut bytes = vec![0; inner.as_slice().buffer_len()];
    inner.as_slice().emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{bytes, sent};
    use super::*;

    #[test]
    fn a_connection_is_told_as_one_that_both_ends_have_used() {
        let stream =
            Stream { near: "10.1.0.9:5000".parse().unwrap(), far: "203.0.113.1:80".parse().unwrap() };
        let sent = sent(entry(&stream));
        assert_eq!(sent[4..6], [0x00, 0x01], "IPCTNL_MSG_CT_NEW");
        // The form in which the kernel lists it; tests/router.rs has it taken by a real one.
        let original = "3400018014000180080001000a01000908000200cb0071011c0002800500010006000000060002001388000006000300\
                        00500000";
        assert_eq!(sent[16..20 + 0x34], bytes(&format!("02000000{original}")));
        let reply = "340002801400018008000100cb007101080002000a010009";
        assert_eq!(sent[20 + 0x34..20 + 0x34 + 24], bytes(reply));
        let rest = "080003000000000e0800070000069780200004801c000180050001000300000006000400080800000600050008080000";
        assert_eq!(sent[20 + 2 * 0x34..], bytes(rest));
    }
}
