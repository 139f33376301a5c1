//! How soon the next round may come.
//!
//! Pure: the time is an argument. The first nudge is answered at once; what follows is gathered; failures are
//! spaced out from 100 ms to a minute, and a fight to about one repair a second.

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
/// So many repairs are made at once, and one more each second; beyond that somebody is fighting us.
const FREE_REPAIRS: u32 = 10;

/// Keeps the pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    soonest: Option<Instant>,
    settle: Duration,
    failures: u32,
    repairs: u32,
    last_repair: Option<Instant>,
    fighting: bool,
}

impl Pace {
    /// When the next round may come.
    pub(super) fn soonest(&self, now: Instant) -> Instant {
        self.soonest.map_or(now, |soonest| soonest.max(now))
    }

    /// Takes in what a round did; returns after what time another is due, if one is.
    pub(super) fn after(&mut self, outcome: &Outcome, now: Instant) -> Option<Duration> {
        if outcome.repaired {
            let quiet = self.last_repair.map_or(u64::MAX, |last| now.duration_since(last).as_secs());
            self.repairs = self.repairs.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX)) + 1;
            self.last_repair = Some(now);
        }
        if outcome.settled() {
            self.failures = 0;
        } else {
            self.failures += 1;
        }
        let fight = if outcome.repaired { self.repairs.saturating_sub(FREE_REPAIRS) } else { 0 };
        let (fight, retry) = (doubled(fight), doubled(self.failures));
        let pouring = self.soonest.is_some_and(|soonest| now < soonest + 2 * self.settle);
        self.settle = if pouring { (2 * self.settle).min(LONGEST_SETTLE) } else { SETTLE };
        self.soonest = Some(now + fight.max(retry.min(LONGEST_DEAF)).max(self.settle));
        (!outcome.settled()).then(|| fight.max(retry).max(self.settle))
    }

    /// Takes in that a round could not even look.
    pub(super) fn failed(&mut self, now: Instant) -> Instant {
        self.failures += 1;
        let wait = doubled(self.failures);
        self.soonest = Some(now + wait.min(LONGEST_DEAF));
        now + wait
    }

    /// Whether a fight has just been recognised as one; said once for each.
    pub(super) fn fight_begins(&mut self) -> bool {
        let before = self.fighting;
        // Over only when all is forgiven, so that one at the brink is not announced again and again.
        self.fighting = self.repairs > FREE_REPAIRS || (before && self.repairs > 1);
        self.fighting && !before
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
    use crate::core::change::Change;
    use crate::world::Hearing;

    fn outcome(failed: usize, repaired: bool) -> Outcome {
        Outcome { failed: vec![Change::DropRuleset; failed], repaired, hearing: Hearing::Full }
    }

    #[test]
    fn failures_are_spaced_out_and_success_ends_it() {
        let mut pace = Pace::default();
        let now = Instant::now();
        let waits: Vec<_> = (0..12).filter_map(|_| pace.after(&outcome(1, false), now)).collect();
        assert_eq!(waits[..3], [100, 200, 400].map(Duration::from_millis));
        assert_eq!(waits[11], LONGEST_WAIT);
        assert_eq!(pace.soonest, Some(now + LONGEST_DEAF));
        assert_eq!(pace.after(&outcome(0, false), now), None);
    }

    #[test]
    fn what_pours_in_is_gathered_ever_longer_until_it_ends() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut settled = Vec::new();
        for _ in 0..7 {
            pace.after(&outcome(0, false), now);
            settled.push((pace.soonest(now) - now).as_millis());
            now = pace.soonest(now);
        }
        assert_eq!(settled, [3, 6, 12, 24, 48, 48, 48]);
        now += Duration::from_millis(200);
        pace.after(&outcome(0, false), now);
        assert_eq!(pace.soonest(now) - now, SETTLE);
    }

    #[test]
    fn a_fight_is_slowed_down_and_forgotten_in_peace() {
        let mut pace = Pace::default();
        let now = Instant::now();
        for _ in 0..FREE_REPAIRS {
            pace.after(&outcome(0, true), now);
            assert!(pace.soonest <= Some(now + LONGEST_SETTLE));
        }
        pace.after(&outcome(0, true), now);
        assert!(pace.fight_begins());
        assert_eq!(pace.soonest, Some(now + FIRST_WAIT));
        let later = now + Duration::from_secs(1);
        pace.after(&outcome(0, true), later);
        assert_eq!(pace.soonest, Some(later + FIRST_WAIT), "one a second is what a fight is slowed down to");
        let later = later + Duration::from_secs(2);
        pace.after(&outcome(0, true), later);
        assert_eq!(pace.soonest, Some(later + SETTLE));
    }
}
