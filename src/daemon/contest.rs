//! Who keeps taking away, or changing, what is ours: how often that is mended.
//!
//! Pure: the time is an argument. An object that was put and is wanted again, although nothing else has changed since,
//! was taken by somebody. That is mended at once for a while; from then on that object alone is put back later and
//! later, from 100 ms to a minute, so that a fight costs nothing and holds up nobody: everything else, and everything
//! as soon as something else changes, goes on at full speed. What stands is forgiven, a repair for each second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::pace::doubled;
use crate::core::change::Change;

/// So many repairs of one object are made at once, and one more for each second that it stood.
const FREE: u32 = 10;
/// More are not counted: the longest wait is reached, and peace is to be believed in within half a minute.
const MOST: u32 = FREE + 11;

/// Every object that was put back lately, by the command that puts it there.
#[derive(Debug, Default)]
pub(super) struct Contest {
    objects: BTreeMap<String, Object>,
    /// Those that were recognised as contested, until all is forgiven.
    contested: Vec<String>,
}

/// What is known of one.
#[derive(Debug, Clone, Copy)]
struct Object {
    /// How often it was put back, less what was forgiven.
    repairs: u32,
    /// When that was last.
    put: Instant,
    /// While it is away: when it is put back.
    due: Option<Instant>,
}

/// What of a list of changes is made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sifted {
    /// Now.
    pub(super) now: Vec<Change>,
    /// The rest then.
    pub(super) due: Option<Instant>,
}

impl Contest {
    /// Holds back what somebody keeps taking away. `steady`: what should be is what it was at the last round.
    pub(super) fn sift(&mut self, changes: Vec<Change>, steady: bool, now: Instant) -> Sifted {
        self.settle(&changes, now);
        let mut sifted = Sifted { now: Vec::new(), due: None };
        let mut without_table = false;
        for change in changes {
            // Marks of flows mean nothing without the table that they come with.
            let waits = match &change {
                Change::AdoptFlows(..) if without_table => continue,
                Change::AdoptFlows(..) | Change::ClaimFlows(_) | Change::MoveFlows(_) => None,
                _ if !steady => None,
                _ => self.waits(&change.to_string(), now),
            };
            let Some(due) = waits else {
                sifted.now.push(change);
                continue;
            };
            without_table |= matches!(change, Change::LoadRuleset(_));
            sifted.due = Some(sifted.due.map_or(due, |earlier| earlier.min(due)));
        }
        sifted
    }

    /// What was away and is missed no longer, because it is back or not wanted any more, is at peace from now on.
    fn settle(&mut self, missing: &[Change], now: Instant) {
        let missing: BTreeSet<_> = match self.objects.values().any(|object| object.due.is_some()) {
            true => missing.iter().map(Change::to_string).collect(),
            false => return,
        };
        for object in self.objects.iter_mut().filter(|(name, _)| !missing.contains(*name)).map(|(_, o)| o) {
            if object.due.take().is_some() {
                object.put = now;
            }
        }
    }

    /// Until when an object that is missing has to wait, if it has to.
    fn waits(&mut self, name: &str, now: Instant) -> Option<Instant> {
        let object = self.objects.get_mut(name)?;
        if object.due.is_none() {
            object.repairs = object.left(now);
            object.due = Some(now + doubled((object.repairs + 1).saturating_sub(FREE)));
        }
        object.due.filter(|due| now < *due)
    }

    /// Takes in what was carried out, and forgets what has stood for long enough.
    pub(super) fn made<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
        steady: bool,
        now: Instant,
    ) {
        for change in changes {
            match change {
                Change::AdoptFlows(..) | Change::ClaimFlows(_) | Change::MoveFlows(_) => {}
                change => self.put(change.to_string(), steady, now),
            }
        }
        self.objects.retain(|_, object| object.due.is_some() || object.left(now) > 0);
    }

    fn put(&mut self, name: String, steady: bool, now: Instant) {
        let before = self.objects.get(&name).map_or(0, |object| object.left(now));
        let repairs = (before + u32::from(steady)).min(MOST);
        self.objects.insert(name, Object { repairs, put: now, due: None });
    }

    /// The objects that somebody keeps taking away, and whether one of them has just been recognised as such.
    pub(super) fn contested(&mut self, now: Instant) -> (&[String], bool) {
        let objects = &self.objects;
        let left = |name: &String| objects.get(name).map_or(0, |object| object.left(now));
        // Over only when all is forgiven, so that one at the brink is not announced again and again.
        self.contested.retain(|name| left(name) > 0);
        let before = self.contested.len();
        for (name, object) in objects {
            if object.left(now) > FREE && !self.contested.contains(name) {
                self.contested.push(name.clone());
            }
        }
        // What is taken together is one fight.
        (&self.contested, before == 0 && !self.contested.is_empty())
    }
}

impl Object {
    /// The repairs that are not forgiven; while it is away nothing is.
    fn left(&self, now: Instant) -> u32 {
        let stood = if self.due.is_some() { Duration::ZERO } else { now.duration_since(self.put) };
        self.repairs.saturating_sub(u32::try_from(stood.as_secs()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
