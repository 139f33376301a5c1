//! Since when an uplink's running flows should be somewhere else, and when they are moved.
//!
//! Those of an uplink that leads nowhere are moved at once, which [`plan`](crate::core::plan) sees by itself. Here are
//! the others: a carrier that may come back in a moment, and an uplink that lives on while a better one takes over.
//! One that merely was not chosen among its like has no better one beside it. And what went to one because the better were
//! full is where it belongs, unless that one has become worse since, or was taken out by hand.

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
    /// New flows have used it, as there was no better one.
    used: bool,
    /// New flows have used it, as the better ones were full.
    spilled: bool,
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
                let mut left = known.get(&key).copied().unwrap_or_default();
                left.used |= was.contains(&key);
                match plan.active[family].contains(&uplink.slot) {
                    true => left.spill(now),
                    false => {
                        let leg = &uplink.legs[family];
                        let worse = best(plan, family).is_some_and(|best| leg.preference() != Some(best));
                        left.look(leg, worse, uplink.failback, now);
                    }
                }
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

/// How well those do that do best.
fn best(plan: &Plan, family: Family) -> Option<u8> {
    plan.uplinks.iter().filter_map(|uplink| uplink.legs[family].preference()).min()
}

impl Left {
    /// It is given what the better ones have no room for. What was to be moved before has been, or its time goes on.
    fn spill(&mut self, now: Instant) {
        if self.at.is_some_and(|at| at <= now) {
            *self = Left::default();
        }
        (self.spilled, self.unplugged, self.at) = (true, None, None);
    }

    /// It is given nothing; `worse` says that this is for more than its tier.
    fn look(&mut self, leg: &Leg, worse: bool, failback: Failback, now: Instant) {
        let lives = leg.link && (leg.preference().is_some() || leg.state == State::Drained);
        if lives && (self.used || (self.spilled && worse)) {
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

    /// What follows of rounds with one uplink beside a better one: its state, and whether it is spilled to.
    fn spilled(rounds: &[(u32, State, bool)], failback: Failback) -> Option<u128> {
        let (mut leaving, start) = (Leaving::default(), Instant::now());
        for &(at, state, active) in rounds {
            let mut plan = round(state, active, failback);
            let better = Leg { state: State::Up, link: true, ..Leg::default() };
            plan.uplinks.push(Uplink::example(2, better));
            plan.ready.v4 = vec![Slot::new(2).unwrap()];
            leaving.follow(&plan, start + at * MS);
        }
        let left = leaving.left.get(&key())?;
        left.at.map(|at| (at - start).as_millis())
    }

    #[test]
    fn what_was_spilled_stays_until_its_uplink_is_worse_or_taken_out() {
        let (up, drain) = (State::Up, Failback::Drain(5000 * MS));
        let room = [(0, up, true), (100, up, false)];
        assert_eq!(spilled(&room, Failback::Force), None);
        for state in [State::Drained, State::Degraded, State::Held] {
            let worse = [&room[..], &[(200, state, false)]].concat();
            assert_eq!(spilled(&worse, Failback::Force), Some(200), "{state}");
            assert_eq!(spilled(&worse, drain), Some(5200), "{state}");
            assert_eq!(spilled(&worse, Failback::Keep), None, "{state}");
            assert_eq!(
                spilled(&[room[0], (200, state, false)], drain),
                Some(5200),
                "{state} while spilled to"
            );
            assert_eq!(spilled(&worse[1..], drain), None, "{state}: it was never used");
        }
    }

    #[test]
    fn a_spill_drops_no_time_that_runs() {
        let (mut leaving, start, up) = (Leaving::default(), Instant::now(), State::Up);
        let mut follow = |at: u32, active: bool, ready: bool| {
            let plan = round(up, active, Failback::Drain(5000 * MS));
            let ready = PerFamily { v4: Vec::from_iter(ready.then_some(key().0)), v6: Vec::new() };
            leaving.follow(&Plan { ready, ..plan }, start + at * MS);
            leaving.left.get(&key()).and_then(|left| left.at).map(|at| (at - start).as_millis())
        };
        assert_eq!([follow(0, true, true), follow(100, false, false)], [None, Some(5100)]);
        assert_eq!(follow(300, true, false), None, "nothing is moved off who is used");
        assert_eq!(follow(400, false, false), Some(5100));
        // They have been moved; what comes after that was spilled.
        assert_eq!([follow(6000, true, false), follow(6100, false, false)], [None, None]);
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
