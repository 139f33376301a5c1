//! What can be known of uplinks, what a method can make of it, and what can be decided over it by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::select;
use uplinkd::config::AllDown;
use uplinkd::core::balance::{Choice, Method};
use uplinkd::core::health::{Health, Manual, Opinion, Standing};
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{Family, PerFamily};
use uplinkd::core::plan::Customer;
use uplinkd::core::policy::Way;
use uplinkd::core::quota::{Amount, Usage};

use crate::support::world::World;

/// Health, whom somebody has drained, and what is wanted when all are down.
#[derive(Debug, Clone, Default)]
pub(super) struct Drawn {
    health: Health,
    drained: BTreeSet<Slot>,
    all_down: AllDown,
    method: Method,
    choices: PerFamily<Choice>,
    usages: BTreeMap<Slot, Usage>,
}

impl Drawn {
    pub(super) fn put(self, world: &mut World) {
        (world.health, world.drained) = (self.health, Some(self.drained));
        world.config.all_down = self.all_down;
        world.config.balance.way = Way::By(self.method);
        (world.choices, world.usages) = (self.choices, self.usages);
    }
}

/// The first slots, which are those that are given.
fn slot() -> impl Strategy<Value = Slot> {
    (1..6u8).prop_map(|n| Slot::new(n).expect("a slot"))
}

fn key() -> impl Strategy<Value = (Slot, Family)> {
    (slot(), select(Family::BOTH.to_vec()))
}

fn opinion() -> impl Strategy<Value = Opinion> {
    let standings = vec![
        Standing::Unproven,
        Standing::Up,
        Standing::Degraded,
        Standing::Portal,
        Standing::Down,
        Standing::Down,
        Standing::Held,
    ];
    (select(standings), prop::bool::weighted(0.8))
        .prop_map(|(standing, proven)| Opinion { proven, ..Opinion::new(standing, "drawn".to_owned()) })
}

/// One that may speak of uplinks that are not there, and need not speak of those that are.
fn choice() -> impl Strategy<Value = Choice> {
    let order = prop::collection::vec(slot(), 0..6);
    (order, prop::collection::btree_set(slot(), 0..6)).prop_map(|(order, full)| Choice { order, full })
}

/// One for each family.
pub(crate) fn choices() -> impl Strategy<Value = PerFamily<Choice>> {
    (choice(), choice()).prop_map(|(v4, v6)| PerFamily { v4, v6 })
}

/// An IPv4 address that an uplink may have, or have had.
fn address((net, host): (u8, u8)) -> IpAddr {
    IpAddr::from([192, 168, net, host])
}

/// Nothing, more than the soft limit of a quota of 10 MB, or all of it.
fn usage(n: u64) -> Usage {
    Usage { used: Amount(n * 9_000_000), renewed: None }
}

/// Any; a third of them nothing at all, and some with all down.
pub(super) fn drawn() -> impl Strategy<Value = Drawn> {
    let down = || Opinion { proven: true, ..Opinion::new(Standing::Down, "drawn".to_owned()) };
    let all = move || Slot::all().flat_map(|slot| Family::BOTH.map(|family| (slot, family)));
    let opinions = prop_oneof![
        4 => prop::collection::btree_map(key(), opinion(), 0..10),
        1 => Just(all().map(|key| (key, down())).collect()),
    ];
    let manual = prop::collection::btree_map(slot(), select(vec![Manual::Up, Manual::Down]), 0..2);
    let customers = vec![Customer::All, Customer::Usual, Customer::Policy("policy-1".to_owned())];
    let left = (select(customers), key()).prop_map(|(whose, (slot, family))| (whose, slot, family));
    let leaving = prop::collection::btree_set(left, 0..4);
    let drained = prop::collection::btree_set(slot(), 0..2);
    let all_down = select(vec![AllDown::Keep, AllDown::Block]);
    let balance = (select(Method::ALL.to_vec()), choices());
    let vacated = prop::collection::btree_set((0..4u8, 1..16u8).prop_map(address), 0..3);
    let usages = prop::collection::btree_map(slot(), (0..3u64).prop_map(usage), 0..5);
    let some = (any::<bool>(), opinions, (manual, usages), (leaving, vacated), drained, (all_down, balance))
        .prop_map(
            |(
                probing,
                opinions,
                (manual, usages),
                (leaving, vacated),
                drained,
                (all_down, (method, choices)),
            )| Drawn {
                health: Health { probing, opinions, manual, leaving, vacated },
                drained,
                all_down,
                method,
                choices,
                usages,
            },
        );
    prop_oneof![1 => Just(Drawn::default()), 2 => some]
}
