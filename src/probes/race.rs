//! A race: handshakes with one address and port, by several uplinks at once, until the first is accepted.
//!
//! Nothing but handshakes is sent, and these are not completed. That an acceptance is one, and no stranger's guess, is seen
//! to by the kernel, which chooses a sequence number that nobody can know (RFC 6528) and looks for it in the answer. What was
//! accepted is reset, and never acknowledged. An answer that comes after the end finds no socket, and is reset by the kernel.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::Way;
use super::meter::Meter;
use super::tcp::{self, RESET, SYN};

/// How a race ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finish {
    /// By which of the ways the first acceptance came, and after what time; none where none did.
    pub winner: Option<(usize, Duration)>,
    /// Bytes on the wire, IP headers included, both directions; an estimate, as nobody counts them.
    pub bytes: u32,
}

/// Runs one, and waits no longer than the limit.
///
/// A target that is not of a way's family, or that is an address of this machine, is not asked by it.
pub async fn race(to: SocketAddr, ways: &[Way], limit: Duration) -> Finish {
    let meters: Vec<Meter> = ways.iter().map(|way| Meter::new(way.family)).collect();
    let run = async |(n, (way, meter))| (n, tcp::knock(to.ip(), to.port(), way, meter).await);
    let mut running: FuturesUnordered<_> = ways.iter().zip(&meters).enumerate().map(run).collect();
    let first = async {
        loop {
            match running.next().await? {
                (n, Ok(time)) => return Some((n, time)),
                (_, Err(_)) => {}
            }
        }
    };
    let winner = timeout(limit, first).await.ok().flatten();
    drop(running);
    if let Some((first, _)) = winner {
        // The answers to the others are still on their way.
        for (_, late) in meters.iter().enumerate().filter(|(n, _)| *n != first) {
            late.received(SYN);
            late.sent(RESET);
        }
    }
    Finish { winner, bytes: meters.iter().map(Meter::bytes).sum() }
}
