//! The gateway, asked for its hardware address as the kernel itself would ask: by ARP, or by neighbour discovery.
//!
//! It shows that the cable, the radio and the router are there, and nothing of what lies behind.

use std::time::Duration;

use super::meter::Meter;
use super::{Outcome, Way, failed};
use crate::core::net::Family;
use crate::kernel::rtnl::neighbour::{Reply, confirm};

/// How often the kernel asks again, a second apart (`ucast_solicit`, `mcast_solicit`; arp(7)).
const REPETITIONS: u64 = 2;

/// Asks, and waits for the kernel's verdict.
pub(super) async fn ask(way: &Way, meter: &Meter) -> Result<Duration, Outcome> {
    let gateway = way.gateway.ok_or_else(|| failed("the link has no gateway to ask"))?;
    // ARP is 28 octets without an IP header, of which the meter adds 20; a solicitation is 32 behind one.
    let octets = if Family::of(gateway) == Family::V4 { 8 } else { 32 };
    let request = meter.repeated(octets, REPETITIONS);
    match confirm(way.index, gateway).await {
        Ok(Reply::Confirmed) => {
            meter.received(octets);
            Ok(request.elapsed())
        }
        Ok(Reply::Silence) => Err(Outcome::Failed(silence(way))),
        Ok(Reply::NotAsked) => Err(failed("the hardware address of the gateway is fixed: nobody is asked")),
        Err(error) => Err(failed(error)),
    }
}

/// The words for a gateway that does not answer.
pub(super) fn silence(way: &Way) -> String {
    match way.gateway.map(Family::of) {
        Some(Family::V6) => "no answer to neighbour discovery".to_owned(),
        _ => "no answer to ARP".to_owned(),
    }
}
