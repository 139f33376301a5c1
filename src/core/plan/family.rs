//! What is planned for one family: the uplinks' tables, the block of rules, the balanced default, whose flows move.
//!
//! Knows nothing of the other family, of nftables and of sysctls.

mod extra;
mod resolvers;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Customer, Desired, Health, Observed, PolicyPlan};
use crate::config::AllDown;
use crate::core::diff::{Move, Whose};
use crate::core::layout::{
    BALANCED_PREF, BALANCED_TABLE, BYPASS_PREF, Base, MAIN_PREF, SIGNPOST_TOS, SOURCES_PREF, Slot,
};
use crate::core::net::{Family, IfIndex, Metric, TableId};
use crate::core::observed::{DefaultRoute, ForeignRule};
use crate::core::route::{NextHop, Route, RouteKey};
use crate::core::rule::{Rule, Selector};
use crate::core::uplink::{Leg, State, Uplink};

/// What is planned for one family; the families never look at each other.
pub(super) struct FamilyPlan<'a> {
    pub(super) family: Family,
    pub(super) uplinks: &'a [Uplink],
    pub(super) observed: &'a Observed,
    pub(super) desired: &'a mut Desired,
    pub(super) notes: &'a mut Vec<String>,
}

impl<'a> FamilyPlan<'a> {
    pub(super) fn configured(&self) -> impl Iterator<Item = (&Uplink, &Leg)> {
        self.uplinks.iter().map(|u| (u, &u.legs[self.family])).filter(|(_, leg)| leg.configured())
    }

    /// One table an uplink: its default, and what is reached on its link. It stands without a carrier too, so that
    /// the carrier's return needs nobody.
    pub(super) fn tables(&mut self) {
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
            let key = |dest| RouteKey::new(table, dest, metric);
            routes.push(Route { key: key(dest), src, hops: vec![hop_out] });
            for &(dest, src) in &leg.connected {
                routes.push(Route { key: key(dest), src, hops: vec![hop(None, false)] });
            }
        }
        self.desired.routes.extend(routes);
    }

    /// The block of rules, ahead of any foreign rule that takes everything. None of ours does, so this takes
    /// nothing from a VPN; it keeps replies and pinned flows on their uplink whoever started first.
    ///
    /// Returns where it begins.
    pub(super) fn rules(&mut self, shared: &BTreeSet<IpAddr>) -> Base {
        let family = self.family;
        let walled = self.wall().is_some();
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
                rules.extend(own.map(|ip| rule(base.from_address(slot), Selector::From(ip.into()), table)));
            }
        }
        // With 0 instead of 1, inbound replies and running flows die when OpenVPN adds its two /1 routes, and
        // `wg-quick down` deletes the rule.
        let to_main = |selector: &Selector| Rule {
            suppress_prefixlen: Some(family.covering_len().into()),
            ..rule(base.main(), selector.clone(), TableId::MAIN)
        };
        // Where somebody has a rule that takes everything, what is not ours goes there as if we were not.
        let ours = rules.iter().map(|rule| &rule.selector).filter(|s| !matches!(s, Selector::Oif(_)));
        let main: Vec<_> = match walled {
            true => ours.map(to_main).collect(),
            false => rules.first().map(|_| to_main(&Selector::All)).into_iter().collect(),
        };
        self.desired.rules.extend(rules.into_iter().chain(main));
        base
    }

    /// What comes from prefixes that are delegated by an uplink leaves by it, unless a VPN takes it.
    pub(super) fn sources(&mut self, prefixes: &[(Slot, IpNet)]) {
        let ahead_of_a_wall = self.wall().is_some_and(|wall| wall.pref >= SOURCES_PREF);
        let taken = ahead_of_a_wall || self.a_stranger_leads() || self.is_covered_in_part();
        if prefixes.is_empty() || taken {
            return;
        }
        let rules = prefixes.iter().map(|(slot, net)| Rule {
            family: self.family,
            pref: SOURCES_PREF,
            selector: Selector::From(*net),
            table: slot.table(),
            suppress_prefixlen: None,
        });
        self.desired.rules.extend(rules);
        self.desired.rules.extend(bypass_rules(self.family));
    }

    /// The first rule that takes everything ahead of main's own.
    fn wall(&self) -> Option<&'a ForeignRule> {
        let of_family = self.observed.foreign_rules.iter().filter(|r| r.family == self.family);
        let walls = of_family.filter(|r| r.catch_all && r.pref < MAIN_PREF);
        walls.min_by_key(|r| r.pref)
    }

    /// Where our block begins.
    fn base(&mut self) -> Base {
        let Some(wall) = self.wall() else { return Base::USUAL };
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
    pub(super) fn balanced_default(&mut self, active: &[Slot], all_down: AllDown) {
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
            _ if family == Family::V6 => hops.into_iter().map(with_gateway).collect(),
            _ => hops,
        };
        let dest = family.default_prefix();
        let route = |table, metric| Route { key: RouteKey::new(table, dest, metric), src: None, hops };
        // Our first rule asks main, and a refusal there is not suppressed: it would hit what is bound to an uplink, the
        // probes that find out when it is back among it, and every VPN whose rule comes later.
        match self.free_metric().filter(|_| !blocked) {
            Some(metric) => {
                let balanced = route(TableId::MAIN, metric);
                let signpost = self.signpost(active, &balanced);
                self.desired.routes.extend(signpost);
                self.desired.routes.insert(balanced);
            }
            None if self.main_leads_out() => {
                self.desired.routes.insert(route(BALANCED_TABLE, usual_metric(family)));
                self.desired.rules.extend(balanced_rules(family));
            }
            // Somebody else's default stands in for the uplinks, or there is none to be blocked.
            None => {}
        }
    }

    /// Says what takes new flows ahead of the uplinks, as a VPN does.
    pub(super) fn tell_who_leads(&mut self) {
        let who = match self.wall().filter(|wall| wall.table != Some(TableId::MAIN)) {
            Some(wall) => format!("the rule \"{}\"", wall.text),
            None if self.is_covered_in_part() => "a route to a large part of all addresses".to_owned(),
            None if self.a_stranger_leads() => "main's own default, which is no uplink's,".to_owned(),
            None => return,
        };
        self.notes.push(format!(
            "{}: {who} comes ahead of the uplinks for what is new, as a VPN's does",
            self.family
        ));
    }

    /// A default of one leg ahead of the balanced one, for packets that nobody sends.
    ///
    /// OpenVPN (2.6.14, `sitnl_route_save`) takes the first default of main for the one in force, and gives up where it
    /// names no interface, as one of several legs does: then `redirect-gateway` redirects nothing. IPv6 it asks otherwise.
    fn signpost(&self, active: &[Slot], balanced: &Route) -> Option<Route> {
        if self.family == Family::V6 || balanced.hops.len() < 2 || self.a_stranger_leads() {
            return None;
        }
        let best = self.best(active)?;
        let hop = balanced.hops.iter().find(|hop| hop.dev == best.dev)?;
        let key = RouteKey { tos: SIGNPOST_TOS, ..balanced.key.clone() };
        Some(Route { key, src: None, hops: vec![NextHop { weight: Default::default(), ..hop.clone() }] })
    }

    /// The uplink among these whose own default is the best.
    pub(super) fn best(&self, active: &[Slot]) -> Option<&Uplink> {
        let those = self.uplinks.iter().filter(|u| active.contains(&u.slot));
        those.min_by_key(|u| {
            let metric = u.legs[self.family].metric;
            (metric.is_none(), metric, u.slot)
        })
    }

    /// Whose running flows should be somewhere else: only where there is somewhere.
    pub(super) fn moves(
        &mut self,
        active: &[Slot],
        health: &Health,
        policies: &[PolicyPlan],
        shared: &BTreeSet<IpAddr>,
    ) {
        let family = self.family;
        let lost = |leg: &Leg| leg.link && matches!(leg.state, State::Down | State::Portal | State::Capped);
        let leaves = |whose: Customer, slot: Slot| health.leaving.contains(&(whose, slot, family));
        let elsewhere = |active: &[Slot], slot: Slot| !active.is_empty() && !active.contains(&slot);
        // What is near goes on: a client on the LAN, or a container, that speaks to this very address.
        let near = near(self.observed, family);
        let mut moves = Vec::new();
        for (uplink, leg) in self.configured() {
            let slot = uplink.slot;
            let mut whose = Vec::new();
            if elsewhere(active, slot) {
                if lost(leg)
                    || leaves(Customer::All, slot)
                    || policies.is_empty() && leaves(Customer::Usual, slot)
                {
                    whose.push(Whose::All);
                } else if leaves(Customer::Usual, slot) {
                    whose.push(Whose::Usual(policies.iter().map(|policy| policy.name.clone()).collect()));
                }
            }
            if whose != [Whose::All] {
                let gone = policies.iter().filter(|policy| {
                    elsewhere(&policy.picks[family].active, slot)
                        && leaves(Customer::Policy(policy.name.clone()), slot)
                });
                whose.extend(gone.map(|policy| Whose::Policy(policy.name.clone())));
            }
            moves.extend(whose.into_iter().map(|whose| Move {
                family,
                slot,
                whose,
                addresses: leg.addresses.iter().map(IpNet::addr).filter(|ip| !shared.contains(ip)).collect(),
                connected: near.clone(),
            }));
        }
        self.desired.moves.extend(moves);
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
            Some(best) if taken.iter().any(|d| d.metric == best && !self.leads_out(&d.hops)) => None,
            Some(best) => best.0.checked_sub(1).filter(|m| *m > 0).map(Metric).filter(|m| !is_taken(m)),
            // No uplink has a default of its own, so ours gives way to anybody's.
            None => {
                let behind = taken.last().map_or(Some(0), |worst| worst.metric.0.checked_add(1))?;
                Some(Metric(behind.max(NO_DEFAULT_OF_ITS_OWN)))
            }
        }
    }

    /// Whether every leg of a route is an uplink's. It may have no address yet, which makes its default nobody else's.
    pub(super) fn leads_out(&self, hops: &[(IfIndex, Option<IpAddr>)]) -> bool {
        let ours = |dev| self.uplinks.iter().any(|u| u.dev.index == dev);
        !hops.is_empty() && hops.iter().all(|&(dev, _)| ours(dev))
    }

    /// Whether there is a default in main, and the one in force is no uplink's.
    pub(super) fn a_stranger_leads(&self) -> bool {
        !self.main_defaults().is_empty() && !self.main_leads_out()
    }

    /// Whether the default that is in force in main is an uplink's.
    fn main_leads_out(&self) -> bool {
        let defaults = self.main_defaults();
        let Some(best) = defaults.first() else { return false };
        defaults.iter().take_while(|d| d.metric == best.metric).all(|d| self.leads_out(&d.hops))
    }
}

/// The prefixes that are on some link of this machine.
pub(super) fn near(observed: &Observed, family: Family) -> Vec<IpNet> {
    // A length of 0, which a DHCP server may send, is no network on the link.
    let own = observed.addresses.iter().filter(|a| Family::of(a.ip) == family && a.prefix_len > 0);
    let nets: BTreeSet<IpNet> = own
        .filter_map(|a| IpNet::new(a.peer.unwrap_or(a.ip), a.prefix_len).ok())
        .map(|net| net.trunc())
        .collect();
    Vec::from_iter(nets)
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

/// The rules ahead of what is asked directly before main: they let the two /1 routes of a VPN in main win.
///
/// They are two, with a destination each, because `wg-quick down` deletes every rule that reads
/// `from all lookup main suppress_prefixlength 0`.
fn bypass_rules(family: Family) -> impl Iterator<Item = Rule> {
    let halves = family.default_prefix().subnets(1).into_iter().flatten();
    halves.map(move |half| Rule {
        family,
        pref: BYPASS_PREF,
        selector: Selector::To(half),
        table: TableId::MAIN,
        suppress_prefixlen: Some(0),
    })
}

/// The rule to the balanced table, with what belongs ahead of it.
fn balanced_rules(family: Family) -> impl Iterator<Item = Rule> {
    let balanced = Rule {
        family,
        pref: BALANCED_PREF,
        selector: Selector::All,
        table: BALANCED_TABLE,
        suppress_prefixlen: None,
    };
    bypass_rules(family).chain([balanced])
}

/// A leg with a gateway, whatever it is, for one of several legs: the kernel takes none of a mere device in IPv6
/// (`ip6_route_multipath_add`, net/ipv6/route.c). A link with one other end asks nobody for a hardware address, and sends
/// to that end what has any gateway of the link.
fn with_gateway(hop: NextHop) -> NextHop {
    const OTHER_END: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xffff);
    NextHop { via: hop.via.or(Some(IpAddr::V6(OTHER_END))), ..hop }
}

/// The way out of an uplink as a leg of a route.
fn next_hop(uplink: &Uplink, leg: &Leg) -> Option<NextHop> {
    leg.gateway.map(|gateway| hop_by(uplink, leg, gateway.ip()))
}

/// A leg by a router on the link of an uplink, or by the link alone.
fn hop_by(uplink: &Uplink, leg: &Leg, via: Option<IpAddr>) -> NextHop {
    // A link-local IPv6 gateway is always on the link.
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let on_link = |ip: IpAddr| link_local(ip) || leg.connected.iter().any(|(net, _)| net.contains(&ip));
    let onlink = via.is_some_and(|ip| !on_link(ip));
    NextHop { dev: uplink.dev.clone(), via, onlink, weight: Default::default() }
}
