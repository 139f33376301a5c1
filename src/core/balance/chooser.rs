//! A choice over time: it changes upon evidence that lasts, and not again for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Method;
use super::choice::{Candidate, Choice, active, alive, ready};
use super::measure::{Figures, Measure};
use crate::core::layout::Slot;

/// After a change nothing is changed for so long, but for somebody's outage.
pub const HOLD: Duration = Duration::from_secs(5);
/// One that is better has to stay so for so long.
const BETTER_FOR: Duration = Duration::from_secs(10);

/// Full from so many percent of a capacity on, when that lasts for so long.
const FULL: u64 = 85;
const FULL_FOR: Duration = Duration::from_secs(3);
/// Roomy again below so many percent, when that lasts for so long.
const ROOMY: u64 = 70;
const ROOMY_FOR: Duration = Duration::from_secs(10);

/// The choice of one family, and what it waits for.
#[derive(Debug, Clone, Default)]
pub struct Chooser {
    method: Method,
    choice: Choice,
    /// Since when something holds of an uplink that would change the choice.
    since: BTreeMap<Slot, Instant>,
    /// When the choice was last changed.
    changed: Option<Instant>,
}

/// What of a choice outlives a restart: whom a method had lead, and who was full.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    method: Method,
    choice: Choice,
}

/// Goes on where it was left: until there is evidence against it, what was chosen is chosen.
impl From<Kept> for Chooser {
    fn from(Kept { method, choice }: Kept) -> Self {
        Chooser { method, choice, ..Chooser::default() }
    }
}

impl Chooser {
    /// What is chosen.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// What is to outlive a restart. Who comes behind the leader is found anew with the first look.
    pub fn kept(&self) -> Kept {
        let order = self.choice.order.first().copied().into_iter().collect();
        Kept { method: self.method, choice: Choice { order, full: self.choice.full.clone() } }
    }

    /// Looks at who could be used, in order of priority, and at what is known of them.
    pub fn look(
        &mut self,
        method: Method,
        candidates: &[Candidate],
        figures: &BTreeMap<Slot, Figures>,
        now: Instant,
    ) {
        if method != self.method {
            // Who led goes on until there is evidence against it; who was full is asked anew.
            let order = std::mem::take(&mut self.choice.order);
            *self = Chooser { method, choice: Choice { order, ..Choice::default() }, ..Chooser::default() };
        }
        let slots = |these: &[Candidate]| Vec::from_iter(these.iter().map(|one| one.slot));
        let known = |slot| (slot, figures.get(&slot).copied().unwrap_or_default());
        match method {
            Method::Weighted | Method::Priority => {}
            Method::Overflow => {
                // Who is out for a moment, or not yet proven after a restart, is not roomy for that.
                let mut watched = BTreeSet::from_iter(slots(alive(candidates)));
                watched.extend(&self.choice.full);
                self.fill(&Vec::from_iter(watched.into_iter().map(known)), now);
            }
            Method::LeastUsed | Method::LowestLatency => {
                let leader = active(method, candidates, &self.choice).first().copied();
                let ready = slots(ready(candidates)).into_iter().map(known);
                self.lead(&Vec::from_iter(ready), leader, now);
            }
        }
    }

    /// Who is full, and who is no longer.
    fn fill(&mut self, watched: &[(Slot, Figures)], now: Instant) {
        self.since.retain(|slot, _| watched.iter().any(|(other, _)| other == slot));
        let mut ripe = Vec::new();
        for (slot, figures) in watched {
            let load = figures.load();
            let (turns, patience) = match self.choice.full.contains(slot) {
                true => (load.is_none_or(|load| load < ROOMY), ROOMY_FOR),
                false => (load.is_some_and(|load| load >= FULL), FULL_FOR),
            };
            if self.lasts(*slot, turns, patience, now) {
                ripe.push(*slot);
            }
        }
        if !ripe.is_empty() && self.may_change(now) {
            for slot in ripe {
                if !self.choice.full.remove(&slot) {
                    self.choice.full.insert(slot);
                }
                self.since.remove(&slot);
            }
            self.changed = Some(now);
        }
    }

    /// Who leads; the others behind it, as they would stand in for it.
    fn lead(&mut self, ready: &[(Slot, Figures)], leader: Option<Slot>, now: Instant) {
        let all = || ready.iter().map(|(_, figures)| figures);
        let of = |slot| ready.iter().find(|(other, _)| *other == slot);
        let (Some(measure), Some((leader, led))) = (Measure::of(self.method, all()), leader.and_then(of))
        else {
            return;
        };
        if self.choice.order.first() != Some(leader) {
            // The former one is out, or there was none: what was better than it says nothing of this one.
            self.since.clear();
            self.changed = Some(now);
        }
        self.since.retain(|slot, _| ready.iter().any(|(other, _)| other == slot));
        let mut order: Vec<_> = ready.iter().collect();
        order.sort_by(|(_, one), (_, other)| measure.compare(one, other));
        let mut first = *leader;
        for (slot, figures) in order.iter().rev() {
            let better = slot != leader && measure.is_clearly_better(figures, led);
            if self.lasts(*slot, better, BETTER_FOR, now) && self.may_change(now) {
                first = *slot;
            }
        }
        if first != *leader {
            self.since.clear();
            self.changed = Some(now);
        }
        let slots = order.iter().map(|(slot, _)| *slot).filter(|slot| *slot != first);
        self.choice.order = std::iter::once(first).chain(slots).collect();
    }

    /// Notes whether something holds of an uplink; true where it has for as long as it takes.
    fn lasts(&mut self, slot: Slot, holds: bool, patience: Duration, now: Instant) -> bool {
        if !holds {
            self.since.remove(&slot);
            return false;
        }
        let since = *self.since.entry(slot).or_insert(now);
        now.saturating_duration_since(since) >= patience
    }

    fn may_change(&self, now: Instant) -> bool {
        self.changed.is_none_or(|at| now.saturating_duration_since(at) >= HOLD)
    }
}
