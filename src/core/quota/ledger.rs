//! What has gone over an uplink in each billing period, however often its counters and the clock begin anew.
//!
//! Bytes are never doubtful, only what day it is: a machine without a battery begins in a year of its own, and one with a
//! bad one may begin in a later one. So nothing is thrown away for the clock's sake. What is counted before the clock can
//! be believed waits; what was counted in a month that turns out to lie ahead counts for the present one; and a clock
//! that goes back and forth finds each month as it left it.

use std::collections::BTreeMap;
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

/// So many periods that are over are remembered.
const REMEMBERED: usize = 12;

/// The bytes of one uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    day: Day,
    /// When the present period began; none before the clock was believed.
    began: Option<Date>,
    /// What was counted in each period, by its begin. Those ahead of the present one belong to it: it was the clock that
    /// was ahead.
    counts: BTreeMap<Date, Amount>,
    /// What was counted while it was not known what day it is.
    unplaced: Amount,
    /// Where the counters stood.
    read: Option<Reading>,
}

impl Ledger {
    /// An empty one.
    pub fn new(day: Day) -> Self {
        Ledger { day, began: None, counts: BTreeMap::new(), unplaced: Amount(0), read: None }
    }

    /// What has been used, and until when that counts.
    pub fn usage(&self) -> Usage {
        let counted = self.began.map_or(Amount(0), |began| self.since(began));
        let used = Amount(counted.0.saturating_add(self.unplaced.0));
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
        self.read = Some(reading.clone());
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
        if !agrees && clock.uptime < BELIEVED_AFTER {
            return;
        }
        match self.began {
            Some(former) if self.day != day => self.redate(former, began),
            Some(former) if began > former => self.fold(former, began),
            _ => {}
        }
        (self.day, self.began) = (day, Some(began));
        let placed = self.counts.entry(began).or_default();
        placed.0 = placed.0.saturating_add(std::mem::take(&mut self.unplaced).0);
        while self.counts.range(..began).count() > REMEMBERED {
            self.counts.pop_first();
        }
    }

    /// Says that so much was used in this period.
    pub fn correct(&mut self, used: Amount) {
        match self.began {
            Some(began) => {
                self.counts.retain(|begin, _| *begin < began);
                self.counts.insert(began, used);
                self.unplaced = Amount(0);
            }
            None => self.unplaced = used,
        }
    }

    /// What was counted from a period on.
    fn since(&self, began: Date) -> Amount {
        Amount(self.counts.range(began..).fold(0, |sum, (_, counted)| sum.saturating_add(counted.0)))
    }

    /// Another day of renewal moves the ends of the period, and nobody knows what of it was when: it keeps what it has.
    fn redate(&mut self, former: Date, began: Date) {
        let used = self.since(former);
        self.counts.retain(|begin, _| *begin < former.min(began));
        self.counts.insert(began, used);
    }

    /// A period is over. What lies ahead of the next was counted by a clock that was wrong, and belongs to this one.
    fn fold(&mut self, former: Date, next: Date) {
        let ahead: Vec<Date> =
            self.counts.range(next..).map(|(begin, _)| *begin).filter(|b| *b != next).collect();
        let amounts = ahead.iter().filter_map(|begin| self.counts.remove(begin));
        let sum = amounts.fold(0, |sum: u64, counted| sum.saturating_add(counted.0));
        let counted = self.counts.entry(former).or_default();
        counted.0 = counted.0.saturating_add(sum);
    }
}

#[cfg(test)]
mod tests;
