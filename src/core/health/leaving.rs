//! Since when an uplink's running flows should be somewhere else, and when they are moved.
//!
//! Those of an uplink that leads nowhere are moved at once, which [`plan`](crate::core::plan) sees by itself. Here are
//! the others: a carrier that may come back in a moment, and an uplink that lives on while a better one takes over.
//! One that merely was not chosen among its like has no better one beside it, and what went to one because the better
//! were full is where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::plan::Plan;
use crate::core::uplink::{Failback, Leg, State};

/// A carrier that is back by then has cost nobody a connection: Wi-Fi changes its access point in less.
const CARRIER_GRACE: Duration = Duration::from_secs(1);

/// Uplinks that have a better one beside them, and may carry old flows.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    ready: BTreeSet<(Slot, Family)>,
    left: BTreeMap<(Slot, Family), Left>,
}

/// One of them.
#[derive(Debug, Clone, Copy, Default)]
struct Left {
    /// New flows have used it.
    used: bool,
    /// Since when it has lived on beside a better one.
    beside: Option<Instant>,
    /// Since when it has no carrier.
    unplugged: Option<Instant>,
    /// When its flows are to be moved; none where they may stay.
    at: Option<Instant>,
}

impl Leaving {
    /// Takes in what a round decided.
    pub fn follow(&mut self, plan: &Plan, now: Instant) {
        let was = std::mem::take(&mut self.ready);
        let known = std::mem::take(&mut self.left);
        for uplink in &plan.uplinks {
            for family in Family::BOTH {
                let key = (uplink.slot, family);
                if plan.ready[family].contains(&uplink.slot) {
                    self.ready.insert(key);
                    continue;
                }
                if plan.active[family].contains(&uplink.slot) {
                    continue;
                }
                let mut left = known.get(&key).copied().unwrap_or_default();
                left.used |= was.contains(&key);
                left.look(&uplink.legs[family], uplink.failback, now);
                self.left.insert(key, left);
            }
        }
    }

    /// Whose flows are to be moved now.
    pub fn due(&self, now: Instant) -> BTreeSet<(Slot, Family)> {
        let due = self.left.iter().filter(|(_, left)| left.at.is_some_and(|at| at <= now));
        due.map(|(key, _)| *key).collect()
    }

    /// When the next are to be moved.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.left.values().filter_map(|left| left.at).filter(|at| *at > now).min()
    }
}

impl Left {
    fn look(&mut self, leg: &Leg, failback: Failback, now: Instant) {
        let lives = leg.link && (leg.preference().is_some() || leg.state == State::Drained);
        if lives && self.used {
            self.beside.get_or_insert(now);
        }
        // Also one that flows were allowed to stay on: nothing gets through any more.
        self.unplugged = (leg.configured() && !leg.link).then(|| self.unplugged.unwrap_or(now));
        let waits = || match failback {
            Failback::Keep => None,
            Failback::Drain(time) => Some(self.beside? + time),
            Failback::Force => self.beside,
        };
        self.at = self.unplugged.map_or_else(waits, |since| Some(since + CARRIER_GRACE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::PerFamily;
    use crate::core::uplink::{Gateway, Uplink};

    const MS: Duration = Duration::from_millis(1);

    fn key() -> (Slot, Family) {
        (Slot::new(1).unwrap(), Family::V4)
    }

    /// A round with one uplink in this state, used or not; a link that is down has no carrier.
    fn round(state: State, active: bool, failback: Failback) -> Plan {
        let leg = Leg {
            state,
            link: state != State::Down,
            gateway: Some(Gateway::Link),
            addresses: vec!["192.0.2.1/24".parse().unwrap()],
            ..Leg::default()
        };
        let uplink = Uplink { failback, ..Uplink::example(key().0.get(), leg) };
        let active = PerFamily { v4: Vec::from_iter(active.then_some(key().0)), v6: Vec::new() };
        Plan { uplinks: vec![uplink], ready: active.clone(), active, ..Plan::default() }
    }

    /// Follows rounds, each with the time at which it comes; tells when flows are to be moved after the last.
    fn moved(rounds: &[(u32, State, bool)], failback: Failback) -> Option<u128> {
        let (mut leaving, start) = (Leaving::default(), Instant::now());
        for &(at, state, active) in rounds {
            leaving.follow(&round(state, active, failback), start + at * MS);
        }
        let left = leaving.left.get(&key())?;
        let at = left.at?;
        assert!(leaving.due(at).contains(&key()) && leaving.due(at - MS).is_empty());
        assert_eq!(leaving.next(at - MS), Some(at));
        Some((at - start).as_millis())
    }

    #[test]
    fn a_better_one_moves_flows_as_failback_says() {
        let rounds = [(0, State::Up, true), (100, State::Up, false), (900, State::Up, false)];
        assert_eq!(moved(&rounds, Failback::Keep), None);
        assert_eq!(moved(&rounds, Failback::Drain(5000 * MS)), Some(5100));
        assert_eq!(moved(&rounds, Failback::Force), Some(100));
        assert_eq!(moved(&rounds[1..], Failback::Force), None, "it was never used");
    }

    #[test]
    fn a_choice_among_equals_moves_no_flows_and_neither_does_room_elsewhere() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        let round = |active, ready: bool| {
            let plan = round(State::Up, active, Failback::Force);
            Plan { ready: PerFamily { v4: Vec::from_iter(ready.then_some(key().0)), v6: Vec::new() }, ..plan }
        };
        let mut due = |active, ready| {
            leaving.follow(&round(active, ready), now);
            leaving.due(now).contains(&key())
        };
        assert_eq!(
            [due(true, true), due(false, true), due(true, true)],
            [false; 3],
            "another of its like was chosen"
        );
        assert!(due(false, false), "a better one is back");
        assert_eq!([due(true, false), due(false, false)], [false; 2], "the better one was full for a while");
    }

    #[test]
    fn a_carrier_that_goes_moves_them_after_a_moment() {
        let lost = [(0, State::Up, true), (100, State::Down, false), (700, State::Down, false)];
        for failback in [Failback::Keep, Failback::Drain(5000 * MS), Failback::Force] {
            assert_eq!(moved(&lost, failback), Some(1100));
            // It is back, and proves itself.
            let back = [&lost[..], &[(800, State::Configuring, false)]].concat();
            assert_eq!(moved(&back, failback), None);
            assert_eq!(moved(&[&back[..], &[(900, State::Up, true)]].concat(), failback), None);
            // Flows that were allowed to stay have to go with the carrier.
            let kept = [(0, State::Up, true), (100, State::Up, false), (500, State::Down, false)];
            assert_eq!(moved(&kept, failback), Some(1500));
        }
        let back = [
            (0, State::Up, true),
            (100, State::Up, false),
            (200, State::Down, false),
            (300, State::Up, false),
        ];
        assert_eq!(moved(&back, Failback::Drain(5000 * MS)), Some(5100), "the time goes on");
    }
}
