//! How much may go over an uplink in a month, how much has, and what follows from it.
//!
//! A [`Ledger`] for each uplink turns counters of links, which begin anew whenever they like, into bytes of a billing
//! period that are never lost and never counted twice. A [`Book`] keeps them, and [`enforce`] acts: beyond the soft
//! limit an uplink stands behind all others, at the hard one it is out.
//!
//! Refuses to know how counters are read, where the book is kept, and what time it is.

mod amount;
mod book;
mod enforce;
mod ledger;
mod period;
mod reading;
mod saving;

use std::fmt;

use serde::{Deserialize, Serialize};
use time::Date;

pub use amount::Amount;
pub use book::{Book, Line};
pub(in crate::core) use enforce::{enforce, none_left};
pub use ledger::{Clock, Ledger};
pub use period::Day;
pub use reading::Reading;
pub use saving::{Place, Saving};

/// What may go over an uplink from one billing day to the next, received and sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The hard limit.
    pub limit: Amount,
    /// The day of the month on which it is renewed.
    pub day: Day,
    /// The soft limit, in percent of the hard one; 100 for none.
    pub soft: u8,
}

/// The soft limit where nothing else is said, in percent.
pub const USUAL_SOFT: u8 = 80;

impl Quota {
    /// The soft limit as an amount.
    pub fn soft_limit(&self) -> Amount {
        // A percentage of what fits fits.
        Amount(u64::try_from(u128::from(self.limit.0) * u128::from(self.soft) / 100).unwrap_or(u64::MAX))
    }

    /// Where so much leaves one.
    pub fn level(&self, used: Amount) -> Level {
        match used {
            used if used >= self.limit => Level::Hard,
            used if used >= self.soft_limit() => Level::Soft,
            _ => Level::Within,
        }
    }
}

/// How an uplink stands with its quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Below the soft limit.
    #[default]
    Within,
    /// Beyond the soft limit: others are used first.
    Soft,
    /// At the hard limit: not used.
    Hard,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Within => "within",
            Level::Soft => "soft",
            Level::Hard => "hard",
        }
    }
}

/// What has been used of a quota, as planning is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Received and sent in this billing period.
    pub used: Amount,
    /// When the next begins; none before the first has.
    pub renewed: Option<Date>,
}

/// What an uplink is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Its quota.
    pub quota: Quota,
    /// How it stands with it.
    pub level: Level,
    /// When it is renewed; none before anything was counted.
    pub renewed: Option<Date>,
}

impl Allowance {
    /// What is left of a quota after so much.
    pub fn of(quota: Quota, usage: Option<&Usage>) -> Self {
        let Usage { used, renewed } = usage.copied().unwrap_or_default();
        Allowance { quota, level: quota.level(used), renewed }
    }
}

/// Why it stands as it does. Tells no figure that changes with every second.
impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quota { limit, soft, .. } = self.quota;
        match self.level {
            Level::Within => write!(f, "less than {soft} % of its quota of {limit} is used")?,
            Level::Soft => write!(f, "at least {soft} % of its quota of {limit} is used")?,
            Level::Hard => write!(f, "its quota of {limit} is used up")?,
        }
        self.renewed.map_or(Ok(()), |date| write!(f, "; renewed on {date}"))
    }
}

#[cfg(test)]
mod tests;
