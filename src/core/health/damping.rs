//! Holds back what fails again and again, each time for twice as long.

use std::time::{Duration, Instant};

/// A failure is forgiven after so long without another.
const FORGIVEN_AFTER: Duration = Duration::from_secs(300);
/// The longest time that an uplink is held back.
const LONGEST: Duration = Duration::from_secs(600);

/// The failures that are not forgiven yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damping {
    strikes: u32,
    last: Option<Instant>,
}

impl Damping {
    /// Counts a failure.
    pub(super) fn strike(&mut self, now: Instant) {
        self.strikes = self.standing(now).saturating_add(1);
        self.last = Some(now);
    }

    /// How long to hold back what works again: nothing after one failure, `base` after two, doubled with each more.
    pub(super) fn hold(&self, base: Duration, now: Instant) -> Duration {
        match self.standing(now) {
            0 | 1 => Duration::ZERO,
            strikes => base.saturating_mul(1 << (strikes - 2).min(16)).min(LONGEST),
        }
    }

    /// Nothing is held against it any more.
    pub fn is_forgiven(&self, now: Instant) -> bool {
        self.standing(now) == 0
    }

    /// The failures that still count.
    pub(super) fn standing(&self, now: Instant) -> u32 {
        let quiet = self.last.map_or(0, |last| now.saturating_duration_since(last).as_secs());
        let forgiven = u32::try_from(quiet / FORGIVEN_AFTER.as_secs()).unwrap_or(u32::MAX);
        self.strikes.saturating_sub(forgiven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_hold_and_peace_forgives() {
        let (mut damping, start, base) = (Damping::default(), Instant::now(), Duration::from_secs(10));
        let mut holds = Vec::new();
        for _ in 0..9 {
            damping.strike(start);
            holds.push(damping.hold(base, start).as_secs());
        }
        assert_eq!(holds, [0, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(damping.hold(base, start + 6 * FORGIVEN_AFTER), 2 * base);
        damping.strike(start + 20 * FORGIVEN_AFTER);
        assert_eq!(damping.standing(start + 20 * FORGIVEN_AFTER), 1);
    }
}
