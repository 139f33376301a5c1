//! From one world to the next, as the kernel lives through it: what it flushes, it flushes without a word.

use std::collections::BTreeMap;

use uplinkd::core::net::{Device, Family, IfIndex, IfName};
use uplinkd::core::observed::Link;
use uplinkd::core::sysctl::Sysctl;

use super::fib::{FibRoute, FibRule};
use super::kernel::{Memory, connected};
use super::world::World;

impl Memory {
    /// Everything foreign becomes that of another world; ours suffers what the kernel does meanwhile.
    pub(crate) fn become_world(&mut self, world: &World) {
        let gone = |new: &[Link], old: &Link| !new.iter().any(|link| link.index == old.index);
        for link in self.links.clone().iter().filter(|old| gone(&world.links, old)) {
            self.delete_device(link.index);
        }
        let renamed: Vec<(IfName, IfName)> = (self.links.iter())
            .filter_map(|old| Some((old.name.clone(), world.name(old.index)?)))
            .filter(|(old, new)| old != new)
            .collect();
        self.sysctls = moved(&self.sysctls, &renamed);
        self.links.clone_from(&world.links);
        self.settings_of(world);
        self.resolved_of(world);

        for address in self.addresses.clone().iter().filter(|a| !world.addresses.contains(a)) {
            // A route with the address as its source goes too (fib_sync_down_addr).
            self.routes.retain(|r| r.src != Some(address.ip) || r.key.dest.addr().is_ipv6());
        }
        self.addresses.clone_from(&world.addresses);
        self.neighbours.clone_from(&world.neighbours);
        self.forwards = world.forwards;
        for link in &world.links {
            let v4 = self.addresses.iter().any(|a| a.dev == link.index && a.ip.is_ipv4());
            self.set_alive(Family::V4, link.index, link.up && v4);
            self.set_alive(Family::V6, link.index, link.up);
        }
        self.replace_foreign_routes(world);
        self.replace_foreign_rules(world);
    }

    fn delete_device(&mut self, index: IfIndex) {
        self.routes.retain(|r| !r.legs.iter().any(|leg| leg.dev == index));
        self.addresses.retain(|a| a.dev != index);
    }

    /// An interface that cannot carry a family takes single-path routes along; legs of others die and return.
    fn set_alive(&mut self, family: Family, index: IfIndex, alive: bool) {
        for route in self.routes.iter_mut().filter(|r| r.family() == family) {
            let legs = route.legs.iter_mut().filter(|leg| leg.dev == index);
            legs.for_each(|leg| leg.dead = !alive);
        }
        self.routes.retain(|r| r.legs.is_empty() || r.legs.iter().any(|leg| !leg.dead));
    }

    /// What resolved was told of a link stays with it.
    fn resolved_of(&mut self, world: &World) {
        let old = std::mem::take(&mut self.asked);
        for link in &world.links {
            let known = old.iter().find(|(dev, _)| dev.index == link.index).map(|(_, asked)| *asked);
            if let Some(&fresh) = world.asked.get(&link.index) {
                let dev = Device { index: link.index, name: link.name.clone() };
                self.asked.insert(dev, known.unwrap_or(fresh));
            }
        }
        // As src/world/resolvers.rs forgets.
        let off = |index: &IfIndex| self.asked.iter().any(|(dev, asked)| dev.index == *index && !asked);
        self.unasked.retain(off);
    }

    /// Every setting that we may write exists, and is 0 unless the world says otherwise.
    fn settings_of(&mut self, world: &World) {
        let mut there = vec![Sysctl::rp_filter_of_all()];
        there.extend(Family::BOTH.into_iter().flat_map(|f| [Sysctl::HashPolicy(f), Sysctl::Forwarding(f)]));
        for link in &world.links {
            there.extend([Sysctl::RpFilter(link.name.clone()), Sysctl::AcceptRa(link.name.clone())]);
            there.extend(Family::BOTH.map(|family| Sysctl::IgnoreLinkdown(family, link.name.clone())));
        }
        let old = std::mem::take(&mut self.sysctls);
        for key in there {
            let usual = match key {
                Sysctl::Forwarding(family) if world.forwards[family] => "1",
                _ => "0",
            };
            let fresh = world.sysctls.get(&key).cloned().unwrap_or_else(|| usual.to_owned());
            let value = old.get(&key).cloned().unwrap_or(fresh);
            self.sysctls.insert(key, value);
        }
    }

    /// Their routes are put with `replace`: one of ours with the same key becomes theirs.
    fn replace_foreign_routes(&mut self, world: &World) {
        let kernels = world.addresses.iter().filter_map(connected);
        let up = |r: &FibRoute| world.links.iter().any(|l| l.index == r.legs[0].dev && l.up);
        let mut foreign: Vec<FibRoute> = Vec::new();
        for route in kernels.filter(up) {
            // The second address of a prefix makes no second route.
            if !foreign.iter().any(|r| r.key == route.key && r.legs == route.legs) {
                foreign.push(route);
            }
        }
        let mut ours: Vec<_> = self.routes.iter().filter(|r| r.is_ours()).cloned().collect();
        self.routes.clone_from(&foreign);
        for route in &world.routes {
            let refused = self.check(route);
            assert_eq!(refused, Ok(()), "no kernel has this route: {route:?}");
            self.routes.push(route.clone());
        }
        ours.retain(|mine| !world.routes.iter().any(|theirs| theirs.key == mine.key));
        self.routes.extend(ours);
    }

    /// Theirs that stay keep their place; new ones are added behind those of the same preference.
    fn replace_foreign_rules(&mut self, world: &World) {
        let theirs: Vec<FibRule> = World::usual_rules().chain(world.rules.iter().cloned()).collect();
        self.rules.retain(|rule| rule.is_ours() || theirs.contains(rule));
        for rule in theirs {
            if !self.rules.contains(&rule) {
                let at = self.rules.partition_point(|other| other.pref <= rule.pref);
                self.rules.insert(at, rule);
            }
        }
    }
}

/// The settings of renamed interfaces go with them.
fn moved(sysctls: &BTreeMap<Sysctl, String>, renamed: &[(IfName, IfName)]) -> BTreeMap<Sysctl, String> {
    let new = |name: &IfName| {
        let found = renamed.iter().find(|(old, _)| old == name);
        found.map_or_else(|| name.clone(), |(_, new)| new.clone())
    };
    let key = |key: &Sysctl| match key {
        Sysctl::RpFilter(name) => Sysctl::RpFilter(new(name)),
        Sysctl::IgnoreLinkdown(family, name) => Sysctl::IgnoreLinkdown(*family, new(name)),
        Sysctl::AcceptRa(name) => Sysctl::AcceptRa(new(name)),
        other => other.clone(),
    };
    sysctls.iter().map(|(k, value)| (key(k), value.clone())).collect()
}
