//! Elements by address in the sets and maps of our table of policies.
//!
//! Over nfnetlink and not with `nft`, which reads everybody's sets ahead of any change of an element. What an element is for
//! it refuses to know.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList, SetElementMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::constants::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::nfnl::{Error, NFGENMSG};
use super::request::{RequestSocket, attribute, attributes};
use crate::core::nft::POLICY_TABLE;

// linux/nfnetlink.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
// linux/netfilter/nf_tables.h
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;

/// One of them.
pub(super) struct Element {
    pub(super) set: String,
    pub(super) key: IpAddr,
    /// What it has beside its key.
    pub(super) more: Vec<SetElementAttribute>,
}

/// Notes addresses in a set, each for so long from now on, whether or not it is there. Needs CAP_NET_ADMIN; fails as a whole
/// where the set has no room for all, or is not there any more.
pub async fn note(set: &str, addresses: &[(IpAddr, Duration)]) -> Result<(), Error> {
    let element = |key: &IpAddr| Element { set: set.to_owned(), key: *key, more: Vec::new() };
    let all: Vec<_> = addresses.iter().map(|(key, lasts)| (element(key), *lasts)).collect();
    let added =
        all.iter().map(|(element, lasts)| (element.added(*lasts), NLM_F_CREATE | NLM_F_EXCL)).collect();
    let noted = match transact(added).await {
        // Added again, it would keep its time but on the newest kernels. To take one out takes some 25 ms, for many as for one.
        Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => {
            let anew = all.iter().flat_map(|(element, lasts)| element.anew(*lasts)).collect();
            transact(anew).await
        }
        other => other,
    };
    noted.map_err(Error::of("note the addresses of a name"))
}

/// How many addresses a set has; none where there is no such set.
pub async fn count(set: &str) -> Result<usize, Error> {
    let mut count = 0;
    each(set, |_| count += 1).await.map_err(Error::of("count the addresses of names"))?;
    Ok(count)
}

/// Looks at each element of a set; at none where there is no such set.
pub(super) async fn each(set: &str, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    let ask = NfTablesMessage::GetSetElement(SetElementMessage { attributes: of(set) });
    match dump(ask, |body| elements(body).for_each(&mut look)).await {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        outcome => outcome,
    }
}

impl Element {
    /// Adds it, for so long.
    pub(super) async fn add(&self, lasts: Duration) -> io::Result<()> {
        transact(vec![(self.added(lasts), NLM_F_CREATE)]).await
    }

    /// As one that is new, whether or not it is there.
    fn anew(&self, lasts: Duration) -> [Flagged; 3] {
        let old = NfTablesMessage::DeleteSetElement(self.message(Vec::new()));
        [(self.added(lasts), NLM_F_CREATE), (old, 0), (self.added(lasts), NLM_F_CREATE)]
    }

    fn added(&self, lasts: Duration) -> NfTablesMessage {
        let lasts = SetElementAttribute::Timeout(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        let more = self.more.iter().cloned().chain([lasts]).collect();
        NfTablesMessage::NewSetElement(self.message(more))
    }

    fn message(&self, more: Vec<SetElementAttribute>) -> SetElementMessage {
        let key = match self.key {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let element = [vec![SetElementAttribute::Key(DataAttribute::Value(key))], more].concat();
        let elements = SetElementList::Elements(vec![ListAttribute::Element(element)]);
        SetElementMessage { attributes: [of(&self.set), vec![elements]].concat() }
    }
}

/// What names a set of ours.
fn of(set: &str) -> Vec<SetElementList> {
    vec![SetElementList::Table(POLICY_TABLE.to_owned()), SetElementList::Set(set.to_owned())]
}

/// A message of nf_tables for tables of family `inet`.
pub(super) fn message(what: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), what)
}

/// Asks for objects, and reads what follows the header of each.
pub(super) async fn dump(what: NfTablesMessage, mut look: impl FnMut(&[u8])) -> io::Result<()> {
    let mut socket = RequestSocket::open(NETLINK_NETFILTER)?;
    socket.start_dump(message(what)).await?;
    while socket.next_of_dump(|_, body| body.get(NFGENMSG..).into_iter().for_each(&mut look)).await? {}
    Ok(())
}

/// The elements in a part of a dump.
fn elements(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = attribute(body, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    attributes(all).filter_map(|(kind, element)| (kind == NFTA_LIST_ELEM).then_some(element))
}

/// A change, with its flags.
type Flagged = (NfTablesMessage, u16);

async fn transact(changes: Vec<Flagged>) -> io::Result<()> {
    let around = |control: ControlMessage| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
        NetfilterMessage::new(header, control)
    };
    let ends = [around(ControlMessage::BatchBegin), around(ControlMessage::BatchEnd)];
    let mut socket = RequestSocket::open(NETLINK_NETFILTER)?;
    socket.transact(ends, changes.into_iter().map(|(change, flags)| (message(change), flags)).collect()).await
}
