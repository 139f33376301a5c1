//! Who may talk to whom through the machine, and who carries what those send that may not use every uplink.

use crate::config::{Config, Group, Party};
use crate::core::balance::{self, Choice};
use crate::core::layout::Slot;
use crate::core::net::{Family, IfName, PerFamily, Weight};
use crate::core::nft::{Groups, Steered};
use crate::core::uplink::Uplink;

/// Puts the groups of the configuration over the LANs and uplinks that are there. Where no group is configured, nothing
/// is said of anybody.
pub(super) fn groups(
    config: &Config,
    lans: &[IfName],
    uplinks: &[Uplink],
    choices: &PerFamily<Choice>,
    notes: &mut Vec<String>,
) -> Groups {
    if config.groups.is_empty() || lans.is_empty() {
        return Groups::default();
    }
    let uplinks = Vec::from_iter(uplinks);
    let is_of = |group: &Group, lan: &IfName| group.has(Party::Lan(lan.as_str()));
    let parties = lans.iter().map(|lan| Party::Lan(lan.as_str()));
    let parties = parties.chain(uplinks.iter().map(|uplink| Party::Uplink(uplink.name.as_str())));
    let parties: Vec<Party> = parties.collect();
    for group in &config.groups {
        let absent =
            |name| format!("{}: there is neither a LAN nor an uplink {name} at present", group.origin);
        notes.extend(group.away(&parties).map(absent));
    }
    let devices = uplinks.iter().map(|uplink| uplink.dev.name.clone()).collect();
    let mut found = Groups { uplinks: devices, ..Groups::default() };
    found.members.extend(lans.iter().chain(&found.uplinks).cloned());
    for lan in lans {
        let of_lan = || config.groups.iter().filter(|group| is_of(group, lan));
        let allowed = |uplink: &Uplink| of_lan().any(|group| group.has(Party::Uplink(uplink.name.as_str())));
        let neighbours =
            lans.iter().filter(|other| *other == lan || of_lan().any(|group| is_of(group, other)));
        found.pairs.extend(neighbours.map(|other| (lan.clone(), other.clone())));
        for uplink in uplinks.iter().filter(|uplink| allowed(uplink)) {
            let device = &uplink.dev.name;
            found.pairs.extend([(lan.clone(), device.clone()), (device.clone(), lan.clone())]);
        }
        let shares =
            PerFamily::from_fn(|family| shares(config, &uplinks, &allowed, family, &choices[family]));
        if !(shares.v4.is_empty() && shares.v6.is_empty()) {
            found.steered.push(Steered { lan: lan.clone(), shares });
        }
    }
    found
}

/// Who carries what a LAN sends, by weight, chosen among those that it may use as they are among all; none where these
/// are the same as for everybody, or where there is nobody.
fn shares(
    config: &Config,
    uplinks: &[&Uplink],
    allowed: &impl Fn(&Uplink) -> bool,
    family: Family,
    choice: &Choice,
) -> Vec<(Slot, Weight)> {
    let of = |slot: Slot| uplinks.iter().copied().find(|uplink| uplink.slot == slot);
    let all: Vec<Uplink> = uplinks.iter().copied().cloned().collect();
    let all = balance::candidates(&all, family);
    let usual = balance::active(config.method, &all, choice);
    if usual.iter().all(|slot| of(*slot).is_some_and(allowed)) {
        return Vec::new();
    }
    let own: Vec<_> = all.into_iter().filter(|one| of(one.slot).is_some_and(allowed)).collect();
    let slots = balance::active(config.method, &own, choice);
    slots.into_iter().filter_map(|slot| Some((slot, of(slot)?.weight))).collect()
}
