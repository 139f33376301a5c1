//! What follows for uplinks from what they have left.

use crate::core::health::{Health, Manual};
use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily};
use crate::core::uplink::{Leg, State, Uplink};

use super::{Allowance, Level};

/// Lets quotas count. Beyond its soft limit an uplink stands behind all that are within theirs, in its own tier among its
/// like; at its hard limit it is out. Who is held up by hand is used whatever it costs.
pub(in crate::core) fn enforce(uplinks: &mut [Uplink], health: &Health, notes: &mut Vec<String>) {
    let by_hand = |slot: Slot| health.manual.get(&slot) == Some(&Manual::Up);
    let level = |uplink: &Uplink| match uplink.allowance {
        Some(allowance) if !by_hand(uplink.slot) => allowance.level,
        _ => Level::Within,
    };
    let others = uplinks.iter().any(|uplink| level(uplink) == Level::Within);
    for uplink in uplinks {
        let (level, Some(allowance)) = (level(uplink), uplink.allowance) else { continue };
        uplink.spared = level == Level::Soft;
        if uplink.spared && others {
            notes.push(format!("{}: {allowance}; it stands behind the others until then", uplink.name));
        }
        if level == Level::Hard {
            Family::BOTH.into_iter().for_each(|f| take_out(&mut uplink.legs[f], &allowance));
        }
    }
}

/// What leads out is used no more. What does not stays what it is, and so does what is drained: its flows may stay.
fn take_out(leg: &mut Leg, allowance: &Allowance) {
    let unproven = leg.link && leg.state == State::Configuring;
    if unproven || leg.preference().is_some() {
        (leg.state, leg.why) = (State::Capped, allowance.to_string());
    }
}

/// What people should know where nobody is left because somebody's quota is used up.
pub(in crate::core) fn none_left(
    uplinks: &[Uplink],
    active: &PerFamily<Vec<Slot>>,
    blocks: bool,
) -> impl Iterator<Item = String> {
    let told = move |family: Family| {
        let capped = uplinks.iter().find(|uplink| uplink.legs[family].state == State::Capped)?;
        let what = match blocks {
            true => "nothing leaves, as all-down is block",
            false => "what leaves by the managers' own default routes goes on, beyond the quota",
        };
        let name = &capped.name;
        active[family].is_empty().then(|| {
            format!("{name}: its quota is used up, and no other uplink leads out for {family}: {what}")
        })
    };
    Family::BOTH.into_iter().filter_map(told)
}
