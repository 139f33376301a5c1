//! How soon the next round may come.
//!
//! Pure: the time is an argument. The first nudge is answered at once; what follows is gathered; failures and
//! fights are spaced out from 100 ms to a minute.

use std::time::{Duration, Instant};

use super::round::Outcome;

/// What follows a round within this time is gathered into one.
const SETTLE: Duration = Duration::from_millis(30);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// So many repairs in a row are made at once; then somebody is fighting us.
const FREE_REPAIRS: u32 = 5;
/// Quiet for so long ends a fight.
const PEACE: Duration = Duration::from_secs(10);

/// Keeps the pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    soonest: Option<Instant>,
    failures: u32,
    repairs: u32,
    last_repair: Option<Instant>,
}

impl Pace {
    /// When the next round may come.
    pub(super) fn soonest(&self, now: Instant) -> Instant {
        self.soonest.map_or(now, |soonest| soonest.max(now))
    }

    /// Takes in what a round did; returns after what time another is due, if one is.
    pub(super) fn after(&mut self, outcome: &Outcome, now: Instant) -> Option<Duration> {
        if self.last_repair.is_none_or(|last| now.duration_since(last) > PEACE) {
            self.repairs = 0;
        }
        if outcome.repaired {
            self.repairs += 1;
            self.last_repair = Some(now);
        }
        if outcome.failed.is_empty() && outcome.complete {
            self.failures = 0;
        } else {
            self.failures += 1;
        }
        let wait = doubled(self.failures).max(doubled(self.repairs.saturating_sub(FREE_REPAIRS)));
        self.soonest = Some(now + wait.max(SETTLE));
        (!outcome.settled()).then(|| wait.max(SETTLE))
    }

    /// Takes in that a round could not even look.
    pub(super) fn failed(&mut self, now: Instant) -> Instant {
        self.failures += 1;
        let at = now + doubled(self.failures);
        self.soonest = Some(at);
        at
    }

    /// Whether a fight has just been recognised as one.
    pub(super) fn fight_begins(&self) -> bool {
        self.repairs == FREE_REPAIRS + 1
    }
}

/// Nothing, 100 ms, 200 ms, … a minute.
fn doubled(times: u32) -> Duration {
    match times {
        0 => Duration::ZERO,
        n => FIRST_WAIT.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(failed: usize, repaired: bool) -> Outcome {
        Outcome { failed: vec![String::new(); failed], repaired, complete: true }
    }

    #[test]
    fn failures_are_spaced_out_and_success_ends_it() {
        let mut pace = Pace::default();
        let now = Instant::now();
        let waits: Vec<_> = (0..12).filter_map(|_| pace.after(&outcome(1, false), now)).collect();
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(waits[11], LONGEST_WAIT);
        assert_eq!(pace.after(&outcome(0, false), now), None);
        assert_eq!(pace.soonest, Some(now + SETTLE));
    }

    #[test]
    fn a_fight_is_slowed_down_and_forgotten_in_peace() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for _ in 0..FREE_REPAIRS {
            pace.after(&outcome(0, true), now);
            assert_eq!(pace.soonest, Some(now + SETTLE));
        }
        pace.after(&outcome(0, true), now);
        assert!(pace.fight_begins());
        assert_eq!(pace.soonest, Some(now + FIRST_WAIT));
        let later = now + PEACE + SETTLE;
        pace.after(&outcome(0, true), later);
        assert_eq!(pace.soonest, Some(later + SETTLE));
    }
}
