//! Reads the counters of all links, for all who go by them: once a second while somebody does, and seldom where they are
//! only shown.
//!
//! Decides when to look. What follows from what was seen is the business of [`super::metering`] and [`super::quotas`].

use std::time::{Duration, Instant};

use crate::kernel::counters::Links;

/// How often the counters are looked at while somebody goes by them: so long a limit is overrun.
const OFTEN: Duration = Duration::from_secs(1);
/// How often while nobody does, so that who asks for a rate need not wait for one.
const SELDOM: Duration = Duration::from_secs(15);
/// Who has asked may ask again, and then wants to see what goes on now.
const WATCHED: Duration = Duration::from_secs(10);

/// Who looks, and when.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    /// How many uplinks there are.
    uplinks: usize,
    /// There is something to choose by the counters, or to count.
    needed: bool,
    /// When somebody last asked for what they say.
    asked: Option<Instant>,
    /// When they were last looked at.
    looked: Option<Instant>,
}

impl Sampler {
    /// Takes in what a round found.
    pub(super) fn follow(&mut self, uplinks: usize, needed: bool) {
        (self.uplinks, self.needed) = (uplinks, needed);
    }

    /// Looks at nothing any more, until the next round.
    pub(super) fn rest(&mut self) {
        self.follow(0, false);
    }

    /// Takes in that somebody asks; true where what was last seen is too old for that.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        self.asked = Some(now);
        self.uplinks > 0 && self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= OFTEN)
    }

    /// Waits until the counters are to be looked at. May be dropped while it waits.
    pub(super) async fn due(&self) {
        super::probing::sleep_until(self.next(Instant::now())).await;
    }

    /// Looks at them.
    pub(super) fn look(&mut self, now: Instant) -> Links {
        self.looked = Some(now);
        Links::read()
    }

    /// When the counters are to be looked at; none while nobody wants to know.
    fn next(&self, now: Instant) -> Option<Instant> {
        let Some(looked) = self.looked else { return (self.uplinks > 0).then_some(now) };
        let watched = self.asked.is_some_and(|asked| looked < asked + WATCHED);
        match self.uplinks {
            0 => None,
            _ if self.needed || watched => Some(looked + OFTEN),
            // Of one alone nobody needs to know what it carries.
            1 => None,
            _ => Some(looked + SELDOM),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// After how many seconds the next look is due, a look having just been had.
    fn due(sampler: &mut Sampler, now: Instant) -> Option<u64> {
        sampler.looked = Some(now);
        sampler.next(now).map(|at| (at - now).as_secs())
    }

    #[test]
    fn the_counters_are_read_each_second_only_while_somebody_goes_by_them() {
        let (mut sampler, now) = (Sampler::default(), Instant::now());
        assert_eq!(sampler.next(now), None, "there is no uplink");
        sampler.follow(2, true);
        assert_eq!(sampler.next(now), Some(now));
        let mut with = |uplinks, needed| {
            sampler.follow(uplinks, needed);
            due(&mut sampler, now)
        };
        assert_eq!(with(2, true), Some(1));
        assert_eq!(with(1, true), Some(1), "the only one has a quota");
        assert_eq!(with(2, false), Some(15));
        assert_eq!([with(1, false), with(0, true)], [None; 2]);
        sampler.rest();
        assert!(!sampler.ask(now) && due(&mut sampler, now).is_none(), "flushed");
    }

    #[test]
    fn who_asks_sees_what_goes_on_and_nobody_looks_for_long_after() {
        let (mut sampler, start) = (Sampler::default(), Instant::now());
        sampler.follow(1, false);
        assert!(sampler.ask(start), "nothing was seen yet");
        let looks: Vec<_> = (0..30).map_while(|n| due(&mut sampler, start + n * SECOND)).collect();
        assert_eq!(looks, [1; 10]);
        assert!(sampler.ask(start + 60 * SECOND), "it was too long ago");
        sampler.looked = Some(start + 60 * SECOND);
        assert!(!sampler.ask(start + 60 * SECOND + SECOND / 2), "it was just seen");
    }
}
