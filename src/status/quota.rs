//! What the status tells of a quota.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::quota::{Amount, Ledger, Level, Quota};

/// What may go over an uplink from one billing day to the next, received and sent together, and what has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// How it stands: `within` its limits, beyond the `soft` one, or at the `hard` one.
    pub level: Level,
    /// The hard limit, in bytes.
    pub limit_bytes: u64,
    /// The soft limit, in bytes; the hard one where there is none.
    pub soft_bytes: u64,
    /// What has been used, in bytes.
    pub used_bytes: u64,
    /// What is left, in bytes.
    pub left_bytes: u64,
    /// The day of the month on which it is renewed.
    pub day: u8,
    /// The day on which this period began, as `2026-11-15`; null while it is not known what day it is.
    pub since: Option<String>,
    /// The day on which the next begins.
    pub renewed: Option<String>,
    /// What was used in the period before, in bytes; null where nothing was counted.
    pub former_bytes: Option<u64>,
}

impl QuotaStatus {
    /// Tells of a quota and what was counted against it.
    pub fn of(quota: &Quota, ledger: &Ledger) -> Self {
        let usage = ledger.usage();
        QuotaStatus {
            level: quota.level(usage.used),
            limit_bytes: quota.limit.0,
            soft_bytes: quota.soft_limit().0,
            used_bytes: usage.used.0,
            left_bytes: quota.limit.less(usage.used).0,
            day: quota.day.get(),
            since: ledger.began().map(|date| date.to_string()),
            renewed: usage.renewed.map(|date| date.to_string()),
            former_bytes: ledger.former().map(|amount| amount.0),
        }
    }

    /// What has been used, in percent.
    pub fn percent(&self) -> u64 {
        let percent = u128::from(self.used_bytes) * 100 / u128::from(self.limit_bytes.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }

    /// The soft limit, in percent of the hard one.
    pub fn soft_percent(&self) -> u64 {
        // It was rounded down.
        let percent = (u128::from(self.soft_bytes) * 100).div_ceil(u128::from(self.limit_bytes.max(1)));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }

    /// When it is renewed, for people.
    pub fn renewal(&self) -> &str {
        self.renewed.as_deref().unwrap_or("not known yet")
    }
}

/// As people read it.
impl fmt::Display for QuotaStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [limit, soft, used, left] =
            [self.limit_bytes, self.soft_bytes, self.used_bytes, self.left_bytes].map(Amount);
        write!(f, "quota {limit}: {used} used, {left} left, renewed on {}", self.renewal())?;
        match self.level {
            Level::Within if soft < limit => write!(f, "; soft limit {soft}")?,
            Level::Within => {}
            Level::Soft => write!(f, "; beyond its soft limit of {soft}")?,
            Level::Hard => write!(f, "; used up")?,
        }
        let former = |bytes| write!(f, "; {} used in the period before", Amount(bytes));
        self.former_bytes.map_or(Ok(()), former)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::date;

    use super::*;
    use crate::core::quota::{Clock, Day};

    #[test]
    fn people_see_what_is_left_and_until_when() {
        let quota = Quota { limit: Amount(50_000_000_000), day: Day::FIRST, soft: 80 };
        let clock = |today| Clock { today, uptime: Duration::from_secs(3600) };
        let mut ledger = Ledger::new(quota.day);
        let unknown = QuotaStatus::of(&quota, &ledger);
        assert_eq!((unknown.renewal(), unknown.percent()), ("not known yet", 0));
        ledger.look(quota.day, clock(date!(2026 - 10 - 22)));
        ledger.correct(Amount(48_700_000_000), clock(date!(2026 - 10 - 22)));
        ledger.look(quota.day, clock(date!(2026 - 11 - 22)));
        let mut told = |used, soft| {
            ledger.correct(Amount(used), clock(date!(2026 - 11 - 22)));
            QuotaStatus::of(&Quota { soft, ..quota }, &ledger).to_string()
        };
        assert_eq!(
            told(12_345_000_000, 80),
            "quota 50 GB: 12.3 GB used, 37.6 GB left, renewed on 2026-12-01; soft limit 40 GB; \
             48.7 GB used in the period before"
        );
        assert!(told(40_000_000_000, 80).contains("; beyond its soft limit of 40 GB;"));
        assert!(told(51_000_000_000, 80).contains(" 0 B left, renewed on 2026-12-01; used up;"));
        assert!(!told(49_000_000_000, 100).contains("soft"));
    }
}
