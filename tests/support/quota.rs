//! What is promised of uplinks with a quota.

use proptest::prelude::*;
use uplinkd::core::balance::Method;
use uplinkd::core::health::{Health, Manual};
use uplinkd::core::net::Family;
use uplinkd::core::plan::Plan;
use uplinkd::core::quota::Level;
use uplinkd::core::uplink::{State, Uplink};

/// Who has nothing left is not used, and who has little is not used before others that do as well.
pub(crate) fn check(plan: &Plan, method: Method, health: &Health) -> Result<(), TestCaseError> {
    let level = |uplink: &Uplink| match uplink.allowance {
        Some(allowance) if health.manual.get(&uplink.slot) != Some(&Manual::Up) => allowance.level,
        _ => Level::Within,
    };
    for family in Family::BOTH {
        for uplink in &plan.uplinks {
            let (leg, used) = (&uplink.legs[family], plan.active[family].contains(&uplink.slot));
            let capped = leg.state == State::Capped;
            prop_assert!(
                !used || level(uplink) != Level::Hard,
                "{} has nothing left and is used",
                uplink.name
            );
            prop_assert!(!capped || level(uplink) == Level::Hard, "{} has something left", uplink.name);
            prop_assert!(!capped || leg.why.contains("is used up"), "{}", leg.why);
            if !used || level(uplink) != Level::Soft || method == Method::Overflow {
                continue;
            }
            let spared = plan.uplinks.iter().find(|other| {
                let leg_of_other = &other.legs[family];
                !leg_of_other.twin
                    && leg_of_other.preference() == leg.preference()
                    && level(other) == Level::Within
            });
            prop_assert!(spared.is_none(), "{} is used and {:?} is spared", uplink.name, spared);
        }
    }
    Ok(())
}
