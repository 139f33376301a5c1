//! Looks out for captive portals: somebody who answers in the place of a website that is known.

use std::time::{Duration, Instant};

use super::Connectivity;
use super::Outcome;
use crate::core::probe::Probe;

/// How long a new uplink waits for this before it is used.
const PATIENCE: Duration = Duration::from_millis(700);
/// Until the next look, after none was seen.
const OPEN: Duration = Duration::from_secs(300);
/// The same where it is asked rarely.
const OPEN_SPARSE: Duration = Duration::from_secs(3600);
/// After one was seen: somebody is signing in.
const SHUT: Duration = Duration::from_secs(5);
/// An answer that is not there by then never comes.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// After nothing could be seen.
const BLIND: Duration = Duration::from_secs(60);

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// A website is what it should be.
    Open,
    /// Somebody else answers.
    Portal(String),
    /// No answer at all.
    Nothing,
}

/// What became of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Landed {
    /// It is none of a check here.
    Foreign,
    /// The others are waited for.
    Wait,
    /// This is what was seen.
    Seen(Sight),
}

/// The checks and what they showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Portal {
    checks: Vec<Probe>,
    due: Option<Instant>,
    flying: Vec<(u64, Option<Outcome>)>,
    begun: Option<Instant>,
    /// A website was seen since the checks are these.
    open: bool,
    /// How often in a row somebody else answered.
    sightings: u8,
    hint: Option<Connectivity>,
}

impl Portal {
    pub(super) fn configure(&mut self, checks: &[Probe], now: Instant) {
        if self.checks != checks {
            self.forget_flying(now);
            *self = Portal { checks: checks.to_vec(), hint: self.hint, due: self.due, ..Portal::default() };
        }
    }

    /// Whether there is anything to look at.
    pub(super) fn looks(&self) -> bool {
        !self.checks.is_empty()
    }

    /// Has a look at this time, or earlier if one is due. One that is under way already began too early: unless it shows a
    /// portal there is another behind it.
    pub(super) fn look_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Whether a portal was seen twice in a row, or by the manager as well.
    pub(super) fn is_sure(&self) -> bool {
        self.sightings > 1 || self.hint == Some(Connectivity::Portal)
    }

    /// Takes in what the manager thinks; true where that is news.
    pub(super) fn hear(&mut self, hint: Option<Connectivity>) -> bool {
        std::mem::replace(&mut self.hint, hint) != hint
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let unanswered = self.begun.filter(|_| !self.flying.is_empty()).map(|begun| begun + GIVEN_UP);
        unanswered.or(self.due).filter(|_| self.looks())
    }

    /// Whether a new uplink should still wait: until when.
    pub(super) fn patience(&self, now: Instant) -> Option<Instant> {
        let until = self.begun? + PATIENCE;
        (!self.open && !self.flying.is_empty() && now < until).then_some(until)
    }

    /// The checks, where they are due, each with a number from `number`.
    pub(super) fn checks(&mut self, now: Instant, mut number: impl FnMut() -> u64) -> Vec<(u64, Probe)> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        (self.due, self.begun) = (None, Some(now));
        let checks: Vec<_> = self.checks.iter().map(|probe| (number(), probe.clone())).collect();
        self.flying = checks.iter().map(|(id, _)| (*id, None)).collect();
        checks
    }

    /// Takes in an answer. One website that is right will do; a wrong one counts when no other is right, because
    /// websites change.
    pub(super) fn land(&mut self, id: u64, outcome: &Outcome, sparse: bool, now: Instant) -> Landed {
        let Some((_, said)) = self.flying.iter_mut().find(|(known, _)| *known == id) else {
            return Landed::Foreign;
        };
        *said = Some(outcome.clone());
        let right = matches!(outcome, Outcome::Answered(_));
        if !right && self.flying.iter().any(|(_, said)| said.is_none()) {
            return Landed::Wait;
        }
        let wrong = self.flying.iter().find_map(|(_, said)| match said {
            Some(Outcome::Portal(why)) => Some(why.clone()),
            _ => None,
        });
        let told =
            (self.hint == Some(Connectivity::Portal)).then(|| "NetworkManager saw a portal".to_owned());
        let (sight, next) = match wrong.or(told) {
            _ if right => (Sight::Open, if sparse { OPEN_SPARSE } else { OPEN }),
            Some(why) => (Sight::Portal(why), SHUT),
            None => (Sight::Nothing, BLIND),
        };
        self.open |= right;
        self.sightings = if matches!(sight, Sight::Portal(_)) { self.sightings.saturating_add(1) } else { 0 };
        self.flying.clear();
        let asked = self.due.take().filter(|_| !matches!(sight, Sight::Portal(_)));
        self.due = Some(asked.map_or(now + next, |asked| asked.min(now + next)));
        Landed::Seen(sight)
    }

    /// What is in flight counts for nothing any more, and is asked anew.
    pub(super) fn forget_flying(&mut self, now: Instant) {
        if !self.flying.is_empty() {
            self.flying.clear();
            self.due = Some(now);
        }
    }
}
