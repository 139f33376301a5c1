//! Which of the usable uplinks new flows take.
//!
//! Health says who can be used and tiers who is preferred; a [`Method`] decides among these. What it goes by is measured
//! by a [`Meter`] for each link and weighed by a [`Chooser`] for each family of each [`Pool`] of uplinks, which changes its mind
//! only upon lasting evidence. What comes out is a [`Choice`], a value for [`plan`](super::plan::plan) as verdicts are: where somebody of
//! whom it speaks is down, the plan goes on to the next without waiting for another choice.
//!
//! Refuses to know how bytes are counted, how round-trip times are measured, and what becomes of flows that run.

mod choice;
mod chooser;
mod choosers;
mod measure;
mod meter;
mod pool;
mod rate;

pub use choice::{Candidate, Choice, active, candidates, ready};
pub use chooser::{Chooser, HOLD, Kept};
pub use choosers::{Choosers, KeptChoices};
pub use measure::Figures;
pub use meter::{Bytes, Capacity, Meter};
pub use pool::{Choices, Pick, Pool};
pub use rate::{Directions, Rate};

use serde::{Deserialize, Serialize};

/// How an uplink is chosen among those that are usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// All of the best tier, each by its weight.
    #[default]
    Weighted,
    /// One alone: the first in order of tier, weight and metric.
    Priority,
    /// The first in that order that has room, in the next tier where none of one has.
    Overflow,
    /// The one of the best tier with the most free capacity.
    LeastUsed,
    /// The one of the best tier with the shortest round-trip time.
    LowestLatency,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 5] =
        [Method::Weighted, Method::Priority, Method::Overflow, Method::LeastUsed, Method::LowestLatency];

    /// Whether it goes by what is measured, and so may choose otherwise at any time.
    pub fn goes_by_figures(self) -> bool {
        matches!(self, Method::Overflow | Method::LeastUsed | Method::LowestLatency)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Weighted => "weighted",
            Method::Priority => "priority",
            Method::Overflow => "overflow",
            Method::LeastUsed => "least-used",
            Method::LowestLatency => "lowest-latency",
        }
    }
}

#[cfg(test)]
mod tests;
