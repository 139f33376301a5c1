//! What should be in the kernel, given what is and what the configuration wants.
//!
//! Total: what cannot be done becomes a note. The contract that it fulfils is the table in [`super::layout`]; why
//! the balanced default sits in main, and why none of our rules takes everything, is told in the crate's
//! documentation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::diff::{Desired, Move};
use super::discover::{Found, discover};
use super::health::Health;
use super::layout::{BALANCED_PREF, BALANCED_TABLE, BYPASS_PREF, Base, MARK_MASK, Slot};
use super::net::{Family, Metric, PerFamily, TableId, UplinkName};
use super::nft::Ruleset;
use super::observed::{DefaultRoute, Observed};
use super::route::{NextHop, Route, RouteKey};
use super::rule::{Rule, Selector};
use super::slots::Slots;
use super::sysctl::Sysctl;
use super::text::on_one_line;
use super::uplink::{Gateway, Leg, State, Uplink};
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
    /// The memory of slots, brought up to date.
    pub slots: Slots,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Plans one round.
pub fn plan(config: &Config, observed: &Observed, slots: &Slots, health: &Health) -> Plan {
    let Found { uplinks, slots, mut notes } = discover(config, observed, slots, health);
    let multihomed = slots.multihomed();
    let active = PerFamily::from_fn(|family| active(&uplinks, family));
    let shared = shared_addresses(&uplinks);
    notes.extend(
        shared
            .iter()
            .map(|ip| format!("{ip} is the address of two uplinks; sockets bound to it follow the default")),
    );

    let mut desired = Desired::default();
    for family in Family::BOTH {
        let mut part =
            FamilyPlan { family, uplinks: &uplinks, observed, desired: &mut desired, notes: &mut notes };
        part.tables();
        part.rules(&shared);
        if multihomed {
            part.balanced_default(&active[family], config.all_down);
            part.moves(&active[family], health, &shared);
        }
    }
    if multihomed {
        desired.sysctls = sysctls(&uplinks, observed);
        if observed.forwards.v4 || observed.forwards.v6 {
            let marked = uplinks.iter().map(|u| (u.dev.name.clone(), u.slot)).collect();
            let masquerade_global = uplinks.iter().filter(|u| u.legs.v6.configured()).count() > 1;
            desired.ruleset =
                Some(Ruleset { uplinks: marked, masquerade_global }).filter(|r| !r.uplinks.is_empty());
            desired.flows = flows(&uplinks, &shared);
        }
    }
    // The kernel would replace a foreign route of the same key.
    let is_foreign = |key: &RouteKey| {
        let same = |d: &DefaultRoute| {
            (d.family.default_prefix(), d.table, d.metric) == (key.dest, key.table, key.metric)
        };
        observed.defaults.iter().any(same)
    };
    desired.routes.retain(|route| !is_foreign(&route.key));
    clashes(observed, &mut notes);
    notes.extend(observed.unheard.iter().cloned());
    let notes = notes.iter().map(|note| on_one_line(note)).collect();
    Plan { desired, uplinks, active, slots, notes }
}

/// The uplinks that are as good as any, of the best tier among those.
fn active(uplinks: &[Uplink], family: Family) -> Vec<Slot> {
    let rank = |u: &Uplink| u.rank(family).filter(|_| !u.legs[family].twin);
    let best = uplinks.iter().filter_map(rank).min();
    uplinks.iter().filter(|u| best.is_some() && rank(u) == best).map(|u| u.slot).collect()
}

/// Addresses that more than one uplink has: a rule by source could send them only one way.
fn shared_addresses(uplinks: &[Uplink]) -> BTreeSet<IpAddr> {
    let mut seen = BTreeSet::new();
    let of = |u: &Uplink| -> BTreeSet<IpAddr> {
        Family::BOTH.iter().flat_map(|&f| &u.legs[f].addresses).map(|net| net.addr()).collect()
    };
    uplinks.iter().flat_map(of).filter(|ip| !seen.insert(*ip)).collect()
}

/// The flows that belong to an uplink before our table marks any: those that use its address.
fn flows(uplinks: &[Uplink], shared: &BTreeSet<IpAddr>) -> Vec<(IpAddr, super::net::Mark)> {
    let of = |u: &Uplink| {
        let mark = u.slot.mark();
        let nets: Vec<IpNet> = Family::BOTH.iter().flat_map(|&f| u.legs[f].addresses.clone()).collect();
        nets.into_iter().map(move |net| (net.addr(), mark))
    };
    uplinks.iter().flat_map(of).filter(|(ip, _)| !shared.contains(ip)).collect()
}

/// What is planned for one family; the families never look at each other.
struct FamilyPlan<'a> {
    family: Family,
    uplinks: &'a [Uplink],
    observed: &'a Observed,
    desired: &'a mut Desired,
    notes: &'a mut Vec<String>,
}

impl FamilyPlan<'_> {
    fn configured(&self) -> impl Iterator<Item = (&Uplink, &Leg)> {
        self.uplinks.iter().map(|u| (u, &u.legs[self.family])).filter(|(_, leg)| leg.configured())
    }

    /// One table an uplink: its default, and what is reached on its link. It stands without a carrier too, so that
    /// the carrier's return needs nobody.
    fn tables(&mut self) {
        let family = self.family;
        let mut routes = Vec::new();
        for (uplink, leg) in self.configured().filter(|(_, leg)| leg.takes_routes) {
            let table = uplink.slot.table();
            let metric = usual_metric(family);
            let hop =
                |via, onlink| NextHop { dev: uplink.dev.clone(), via, onlink, weight: Default::default() };
            let Some(hop_out) = next_hop(uplink, leg) else { continue };
            let src = leg.source().filter(IpAddr::is_ipv4);
            let dest = family.default_prefix();
            routes.push(Route { key: RouteKey { table, dest, metric }, src, hops: vec![hop_out] });
            for &(dest, src) in &leg.connected {
                routes.push(Route {
                    key: RouteKey { table, dest, metric },
                    src,
                    hops: vec![hop(None, false)],
                });
            }
        }
        self.desired.routes.extend(routes);
    }

    /// The block of rules, ahead of any foreign rule that takes everything. None of ours does, so this takes
    /// nothing from a VPN; it keeps replies and pinned flows on their uplink whoever started first.
    fn rules(&mut self, shared: &BTreeSet<IpAddr>) {
        let family = self.family;
        let base = self.base();
        let rule = |pref, selector, table| Rule { family, pref, selector, table, suppress_prefixlen: None };
        // Where none gets through, nobody knows better than whoever chose the address.
        let all_lost = !self.configured().any(|(_, leg)| leg.reachable());
        let mut rules = Vec::new();
        for (uplink, leg) in self.configured() {
            let (slot, table) = (uplink.slot, uplink.slot.table());
            rules.push(rule(base.mark(slot), Selector::Mark(slot.mark()), table));
            rules.push(rule(base.device(slot), Selector::Oif(uplink.dev.name.clone()), table));
            // Only while it leads out, so that programs with a cached source address leave a dead uplink.
            if leg.reachable() || (all_lost && leg.link) {
                let own = leg.addresses.iter().map(|net| net.addr()).filter(|ip| !shared.contains(ip));
                rules.extend(own.map(|ip| rule(base.from_address(slot), Selector::From(ip), table)));
            }
        }
        if !rules.is_empty() {
            // With 0 instead of 1, inbound replies and running flows die when OpenVPN adds its two /1 routes, and
            // `wg-quick down` deletes the rule.
            let main = rule(base.main(), Selector::All, TableId::MAIN);
            rules.push(Rule { suppress_prefixlen: Some(1), ..main });
        }
        self.desired.rules.extend(rules);
    }

    /// Where our block begins.
    fn base(&mut self) -> Base {
        let walls = self.observed.foreign_rules.iter().filter(|r| r.family == self.family && r.catch_all);
        let Some(wall) = walls.min_by_key(|r| r.pref) else { return Base::USUAL };
        let room = Base::candidates().find(|base| base.is_ahead_of(wall.pref));
        room.unwrap_or_else(|| {
            self.notes.push(format!(
                "{}: foreign rule \"{}\" takes everything ahead of ours; pinned flows and replies may leave by it",
                self.family, wall.text
            ));
            Base::USUAL
        })
    }

    /// The one multipath default over the active uplinks.
    ///
    /// In main with a metric one better than the best of the uplinks' own, so that whatever beats those keeps
    /// beating ours. Where no metric is free there, or nothing is to leave, in a table of its own directly ahead of
    /// main, for as long as main's own best default leads out of an uplink.
    fn balanced_default(&mut self, active: &[Slot], all_down: AllDown) {
        let family = self.family;
        let legs = self.uplinks.iter().filter(|u| active.contains(&u.slot));
        let hops: Vec<_> = legs
            .filter_map(|u| Some(NextHop { weight: u.weight, ..next_hop(u, &u.legs[family])? }))
            .collect();
        let blocked = hops.is_empty();
        let hops = match hops.as_slice() {
            // No legs: nothing leaves by a default route at all.
            [] if all_down == AllDown::Block && self.configured().next().is_some() => hops,
            [] => return,
            // The kernel keeps no weight for a single leg.
            [only] => vec![NextHop { weight: Default::default(), ..only.clone() }],
            _ => hops,
        };
        let dest = family.default_prefix();
        let route = |table, metric| Route { key: RouteKey { table, dest, metric }, src: None, hops };
        // Our first rule asks main, and a refusal there is not suppressed: it would hit what is bound to an uplink, the
        // probes that find out when it is back among it, and every VPN whose rule comes later.
        match self.free_metric().filter(|_| !blocked) {
            Some(metric) => {
                self.desired.routes.insert(route(TableId::MAIN, metric));
            }
            None if self.main_leads_out() => {
                self.desired.routes.insert(route(BALANCED_TABLE, usual_metric(family)));
                self.desired.rules.extend(bypass_rules(family));
            }
            // Somebody else's default stands in for the uplinks, or there is none to be blocked.
            None if blocked => {}
            None => self
                .notes
                .push(format!("{family}: main's own default does not lead out of an uplink; it stands")),
        }
    }

    /// Whose running flows should be somewhere else: only where there is somewhere.
    fn moves(&mut self, active: &[Slot], health: &Health, shared: &BTreeSet<IpAddr>) {
        let family = self.family;
        let lost = |leg: &Leg| leg.link && matches!(leg.state, State::Down | State::Portal);
        let leaves = |slot: Slot, leg: &Leg| lost(leg) || health.leaving.contains(&(slot, family));
        // What is near goes on: a client on the LAN, or a container, that speaks to this very address.
        let near: Vec<IpNet> = self.near().collect();
        let elsewhere = |uplink: &Uplink, ip: &IpAddr| {
            self.observed.addresses.iter().any(|a| a.ip == *ip && a.dev != uplink.dev.index)
        };
        let moves = self.configured().filter(|(u, leg)| !active.contains(&u.slot) && leaves(u.slot, leg));
        let moves: Vec<_> = moves
            .map(|(uplink, leg)| Move {
                family,
                slot: uplink.slot,
                addresses: leg
                    .addresses
                    .iter()
                    .map(IpNet::addr)
                    .filter(|ip| !shared.contains(ip) && !elsewhere(uplink, ip))
                    .collect(),
                connected: near.clone(),
            })
            .collect();
        if !active.is_empty() {
            self.desired.moves.extend(moves);
        }
    }

    /// The prefixes that are on some link of this machine.
    fn near(&self) -> impl Iterator<Item = IpNet> {
        let own = self.observed.addresses.iter().filter(|a| Family::of(a.ip) == self.family);
        let nets: BTreeSet<IpNet> = own
            .filter_map(|a| IpNet::new(a.peer.unwrap_or(a.ip), a.prefix_len).ok())
            .map(|net| net.trunc())
            .collect();
        nets.into_iter()
    }

    /// Foreign default routes in main, best first.
    fn main_defaults(&self) -> Vec<&DefaultRoute> {
        let foreign = self.observed.defaults.iter();
        let mut found: Vec<_> =
            foreign.filter(|d| d.family == self.family && d.table == TableId::MAIN).collect();
        found.sort_by_key(|d| d.metric);
        found
    }

    /// The metric for our default in main; none where there is no room.
    fn free_metric(&self) -> Option<Metric> {
        let taken = self.main_defaults();
        let is_taken = |metric: &Metric| taken.iter().any(|d| d.metric == *metric);
        match self.configured().filter_map(|(_, leg)| leg.metric).min() {
            // Of two with one metric the earlier is in force: where somebody else's is among them, ours stays out.
            Some(best) if taken.iter().any(|d| d.metric == best && !self.leads_out(d)) => None,
            Some(best) => best.0.checked_sub(1).filter(|m| *m > 0).map(Metric).filter(|m| !is_taken(m)),
            // No uplink has a default of its own, so ours gives way to anybody's.
            None => {
                let behind = taken.last().map_or(Some(0), |worst| worst.metric.0.checked_add(1))?;
                Some(Metric(behind.max(NO_DEFAULT_OF_ITS_OWN)))
            }
        }
    }

    /// Whether every leg of a default is an uplink's.
    fn leads_out(&self, default: &DefaultRoute) -> bool {
        let ours = |dev| self.configured().any(|(u, _)| u.dev.index == dev);
        !default.hops.is_empty() && default.hops.iter().all(|&(dev, _)| ours(dev))
    }

    /// Whether the default that is in force in main is an uplink's.
    fn main_leads_out(&self) -> bool {
        let defaults = self.main_defaults();
        let Some(best) = defaults.first() else { return false };
        defaults.iter().take_while(|d| d.metric == best.metric).all(|d| self.leads_out(d))
    }
}

/// The metric of our default where no uplink has one of its own: behind every manager's usual ones.
const NO_DEFAULT_OF_ITS_OWN: u32 = 20_000;

/// What the kernel itself would give a route: 1024 in IPv6 (`IP6_RT_PRIO_USER`, net/ip6_route.h), 0 in IPv4.
fn usual_metric(family: Family) -> Metric {
    match family {
        Family::V4 => Metric(0),
        Family::V6 => Metric(1024),
    }
}

/// The rule to the balanced table, and ahead of it those that let the two /1 routes of a VPN in main win.
///
/// The latter are two, with a destination each, because `wg-quick down` deletes every rule that reads
/// `from all lookup main suppress_prefixlength 0`.
fn bypass_rules(family: Family) -> Vec<Rule> {
    let rule = |pref, selector, table, suppress_prefixlen| Rule {
        family,
        pref,
        selector,
        table,
        suppress_prefixlen,
    };
    let halves = family.default_prefix().subnets(1).into_iter().flatten();
    let mut rules: Vec<_> =
        halves.map(|half| rule(BYPASS_PREF, Selector::To(half), TableId::MAIN, Some(0))).collect();
    rules.push(rule(BALANCED_PREF, Selector::All, BALANCED_TABLE, None));
    rules
}

/// The way out of an uplink as a leg of a route.
fn next_hop(uplink: &Uplink, leg: &Leg) -> Option<NextHop> {
    let via = leg.gateway.map(Gateway::ip)?;
    // A link-local IPv6 gateway is always on the link.
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let on_link = |ip: IpAddr| link_local(ip) || leg.connected.iter().any(|(net, _)| net.contains(&ip));
    let onlink = via.is_some_and(|ip| !on_link(ip));
    Some(NextHop { dev: uplink.dev.clone(), via, onlink, weight: Default::default() })
}

/// Settings, each only if needed: what it was before we first wrote it decides.
fn sysctls(uplinks: &[Uplink], observed: &Observed) -> BTreeMap<Sysctl, String> {
    let kernel = &observed.kernel;
    let value = |key: &Sysctl| {
        let text = kernel.originals.get(key).or(kernel.sysctls.get(key))?;
        text.trim().parse::<u32>().ok()
    };
    let mut wanted = BTreeMap::new();
    let everywhere = value(&Sysctl::rp_filter_of_all()).unwrap_or(0);
    for uplink in uplinks {
        let name = &uplink.dev.name;
        // A packet may come back by an uplink that the balanced default does not use just then; 2 checks only
        // that its sender can be reached at all. The kernel takes the higher of "all" and the interface's own.
        let rp_filter = Sysctl::RpFilter(name.clone());
        if value(&rp_filter).is_some_and(|own| own.max(everywhere) == 1) {
            wanted.insert(rp_filter, "2".to_owned());
        }
        for family in Family::BOTH {
            // It counts only if set before the carrier goes.
            wanted.insert(Sysctl::IgnoreLinkdown(family, name.clone()), "1".to_owned());
        }
    }
    for family in Family::BOTH {
        // By addresses alone, one busy server would be reached by one uplink only.
        let policy = Sysctl::HashPolicy(family);
        if value(&policy) == Some(0) {
            wanted.insert(policy, "1".to_owned());
        }
    }
    wanted
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
    /// The name of the uplink that has a slot.
    pub fn name_of(&self, slot: Slot) -> Option<&UplinkName> {
        self.uplinks.iter().find(|u| u.slot == slot).map(|u| &u.name)
    }
}
