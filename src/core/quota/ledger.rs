//! What has gone over an uplink in each billing period, however often its counters and the clock begin anew.
//!
//! Bytes are never doubtful, only what day it is: a machine without a battery begins in a year of its own, and one with a
//! bad one may begin in a later one. So nothing is thrown away for the clock's sake. What is counted before the clock can
//! be believed waits; a month that the clock has gone back from is not over, and counts for the present one until it comes
//! again; and a clock that goes back and forth finds each month as it left it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::Date;

use super::period::Day;
use super::reading::Reading;
use super::{Amount, Usage};

/// What time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The date in the local time zone.
    pub today: Date,
    /// How long the machine has been up.
    pub uptime: Duration,
}

/// By then a clock has been set right by the network, if anything does that.
const BELIEVED_AFTER: Duration = Duration::from_secs(600);

/// And by then one that went back by more than a period: rather than that, nobody has set it right yet, as the network may
/// have to be reached by the very uplink.
const FAR_BACK_BELIEVED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// So many periods that are over are remembered.
const REMEMBERED: usize = 12;

/// The bytes of one uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    day: Day,
    /// When the present period began; none before the clock was believed.
    began: Option<Date>,
    /// What was counted in each period, by its begin.
    counts: BTreeMap<Date, Amount>,
    /// The periods that the clock has gone back from: what was counted in them belongs to the present one.
    #[serde(default)]
    ahead: BTreeSet<Date>,
    /// What was counted while it was not known what day it is.
    unplaced: Amount,
    /// Where the counters stood.
    read: Option<Reading>,
}

impl Ledger {
    /// An empty one.
    pub fn new(day: Day) -> Self {
        Ledger {
            day,
            began: None,
            counts: BTreeMap::new(),
            ahead: BTreeSet::new(),
            unplaced: Amount(0),
            read: None,
        }
    }

    /// What has been used, and until when that counts.
    pub fn usage(&self) -> Usage {
        let periods = self.began.iter().chain(&self.ahead);
        let counted = periods.filter_map(|begin| self.counts.get(begin));
        let used = Amount(counted.fold(self.unplaced.0, |sum, counted| sum.saturating_add(counted.0)));
        Usage { used, renewed: self.began.map(|began| self.day.ends(began)) }
    }

    /// The day of the month on which it is renewed.
    pub fn day(&self) -> Day {
        self.day
    }

    /// When the present period began.
    pub fn began(&self) -> Option<Date> {
        self.began
    }

    /// What was counted in the period before the present one.
    pub fn former(&self) -> Option<Amount> {
        self.counts.range(..self.began?).next_back().map(|(_, counted)| *counted)
    }

    /// Takes in what the counters say.
    pub fn count(&mut self, reading: &Reading, clock: Clock) {
        let fresh = reading.since(self.read.as_ref());
        self.read = Some(reading.clone().behind(self.read.as_ref()));
        self.unplaced.0 = self.unplaced.0.saturating_add(fresh);
        self.look(self.day, clock);
    }

    /// Forgets where the counters stood: what they count from here on is another's.
    pub fn leave(&mut self) {
        self.read = None;
    }

    /// Looks at the clock, and at the day of renewal, which somebody may have changed.
    pub fn look(&mut self, day: Day, clock: Clock) {
        let began = day.began(clock.today);
        let agrees = (self.began, self.day) == (Some(began), day);
        let far_back = self.began.is_some_and(|former| day.ends(began) < former);
        let patience = if far_back { FAR_BACK_BELIEVED_AFTER } else { BELIEVED_AFTER };
        if !agrees && clock.uptime < patience {
            return;
        }
        match self.began {
            Some(former) if self.day != day => self.redate(former, began),
            Some(former) if began > former => self.fold(former, began),
            Some(former) if began < former => drop(self.ahead.insert(former)),
            _ => {}
        }
        (self.day, self.began) = (day, Some(began));
        let unplaced = std::mem::take(&mut self.unplaced).0;
        self.add(began, unplaced);
        while self.counts.range(..began).count() > REMEMBERED {
            self.counts.pop_first();
        }
    }

    /// Says that so much was used in this period: the one in which it turns out to be, where the clock is not believed yet.
    pub fn correct(&mut self, used: Amount, clock: Clock) {
        self.take_ahead(|_| true);
        self.began.map(|began| self.counts.insert(began, Amount(0)));
        self.unplaced = used;
        self.look(self.day, clock);
    }

    /// Another day of renewal moves the ends of the period, and nobody knows what of it was when: it keeps what it has.
    fn redate(&mut self, former: Date, began: Date) {
        let ahead = self.take_ahead(|_| true);
        let counted = self.counts.remove(&former).unwrap_or_default();
        self.add(began, ahead.saturating_add(counted.0));
    }

    /// A period is over, and so are those between it and the next. What lies ahead of that was counted by a clock that was
    /// wrong, and belongs to this one.
    fn fold(&mut self, former: Date, next: Date) {
        let ahead = self.take_ahead(|begin| begin > next);
        self.ahead.clear();
        self.add(former, ahead);
    }

    /// Takes out what was counted in some of the periods that the clock has gone back from.
    fn take_ahead(&mut self, which: impl Fn(Date) -> bool) -> u64 {
        let taken: Vec<Date> = self.ahead.iter().copied().filter(|begin| which(*begin)).collect();
        self.ahead.retain(|begin| !which(*begin));
        let amounts = taken.iter().filter_map(|begin| self.counts.remove(begin));
        amounts.fold(0, |sum, counted| sum.saturating_add(counted.0))
    }

    fn add(&mut self, began: Date, bytes: u64) {
        let counted = self.counts.entry(began).or_default();
        counted.0 = counted.0.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests;
