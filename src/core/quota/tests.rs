use time::macros::date;

use super::*;
use crate::core::balance::{candidates, ready};
use crate::core::health::{Health, Manual};
use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily, Tier};
use crate::core::uplink::{Leg, State, Uplink};

const QUOTA: Quota = Quota { limit: Amount(10_000_000_000), day: Day::FIRST, soft: 80 };

fn slot(n: u8) -> Slot {
    Slot::new(n).unwrap()
}

fn usage(used: u64) -> Usage {
    Usage { used: Amount(used), renewed: Some(date!(2026 - 12 - 01)) }
}

/// An uplink of a tier that has used so many bytes of its quota, and stands like this.
fn uplink(n: u8, tier: u8, used: u64, state: State) -> Uplink {
    Uplink {
        tier: Tier::new(tier).unwrap(),
        allowance: Some(Allowance::of(QUOTA, Some(&usage(used)))),
        ..Uplink::example(n, Leg { state, link: true, ..Leg::default() })
    }
}

const SOFT: u64 = 8_000_000_000;
const HARD: u64 = 10_000_000_000;

/// Who is spared, states and notes when quotas have counted.
fn outcome(mut uplinks: Vec<Uplink>, health: &Health) -> (Vec<(bool, State)>, Vec<String>) {
    let mut notes = Vec::new();
    enforce(&mut uplinks, health, &mut notes);
    (uplinks.iter().map(|uplink| (uplink.spared, uplink.legs.v4.state)).collect(), notes)
}

#[test]
fn limits_are_reached_with_their_last_byte() {
    let levels = [0, SOFT - 1, SOFT, HARD - 1, HARD, u64::MAX].map(|used| QUOTA.level(Amount(used)).as_str());
    assert_eq!(levels, ["within", "within", "soft", "soft", "hard", "hard"]);
    let hard_alone = Quota { soft: 100, ..QUOTA };
    assert_eq!([HARD - 1, HARD].map(|used| hard_alone.level(Amount(used)).as_str()), ["within", "hard"]);
    assert_eq!(Allowance::of(QUOTA, None).level, Level::Within);
}

#[test]
fn beyond_the_soft_limit_an_uplink_stands_behind_all_others_in_its_own_order() {
    let up = State::Up;
    let uplinks =
        vec![uplink(1, 1, SOFT, up), uplink(2, 2, 0, up), uplink(3, 3, SOFT, up), uplink(4, 1, 0, up)];
    let (found, notes) = outcome(uplinks.clone(), &Health::default());
    assert_eq!(found, [(true, up), (false, up), (true, up), (false, up)]);
    let mut ranked = uplinks;
    enforce(&mut ranked, &Health::default(), &mut Vec::new());
    assert_eq!(
        ranked.iter().map(|uplink| uplink.tier.get()).collect::<Vec<_>>(),
        [1, 2, 3, 1],
        "as it was said"
    );
    let order = candidates(&ranked, Family::V4);
    assert_eq!(order.iter().map(|one| one.slot.get()).collect::<Vec<_>>(), [4, 2, 1, 3]);
    assert_eq!(ready(&order).len(), 1);
    assert_eq!(
        notes,
        ["wan1", "wan3"].map(|name| format!(
            "{name}: at least 80 % of its quota of 10 GB is used; renewed on 2026-12-01; it stands behind the others until then"
        ))
    );
    // Where all are beyond it, each keeps its place.
    let (found, notes) = outcome(vec![uplink(1, 1, SOFT, up), uplink(2, 2, SOFT, up)], &Health::default());
    assert_eq!((found, notes.len()), (vec![(true, up); 2], 0));
}

#[test]
fn at_the_hard_limit_it_is_out_and_by_hand_it_is_not() {
    let states = [
        (State::Up, State::Capped),
        (State::Degraded, State::Capped),
        (State::Held, State::Capped),
        (State::Configuring, State::Capped),
        (State::Down, State::Down),
        (State::Portal, State::Portal),
        (State::Drained, State::Drained),
        (State::Absent, State::Absent),
    ];
    for (before, after) in states {
        let (found, notes) = outcome(vec![uplink(1, 1, HARD, before)], &Health::default());
        assert_eq!((found, notes.len()), (vec![(false, after)], 0));
    }
    let health = Health { manual: [(slot(1), Manual::Up)].into(), ..Health::default() };
    for used in [SOFT, HARD] {
        let (found, _) = outcome(vec![uplink(1, 1, used, State::Up), uplink(2, 1, 0, State::Up)], &health);
        assert_eq!(found, [(false, State::Up); 2], "held up by hand");
    }
    let mut one = uplink(1, 1, HARD, State::Up);
    enforce(std::slice::from_mut(&mut one), &Health::default(), &mut Vec::new());
    assert_eq!(one.legs.v4.why, "its quota of 10 GB is used up; renewed on 2026-12-01");
    assert!(!one.legs.v4.reachable(), "nothing is led to it any more");
}

#[test]
fn it_is_told_what_becomes_of_a_machine_whose_last_uplink_has_nothing_left() {
    let told = |state, active: &[u8], blocks| {
        let active = PerFamily { v4: active.iter().map(|n| slot(*n)).collect(), v6: Vec::new() };
        none_left(&[uplink(1, 1, HARD, state)], &active, blocks).collect::<Vec<_>>()
    };
    let none = "wan1: its quota is used up, and no other uplink leads out for ipv4: ";
    assert_eq!(
        told(State::Capped, &[], false),
        [format!("{none}what leaves by the managers' own default routes goes on, beyond the quota")]
    );
    assert_eq!(told(State::Capped, &[], true), [format!("{none}nothing leaves, as all-down is block")]);
    assert_eq!(told(State::Capped, &[2], false), [""; 0]);
    assert_eq!(told(State::Down, &[], false), [""; 0]);
}
