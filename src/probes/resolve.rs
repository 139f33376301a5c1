//! Names, resolved through the uplink that is asked about and by nobody else's cache.
//!
//! Decides which servers are asked and in which order. The machine's own resolver it refuses to know: that one may
//! use another uplink, or an answer of yesterday.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use tokio::time::timeout;

use super::meter::Meter;
use super::{Outcome, Way, dns, failed};
use crate::core::net::Family;
use crate::core::probe::{Host, public_resolver};

/// How long a server may be silent until the next one is asked as well.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many of the uplink's own resolvers are asked.
const OWN: usize = 3;

/// An address of a host, of the way's family.
pub(super) async fn host(host: &Host, way: &Way, meter: &Meter) -> Result<IpAddr, Outcome> {
    match host {
        Host::Ip(ip) => Ok(*ip),
        Host::Name(name) => {
            resolve(name, way, meter).await.ok_or_else(|| failed(format!("cannot resolve {name}")))
        }
    }
}

/// Asks one server after the other, none later than a second after the one before. The first address wins.
async fn resolve(name: &str, way: &Way, meter: &Meter) -> Option<IpAddr> {
    let mut servers = servers(way).into_iter();
    let mut asked = FuturesUnordered::new();
    loop {
        match servers.next() {
            Some(server) => asked.push(address(server, name, way, meter)),
            None if asked.is_empty() => return None,
            None => {}
        }
        let patience = if servers.len() == 0 { Duration::MAX } else { PATIENCE };
        if let Ok(Some(Some(ip))) = timeout(patience, asked.next()).await {
            return Some(ip);
        }
    }
}

fn servers(way: &Way) -> Vec<IpAddr> {
    let fallback = public_resolver(way.family);
    let own = way.resolvers.iter().copied().filter(|ip| Family::of(*ip) == way.family && *ip != fallback);
    own.take(OWN).chain([fallback]).collect()
}

/// What one server says; none where it has no address, or is not one to be asked.
async fn address(server: IpAddr, name: &str, way: &Way, meter: &Meter) -> Option<IpAddr> {
    let (answer, _) = dns::query(server, name, dns::address_type(way.family), way, meter).await.ok()?;
    (answer.response_code() == ResponseCode::NoError).then(|| first_address(&answer, way.family))?
}

fn first_address(answer: &Message, family: Family) -> Option<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(v4) => Some(IpAddr::V4(v4.0)),
        RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
        _ => None,
    };
    answer.answers().iter().filter_map(|record| address(record.data())).find(|ip| Family::of(*ip) == family)
}
