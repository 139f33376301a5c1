//! Since when an uplink's running flows should be somewhere else, and when they are moved.
//!
//! Those of an uplink that leads nowhere are moved at once, which [`plan`](crate::core::plan) sees by itself. Here are
//! the others: a carrier that may come back in a moment, and an uplink that lives on while a better one takes over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::plan::Plan;
use crate::core::uplink::{Failback, Leg, Uplink};

/// A carrier that is back by then has cost nobody a connection: Wi-Fi changes its access point in less.
const CARRIER_GRACE: Duration = Duration::from_secs(1);

/// Uplinks that were in use and are not any more.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    active: BTreeSet<(Slot, Family)>,
    /// When the flows of each are to be moved; none where they may stay.
    left: BTreeMap<(Slot, Family), Option<Instant>>,
}

impl Leaving {
    /// Takes in what a round decided.
    pub fn follow(&mut self, plan: &Plan, now: Instant) {
        let was = std::mem::take(&mut self.active);
        let mut left = BTreeMap::new();
        for uplink in &plan.uplinks {
            for family in Family::BOTH {
                let key = (uplink.slot, family);
                let (leg, known) = (&uplink.legs[family], self.left.get(&key).copied());
                if plan.active[family].contains(&uplink.slot) {
                    self.active.insert(key);
                } else if was.contains(&key) {
                    left.insert(key, moved_at(uplink, leg, now));
                } else if leg.configured() && !leg.link {
                    // In use or not, something may run over it.
                    left.insert(key, known.flatten().or(Some(now + CARRIER_GRACE)));
                } else if let Some(at) = known {
                    left.insert(key, at);
                }
            }
        }
        self.left = left;
    }

    /// Whose flows are to be moved now.
    pub fn due(&self, now: Instant) -> BTreeSet<(Slot, Family)> {
        let due = self.left.iter().filter(|(_, at)| at.is_some_and(|at| at <= now));
        due.map(|(key, _)| *key).collect()
    }

    /// When the next are to be moved.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.left.values().flatten().copied().filter(|at| *at > now).min()
    }
}

fn moved_at(uplink: &Uplink, leg: &Leg, now: Instant) -> Option<Instant> {
    match uplink.failback {
        _ if !leg.link => Some(now + CARRIER_GRACE),
        Failback::Keep => None,
        Failback::Drain(time) => Some(now + time),
        Failback::Force => Some(now),
    }
}
