//! Who may talk to whom through the machine, and who carries what those send that may not use every uplink.

use std::collections::BTreeMap;

use super::{Observed, RouterPlan};
use crate::config::{Config, Party};
use crate::core::balance::{self, Choice};
use crate::core::layout::Slot;
use crate::core::net::{Family, IfName, PerFamily, Weight};
use crate::core::nft::{Groups, Steered};
use crate::core::uplink::Uplink;

/// Puts the groups of the configuration over the LANs and uplinks that are there. Where no group is configured, nothing
/// is said of anybody.
pub(super) fn groups(
    config: &Config,
    observed: &Observed,
    router: &RouterPlan,
    uplinks: &[Uplink],
    active: &PerFamily<Vec<Slot>>,
    choices: &PerFamily<Choice>,
    notes: &mut Vec<String>,
) -> Groups {
    let behind = behind(config, observed, router, uplinks);
    if behind.is_empty() {
        return Groups::default();
    }
    let parties = behind.values().copied();
    let parties = parties.chain(uplinks.iter().map(|uplink| Party::Uplink(uplink.name.as_str())));
    let parties: Vec<Party> = parties.collect();
    for group in &config.groups {
        let absent =
            |name| format!("{}: there is neither a LAN nor an uplink {name} at present", group.origin);
        notes.extend(group.away(&parties).map(absent));
    }
    let devices = uplinks.iter().map(|uplink| uplink.dev.name.clone()).collect();
    let mut found = Groups { uplinks: devices, ..Groups::default() };
    found.members.extend(behind.keys().copied().chain(&found.uplinks).cloned());
    for (&lan, &party) in &behind {
        let of_lan = || config.groups.iter().filter(|group| group.has(party));
        let allowed = |uplink: &Uplink| of_lan().any(|group| group.has(Party::Uplink(uplink.name.as_str())));
        let is_neighbour = |other: Party| other == party || of_lan().any(|group| group.has(other));
        let neighbours = behind.iter().filter(|(_, other)| is_neighbour(**other));
        found.pairs.extend(neighbours.map(|(&other, _)| (lan.clone(), other.clone())));
        for uplink in uplinks.iter().filter(|uplink| allowed(uplink)) {
            let device = &uplink.dev.name;
            found.pairs.extend([(lan.clone(), device.clone()), (device.clone(), lan.clone())]);
        }
        let shares = PerFamily::from_fn(|family| {
            let usual = active[family].as_slice();
            shares(config, uplinks, usual, &allowed, family, &choices[family])
        });
        if !(shares.v4.is_empty() && shares.v6.is_empty()) {
            found.steered.push(Steered { lan: lan.clone(), shares });
        }
    }
    found
}

/// Of whom groups speak that are behind the machine: the LANs, and what is none at present but named, as a LAN that has no
/// address yet, or a VPN. Who is named is not left open for that.
fn behind<'a>(
    config: &Config,
    observed: &'a Observed,
    router: &RouterPlan,
    uplinks: &[Uplink],
) -> BTreeMap<&'a IfName, Party<'a>> {
    if !router.takes_part || config.groups.is_empty() {
        return BTreeMap::new();
    }
    let is_uplink = |name: &IfName| uplinks.iter().any(|uplink| uplink.dev.name == *name);
    let of = |name: &'a IfName| {
        let other = Party::Interface(name.as_str());
        match router.lans.contains(name) {
            true => Some((name, Party::Lan(name.as_str()))),
            false => config.groups.iter().any(|group| group.has(other)).then_some((name, other)),
        }
    };
    let links = observed.links.iter().filter(|link| !link.is_loopback() && !is_uplink(&link.name));
    links.filter_map(|link| of(&link.name)).collect()
}

/// Who carries what a LAN sends, by weight, chosen among those that it may use as the `usual` are among all; none where these
/// are the same as for everybody, or where there is nobody.
fn shares(
    config: &Config,
    uplinks: &[Uplink],
    usual: &[Slot],
    allowed: &impl Fn(&Uplink) -> bool,
    family: Family,
    choice: &Choice,
) -> Vec<(Slot, Weight)> {
    let of = |slot: Slot| uplinks.iter().find(|uplink| uplink.slot == slot);
    if usual.iter().all(|slot| of(*slot).is_some_and(allowed)) {
        return Vec::new();
    }
    let all = balance::candidates(uplinks, family);
    let own: Vec<_> = all.into_iter().filter(|one| of(one.slot).is_some_and(allowed)).collect();
    let slots = balance::active(config.balance.method(), &own, choice);
    slots.into_iter().filter_map(|slot| Some((slot, of(slot)?.weight))).collect()
}
