//! The kernel's routing in memory, with the semantics of the real one (measured on 6.18).
//!
//! - A route is replaced by table, destination, type of service and metric, whoever made it; a rule is added exclusively.
//! - An interface that goes down, or loses its last IPv4 address, takes its single-path IPv4 routes along without a
//!   word; legs of multipath routes die and come back. A deleted one takes whole multipath routes along.
//! - A route needs an interface that is up, a gateway that is reached, and a source that is an address of ours.
//! - Foreign objects lie in the same store.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use uplinkd::core::change::Change;
use uplinkd::core::diff::Whose;
use uplinkd::core::layout::{BALANCED_TABLE, Base, Slot};
use uplinkd::core::net::{
    Device, Family, IfIndex, IfName, Mark, Metric, PerFamily, Pref, TableId, Tos, Weight,
};
use uplinkd::core::nft::{FragmentName, Generation, LoadedPolicies};
use uplinkd::core::observed::{Address, DefaultRoute, Kernel, Link, Neighbour, Observed, OtherRoute};
use uplinkd::core::policy::Moment;
use uplinkd::core::route::RouteKey;
use uplinkd::core::sysctl::Sysctl;

use super::fib::{FibLeg, FibRoute, FibRule};
use super::world::World;

/// A kernel, and the daemon's file of original settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) routes: Vec<FibRoute>,
    pub(crate) rules: Vec<FibRule>,
    pub(crate) forwards: PerFamily<bool>,
    pub(crate) sysctls: BTreeMap<Sysctl, String>,
    pub(crate) originals: BTreeMap<Sysctl, String>,
    pub(crate) ruleset: Option<Generation>,
    pub(crate) policies: Option<LoadedPolicies>,
    pub(crate) fragments: BTreeMap<FragmentName, Generation>,
    /// What nft has refused, as the daemon remembers it.
    pub(crate) refused: BTreeMap<FragmentName, (Generation, String)>,
    /// Whose flows were moved, as the daemon remembers it.
    pub(crate) moved: BTreeSet<(Slot, Family, Whose)>,
    /// Which links systemd-resolved asks.
    pub(crate) asked: BTreeMap<Device, bool>,
    /// Which of them it does not, by our doing.
    pub(crate) unasked: BTreeSet<IfIndex>,
    /// Addresses whose flows were ended, likewise.
    pub(crate) vacated: BTreeSet<IpAddr>,
    /// Flows that were adopted since the last load.
    pub(crate) adopted: Vec<(IpAddr, Mark)>,
}

impl Memory {
    /// A kernel that has seen this world alone.
    pub(crate) fn of(world: &World) -> Self {
        let mut kernel = Memory::default();
        kernel.become_world(world);
        kernel
    }

    /// Carries out one change.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<(), &'static str> {
        match change {
            Change::SetSysctl(key, value) => {
                let now = self.sysctls.get_mut(key).ok_or("ENOENT")?;
                if self.originals.get(key) == Some(value) {
                    self.originals.remove(key);
                } else {
                    self.originals.entry(key.clone()).or_insert_with(|| now.clone());
                }
                now.clone_from(value);
            }
            Change::LoadRuleset(ruleset) => {
                self.ruleset = Some(ruleset.generation());
                self.adopted.clear();
            }
            Change::AdoptFlows(ip, mark) => self.adopted.push((*ip, *mark)),
            Change::DropRuleset => self.ruleset = None,
            Change::LoadPolicies(table, _) => self.policies = Some(table.loaded()),
            Change::ClaimFlows(_) => {}
            Change::DropPolicies => self.policies = None,
            Change::LoadFragment(table, over) => {
                let before = self.fragments.insert(table.name().clone(), table.generation());
                return if before.is_some() == *over { Ok(()) } else { Err("EEXIST or ENOENT") };
            }
            Change::DropFragment(name) => drop(self.fragments.remove(name).ok_or("ENOENT")?),
            Change::MoveFlows(what) => drop(self.moved.insert(what.key())),
            Change::AskResolvers(dev, asked) => {
                *self.asked.get_mut(dev).ok_or("NoSuchLink")? = *asked;
                match asked {
                    true => self.unasked.remove(&dev.index),
                    false => self.unasked.insert(dev.index),
                };
            }
            Change::EndFlows(ip) => drop(self.vacated.insert(*ip)),
            Change::PutRoute(route) => return self.put(FibRoute::of(route)),
            Change::DelRoute(route) => {
                let ours = |r: &FibRoute| r.is_ours() && r.key == route.key;
                if let Some(at) = self.routes.iter().position(ours) {
                    self.routes.remove(at);
                }
            }
            Change::AddRule(rule) => {
                let rule = FibRule::of(rule);
                if !self.rules.contains(&rule) {
                    self.add_rule(rule);
                }
            }
            Change::DelRule(rule) => {
                let asked = FibRule::of(rule);
                if let Some(at) = self.rules.iter().position(|rule| answers(rule, &asked)) {
                    self.rules.remove(at);
                }
            }
        }
        Ok(())
    }

    /// `NLM_F_CREATE | NLM_F_REPLACE`.
    fn put(&mut self, route: FibRoute) -> Result<(), &'static str> {
        self.check(&route)?;
        match self.routes.iter_mut().find(|r| r.key == route.key) {
            Some(there) => *there = route,
            None => self.routes.push(route),
        }
        Ok(())
    }

    /// Whether the kernel would take a route (fib_check_nh, net/ipv4/fib_semantics.c; ip6_route_check_nh).
    pub(crate) fn check(&self, route: &FibRoute) -> Result<(), &'static str> {
        if route.family() == Family::V6 && route.key.metric == Metric(0) {
            return Err("0 is not a metric in IPv6");
        }
        if route.family() == Family::V6
            && route.legs.len() > 1
            && route.legs.iter().any(|leg| leg.via.is_none())
        {
            return Err("device only routes can not be added for IPv6 using the multipath API");
        }
        for leg in &route.legs {
            let link = self.links.iter().find(|link| link.index == leg.dev).ok_or("ENODEV")?;
            if !link.up {
                return Err("ENETDOWN");
            }
            let link_local = matches!(leg.via, Some(IpAddr::V6(ip)) if ip.is_unicast_link_local());
            if let Some(via) = leg.via.filter(|_| !leg.onlink && !link_local) {
                if !self.reaches(route.key.table, leg.dev, via) {
                    return Err("ENETUNREACH");
                }
            }
        }
        match route.src {
            Some(src) if !self.addresses.iter().any(|a| a.ip == src) => Err("EINVAL"),
            _ => Ok(()),
        }
    }

    /// A gateway is looked for in the route's own table, then by the rules, of which main's stands for all here.
    fn reaches(&self, table: TableId, dev: IfIndex, via: IpAddr) -> bool {
        let direct = |r: &FibRoute| {
            [table, TableId::MAIN].contains(&r.key.table)
                && r.key.dest.contains(&via)
                && matches!(r.legs.as_slice(), [leg] if leg.dev == dev && leg.via.is_none())
        };
        self.routes.iter().any(direct)
    }

    /// Behind all of the same preference, as the kernel does.
    fn add_rule(&mut self, rule: FibRule) {
        let at = self.rules.partition_point(|other| other.pref <= rule.pref);
        self.rules.insert(at, rule);
    }

    /// What is not ours.
    pub(crate) fn foreign(&self) -> (Vec<FibRoute>, Vec<FibRule>) {
        let routes = self.routes.iter().filter(|r| !r.is_ours()).cloned().collect();
        (routes, self.rules.iter().filter(|r| !r.is_ours()).cloned().collect())
    }

    /// The same kernel, had we never been there.
    pub(crate) fn without_ours(&self) -> Self {
        let (routes, rules) = self.foreign();
        Memory { routes, rules, ..self.clone() }
    }

    pub(crate) fn name(&self, index: IfIndex) -> Option<IfName> {
        self.links.iter().find(|link| link.index == index).map(|link| link.name.clone())
    }

    /// One look, as src/kernel/rtnl/view.rs takes it, together with what the managers of a world say.
    pub(crate) fn observe(&self, world: &World) -> Observed {
        let in_our_range = |t: TableId| t == BALANCED_TABLE || Slot::of_table(t).is_some();
        let foreign = || self.routes.iter().filter(|r| !r.is_ours());
        let default = |r: &FibRoute| DefaultRoute {
            family: r.family(),
            table: r.key.table,
            metric: r.key.metric,
            hops: r.legs.iter().map(|leg| (leg.dev, leg.via)).collect(),
        };
        let ordinary = || foreign().filter(|r| r.key.tos == Tos::ANY);
        let other = |r: &FibRoute| OtherRoute {
            dest: r.key.dest,
            hops: r.legs.iter().map(|leg| (leg.dev, leg.via)).collect(),
        };
        Observed {
            links: self.links.clone(),
            addresses: self.addresses.clone(),
            neighbours: self.neighbours.clone(),
            defaults: ordinary().filter(|r| r.key.dest.prefix_len() == 0).map(default).collect(),
            others: ordinary()
                .filter(|r| r.key.table == TableId::MAIN && OtherRoute::matters(r.key.dest, r.protocol))
                .map(other)
                .collect(),
            foreign_rules: self.rules.iter().filter(|r| !r.is_ours()).map(FibRule::to_foreign).collect(),
            foreign_tables: foreign().map(|r| r.key.table).filter(|t| in_our_range(*t)).collect(),
            forwards: self.forwards,
            kernel: Kernel {
                rules: (self.rules.iter())
                    .filter(|r| r.is_ours() && Base::is_ours(Pref(r.pref)))
                    .map(FibRule::to_rule)
                    .collect(),
                routes: (self.routes.iter())
                    .filter(|r| r.is_ours())
                    .filter_map(|r| r.to_route(|index| self.name(index)))
                    .collect(),
                ruleset: self.ruleset,
                policies: self.policies.clone(),
                fragments: self.fragments.clone(),
                refused: self.refused.clone(),
                sysctls: self.sysctls.clone(),
                originals: self.originals.clone(),
                moved: self.moved.clone(),
                asked: self.asked.clone(),
                unasked: self.unasked.clone(),
                vacated: self.vacated.clone(),
            },
            managed: world.managed.clone(),
            moment: world.time.map(Moment::of).unwrap_or_default(),
            offers: world.offers.clone(),
            networkd: world.networkd.clone(),
            cgroups: world.cgroups.clone(),
            unheard: world.unheard.clone(),
        }
    }
}

/// Whether a rule answers to a deletion: what the request leaves out can be anything (rule_find, fib_rules.c).
fn answers(rule: &FibRule, asked: &FibRule) -> bool {
    let same = |has: Option<u32>, want: Option<u32>| want.is_none() || has == want;
    rule.family == asked.family
        && (rule.pref, rule.protocol, rule.table) == (asked.pref, asked.protocol, asked.table)
        && same(rule.suppress, asked.suppress)
        && (asked.mark.is_none() || rule.mark == asked.mark)
        && (asked.from.is_none() || rule.from == asked.from)
        && (asked.to.is_none() || rule.to == asked.to)
        && (asked.oif.is_none() || rule.oif == asked.oif)
}

/// The route that the kernel makes for an address by itself.
pub(crate) fn connected(address: &Address) -> Option<FibRoute> {
    let far = address.peer.unwrap_or(address.ip);
    let dest = ipnet::IpNet::new(far, address.prefix_len).ok()?.trunc();
    let v6 = dest.addr().is_ipv6();
    let single = dest.prefix_len() == dest.max_prefix_len() && address.peer.is_none();
    let leg = FibLeg { dev: address.dev, via: None, onlink: false, weight: Weight::default(), dead: false };
    (!single && !address.secondary && !address.tentative).then(|| FibRoute {
        key: RouteKey { table: TableId::MAIN, dest, metric: Metric(if v6 { 256 } else { 0 }), tos: Tos::ANY },
        protocol: 2,
        src: (!v6).then_some(address.ip),
        legs: vec![leg],
    })
}
