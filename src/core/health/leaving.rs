//! Since when an uplink's running flows should be somewhere else, and when they are moved.
//!
//! Those of an uplink that leads nowhere are moved at once, which [`plan`](crate::core::plan) sees by itself. Here are
//! the others: a carrier that may come back in a moment, and an uplink that lives on while a better one takes over.
//! One that merely was not chosen among its like has no better one beside it. And what went to one because the better were
//! full is where it belongs, unless that one has become worse since, or was taken out by hand.
//!
//! Which uplink is the better one, each policy sees with its own eyes. So the default route and the policies are told apart:
//! what one of them gave an uplink is not moved because another has a better one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily};
use crate::core::plan::{Customer, Plan, Served};
use crate::core::uplink::{Failback, Leg, State, Uplink};

/// A carrier that is back by then has cost nobody a connection: Wi-Fi changes its access point in less.
const CARRIER_GRACE: Duration = Duration::from_secs(1);

/// One family of an uplink.
type Key = (Slot, Family);

/// Uplinks that have a better one beside them, and may carry old flows.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    /// Since when one has no carrier: everybody's flows leave it.
    unplugged: BTreeMap<Key, Instant>,
    customers: BTreeMap<Customer, Passed>,
}

/// What one customer has passed over.
#[derive(Debug, Clone, Default)]
struct Passed {
    ready: BTreeSet<Key>,
    left: BTreeMap<Key, Left>,
}

/// One of the uplinks.
#[derive(Debug, Clone, Copy, Default)]
struct Left {
    /// New flows have used it, as there was no better one.
    used: bool,
    /// New flows have used it, as the better ones were full.
    spilled: bool,
    /// Since when it has lived on beside a better one.
    beside: Option<Instant>,
    /// When its flows are to be moved; none where they may stay.
    at: Option<Instant>,
}

impl Leaving {
    /// Takes in what a round decided.
    pub fn follow(&mut self, plan: &Plan, now: Instant) {
        let unplugged = std::mem::take(&mut self.unplugged);
        for (key, ..) in legs(plan).filter(|(_, leg, _)| leg.configured() && !leg.link) {
            self.unplugged.insert(key, unplugged.get(&key).copied().unwrap_or(now));
        }
        let mut known = std::mem::take(&mut self.customers);
        for served in plan.served() {
            let mut passed = known.remove(&served.customer).unwrap_or_default();
            passed.follow(&served, plan, now);
            self.customers.insert(served.customer, passed);
        }
    }

    /// Whose flows are to be moved from where now.
    pub fn due(&self, now: Instant) -> BTreeSet<(Customer, Slot, Family)> {
        let due = self.times().filter(|(_, _, at)| *at <= now);
        due.map(|(customer, (slot, family), _)| (customer.clone(), slot, family)).collect()
    }

    /// When the next are to be moved.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.times().map(|(_, _, at)| at).filter(|at| *at > now).min()
    }

    fn times(&self) -> impl Iterator<Item = (&Customer, Key, Instant)> {
        let unplugged =
            self.unplugged.iter().map(|(key, since)| (&Customer::All, *key, *since + CARRIER_GRACE));
        let passed = self.customers.iter().flat_map(|(customer, passed)| {
            passed.left.iter().filter_map(move |(key, left)| Some((customer, *key, left.at?)))
        });
        unplugged.chain(passed)
    }
}

impl Passed {
    fn follow(&mut self, served: &Served, plan: &Plan, now: Instant) {
        let was = std::mem::take(&mut self.ready);
        let known = std::mem::take(&mut self.left);
        let best = PerFamily::from_fn(|family| best(plan, &served.picks[family].ready, family));
        for (key, leg, usual) in legs(plan) {
            let (slot, family) = key;
            let pick = &served.picks[family];
            if pick.ready.contains(&slot) {
                self.ready.insert(key);
                continue;
            }
            let mut left = known.get(&key).copied().unwrap_or_default();
            left.used |= was.contains(&key);
            match pick.active.contains(&slot) {
                true => left.spill(now),
                false => {
                    let worse = best[family].is_some_and(|best| leg.preference() != Some(best));
                    left.look(leg, worse, served.failback.unwrap_or(usual), now);
                }
            }
            self.left.insert(key, left);
        }
    }
}

/// All legs of a plan, and what becomes of flows on them unless somebody says otherwise.
fn legs<'a>(plan: &'a Plan) -> impl Iterator<Item = (Key, &'a Leg, Failback)> {
    let of = |uplink: &'a Uplink| {
        Family::BOTH.map(|family| ((uplink.slot, family), &uplink.legs[family], uplink.failback))
    };
    plan.uplinks.iter().flat_map(of)
}

/// How well those do that do best.
fn best(plan: &Plan, ready: &[Slot], family: Family) -> Option<u8> {
    let ready = plan.uplinks.iter().filter(|uplink| ready.contains(&uplink.slot));
    ready.filter_map(|uplink| uplink.legs[family].preference()).min()
}

impl Left {
    /// It is given what the better ones have no room for. What was to be moved before has been, or its time goes on.
    fn spill(&mut self, now: Instant) {
        if self.at.is_some_and(|at| at <= now) {
            *self = Left::default();
        }
        (self.spilled, self.at) = (true, None);
    }

    /// It is given nothing; `worse` says that this is for more than its tier.
    fn look(&mut self, leg: &Leg, worse: bool, failback: Failback, now: Instant) {
        let lives = leg.link && (leg.preference().is_some() || leg.state == State::Drained);
        if lives && (self.used || (self.spilled && worse)) {
            self.beside.get_or_insert(now);
        }
        self.at = self.beside.filter(|_| leg.link).and_then(|since| match failback {
            Failback::Keep => None,
            Failback::Drain(time) => Some(since + time),
            Failback::Force => Some(since),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::balance::Pick;
    use crate::core::plan::PolicyPlan;
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

    /// When flows of the one uplink are to be moved.
    fn at_of(leaving: &Leaving) -> Option<Instant> {
        leaving.times().find(|(_, of, _)| *of == key()).map(|(_, _, at)| at)
    }

    /// Follows rounds, each with the time at which it comes; tells when flows are to be moved after the last.
    fn moved(rounds: &[(u32, State, bool)], failback: Failback) -> Option<u128> {
        let (mut leaving, start) = (Leaving::default(), Instant::now());
        for &(at, state, active) in rounds {
            leaving.follow(&round(state, active, failback), start + at * MS);
        }
        let at = at_of(&leaving)?;
        let (slot, family) = key();
        assert!(leaving.due(at).iter().any(|due| (due.1, due.2) == (slot, family)));
        assert!(leaving.due(at - MS).is_empty());
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
            leaving.due(now).contains(&(Customer::Usual, key().0, key().1))
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
        at_of(&leaving).map(|at| (at - start).as_millis())
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
            at_of(&leaving).map(|at| (at - start).as_millis())
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

    #[test]
    fn each_policy_calls_its_own_flows_back() {
        let (mut leaving, now) = (Leaving::default(), Instant::now());
        let (slot, family) = key();
        let mut due = |usual: bool, policy: bool, failback| {
            let slots = |used: bool| Vec::from_iter(used.then_some(slot));
            let pick = Pick { active: slots(policy), ready: slots(policy) };
            let policy = PolicyPlan {
                picks: PerFamily { v4: pick, v6: Pick::default() },
                failback,
                ..PolicyPlan::example("mail")
            };
            let plan = round(State::Up, usual, Failback::Keep);
            leaving.follow(&Plan { policies: vec![policy], ..plan }, now);
            Vec::from_iter(leaving.due(now))
        };
        let mail = (Customer::Policy("mail".into()), slot, family);
        assert_eq!(due(true, true, None), []);
        assert_eq!(due(true, false, None), [], "the uplink says that they stay");
        assert_eq!(
            due(true, false, Some(Failback::Force)),
            std::slice::from_ref(&mail),
            "the policy says otherwise"
        );
        assert_eq!(due(false, false, Some(Failback::Force)), [mail], "the flows of the default route stay");
        assert_eq!(due(false, true, Some(Failback::Force)), [], "it is used again");
    }
}
