//! The rounds of asking: a light one, and the burst that decides.

use std::time::{Duration, Instant};

use super::thresholds::Thresholds;

/// No answer is waited for less than this.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(150);
/// Between the volleys of a burst that is in a hurry.
const HURRY: Duration = Duration::from_millis(120);

/// Where the asking stands.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// Until the next round.
    Rest(Instant),
    /// Few are asked.
    Light {
        /// Who has answered.
        answered: Vec<usize>,
        /// When a missing answer is one.
        deadline: Instant,
    },
    /// All are asked, several times.
    Burst(Burst),
}

/// A burst.
#[derive(Debug, Clone)]
pub(super) struct Burst {
    /// When the first of an unbroken row of bursts began.
    pub(super) first: Instant,
    /// When this one began.
    pub(super) since: Instant,
    /// Volleys sent.
    pub(super) volleys: u8,
    /// Who has answered.
    pub(super) answered: Vec<usize>,
    last: Instant,
}

/// How fast a burst goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    volleys: u8,
    spacing: Duration,
    wait: Duration,
}

impl Pace {
    /// In a hurry where packets go out in vain; else an answer is given all the time that it may take.
    pub(super) fn new(limits: &Thresholds, patience: Duration, hurried: bool) -> Self {
        let volleys = limits.down_after.max(1);
        match hurried {
            true => Pace { volleys, spacing: HURRY, wait: patience },
            false => Pace { volleys, spacing: limits.timeout / 4, wait: limits.timeout },
        }
    }
}

impl Phase {
    /// A target answered; returns how many have, in this round.
    pub(super) fn answered(&mut self, target: usize) -> usize {
        let answered = match self {
            Phase::Rest(_) => return 0,
            Phase::Light { answered, .. } => answered,
            Phase::Burst(burst) => &mut burst.answered,
        };
        if !answered.contains(&target) {
            answered.push(target);
        }
        answered.len()
    }
}

impl Burst {
    /// One that begins now.
    pub(super) fn begin(now: Instant) -> Self {
        Burst { first: now, since: now, volleys: 0, answered: Vec::new(), last: now }
    }

    /// Another, directly after this one.
    pub(super) fn again(&self, now: Instant) -> Self {
        Burst { first: self.first, ..Burst::begin(now) }
    }

    /// When something is due.
    pub(super) fn due(&self, pace: &Pace) -> Instant {
        match self.volleys {
            0 => self.since,
            sent if sent < pace.volleys => self.last + pace.spacing,
            _ => self.last + pace.wait,
        }
    }

    /// Whether the next volley is to be sent now; counts it.
    pub(super) fn next_volley(&mut self, pace: &Pace, now: Instant) -> bool {
        let due = self.volleys < pace.volleys && now >= self.due(pace);
        if due {
            self.volleys += 1;
            self.last = now;
        }
        due
    }

    /// Whether every volley was sent and waited for.
    pub(super) fn is_over(&self, pace: &Pace, now: Instant) -> bool {
        self.volleys >= pace.volleys && now >= self.due(pace)
    }
}
