//! How soon the next round may come.
//!
//! Pure: the time is an argument. The first nudge is answered at once; what follows is gathered; failures are
//! spaced out from 100 ms to a minute. What others keep taking away is [`super::contest`]'s business.

use std::time::{Duration, Instant};

use super::round::Outcome;

/// What follows a round within this time is gathered into one. A round costs about 2 ms.
const SETTLE: Duration = Duration::from_millis(3);
/// What it grows to while nudges pour in, as when a manager activates a connection.
const LONGEST_SETTLE: Duration = Duration::from_millis(48);
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// After a failure a nudge waits no longer than this: what fails for ever must not hold up a failover.
const LONGEST_DEAF: Duration = Duration::from_secs(1);

/// Keeps the pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    soonest: Option<Instant>,
    settle: Duration,
    failures: u32,
}

impl Pace {
    /// When the next round may come.
    pub(super) fn soonest(&self, now: Instant) -> Instant {
        self.soonest.map_or(now, |soonest| soonest.max(now))
    }

    /// Takes in what a round did; returns after what time another is due, if one is.
    pub(super) fn after(&mut self, outcome: &Outcome, now: Instant) -> Option<Duration> {
        if outcome.settled() {
            self.failures = 0;
        } else {
            self.failures += 1;
        }
        let retry = doubled(self.failures);
        let pouring = self.soonest.is_some_and(|soonest| now < soonest + 2 * self.settle);
        self.settle = if pouring { (2 * self.settle).min(LONGEST_SETTLE) } else { SETTLE };
        self.soonest = Some(now + retry.min(LONGEST_DEAF).max(self.settle));
        let retry = (!outcome.settled()).then(|| retry.max(self.settle));
        let held_back = outcome.due.map(|due| due.saturating_duration_since(now).max(self.settle));
        retry.into_iter().chain(held_back).min()
    }

    /// Takes in that a round could not even look.
    pub(super) fn failed(&mut self, now: Instant) -> Instant {
        self.failures += 1;
        let wait = doubled(self.failures);
        self.soonest = Some(now + wait.min(LONGEST_DEAF));
        now + wait
    }
}

/// Nothing, 100 ms, 200 ms, … a minute.
pub(super) fn doubled(times: u32) -> Duration {
    match times {
        0 => Duration::ZERO,
        n => FIRST_WAIT.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::change::Change;
    use crate::world::Hearing;

    fn outcome(failed: usize) -> Outcome {
        Outcome { failed: vec![Change::DropRuleset; failed], due: None, hearing: Hearing::Full }
    }

    #[test]
    fn failures_are_spaced_out_and_success_ends_it() {
        let mut pace = Pace::default();
        let now = Instant::now();
        let waits: Vec<_> = (0..12).filter_map(|_| pace.after(&outcome(1), now)).collect();
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(waits[11], LONGEST_WAIT);
        assert_eq!(pace.soonest, Some(now + LONGEST_DEAF));
        assert_eq!(pace.after(&outcome(0), now), None);
    }

    #[test]
    fn what_pours_in_is_gathered_ever_longer_until_it_ends() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut settled = Vec::new();
        for _ in 0..7 {
            pace.after(&outcome(0), now);
            settled.push((pace.soonest(now) - now).as_millis());
            now = pace.soonest(now);
        }
        assert_eq!(settled, [3, 6, 12, 24, 48, 48, 48]);
        now += Duration::from_millis(200);
        pace.after(&outcome(0), now);
        assert_eq!(pace.soonest(now) - now, SETTLE);
    }

    #[test]
    fn what_is_held_back_is_due_in_time_and_holds_nothing_up() {
        let mut pace = Pace::default();
        let now = Instant::now();
        let due = Some(now + Duration::from_secs(9));
        assert_eq!(pace.after(&Outcome { due, ..outcome(0) }, now), Some(Duration::from_secs(9)));
        assert_eq!(pace.soonest, Some(now + SETTLE));
        let failed = Outcome { due, ..outcome(1) };
        assert_eq!(pace.after(&failed, now), Some(FIRST_WAIT), "whichever is sooner");
    }
}
