//! Asks one question of the internet through one uplink, once, and tells what came back.
//!
//! Decides how a question is asked and what counts as an answer to it. When to ask, how often, and what the answers
//! mean for the uplink it refuses to know; nothing is remembered from one question to the next.
//!
//! Every socket is bound to the uplink's device and carries its mark, so that the answer tells of that uplink and of
//! no other. The rule `oif DEVICE` of the uplink has to be in the kernel already: without it the kernel takes every
//! target for a neighbour on the link, and a provider's proxy ARP would answer for the internet. Dropping the future
//! closes its sockets and kills its program. Needs CAP_NET_ADMIN and CAP_NET_RAW.

mod command;
mod dns;
mod gateway;
mod http;
mod icmp;
mod meter;
mod race;
mod resolve;
mod socket;
mod tcp;

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use self::meter::Meter;
pub use self::race::{Finish, race};
pub use crate::core::health::Outcome;
use crate::core::net::{Family, IfIndex, IfName, Mark, UplinkName};
use crate::core::probe::{Kind, Probe};
use crate::core::text::harmless;

/// Where a probe goes out.
#[derive(Debug, Clone)]
pub struct Way {
    /// The uplink, for programs that are asked.
    pub uplink: UplinkName,
    /// The device that sockets are bound to.
    pub device: IfName,
    /// Its index.
    pub index: IfIndex,
    /// The mark of every packet.
    pub mark: Mark,
    /// The family to ask in.
    pub family: Family,
    /// The next hop of the uplink's default route, where it has one.
    pub gateway: Option<IpAddr>,
    /// The resolvers that the uplink's network announced, of both families.
    pub resolvers: Vec<IpAddr>,
}

/// What came back, and what asking cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came back.
    pub outcome: Outcome,
    /// Bytes on the wire, IP headers included, both directions; an estimate, as nobody counts them. 0 for a program.
    pub bytes: u32,
    /// Packets sent, so that they are not taken for traffic; an estimate as well.
    pub packets: u32,
}

/// Asks, and waits no longer than the limit.
pub async fn ask(probe: &Probe, way: &Way, limit: Duration) -> Answer {
    let meter = Meter::new(way.family);
    let outcome = match timeout(limit, patiently(probe, way, &meter)).await {
        Ok(Ok(time)) => Outcome::Answered(time),
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::Failed(match probe.kind() {
            Kind::Command => format!("did not end within {limit:?}"),
            Kind::Gateway => gateway::silence(way),
            _ => format!("no answer within {limit:?}"),
        }),
    };
    Answer { outcome, bytes: meter.bytes(), packets: meter.packets() }
}

/// As [`one`], and once more where that was ended here: what runs from the address of an uplink that is condemned is ended
/// ([`crate::kernel::flows`]), and with it what was to tell why.
async fn patiently(probe: &Probe, way: &Way, meter: &Meter) -> Result<Duration, Outcome> {
    match one(probe, way, meter).await {
        Err(Outcome::Failed(why)) if why == socket::ENDED => one(probe, way, meter).await,
        outcome => outcome,
    }
}

/// The time that the answer took, or what came back instead.
async fn one(probe: &Probe, way: &Way, meter: &Meter) -> Result<Duration, Outcome> {
    match probe {
        Probe::Icmp(host) => icmp::ask(resolve::host(host, way, meter).await?, way, meter).await,
        Probe::Tcp(host, port) => {
            let ip = resolve::host(host, way, meter).await?;
            tcp::connect(ip, *port, way, meter).await.map(|(_, time)| time)
        }
        Probe::Dns { server, name } => dns::ask(*server, name, way, meter).await,
        Probe::Http { url, expect } => http::ask(url, expect, way, meter).await,
        Probe::Gateway => gateway::ask(way, meter).await,
        Probe::Command { program, args } => command::ask(program, args, way).await,
    }
}

/// A failure, with a text that may be of anybody's making.
fn failed(why: impl ToString) -> Outcome {
    Outcome::Failed(harmless(&why.to_string()))
}
