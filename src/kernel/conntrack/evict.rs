//! Takes the flows of an uplink that is down out of conntrack, so that their next packets are routed anew.
//!
//! A NAT binding lasts as long as its entry: only without it can a flow use another uplink. Sees mark, tuples
//! and TCP state; whether the uplink is down, and where the flows go next, it refuses to know.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_netfilter::NetfilterMessage;

use super::attributes::{
    CTA_ID, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_LABELS, CTA_MARK, CTA_MARK_MASK,
    CTA_PROTO_DST_PORT, CTA_PROTO_SRC_PORT, CTA_PROTOINFO, CTA_PROTOINFO_TCP, CTA_PROTOINFO_TCP_STATE,
    CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY, CTA_ZONE, IPCTNL_MSG_CT_DELETE,
};
use super::listing::{LISTING, changed, found};
use super::{destination, mark_of, message, number};
use crate::core::net::{Family, Mark};
use crate::core::policy::Label;
use crate::core::stream::Stream;
use crate::kernel::nfnl::{Error, NFGENMSG};
use crate::kernel::request::attribute;

/// ESTABLISHED, FIN_WAIT, CLOSE_WAIT (`enum tcp_conntrack`, linux/netfilter/nf_conntrack_tcp.h): the near end may
/// still wait for something. One that only tries to connect repeats its SYN anyway.
const WAITING: std::ops::RangeInclusive<u8> = 3..=5;

/// The most connections that [`streams`] returns.
pub const MOST_STREAMS: usize = 10_000;

/// Which flows are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Of those that have exactly this mark under its mask these. One of value 0 is refused: every flow without a mark has it.
    Mark(Mark, Labels),
    /// Those that have one of these labels, whatever their mark.
    Labelled(Vec<Label>),
    /// Those that use this address: they came in to it, or their answers come back to it.
    Address(IpAddr),
}

/// Which of some flows, by label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// All of them.
    Any,
    /// Those with none of these.
    NoneOf(Vec<Label>),
    /// Those with this one.
    Is(Label),
}

/// Source and destination of a flow's first packet, ahead of NAT.
pub type Ends = (SocketAddr, SocketAddr);

impl Labels {
    fn has(&self, label: &[u8]) -> bool {
        match self {
            Labels::Any => true,
            Labels::NoneOf(labels) => !labels.iter().any(|one| one.is_on(label)),
            Labels::Is(one) => one.is_on(label),
        }
    }
}

impl From<Mark> for Whose {
    fn from(mark: Mark) -> Self {
        Whose::Mark(mark, Labels::Any)
    }
}

impl From<IpAddr> for Whose {
    fn from(ip: IpAddr) -> Self {
        Whose::Address(ip)
    }
}

impl Whose {
    /// What the kernel can choose by. One that would choose every flow is refused.
    fn selection(&self) -> Result<Vec<DefaultNla>, Error> {
        match self {
            Whose::Mark(mark, _) if mark.value() == 0 => {
                let refused =
                    io::Error::new(io::ErrorKind::InvalidInput, "a mark of 0 is that of every other flow");
                Err(Error::of(LISTING)(refused))
            }
            Whose::Mark(mark, _) => {
                Ok(vec![number(CTA_MARK, mark.value()), number(CTA_MARK_MASK, mark.mask())])
            }
            Whose::Labelled(_) | Whose::Address(_) => Ok(Vec::new()),
        }
    }

    /// Whether a flow is meant.
    fn has(&self, flow: &[u8]) -> bool {
        let to = |tuple| attribute(flow, tuple).and_then(destination);
        let label = attribute(flow, CTA_LABELS).unwrap_or_default();
        match self {
            Whose::Mark(bits, labels) => {
                mark_of(flow).is_some_and(|mark| mark & bits.mask() == bits.value()) && labels.has(label)
            }
            Whose::Labelled(labels) => labels.iter().any(|one| one.is_on(label)),
            Whose::Address(ip) => [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY].map(to).contains(&Some(*ip)),
        }
    }
}

/// The TCP connections of those that NAT ties to their uplink, at most [`MOST_STREAMS`].
///
/// A connection without NAT may go on over another uplink, with the same addresses, and one of which NAT changes
/// both ends does not tell which is the near one; neither is returned. Needs CAP_NET_ADMIN.
pub async fn streams(family: Family, whose: impl Into<Whose>) -> Result<Vec<Stream>, Error> {
    let whose = whose.into();
    found(family, whose.selection()?, MOST_STREAMS, |body| flow_of(body, &whose).and_then(stream)).await
}

/// The ends of the TCP connections among these flows, by which sockets of this machine know them. Needs CAP_NET_ADMIN.
pub async fn ends(family: Family, whose: impl Into<Whose>) -> Result<BTreeSet<Ends>, Error> {
    let whose = whose.into();
    let find = |body: &[u8]| flow_of(body, &whose).and_then(connection);
    Ok(found(family, whose.selection()?, usize::MAX, find).await?.into_iter().collect())
}

/// Deletes these flows of a family, and returns how many went.
///
/// Each is deleted by its tuple, zone and id, so that one that comes anew meanwhile stays. Needs CAP_NET_ADMIN.
pub async fn evict(family: Family, whose: impl Into<Whose>) -> Result<usize, Error> {
    let whose = whose.into();
    let follows = |body: &[u8]| flow_of(body, &whose).and_then(|flow| deletion(family, flow));
    changed(family, whose.selection()?, "delete flows from conntrack", follows).await
}

/// The attributes of a flow, if it is meant: what is deleted must not depend on the kernel's filter alone.
fn flow_of<'a>(body: &'a [u8], whose: &Whose) -> Option<&'a [u8]> {
    body.get(NFGENMSG..).filter(|flow| whose.has(flow))
}

/// The deletion of one flow. Without a tuple it would be that of all, so there is none without.
pub(super) fn deletion(family: Family, flow: &[u8]) -> Option<NetfilterMessage> {
    let original = attribute(flow, CTA_TUPLE_ORIG).filter(|tuple| !tuple.is_empty())?;
    let id = attribute(flow, CTA_ID)?;
    let mut names = vec![
        DefaultNla::new(CTA_TUPLE_ORIG | NLA_F_NESTED, original.to_vec()),
        DefaultNla::new(CTA_ID, id.to_vec()),
    ];
    names.extend(attribute(flow, CTA_ZONE).map(|zone| DefaultNla::new(CTA_ZONE, zone.to_vec())));
    Some(message(family, IPCTNL_MSG_CT_DELETE, names))
}

/// The connection, if it is one that waits and NAT changes one of its ends.
pub(super) fn stream(flow: &[u8]) -> Option<Stream> {
    let tcp = attribute(attribute(flow, CTA_PROTOINFO)?, CTA_PROTOINFO_TCP)?;
    let &[state] = attribute(tcp, CTA_PROTOINFO_TCP_STATE)? else { return None };
    let (from, to) = ends_of(attribute(flow, CTA_TUPLE_ORIG)?)?;
    let (answers_from, answers_to) = ends_of(attribute(flow, CTA_TUPLE_REPLY)?)?;
    match (from == answers_to, to == answers_from) {
        _ if !WAITING.contains(&state) => None,
        // Masqueraded on its way out; let in by a port that is forwarded.
        (false, true) => Some(Stream { near: from, far: to }),
        (true, false) => Some(Stream { near: answers_from, far: answers_to }),
        _ => None,
    }
}

/// The ends of a flow, if it is a TCP connection.
fn connection(flow: &[u8]) -> Option<Ends> {
    attribute(attribute(flow, CTA_PROTOINFO)?, CTA_PROTOINFO_TCP)?;
    ends_of(attribute(flow, CTA_TUPLE_ORIG)?)
}

/// Source and destination of a tuple.
fn ends_of(tuple: &[u8]) -> Option<Ends> {
    let (ip, protocol) = (attribute(tuple, CTA_TUPLE_IP)?, attribute(tuple, CTA_TUPLE_PROTO)?);
    let end = |v4, v6, port| {
        let port = u16::from_be_bytes(attribute(protocol, port)?.try_into().ok()?);
        Some(SocketAddr::new(super::address(ip, v4, v6)?, port))
    };
    Some((
        end(CTA_IP_V4_SRC, CTA_IP_V6_SRC, CTA_PROTO_SRC_PORT)?,
        end(CTA_IP_V4_DST, CTA_IP_V6_DST, CTA_PROTO_DST_PORT)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FLOW, bytes, sent};
    use super::*;
    use crate::core::layout::MARK_MASK;

    /// The flow of the other tests with bits of ours: 0x80000005 becomes 0x81000005.
    fn flow() -> Vec<u8> {
        bytes(&FLOW.replace("0800080080000005", "0800080081000005"))
    }

    const ONE: Mark = Mark::new(0x0100_0000, MARK_MASK);

    #[test]
    fn a_deletion_names_tuple_id_and_zone() {
        let body = flow();
        let deletion = deletion(Family::V4, flow_of(&body, &ONE.into()).unwrap()).unwrap();
        let sent = sent(deletion);
        assert_eq!(sent[4..6], [0x02, 0x01], "IPCTNL_MSG_CT_DELETE");
        let original = "3400018014000180080001000a01000908000200cb0071011c0002800500010006000000060002001388000006000300\
                        00500000";
        assert_eq!(sent[16..], bytes(&format!("02000000{original}08000c0077a6db230600120000070000")));
    }

    #[test]
    fn only_the_mark_itself_is_met() {
        assert!(flow_of(&flow(), &ONE.into()).is_some());
        for other in [0x0200_0000, 0x0300_0000, 0x3f00_0000] {
            assert_eq!(flow_of(&flow(), &Mark::new(other, MARK_MASK).into()), None, "{other:#x}");
        }
        assert_eq!(flow_of(&bytes(FLOW), &ONE.into()), None);
    }

    #[test]
    fn flows_on_one_uplink_are_told_apart_by_their_labels() {
        let (mail, bank) = (Label::of("mail"), Label::of("bank"));
        // CTA_LABELS with all bits of all policies; and none at all.
        let labelled = [flow(), bytes(&format!("14001600{}", "ff".repeat(16)))].concat();
        let meets = |flow: &[u8], labels| flow_of(flow, &Whose::Mark(ONE, labels)).is_some();
        assert!(meets(&labelled, Labels::Any) && meets(&labelled, Labels::Is(mail)));
        assert!(!meets(&labelled, Labels::NoneOf(vec![bank])));
        assert!(meets(&flow(), Labels::Any) && meets(&flow(), Labels::NoneOf(vec![mail, bank])));
        assert!(!meets(&flow(), Labels::Is(mail)));
        let any = |flow: &[u8]| flow_of(flow, &Whose::Labelled(vec![mail])).is_some();
        assert!(any(&labelled) && !any(&flow()));
        let ends = ("10.1.0.9:5000".parse().unwrap(), "203.0.113.1:80".parse().unwrap());
        assert_eq!(connection(&labelled[NFGENMSG..]), Some(ends));
    }

    #[test]
    fn a_flow_is_met_by_the_address_that_it_uses() {
        let uses = |ip: &str| flow_of(&flow(), &ip.parse::<IpAddr>().unwrap().into()).is_some();
        assert!(uses("192.0.2.2"), "it is masqueraded to it");
        assert!(uses("203.0.113.1"), "it came in to it, for all that is known here");
        assert!(!uses("10.1.0.9") && !uses("192.0.2.20"));
    }

    #[test]
    fn a_connection_is_told_by_its_near_end() {
        let near = Stream { near: "10.1.0.9:5000".parse().unwrap(), far: "203.0.113.1:80".parse().unwrap() };
        assert_eq!(stream(flow_of(&flow(), &ONE.into()).unwrap()), Some(near));
        // The two tuples exchanged: a connection that was let in.
        let (original, reply) = (&FLOW[16..16 + 0x30 * 2], &FLOW[16 + 0x34 * 2..16 + 0x64 * 2]);
        let inward = bytes(&format!("0200000034000180{reply}34000280{original}{}", &FLOW[16 + 0x64 * 2..]));
        assert_eq!(stream(&inward[NFGENMSG..]), Some(near));
        // Without NAT; and closed.
        let plain = bytes(&FLOW.replace("08000200c0000202", "080002000a010009"));
        assert_eq!(stream(&plain[NFGENMSG..]), None);
        let closed = bytes(&FLOW.replace("0500010003000000", "0500010007000000"));
        assert_eq!(stream(&closed[NFGENMSG..]), None);
    }

    #[test]
    fn a_listing_that_breaks_off_deletes_nothing() {
        let body = flow();
        // The id stands behind the tuples; and nothing ever panics.
        for end in 0..body.len() {
            let flow = flow_of(&body[..end], &ONE.into());
            assert!(flow.and_then(|flow| deletion(Family::V4, flow)).is_none() || end >= 136, "{end}");
            assert!(flow.and_then(stream).is_none() || end >= 108, "{end}");
            assert!(body.get(4..end).and_then(stream).is_none() || end >= 108, "{end}");
        }
        for byte in 0..body.len() {
            let mut broken = body.clone();
            broken[byte] = 0xff;
            if let Some(flow) = flow_of(&broken, &ONE.into()) {
                let _ = (deletion(Family::V4, flow), stream(flow));
            }
        }
    }
}
