//! Gives running flows the mark of the uplink whose address they use, so that installing cuts nothing.
//!
//! Sees two addresses and the mark of each flow; what a flow carries and where it is routed it
//! refuses to know. Flows that have a mark of ours keep it. What becomes of them when their uplink is
//! down is in the part that deletes them, [`evict()`]; what conntrack has not seen is told it by [`introduce()`].

mod attributes;
mod claim;
mod evict;
mod introduce;
mod listing;

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use self::attributes::{
    CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_MARK, CTA_MARK_MASK, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_REPLY,
    CTA_ZONE, IPCTNL_MSG_CT_NEW,
};
pub use self::claim::{claim, claimed_streams};
pub use self::evict::{Ends, Labels, MOST_STREAMS, Whose, ends, evict, streams};
pub use self::introduce::introduce;
use self::listing::changed;
use super::nfnl::{Error, NFGENMSG};
use super::request::attribute;
use crate::core::layout::MARK_MASK;
use crate::core::net::{Family, Mark};

/// Marks the flows that use an address and have no mark of ours yet, and returns how many there were.
///
/// A flow uses an address that it came in to, or that its replies come back to. Bits outside the
/// mark's mask stay as they are, and no other flow is touched. One listing a family, whatever the
/// number of addresses. Needs CAP_NET_ADMIN.
pub async fn adopt(addresses: &[(IpAddr, Mark)]) -> Result<usize, Error> {
    let mut adopted = 0;
    for family in Family::BOTH {
        let owners: BTreeMap<_, _> =
            addresses.iter().copied().filter(|(address, _)| Family::of(*address) == family).collect();
        if !owners.is_empty() {
            adopted += adopt_family(family, &owners).await?;
        }
    }
    Ok(adopted)
}

async fn adopt_family(family: Family, owners: &BTreeMap<IpAddr, Mark>) -> Result<usize, Error> {
    // Those without a bit of ours; the kernel leaves out the rest.
    let unmarked = vec![number(CTA_MARK, 0), number(CTA_MARK_MASK, MARK_MASK)];
    changed(family, unmarked, "mark flows in conntrack", |body| adoption(family, body, owners)).await
}

/// The change that gives a flow, as the kernel lists it, the mark of the address that it uses.
fn adoption(family: Family, body: &[u8], owners: &BTreeMap<IpAddr, Mark>) -> Option<NetfilterMessage> {
    let flow = body.get(NFGENMSG..)?;
    let original = attribute(flow, CTA_TUPLE_ORIG)?;
    // As in the ruleset: the uplink that a flow came in by goes before the one that it leaves by.
    let mark = [original, attribute(flow, CTA_TUPLE_REPLY)?]
        .into_iter()
        .filter_map(destination)
        .find_map(|address| owners.get(&address))?;
    if mark_of(flow)? & mark.mask() != 0 {
        return None;
    }
    marking(family, flow, *mark)
}

/// The change that gives a flow a mark.
fn marking(family: Family, flow: &[u8], mark: Mark) -> Option<NetfilterMessage> {
    let original = attribute(flow, CTA_TUPLE_ORIG)?;
    // The tuple goes back as it came, so that protocols that nobody thought of here work as well.
    let mut change = vec![
        DefaultNla::new(CTA_TUPLE_ORIG | NLA_F_NESTED, original.to_vec()),
        number(CTA_MARK, mark.value()),
        number(CTA_MARK_MASK, mark.mask()),
    ];
    change.extend(attribute(flow, CTA_ZONE).map(|zone| DefaultNla::new(CTA_ZONE, zone.to_vec())));
    Some(message(family, IPCTNL_MSG_CT_NEW, change))
}

/// Where a tuple goes to.
fn destination(tuple: &[u8]) -> Option<IpAddr> {
    address(attribute(tuple, CTA_TUPLE_IP)?, CTA_IP_V4_DST, CTA_IP_V6_DST)
}

/// The address in the attribute of its family.
fn address(ip: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    let v4 = || attribute(ip, v4)?.try_into().ok().map(|b: [u8; 4]| IpAddr::from(b));
    let v6 = || attribute(ip, v6)?.try_into().ok().map(|b: [u8; 16]| IpAddr::from(b));
    v4().or_else(v6)
}

/// The mark of a flow; absent where it is 0.
fn mark_of(flow: &[u8]) -> Option<u32> {
    attribute(flow, CTA_MARK).map_or(Some(0), |b| b.try_into().ok().map(u32::from_be_bytes))
}

fn number(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

/// A message of plain attributes: the crate's typed ones lack what is needed here, and drop
/// `NLA_F_NESTED` from an attribute that they do not know.
fn message(family: Family, message_type: u8, attributes: Vec<DefaultNla>) -> NetfilterMessage {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    NetfilterMessage::new(
        NetfilterHeader::new(family, 0, 0),
        ConntrackMessage::Other { message_type, attributes },
    )
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkMessage;

    use super::*;

    /// As Linux 6.18 lists the flow that `conntrack -I -p tcp --state ESTABLISHED -t 300 -s 10.1.0.9
    /// -d 203.0.113.1 --sport 5000 --dport 80 --src-nat 192.0.2.2 --mark 0x80000005 -w 7` makes.
    pub(super) const FLOW: &str = "020000003400018014000180080001000a01000908000200cb0071011c00028005000100060000000600020013880000\
        0600030000500000340002801400018008000100cb00710108000200c00002021c0002800500010006000000060002000050\
        0000060003001388000006001200000700000800030000000198080008008000000508000c0077a6db2308000b0000000001\
        080007000000012b300004802c000180050001000300000005000200000000000500030000000000060004000a0000000600\
        05000a0000001c001880080001000000000008000200000000000800030000000000";

    pub(super) fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// A message as it goes to the kernel.
    pub(super) fn sent(message: NetfilterMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut sent = vec![0; message.buffer_len()];
        message.serialize(&mut sent);
        sent
    }

    fn adoption_by(address: &str, mark: Mark) -> Option<NetfilterMessage> {
        adoption(Family::V4, &bytes(FLOW), &BTreeMap::from([(address.parse().unwrap(), mark)]))
    }

    #[test]
    fn a_flow_is_named_by_its_tuple_and_zone_and_only_its_bits_change() {
        let mark = Mark::new(0x0100_0000, MARK_MASK);
        let sent = sent(adoption_by("192.0.2.2", mark).unwrap());
        assert_eq!(sent[4..6], [0x00, 0x01], "IPCTNL_MSG_CT_NEW");
        let original = "3400018014000180080001000a01000908000200cb0071011c0002800500010006000000060002001388000006000300\
                        00500000";
        let (mark, mask, zone) = ("0800080001000000", "080015003f000000", "0600120000070000");
        assert_eq!(sent[16..], bytes(&format!("02000000{original}{mark}{mask}{zone}")));
    }

    #[test]
    fn other_flows_are_left_alone() {
        let mark = Mark::new(0x0100_0000, MARK_MASK);
        // Its source ahead of NAT and its far end are not addresses that it uses here.
        assert_eq!(adoption_by("10.1.0.9", mark), None);
        assert!(adoption_by("203.0.113.1", mark).is_some(), "a flow that came in to this address");
        assert_eq!(adoption_by("192.0.2.2", Mark::new(4, 7)), None, "has bits under the mask");
    }

    #[test]
    fn a_listing_that_breaks_off_is_no_flow() {
        let (flow, owners) = (bytes(FLOW), BTreeMap::from([("192.0.2.2".parse().unwrap(), Mark::new(1, 7))]));
        // Up to the end of both tuples nothing can be said; and nothing ever panics.
        for end in 0..flow.len() {
            let adopted = adoption(Family::V4, &flow[..end], &owners);
            assert!(adopted.is_none() || end >= 108, "{end}");
        }
    }
}
