//! What should be in the kernel, given what is and what the configuration wants.
//!
//! Total: what cannot be done becomes a note. The contract that it fulfils is the table in [`super::layout`]; why
//! the balanced default sits in main, and why none of our rules takes everything, is told in the crate's
//! documentation.

mod customer;
mod detour;
mod family;
mod fragments;
mod groups;
mod nat6;
mod policy;
mod resolvers;
mod router;
mod sysctls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

pub use self::customer::{Customer, Served};
use self::family::FamilyPlan;
use self::groups::groups;
use self::nat6::Sources;
pub use self::policy::{Picks, PolicyPlan};
use self::resolvers::Resolvers;
pub use self::router::RouterPlan;
use self::sysctls::sysctls;
use super::balance::{Choices, Method, Pick, Pool};
use super::diff::Desired;
use super::discover::{Found, discover};
use super::health::Health;
use super::layout::{BALANCED_TABLE, Base, MARK_MASK, Slot};
use super::net::{Family, Mark, PerFamily, UplinkName};
use super::nft::{ETHERNET_MTU, Ruleset, Translation};
use super::observed::{DefaultRoute, Observed};
use super::quota::{self, Usage};
use super::route::{Route, RouteKey};
use super::slots::Slots;
use super::tending::Tending;
use super::text::on_one_line;
use super::uplink::Uplink;
use crate::config::{AllDown, Config};

/// The outcome of a round of planning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// What should be in the kernel.
    pub desired: Desired,
    /// The uplinks that are present, by slot.
    pub uplinks: Vec<Uplink>,
    /// The uplinks that new flows use, by slot.
    pub active: PerFamily<Vec<Slot>>,
    /// The uplinks that new flows could as well use: no better one is there, whomever the method has chosen. By slot.
    pub ready: PerFamily<Vec<Slot>>,
    /// What is chosen for whom, the default route among them.
    pub picks: Picks,
    /// The families of uplinks whose resolvers nobody should ask now.
    pub idle_resolvers: BTreeSet<(Slot, Family)>,
    /// What is done for the hosts behind the machine.
    pub router: RouterPlan,
    /// What becomes of the traffic of each policy, in their order.
    pub policies: Vec<PolicyPlan>,
    /// After what time at the earliest the clock alone makes another plan; none where it never does.
    pub lasts: Option<Duration>,
    /// The memory of slots, brought up to date.
    pub slots: Slots,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Plans one round. `usages` tells what was used of quotas.
pub fn plan(
    config: &Config,
    observed: &Observed,
    slots: &Slots,
    health: &Health,
    choices: &Choices,
    usages: &BTreeMap<Slot, Usage>,
) -> Plan {
    let Found { uplinks, slots, mut notes } = discover(config, observed, slots, health, usages);
    let multihomed = slots.multihomed();
    let picks = policy::picks(config, &uplinks, choices);
    let usual = Pool::of_all(config.balance.method());
    let chosen = picks.get(&usual).cloned().unwrap_or_default();
    let active = PerFamily::from_fn(|family| chosen[family].active.clone());
    let ready = PerFamily::from_fn(|family| chosen[family].ready.clone());
    let shared = shared_addresses(&uplinks, observed);
    notes.extend(
        shared.iter().map(|ip| format!("{ip} is on two interfaces; sockets bound to it follow the default")),
    );

    let resolvers = Resolvers::of(&uplinks);
    let router = RouterPlan::new(config, observed, &uplinks, multihomed, &mut notes);
    let forwards = router.takes_part;
    // A choice among equals is no reason to move what has a way of its own.
    let in_use = PerFamily::from_fn(|f| [active[f].as_slice(), &ready[f]].concat());
    let sources = Sources::new(&uplinks, observed, &in_use.v6);
    let prefixes = PerFamily { v4: Vec::new(), v6: sources.kept(multihomed && forwards) };

    let mut desired = Desired::default();
    let groups = groups(config, observed, &router, &uplinks, &active, &choices.of(&usual), &mut notes);
    let policies = policy::policies(config, observed, &uplinks, &picks, &slots, &groups, &mut desired);
    let enforced = policy::enforced(config, &slots);
    for family in Family::BOTH {
        let mut part =
            FamilyPlan { family, uplinks: &uplinks, observed, desired: &mut desired, notes: &mut notes };
        part.tables();
        let base = part.rules(&shared);
        part.desired.rules.extend(policy::refusals(family, base, &enforced));
        part.sources(&prefixes[family]);
        if multihomed {
            part.detours(base, &active[family], &in_use[family], &shared);
            if !active[family].is_empty() {
                part.tell_who_leads();
            }
            part.balanced_default(&active[family], config.all_down);
            part.moves(&active[family], health, &policies, &shared);
            if !active[family].is_empty() || config.all_down != AllDown::Block {
                part.resolvers(&resolvers);
            }
        }
        part.extra_routes();
    }
    if multihomed {
        desired.sysctls = sysctls(&uplinks, observed);
        desired.unasked = resolvers.unasked(&uplinks, observed);
        desired.vacated = vacated(observed, health, &active);
    }
    desired.sysctls.extend(router.sysctls(&uplinks, observed));
    // A machine that does not forward does without, as long as a source address tells the uplink.
    let restore_own = multihomed && !shared.is_empty();
    // What a policy moves has the address of another uplink.
    let moves_own = multihomed && !policies.is_empty();
    let nat6 = if forwards { sources.translations(&mut notes) } else { local(&uplinks) };
    // A firewall alone marks and rewrites nothing.
    let led = if forwards || restore_own || moves_own { uplinks.as_slice() } else { &[] };
    let ruleset = Ruleset {
        groups,
        firewall: router.firewall(config, &uplinks),
        ..ruleset(led, &router, restore_own, nat6)
    };
    if !ruleset.is_idle() {
        desired.ruleset = Some(ruleset);
        desired.flows = flows(led, &shared);
    }
    fragments::fragments(config, observed, &slots, &uplinks, &mut desired, &mut notes);
    // The kernel would replace a foreign route of the same key.
    let is_foreign = |key: &RouteKey| {
        let same = |d: &DefaultRoute| {
            (d.family.default_prefix(), d.table, d.metric) == (key.dest, key.table, key.metric)
        };
        observed.defaults.iter().any(same)
    };
    desired.routes.retain(|route| !is_foreign(&route.key));
    clashes(observed, &mut notes);
    notes.extend(guesses(&picks, &uplinks));
    notes.extend(quota::none_left(&uplinks, &active, multihomed && config.all_down == AllDown::Block));
    notes.extend(config.notes.iter().cloned());
    notes.extend(policy::notes(config, observed, &slots));
    notes.extend(observed.networkd.as_ref().and_then(Tending::note));
    notes.extend(observed.unheard.iter().cloned());
    let notes = notes.iter().map(|note| on_one_line(note)).collect();
    let idle_resolvers = resolvers.idle;
    let lasts = policy::changes_after(config, observed.moment);
    Plan { desired, uplinks, active, ready, picks, idle_resolvers, router, policies, lasts, slots, notes }
}

/// Uplinks of which nobody says when they are full, though the method asks for it.
fn guesses(picks: &Picks, uplinks: &[Uplink]) -> impl Iterator<Item = String> {
    let overflow =
        |uplink: &&Uplink| picks.keys().any(|pool| pool.method == Method::Overflow && pool.has(&uplink.name));
    let asked = uplinks.iter().filter(overflow);
    asked.filter_map(|Uplink { name, capacity, .. }| {
        let (what, how) = match (capacity.down, capacity.up) {
            (Some(_), Some(_)) => return None,
            (None, None) => ("download and upload", ""),
            (None, Some(_)) => ("download", " by what it receives"),
            (Some(_), None) => ("upload", " by what it sends"),
        };
        Some(format!("{name}: without {what} it is never taken for full{how}"))
    })
}

/// Addresses of uplinks that another interface has as well: a rule by source could send them only one way. The other may
/// be a VPN's, whose address a hostile DHCP server is free to give out.
fn shared_addresses(uplinks: &[Uplink], observed: &Observed) -> BTreeSet<IpAddr> {
    let is_elsewhere = |uplink: &Uplink, ip: IpAddr| {
        observed.addresses.iter().any(|a| a.ip == ip && a.dev != uplink.dev.index)
    };
    let of = |u: &Uplink| -> Vec<IpAddr> {
        let own = Family::BOTH.iter().flat_map(|&f| &u.legs[f].addresses).map(IpNet::addr);
        own.filter(|ip| is_elsewhere(u, *ip)).collect()
    };
    uplinks.iter().flat_map(of).collect()
}

/// Addresses whose flows are to end: they are nowhere on this machine, and there is some other way out.
fn vacated(observed: &Observed, health: &Health, active: &PerFamily<Vec<Slot>>) -> BTreeSet<IpAddr> {
    let gone = |ip: &&IpAddr| {
        !active[Family::of(**ip)].is_empty() && !observed.addresses.iter().any(|a| a.ip == **ip)
    };
    health.vacated.iter().filter(gone).copied().collect()
}

/// What our nft table has to do.
fn ruleset(
    uplinks: &[Uplink],
    router: &RouterPlan,
    restore_own: bool,
    nat6: BTreeMap<Slot, Translation>,
) -> Ruleset {
    let present = uplinks;
    let uplinks = || present.iter().filter(|u| !u.leads_nowhere());
    let is_narrow = |u: &&Uplink| router.takes_part && u.mtu < ETHERNET_MTU;
    Ruleset {
        uplinks: uplinks().map(|u| (u.dev.name.clone(), u.slot)).collect(),
        narrow: uplinks().filter(is_narrow).map(|u| (u.dev.name.clone(), u.mtu)).collect(),
        restore_own,
        keep_private: !router.masquerade || !(router.takes_part || restore_own),
        nat6,
        forwards: router.doors(present),
        groups: Default::default(),
        firewall: None,
    }
}

/// What becomes of IPv6 sources where nothing is done for what is forwarded.
fn local(uplinks: &[Uplink]) -> BTreeMap<Slot, Translation> {
    uplinks.iter().map(|uplink| (uplink.slot, Translation::LOCAL)).collect()
}

/// The flows that belong to an uplink before our table marks any: those that use its address.
fn flows(uplinks: &[Uplink], shared: &BTreeSet<IpAddr>) -> Vec<(IpAddr, Mark)> {
    let of = |u: &Uplink| {
        let mark = u.slot.mark();
        let nets: Vec<IpNet> = Family::BOTH.iter().flat_map(|&f| u.legs[f].addresses.clone()).collect();
        nets.into_iter().map(move |net| (net.addr(), mark))
    };
    uplinks.iter().flat_map(of).filter(|(ip, _)| !shared.contains(ip)).collect()
}

/// Marks, tables and preferences of ours that somebody else uses.
fn clashes(observed: &Observed, notes: &mut Vec<String>) {
    for rule in &observed.foreign_rules {
        let ours =
            |(value, mask): (u32, u32)| value & MARK_MASK != 0 || (mask != u32::MAX && mask & MARK_MASK != 0);
        if rule.fwmark.is_some_and(ours) {
            notes.push(format!("foreign rule \"{}\" uses bits of our marks ({MARK_MASK:#010x})", rule.text));
        }
        if rule.table.is_some_and(|t| t == BALANCED_TABLE || Slot::of_table(t).is_some()) {
            notes.push(format!("foreign rule \"{}\" leads to a table of ours", rule.text));
        }
        if Base::USUAL.contains(rule.pref) {
            notes.push(format!("foreign rule \"{}\" stands among our preferences", rule.text));
        }
    }
    for table in &observed.foreign_tables {
        notes.push(format!("table {table} is ours, but somebody else has routes in it"));
    }
}

impl Plan {
    /// Whether the managers' own default routes are kept from being used, because no uplink leads out.
    pub fn blocks(&self, family: Family) -> bool {
        let dead_end =
            |route: &Route| route.key.table == BALANCED_TABLE && route.key.dest == family.default_prefix();
        self.desired.routes.iter().any(|route| dead_end(route) && route.hops.is_empty())
    }

    /// The uplinks that carry what is new and for no other policy: those of the one that is for all where there is one, else
    /// those of the default route.
    pub fn usual(&self, family: Family) -> &[Slot] {
        let for_all = self.policies.iter().find(|policy| policy.for_all);
        for_all.map_or(&self.active[family], |policy| &policy.picks[family].active)
    }

    /// Who gives flows to uplinks, and to which now.
    pub fn served(&self) -> impl Iterator<Item = Served> {
        let pick = |f| Pick { active: self.active[f].clone(), ready: self.ready[f].clone() };
        let usual = Served { customer: Customer::Usual, picks: PerFamily::from_fn(pick), failback: None };
        let policies = self.policies.iter().map(|policy| Served {
            customer: Customer::Policy(policy.name.clone()),
            picks: policy.picks.clone(),
            failback: policy.failback,
        });
        std::iter::once(usual).chain(policies)
    }

    /// The name of the uplink that has a slot.
    pub fn name_of(&self, slot: Slot) -> Option<&UplinkName> {
        self.uplinks.iter().find(|u| u.slot == slot).map(|u| &u.name)
    }
}
