//! From the counters of a link to its rates, and to what it can carry at least.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rate::{Directions, Rate};

/// Bytes on a link since it exists.
pub type Bytes = Directions<u64>;

/// A rate is measured over this time: long enough that one burst is no trend, and short enough for an overflow.
const SMOOTHED: Duration = Duration::from_secs(3);
/// What a link carries so many times in a row for this time, it can carry: what its queue swallows is over by then.
const SUSTAINED: Duration = Duration::from_secs(4);
const TIMES: u32 = 3;
/// Who looks so much later than he meant to has slept, and what he finds says nothing of a rate.
const STALLED: Duration = Duration::from_secs(20);
/// Less was never a line's capacity, only a lack of traffic.
const LEAST: Rate = Rate(1_000_000);
/// What was learned fades: after two weeks in which a line never carried that much, half of it is left. It stays the least
/// that the line can carry, and a line that was made slower is known for it by and by.
const FADES: Duration = Duration::from_secs(3600);
const FADED: u64 = 500;

/// What a link can carry in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// How much.
    pub rate: Rate,
    /// The most that it was seen to carry, as nobody has configured it; it may be able to carry more.
    pub learned: bool,
}

/// The recent past of a link's counters, and the best of all times.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    samples: VecDeque<(Instant, Bytes)>,
    learned: Directions<Rate>,
    /// When what was learned last faded.
    faded: Option<Instant>,
}

impl Meter {
    /// Begins with what was learned before, where it can be a line's.
    pub fn new(learned: Directions<Rate>) -> Self {
        let sane = |rate: Rate| Some(rate).filter(|rate| (LEAST..=Rate::HIGHEST).contains(rate));
        Meter { learned: learned.map(|rate| sane(rate).unwrap_or_default()), ..Meter::default() }
    }

    /// Takes in the counters as they are now; without any the link has gone.
    pub fn sample(&mut self, bytes: Option<Bytes>, now: Instant) {
        let Some(bytes) = bytes else {
            (self.samples, self.faded) = (VecDeque::new(), None);
            return;
        };
        if let Some(&(at, last)) = self.samples.back() {
            // A link that was made anew begins at nothing.
            let anew = bytes.down < last.down || bytes.up < last.up;
            if anew || now.saturating_duration_since(at) > STALLED {
                self.samples.clear();
            }
        }
        self.samples.push_back((now, bytes));
        // The first of those that are old enough is all that is needed of them.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.saturating_duration_since(*at) >= TIMES * SUSTAINED)
        {
            self.samples.pop_front();
        }
        self.fade(now);
        self.learn(now);
    }

    /// Lets what was learned fade while the link is looked at.
    fn fade(&mut self, now: Instant) {
        let since = *self.faded.get_or_insert(now);
        if now.saturating_duration_since(since) >= FADES {
            self.learned = self.learned.map(|rate| Rate(rate.0 - rate.0 / FADED));
            self.faded = Some(now);
        }
    }

    /// The rates at present; none before there are two samples.
    pub fn rate(&self) -> Option<Directions<Rate>> {
        let (now, last) = *self.samples.back()?;
        let first = self.sample_before(now, SMOOTHED).or_else(|| self.samples.front().copied())?;
        between(first, (now, last))
    }

    /// The highest rates that lasted.
    pub fn learned(&self) -> Directions<Rate> {
        self.learned
    }

    /// What the link can carry: what was configured, else what was learned, else nothing is known.
    pub fn capacity(&self, configured: Directions<Option<Rate>>) -> Directions<Option<Capacity>> {
        configured.zip(self.learned).map(|(configured, learned)| match configured {
            Some(rate) => Some(Capacity { rate, learned: false }),
            None => (learned >= LEAST).then_some(Capacity { rate: learned, learned: true }),
        })
    }

    /// Of three times in a row the worst counts: a burst touches no more than two.
    fn learn(&mut self, now: Instant) {
        let ends: Option<Vec<_>> = (0..=TIMES).map(|n| self.sample_before(now, n * SUSTAINED)).collect();
        let ends = ends.unwrap_or_default();
        let rates = ends.windows(2).map(|pair| between(pair[1], pair[0]));
        let worst = |one: Option<Directions<Rate>>, other: Option<_>| {
            Some(one?.zip(other?).map(|(one, other)| one.min(other)))
        };
        if let Some(lasting) = rates.reduce(worst).flatten() {
            self.learned = self.learned.zip(lasting).map(|(best, rate)| best.max(rate));
        }
    }

    /// The youngest sample that is as old as this.
    fn sample_before(&self, now: Instant, age: Duration) -> Option<(Instant, Bytes)> {
        let is_old = |(at, _): &&(Instant, Bytes)| now.saturating_duration_since(*at) >= age;
        self.samples.iter().rev().find(is_old).copied()
    }
}

fn between((from, first): (Instant, Bytes), (to, last): (Instant, Bytes)) -> Option<Directions<Rate>> {
    let time = to.saturating_duration_since(from);
    let Directions { down, up } =
        last.zip(first).map(|(last, first)| Rate::of(last.saturating_sub(first), time));
    Some(Directions { down: down?, up: up? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const M: u64 = 1_000_000;

    /// A meter that has seen these rates down, a second each, and a tenth of them up.
    fn meter(megabits: &[u64]) -> Meter {
        let (mut meter, mut now, mut sum) = (Meter::default(), Instant::now(), 0);
        meter.sample(Some(Bytes { down: 0, up: 0 }), now);
        for rate in megabits {
            (now, sum) = (now + SECOND, sum + rate * M / 8);
            meter.sample(Some(Bytes { down: sum, up: sum / 10 }), now);
        }
        meter
    }

    fn down(megabits: &[u64]) -> Option<u64> {
        meter(megabits).rate().map(|rate| rate.down.0)
    }

    #[test]
    fn a_rate_is_that_of_the_last_three_seconds() {
        assert_eq!(down(&[]), None);
        assert_eq!(down(&[8]), Some(8 * M), "the first second counts alone");
        assert_eq!(down(&[100, 100, 8, 16, 24]), Some(16 * M));
        assert_eq!(meter(&[80, 80]).rate().map(|rate| rate.up), Some(Rate(8 * M)));
    }

    #[test]
    fn what_lasts_is_learned_and_a_burst_is_not() {
        let learned = |megabits: &[u64]| meter(megabits).learned().down.0 / M;
        assert_eq!(learned(&[40; 12]), 40);
        assert_eq!(learned(&[40; 11]), 0, "too short");
        assert_eq!(learned(&[&[40; 12][..], &[1; 30]].concat()), 40, "the best of all times stays");
        assert_eq!(learned(&[&[8; 20][..], &[1000; 4], &[8; 20]].concat()), 8, "a burst touches two at most");
        assert_eq!(learned(&[&[8; 20][..], &[80; 12]].concat()), 80);
    }

    #[test]
    fn what_is_configured_wins_and_a_trickle_is_no_capacity() {
        let capacity = |meter: &Meter, down| meter.capacity(Directions { down, up: None });
        let known = meter(&[40; 12]);
        let learned = |rate| Some(Capacity { rate: Rate(rate), learned: true });
        assert_eq!(capacity(&known, None), Directions { down: learned(40 * M), up: learned(4 * M) });
        let told = Some(Capacity { rate: Rate(7), learned: false });
        assert_eq!(capacity(&known, Some(Rate(7))), Directions { down: told, up: learned(4 * M) });
        assert_eq!(capacity(&meter(&[5; 12]), None), Directions { down: learned(5 * M), up: None });
        assert_eq!(capacity(&Meter::new(known.learned()), None).down, learned(40 * M), "remembered");
    }

    #[test]
    fn what_was_learned_fades_and_is_learned_again() {
        let mut meter = meter(&[40; 12]);
        let (start, still) = (Instant::now(), Bytes { down: 1 << 40, up: 1 << 40 });
        let mut idle = |hours: u32| {
            (1..=hours).for_each(|hour| meter.sample(Some(still), start + hour * 3601 * SECOND));
            meter.learned().down.0
        };
        assert_eq!(idle(0), 40 * M);
        let half = idle(14 * 24);
        assert!((20 * M..21 * M).contains(&half), "{half} after two weeks");
        assert!(idle(10_000) < M);
        let wild = Directions { down: Rate(u64::MAX), up: Rate(999_999) };
        assert_eq!(Meter::new(wild).learned(), Directions::default(), "no line carries that");
    }

    #[test]
    fn a_link_that_is_new_or_was_not_looked_at_begins_anew() {
        let mut meter = meter(&[40; 12]);
        let later = Instant::now() + 12 * SECOND;
        meter.sample(Some(Bytes { down: 5, up: 5 }), later);
        assert_eq!(meter.rate(), None, "its counters begin at nothing");
        meter.sample(Some(Bytes { down: 5, up: 5 }), later + SECOND);
        assert_eq!(meter.rate(), Some(Directions::default()));
        meter.sample(Some(Bytes { down: 5000 * M, up: 5 }), later + 3000 * SECOND);
        assert_eq!((meter.rate(), meter.learned().down), (None, Rate(40 * M)), "it has slept");
        meter.sample(None, later + 3001 * SECOND);
        assert_eq!(meter.rate(), None, "it has gone");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// However traffic and looks come, what is learned only grows, and never beyond what was seen.
        #[test]
        fn nothing_is_learned_that_was_not_carried(looks in prop::collection::vec((0..2000u64, 1..4000u64), 1..60)) {
            let (mut meter, mut now, mut sum, mut most) = (Meter::default(), Instant::now(), 0, Rate(0));
            for (megabits, ms) in looks {
                let time = Duration::from_millis(ms);
                let bytes = megabits * ms * M / 8000;
                (now, sum) = (now + time, sum + bytes);
                most = most.max(Rate::of(bytes, time).unwrap_or_default());
                let before = meter.learned();
                meter.sample(Some(Bytes { down: sum, up: sum / 2 }), now);
                let Directions { down, up } = meter.learned();
                prop_assert!(down >= before.down && up >= before.up, "it shrank");
                prop_assert!(down <= most && up <= most, "{} of {}", down, most);
                let rate = meter.rate().unwrap_or_default();
                prop_assert!(rate.down <= most, "{} of {}", rate.down, most);
            }
        }
    }
}
