//! What the status tells of races.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::race::Tally;

/// The races of a policy in one family, since the daemon was started, and what the kernel knows of their winners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaceStatus {
    /// Races that were run.
    pub run: u64,
    /// Races that somebody has won.
    pub won: u64,
    /// First contacts that were not raced for: too many at once, or of no public address.
    pub left_out: u64,
    /// Bytes of all handshakes on the wire, IP headers included, both directions; an estimate.
    pub bytes: u64,
    /// Microseconds from a first contact until its winner leads, on average.
    pub known_after_us: Option<u64>,
    /// New flows that have followed a winner since the policy was first loaded.
    pub hits: u64,
    /// How many destinations each uplink has won and leads now.
    pub leads: BTreeMap<String, usize>,
}

impl RaceStatus {
    /// Tells of them.
    pub fn of(tally: &Tally, hits: u64, leads: BTreeMap<String, usize>) -> Self {
        let known_after_us = tally.mean().map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        let Tally { run, won, left_out, bytes, .. } = *tally;
        RaceStatus { run, won, left_out, bytes, known_after_us, hits, leads }
    }
}
