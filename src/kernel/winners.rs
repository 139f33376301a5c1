//! Who has won the races, as it stands in our table of policies: writes it, and counts it.
//!
//! Over nfnetlink and not with `nft`, which reads everybody's sets ahead of any change of an element. What a winner is for
//! it refuses to know.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetElementAttribute, SetElementList, SetElementMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use netlink_sys::constants::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::nfnl::{Error, NFGENMSG};
use super::request::{RequestSocket, attribute, attributes};
use crate::core::net::Mark;
use crate::core::nft::POLICY_TABLE;
use crate::core::race::Course;

// linux/netfilter/nfnetlink.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
// linux/netfilter/nf_tables.h
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFTA_COUNTER_PACKETS: u16 = 2;
const NFT_OBJECT_COUNTER: u32 = 1;

/// Writes down who leads to a destination, for so long. Needs CAP_NET_ADMIN.
///
/// Where somebody is written down for it already that one stays, and this is an error; where the map is full or is not there
/// any more, too.
pub async fn put(course: &Course, to: IpAddr, mark: Mark, lasts: Duration) -> Result<(), Error> {
    let key = match to {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let element = vec![
        SetElementAttribute::Key(DataAttribute::Value(key)),
        // A packet's mark is a number of this machine's byte order.
        SetElementAttribute::Data(DataAttribute::Value(mark.value().to_ne_bytes().to_vec())),
        SetElementAttribute::Timeout(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)),
    ];
    let elements = SetElementList::Elements(vec![ListAttribute::Element(element)]);
    let attributes = [of(course), vec![elements]].concat();
    let change = NfTablesMessage::NewSetElement(SetElementMessage { attributes });
    let around = |control: ControlMessage| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFNL_SUBSYS_NFTABLES);
        NetfilterMessage::new(header, control)
    };
    let write = async || {
        let mut socket = RequestSocket::open(NETLINK_NETFILTER)?;
        socket
            .transact([around(ControlMessage::BatchBegin), message(change), around(ControlMessage::BatchEnd)])
            .await
    };
    write().await.map_err(Error::of("write down who won a race"))
}

/// How many destinations each mark leads, of one course; nothing where there is no such map.
pub async fn led(course: &Course) -> Result<BTreeMap<u32, usize>, Error> {
    let mut led = BTreeMap::new();
    let ask = NfTablesMessage::GetSetElement(SetElementMessage { attributes: of(course) });
    let outcome = dump(ask, |body| {
        for mark in elements(body).filter_map(mark_of) {
            *led.entry(mark).or_default() += 1;
        }
    });
    match outcome.await {
        Ok(()) => Ok(led),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(BTreeMap::new()),
        Err(error) => Err(Error::of("count who won races")(error)),
    }
}

/// How many flows were counted by each counter of our table of policies, by its name.
pub async fn counted() -> Result<BTreeMap<String, u64>, Error> {
    let mut counted = BTreeMap::new();
    let text = DefaultNla::new(NFTA_OBJ_TABLE, format!("{POLICY_TABLE}\0").into_bytes());
    let kind = DefaultNla::new(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER.to_be_bytes().to_vec());
    let outcome = dump(NfTablesMessage::GetObject(vec![text, kind]), |body| counted.extend(counter(body)));
    outcome.await.map(|()| counted).map_err(Error::of("count the flows that follow winners"))
}

async fn dump(what: NfTablesMessage, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut socket = RequestSocket::open(NETLINK_NETFILTER)?;
    socket.start_dump(message(what)).await?;
    while socket.next_of_dump(|_, body| body.get(NFGENMSG..).into_iter().for_each(&mut each)).await? {}
    Ok(())
}

fn message(what: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0), what)
}

fn of(course: &Course) -> Vec<SetElementList> {
    vec![SetElementList::Table(POLICY_TABLE.to_owned()), SetElementList::Set(course.winners())]
}

fn elements(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = attribute(body, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    attributes(all).filter_map(|(kind, element)| (kind == NFTA_LIST_ELEM).then_some(element))
}

fn mark_of(element: &[u8]) -> Option<u32> {
    let data = attribute(element, NFTA_SET_ELEM_DATA)?;
    Some(u32::from_ne_bytes(attribute(data, NFTA_DATA_VALUE)?.try_into().ok()?))
}

fn counter(body: &[u8]) -> Option<(String, u64)> {
    let name = std::str::from_utf8(attribute(body, NFTA_OBJ_NAME)?).ok()?.trim_end_matches('\0');
    let packets = attribute(attribute(body, NFTA_OBJ_DATA)?, NFTA_COUNTER_PACKETS)?;
    Some((name.to_owned(), u64::from_be_bytes(packets.try_into().ok()?)))
}
