//! Whether an uplink leads anywhere: from what probes, counters and managers say to one verdict for each family.
//!
//! Sans-IO: results and the time go in, verdicts and the next wake-up come out. What follows from a verdict is
//! decided in [`super::plan`]; how a probe is sent is none of its business.

mod damping;
mod leaving;
mod monitor;
mod portal;
mod quality;
mod round;
mod target;
mod thresholds;
mod traffic;
mod vacated;
mod view;

use std::fmt;
use std::time::{Duration, Instant};

pub use damping::Damping;
pub use leaving::Leaving;
pub use monitor::{Cost, Monitor, Report, Request};
pub use quality::Quality;
pub use thresholds::{Limit, Thresholds};
pub use traffic::Counters;
pub use vacated::Vacated;
pub use view::{Health, Manual};

use super::probe::Probe;

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, after this time.
    Answered(Duration),
    /// Somebody else answered in the place of the target: a redirect, a foreign status, body or certificate.
    Portal(String),
    /// Not answered, or refused.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Answered(rtt) => {
                write!(f, "answered in {}.{} ms", rtt.as_millis(), rtt.as_micros() / 100 % 10)
            }
            Outcome::Portal(why) => write!(f, "portal: {why}"),
            Outcome::Failed(why) => write!(f, "{why}"),
        }
    }
}

/// What probes make of an uplink whose link is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing is known yet.
    Unproven,
    /// It leads out.
    Up,
    /// It leads out badly.
    Degraded,
    /// Somebody wants a sign-in first.
    Portal,
    /// It leads nowhere.
    Down,
    /// It leads out again, and has to prove that it goes on to.
    Held,
}

impl Standing {
    /// Whether packets get through.
    pub fn lives(self) -> bool {
        matches!(self, Standing::Up | Standing::Degraded | Standing::Held)
    }
}

/// A verdict with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// The verdict.
    pub standing: Standing,
    /// What it rests on.
    pub why: String,
    /// Until when it is held back.
    pub held_until: Option<Instant>,
    /// Something has answered on this uplink once.
    pub proven: bool,
}

impl Opinion {
    /// A fresh verdict.
    pub fn new(standing: Standing, why: String) -> Self {
        Opinion { standing, why, held_until: None, proven: false }
    }
}

/// What a network manager's own check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connectivity {
    /// Nothing is reached.
    None,
    /// A portal is in the way.
    Portal,
    /// The link works, the internet does not.
    Limited,
    /// All is well.
    Full,
}

/// Whom to ask about one family of an uplink, and by what to judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The targets; none where it is not to be probed.
    pub targets: Vec<Probe>,
    /// Websites that a captive portal would answer for.
    pub checks: Vec<Probe>,
    /// The limits.
    pub limits: Thresholds,
    /// It is asked rarely while it carries nothing: every byte costs money, or there is no other to go to.
    pub sparse: bool,
}

#[cfg(test)]
mod tests;
