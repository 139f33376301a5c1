//! Puts running flows where a policy enforces that they are, or lets go of them.

use netlink_packet_netfilter::NetfilterMessage;

use super::attributes::{
    CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_PROTO_DST_PORT, CTA_PROTO_NUM,
    CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY,
};
use super::evict::{MOST_STREAMS, deletion, stream};
use super::listing::{changed, found};
use super::{address, destination, mark_of, marking};
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::policy::running::{Claims, Running};
use crate::core::stream::Stream;
use crate::kernel::nfnl::{Error, NFGENMSG};
use crate::kernel::request::attribute;

/// The TCP connections among the flows that are where they must not be, as [`streams`](super::streams) tells of others.
pub async fn claimed_streams(family: Family, claims: &Claims) -> Result<Vec<Stream>, Error> {
    let look = |body: &[u8]| {
        let flow = body.get(NFGENMSG..)?;
        claims.on(&running(flow)?).and_then(|_| stream(flow))
    };
    found(family, Vec::new(), MOST_STREAMS, look).await
}

/// Takes the flows of a family that are where they must not be away from there, and returns how many these were.
///
/// One that NAT has tied to its uplink is forgotten, and begins anew with its next packet. Another gets the mark of its
/// uplink: forgotten it would be picked up by what comes in for it, and stay. Needs CAP_NET_ADMIN.
pub async fn claim(family: Family, claims: &Claims) -> Result<usize, Error> {
    let follows = |body: &[u8]| {
        let flow = body.get(NFGENMSG..)?;
        change(family, flow, claims.on(&running(flow)?)?)
    };
    changed(family, Vec::new(), "change flows in conntrack", follows).await
}

/// What is done to a flow that belongs on some uplink, or nowhere.
fn change(family: Family, flow: &[u8], only: Option<Slot>) -> Option<NetfilterMessage> {
    let source =
        address(attribute(attribute(flow, CTA_TUPLE_ORIG)?, CTA_TUPLE_IP)?, CTA_IP_V4_SRC, CTA_IP_V6_SRC);
    let is_tied = source != destination(attribute(flow, CTA_TUPLE_REPLY)?);
    match only {
        Some(slot) if !is_tied => marking(family, flow, slot.mark()),
        _ => deletion(family, flow),
    }
}

/// What a policy can see of a flow.
fn running(flow: &[u8]) -> Option<Running> {
    let tuple = attribute(flow, CTA_TUPLE_ORIG)?;
    let (ip, protocol) = (attribute(tuple, CTA_TUPLE_IP)?, attribute(tuple, CTA_TUPLE_PROTO)?);
    let &[number] = attribute(protocol, CTA_PROTO_NUM)? else { return None };
    let port = attribute(protocol, CTA_PROTO_DST_PORT).and_then(|bytes| bytes.try_into().ok());
    Some(Running {
        from: address(ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        to: address(ip, CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        protocol: number,
        port: port.map(u16::from_be_bytes),
        mark: mark_of(flow)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FLOW, bytes};
    use super::*;

    #[test]
    fn a_flow_is_seen_as_it_began() {
        let body = bytes(FLOW);
        let seen = running(&body[NFGENMSG..]).unwrap();
        let (from, to) = ("10.1.0.9".parse().unwrap(), "203.0.113.1".parse().unwrap());
        assert_eq!(seen, Running { from, to, protocol: 6, port: Some(80), mark: 0x8000_0005 });
        for end in NFGENMSG..body.len() {
            let seen = running(&body[NFGENMSG..end]);
            assert!(seen.is_none() || end >= 56, "{end}");
        }
    }
}
