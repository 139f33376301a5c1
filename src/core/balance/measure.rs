//! By what uplinks are compared, and when one is clearly better.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use super::Method;
use super::meter::Capacity;
use super::rate::{Directions, Rate};

/// A free capacity, or a rate, has to be better by so many percent, and by so many bits per second: links that are idle
/// are as good as each other.
const RATE_PERCENT: u64 = 20;
const RATE_MARGIN: Rate = Rate(100_000);
/// A round-trip time has to be shorter by so many percent, and by so much.
const LATENCY_PERCENT: u64 = 15;
const LATENCY_MARGIN: Duration = Duration::from_millis(5);

/// What is known of a family of an uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// What goes over its link; none where that is not known yet.
    pub rate: Option<Directions<Rate>>,
    /// What its link can carry.
    pub capacity: Directions<Option<Capacity>>,
    /// The median round-trip time of its probes.
    pub latency: Option<Duration>,
}

impl Figures {
    /// The percentage of the capacity that is used, in the direction where that is more; none where it is not known: what was
    /// learned is the least that a line can carry, and who carries that much is not full for it.
    pub(super) fn load(&self) -> Option<u64> {
        let load = |(rate, capacity): (Rate, Option<Capacity>)| {
            let known = capacity.filter(|capacity| !capacity.learned)?;
            let percent = rate.percent(100).checked_div(u128::from(known.rate.0))?;
            Some(u64::try_from(percent).unwrap_or(u64::MAX))
        };
        self.rate?.zip(self.capacity).map(load).both().into_iter().flatten().max()
    }

    /// What is free, in the direction where that is less; none unless it is known of both.
    fn free(&self) -> Option<u64> {
        let free = |(rate, capacity): (Rate, Option<Capacity>)| Some(capacity?.rate.0.saturating_sub(rate.0));
        let Directions { down, up } = self.rate?.zip(self.capacity).map(free);
        Some(down?.min(up?))
    }

    /// What is used, in the direction where that is more.
    fn used(&self) -> Option<u64> {
        self.rate?.both().into_iter().map(|rate| rate.0).max()
    }
}

/// A figure by which uplinks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Free capacity, in bits per second: the more the better.
    Free,
    /// The rate, in bits per second: the less the better.
    Used,
    /// The round-trip time, in nanoseconds: the less the better.
    Latency,
}

impl Measure {
    /// What a method compares these by; none where it compares nothing. Free capacity where it is known of all.
    pub(super) fn of<'a>(method: Method, mut all: impl Iterator<Item = &'a Figures>) -> Option<Self> {
        match method {
            Method::LowestLatency => Some(Measure::Latency),
            Method::LeastUsed if all.all(|figures| figures.free().is_some()) => Some(Measure::Free),
            Method::LeastUsed => Some(Measure::Used),
            Method::Weighted | Method::Priority | Method::Overflow => None,
        }
    }

    fn figure(self, figures: &Figures) -> Option<u64> {
        match self {
            Measure::Free => figures.free(),
            Measure::Used => figures.used(),
            Measure::Latency => {
                figures.latency.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
            }
        }
    }

    /// The better first; of whom nothing is known, last.
    pub(super) fn compare(self, one: &Figures, other: &Figures) -> Ordering {
        let key = |figures| {
            let figure = self.figure(figures);
            let (less, more) = match self {
                Measure::Free => (None, figure),
                Measure::Used | Measure::Latency => (figure, None),
            };
            (figure.is_none(), less, Reverse(more))
        };
        key(one).cmp(&key(other))
    }

    /// Whether one is better by so much that it is worth a change. What is known is better than what is not.
    pub(super) fn is_clearly_better(self, one: &Figures, other: &Figures) -> bool {
        let (one, other) = match (self.figure(one), self.figure(other)) {
            (Some(one), Some(other)) => (one, other),
            (one, other) => return self == Measure::Latency && one.is_some() && other.is_none(),
        };
        let more = |more: u64, less: u64, percent: u64, margin: u128| {
            let enough = u128::from(less) * u128::from(100 + percent);
            u128::from(more) * 100 > enough && u128::from(more.saturating_sub(less)) > margin
        };
        match self {
            Measure::Free => more(one, other, RATE_PERCENT, RATE_MARGIN.0.into()),
            Measure::Used => more(other, one, RATE_PERCENT, RATE_MARGIN.0.into()),
            Measure::Latency => more(other, one, LATENCY_PERCENT, LATENCY_MARGIN.as_nanos()),
        }
    }
}
