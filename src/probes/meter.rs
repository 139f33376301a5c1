//! What a probe costs, estimated: the kernel counts a device's packets, and not whose they are.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::core::net::Family;

/// Outlives the question, which may be dropped at its time limit. Atomic only so that the future may change threads.
#[derive(Debug)]
pub(super) struct Meter {
    /// Octets of an IP header without options (RFC 791, RFC 8200).
    header: u32,
    bytes: AtomicU32,
    packets: AtomicU32,
}

impl Meter {
    pub(super) fn new(family: Family) -> Self {
        let header = if family == Family::V4 { 20 } else { 40 };
        Meter { header, bytes: AtomicU32::new(0), packets: AtomicU32::new(0) }
    }

    /// A packet with this many octets behind the IP header went out.
    pub(super) fn sent(&self, octets: usize) {
        self.packets.fetch_add(1, Relaxed);
        self.received(octets);
    }

    /// A packet with this many octets behind the IP header came in.
    pub(super) fn received(&self, octets: usize) {
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        self.bytes.fetch_add(self.header.saturating_add(octets), Relaxed);
    }

    pub(super) fn bytes(&self) -> u32 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn packets(&self) -> u32 {
        self.packets.load(Relaxed)
    }

    /// Counts a packet that the kernel itself sends, and sends again each second until it is answered, up to this
    /// many times more, for as long as the value lives.
    pub(super) fn repeated(&self, octets: usize, most: u64) -> Repeated<'_> {
        self.sent(octets);
        Repeated { meter: self, octets, most, since: Instant::now() }
    }
}

/// See [`Meter::repeated`].
pub(super) struct Repeated<'a> {
    meter: &'a Meter,
    octets: usize,
    most: u64,
    since: Instant,
}

impl Repeated<'_> {
    /// How long it has lived.
    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Repeated<'_> {
    fn drop(&mut self) {
        (0..self.elapsed().as_secs().min(self.most)).for_each(|_| self.meter.sent(self.octets));
    }
}
