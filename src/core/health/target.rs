//! Who is asked, what is in flight to whom, and whose turn it is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Outcome;
use crate::core::probe::Probe;

/// One in so many rounds goes to the target that was asked longest ago, well or not, so that one which works again is
/// found out.
const SECOND_CHANCE: u32 = 30;

/// Nothing flies for longer: the limits of the configuration do not allow it.
const LOST: Duration = Duration::from_secs(120);

/// The targets of one uplink.
#[derive(Debug, Clone, Default)]
pub(super) struct Targets {
    all: Vec<Target>,
    flying: Vec<Flight>,
    rounds: u32,
}

#[derive(Debug, Clone)]
struct Target {
    probe: Probe,
    /// Unanswered in a row.
    misses: u32,
    asked: Option<Instant>,
    said: Option<Outcome>,
}

#[derive(Debug, Clone)]
struct Flight {
    id: u64,
    target: usize,
    sent: Instant,
    missed: bool,
}

impl Targets {
    /// Takes other targets; false where they are the same.
    pub(super) fn replace(&mut self, probes: &[Probe]) -> bool {
        if self.all.iter().map(|t| &t.probe).eq(probes) {
            return false;
        }
        let known = std::mem::take(&mut self.all);
        let fresh = |probe: &Probe| Target { probe: probe.clone(), misses: 0, asked: None, said: None };
        let kept = |probe: &Probe| known.iter().find(|t| t.probe == *probe).cloned();
        self.all = probes.iter().map(|probe| kept(probe).unwrap_or_else(|| fresh(probe))).collect();
        self.flying.clear();
        true
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many protocols are in use.
    pub(super) fn kinds(&self) -> usize {
        self.all.iter().map(|t| t.probe.kind()).collect::<BTreeSet<_>>().len()
    }

    /// The probe of a target, in words.
    pub(super) fn words(&self, target: usize) -> String {
        self.all.get(target).map(|t| t.probe.to_string()).unwrap_or_default()
    }

    /// Each target with what it last said.
    pub(super) fn said(&self) -> Vec<(Probe, Option<Outcome>)> {
        self.all.iter().map(|t| (t.probe.clone(), t.said.clone())).collect()
    }

    /// So many of them: those that answer before those that do not, and each in its turn.
    pub(super) fn by_turns(&mut self, count: usize) -> Vec<usize> {
        self.rounds = self.rounds.wrapping_add(1);
        let forgiving = self.rounds % SECOND_CHANCE == 0;
        let mut order: Vec<usize> = (0..self.all.len()).collect();
        order.sort_by_key(|&n| {
            let target = &self.all[n];
            (if forgiving { 0 } else { target.misses }, target.asked, n)
        });
        order.truncate(count);
        order
    }

    /// Every one of them.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.all.len()).collect()
    }

    /// A probe leaves for a target.
    pub(super) fn launch(&mut self, target: usize, id: u64, now: Instant) -> Option<Probe> {
        let entry = self.all.get_mut(target)?;
        entry.asked = Some(now);
        // One whose answer was lost within this program never lands.
        self.flying.retain(|flight| now.saturating_duration_since(flight.sent) < LOST);
        self.flying.push(Flight { id, target, sent: now, missed: false });
        Some(entry.probe.clone())
    }

    /// A probe's outcome; returns which target it is of and when it left. None where it was given up.
    pub(super) fn land(&mut self, id: u64, outcome: &Outcome) -> Option<(usize, Instant)> {
        let at = self.flying.iter().position(|flight| flight.id == id)?;
        let flight = self.flying.swap_remove(at);
        let target = self.all.get_mut(flight.target)?;
        match outcome {
            Outcome::Answered(_) => target.misses = 0,
            _ if !flight.missed => target.misses = target.misses.saturating_add(1),
            _ => {}
        }
        target.said = Some(outcome.clone());
        Some((flight.target, flight.sent))
    }

    /// Nothing is in flight that could still answer in time.
    pub(super) fn nothing_flies(&self) -> bool {
        self.flying.iter().all(|flight| flight.missed)
    }

    /// What is in flight was waited for long enough, though an answer is still welcome.
    pub(super) fn miss_all(&mut self) {
        for flight in self.flying.iter_mut().filter(|flight| !flight.missed) {
            flight.missed = true;
            if let Some(target) = self.all.get_mut(flight.target) {
                target.misses = target.misses.saturating_add(1);
            }
        }
    }

    /// What is in flight counts for nothing any more.
    pub(super) fn forget_flying(&mut self) {
        self.flying.clear();
    }
}
