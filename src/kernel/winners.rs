//! Who has won the races, as it stands in our table of policies: writes it, and counts it.
//!
//! What a winner is for it refuses to know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{DataAttribute, NfTablesMessage, SetElementAttribute};

use super::element::{Element, dump, each};
use super::nfnl::Error;
use super::request::attribute;
use crate::core::net::Mark;
use crate::core::nft::POLICY_TABLE;
use crate::core::race::Course;

// linux/netfilter/nf_tables.h
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
    // A packet's mark is a number of this machine's byte order.
    let leads = SetElementAttribute::Data(DataAttribute::Value(mark.value().to_ne_bytes().to_vec()));
    let element = Element { set: course.winners(), key: to, more: vec![leads] };
    element.add(lasts).await.map_err(Error::of("write down who won a race"))
}

/// How many destinations each mark leads, of one course; nothing where there is no such map.
pub async fn led(course: &Course) -> Result<BTreeMap<u32, usize>, Error> {
    let mut led = BTreeMap::new();
    let look = |element: &[u8]| {
        if let Some(mark) = mark_of(element) {
            *led.entry(mark).or_default() += 1;
        }
    };
    each(&course.winners(), look).await.map_err(Error::of("count who won races"))?;
    Ok(led)
}

/// How many flows were counted by each counter of our table of policies, by its name.
pub async fn counted() -> Result<BTreeMap<String, u64>, Error> {
    let mut counted = BTreeMap::new();
    let text = DefaultNla::new(NFTA_OBJ_TABLE, format!("{POLICY_TABLE}\0").into_bytes());
    let kind = DefaultNla::new(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER.to_be_bytes().to_vec());
    let outcome = dump(NfTablesMessage::GetObject(vec![text, kind]), |body| counted.extend(counter(body)));
    outcome.await.map(|()| counted).map_err(Error::of("count the flows that follow winners"))
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
