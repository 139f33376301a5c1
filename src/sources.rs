//! Where facts come from: the network managers, asked over D-Bus, and what hooks, files and answers to questions for names tell.
//!
//! A source answers "what is?" with one fresh snapshot and calls out when it may be worth asking again. What a fact
//! means is none of its business, and a signal's content is never used: losing a nudge costs time, not correctness. The answers are the exception: nobody can
//! be asked for those of before.

pub mod answers;
pub mod bus;
mod call;
mod dhcp;
mod file;
pub mod networkd;
pub mod nm;
pub mod offers;
pub mod resolved;
mod systemd;
pub mod tending;

use std::fmt;

pub use call::Error;

/// What is known of a manager once it was asked.
///
/// The third case, a manager that is there but did not answer, is the `Err` beside it: such a round must change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence<T> {
    /// Nobody owns its bus name: it does not run, and whatever it once said no longer holds.
    Absent,
    /// It runs, and this is what it says.
    Present(T),
}

/// Why to look again. For the log only; nothing is decided from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudge {
    /// The kernel's routing.
    Kernel(&'static str),
    /// Somebody touched our nft table.
    Nftables,
    /// A control group came or went in which a policy's programs may be.
    Units,
    /// The system bus was reached or lost.
    Bus,
    /// NetworkManager came, went, or changed something that matters.
    NetworkManager,
    /// systemd-networkd came, went, or changed something of a link.
    Networkd,
    /// systemd-resolved came or went.
    Resolved,
}

impl fmt::Display for Nudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Nudge::Kernel(what) => what,
            Nudge::Nftables => "nftables",
            Nudge::Units => "units",
            Nudge::Bus => "system bus",
            Nudge::NetworkManager => "NetworkManager",
            Nudge::Networkd => "systemd-networkd",
            Nudge::Resolved => "systemd-resolved",
        })
    }
}
