//! How long a fault was felt.

use std::time::Duration;

/// The longest pause between two successes that still counts as going on.
pub const GAP: Duration = Duration::from_millis(500);

/// What a fault did to something that runs on. All times are from the fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The longest time without a success that ended, or had not ended, after the fault.
    pub silent_for: Duration,
    /// When the program learned of it by an error, and so began anew; none where it went on as if nothing had been.
    pub noticed: Option<Duration>,
    /// The first success since which there was no pause longer than [`GAP`]; none where it had not recovered at the end.
    /// A fault that is over within a [`GAP`] shows only in `silent_for`.
    pub recovered: Option<Duration>,
    /// The ISP that carried this success.
    pub by: Option<u8>,
}

impl Recovery {
    /// From successes in order, each with what carried it, over a time that began at zero and ended at `end`.
    pub(super) fn of(successes: &[(Duration, Option<u8>)], fault: Duration, end: Duration) -> Recovery {
        let mut recovery = Recovery::default();
        let mut last = fault;
        let mut since = None;
        for (at, by) in successes.iter().filter(|(at, _)| *at >= fault) {
            let pause = *at - last;
            recovery.silent_for = recovery.silent_for.max(pause);
            if since.is_none() || pause > GAP {
                since = Some((*at - fault, *by));
            }
            last = *at;
        }
        let rest = end.saturating_sub(last);
        recovery.silent_for = recovery.silent_for.max(rest);
        if let Some((at, by)) = since.filter(|_| rest <= GAP) {
            (recovery.recovered, recovery.by) = (Some(at), by);
        }
        recovery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(successes: &[u64], fault: u64, end: u64) -> (u64, Option<u64>) {
        let successes: Vec<_> = successes.iter().map(|ms| (Duration::from_millis(*ms), Some(2))).collect();
        let found = Recovery::of(&successes, Duration::from_millis(fault), Duration::from_millis(end));
        let millis = |time: Duration| u64::try_from(time.as_millis()).expect("short");
        assert_eq!(found.by.is_some(), found.recovered.is_some());
        (millis(found.silent_for), found.recovered.map(millis))
    }

    #[test]
    fn the_last_long_pause_decides() {
        assert_eq!(of(&[0, 100, 200, 300], 150, 350), (100, Some(50)));
        assert_eq!(of(&[0, 100, 200, 1200, 1300], 150, 1400), (1000, Some(1050)));
        assert_eq!(of(&[100, 2000, 2100, 2900, 3000], 150, 3000), (1850, Some(2750)));
        assert_eq!(of(&[100, 500, 600], 100, 700), (400, Some(0)), "short ones are only told");
    }

    #[test]
    fn silence_at_the_end_is_no_recovery() {
        assert_eq!(of(&[0, 100, 200], 150, 900), (700, None));
        assert_eq!(of(&[0, 100], 150, 400), (250, None));
        assert_eq!(of(&[], 0, 400), (400, None));
    }
}
