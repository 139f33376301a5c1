//! What every plan keeps to.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uplinkd::core::diff::Whose;
use uplinkd::core::layout::{BALANCED_PREF, BALANCED_TABLE};
use uplinkd::core::net::{Family, IfIndex, TableId};
use uplinkd::core::plan::Plan;
use uplinkd::core::rule::Selector;
use uplinkd::core::uplink::{Rank, State, Uplink};

use super::kernel::Memory;
use super::leak::leak;

/// What is promised of uplinks that are not well.
fn check_health(plan: &Plan) -> Result<(), TestCaseError> {
    for family in Family::BOTH {
        let active = &plan.active[family];
        let balanced = plan.desired.routes.iter().filter(|r| r.family() == family && r.steers());
        let legs: BTreeSet<IfIndex> = balanced.flat_map(|r| &r.hops).map(|hop| hop.dev.index).collect();
        for uplink in &plan.uplinks {
            let state = uplink.legs[family].state;
            let usable = matches!(state, State::Up | State::Degraded | State::Held);
            let used = active.contains(&uplink.slot);
            prop_assert!(
                !legs.contains(&uplink.dev.index) || used,
                "{} is a leg and not active",
                uplink.name
            );
            prop_assert!(!used || usable, "{} is active and {}", uplink.name, state);
            let rank = |u: &Uplink| u.rank(family).filter(|_| !u.legs[family].twin);
            let best = plan.uplinks.iter().filter_map(rank).min();
            let healthiest = |rank: Option<Rank>| rank.map(|rank| rank.preference);
            let ready = plan.ready[family].contains(&uplink.slot);
            prop_assert_eq!(ready, best.is_some() && rank(uplink) == best, "{} is ready", uplink.name);
            prop_assert!(
                !used || healthiest(rank(uplink)) == healthiest(best),
                "a healthier one than {}",
                uplink.name
            );
            prop_assert!(!usable || !active.is_empty(), "{} is {} and none is active", uplink.name, state);
        }
        for moved in plan.desired.moves.iter().filter(|m| m.family == family) {
            let active = match &moved.whose {
                Whose::All | Whose::Usual(_) => active,
                Whose::Policy(name) => {
                    let policy = plan.policies.iter().find(|policy| policy.name == *name);
                    &policy.expect("a policy").picks[family].active
                }
            };
            prop_assert!(
                !active.is_empty() && !active.contains(&moved.slot),
                "{:?} with {:?}",
                moved,
                active
            );
        }
    }
    Ok(())
}

/// What plan.rs promises to keep.
pub(crate) fn check_layout(kernel: &Memory, plan: &Plan) -> Result<(), TestCaseError> {
    let leak = leak(kernel, plan);
    prop_assert!(leak.is_none(), "{}", leak.unwrap_or_default());
    for rule in &plan.desired.rules {
        let all = rule.selector == Selector::All && rule.suppress_prefixlen.is_none();
        let balanced = rule.pref == BALANCED_PREF && rule.table == BALANCED_TABLE;
        prop_assert!(!all || balanced, "catches everything: {}", rule.spec());
    }
    for (at, one) in plan.uplinks.iter().enumerate() {
        for other in &plan.uplinks[..at] {
            prop_assert_ne!(&one.name, &other.name);
            prop_assert_ne!(one.slot, other.slot);
            prop_assert_ne!(one.slot.mark(), other.slot.mark());
        }
    }
    check_health(plan)?;
    for ip in &plan.desired.vacated {
        let here = kernel.addresses.iter().any(|a| a.ip == *ip);
        prop_assert!(!here && !plan.active[Family::of(*ip)].is_empty(), "flows of {} end", ip);
    }
    let narrow = plan.desired.ruleset.iter().flat_map(|ruleset| &ruleset.narrow);
    for (name, mtu) in narrow {
        let carries = kernel.links.iter().any(|l| l.name == *name && l.mtu == *mtu && l.mtu < 1500);
        prop_assert!(carries, "{} is told to carry {}", name, mtu);
    }
    let keys: BTreeSet<_> = plan.desired.routes.iter().map(|r| &r.key).collect();
    prop_assert_eq!(keys.len(), plan.desired.routes.len(), "no two routes with one key");
    for ours in plan.desired.routes.iter().filter(|r| r.key.table == TableId::MAIN) {
        let taken = kernel.routes.iter().any(|r| !r.is_ours() && r.key == ours.key);
        prop_assert!(!taken, "shares its key with another's: {}", ours.spec());
    }
    Ok(())
}
