//! The way to the server of a tunnel, which must not depend on one uplink.
//!
//! A program that leads everything into its tunnel adds a route to its server, by the gateway that it found when it
//! started (OpenVPN's `redirect-gateway`, vpnc-script, NetworkManager's VPN plugins). When that uplink dies silently, the
//! route still leads there. When it loses its carrier, the route counts no more and the tunnel's packets go into the
//! tunnel. When its manager takes the configuration away, the route goes for good.
//!
//! So while such a route stands, and something covers the server that leads out of no uplink, a rule of ours leads to the
//! server: by the uplink of the route while that gets through, else by another, where it then stays. It is ahead of main.
//! When the route goes and the cover stays, the rule in the kernel is what tells of the server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::family::FamilyPlan;
use crate::core::layout::{Base, Slot};
use crate::core::net::Family;
use crate::core::observed::OtherRoute;
use crate::core::rule::{Rule, Selector};

/// A tunnel has a few servers; who has more host routes leads single hosts past it on purpose. Each is some rules, and
/// those are asked one after the other for each packet.
const MOST_SERVERS: usize = 16;

impl FamilyPlan<'_> {
    /// The rules to the servers of tunnels: those whose way is lost take an `active` uplink, and stay for as long as that is
    /// `in_use`. `shared` addresses are those of two uplinks.
    pub(super) fn detours(
        &mut self,
        base: Base,
        active: &[Slot],
        in_use: &[Slot],
        shared: &BTreeSet<IpAddr>,
    ) {
        let family = self.family;
        let known = self.known_servers();
        let servers = self.servers(&known);
        if servers.len() > MOST_SERVERS {
            self.notes.push(format!(
                "{family}: {} hosts have routes of their own beside a tunnel, too many to keep a way to its server",
                servers.len()
            ));
            return;
        }
        let way = |net: &IpNet, wish: Slot| {
            // A tunnel over TCP keeps its address, so it stays where it is for as long as that is in use.
            let kept = known.get(net).copied().filter(|slot| in_use.contains(slot));
            let wish = kept.unwrap_or(wish);
            match self.best(active) {
                Some(best) if !self.gets_through(wish) => best.slot,
                _ => wish,
            }
        };
        let rule = |pref, selector, slot: Slot| Rule {
            family,
            pref,
            selector,
            table: slot.table(),
            suppress_prefixlen: None,
        };
        let mut rules = Vec::new();
        for (net, wish) in servers {
            rules.push(rule(base.detour(), Selector::To(net), way(&net, wish)));
            // One over TCP began by the balanced default, before the route to its server was there.
            for (uplink, leg) in self.configured().filter(|(_, leg)| leg.reachable()) {
                let own = leg.addresses.iter().map(IpNet::addr).filter(|ip| !shared.contains(ip));
                let from = |ip| rule(base.detour_from(), Selector::FromTo(IpNet::from(ip), net), uplink.slot);
                rules.extend(own.map(from));
            }
        }
        self.desired.rules.extend(rules);
    }

    /// The servers of tunnels that stand, and by which uplink their own routes lead.
    fn servers(&self, known: &BTreeMap<IpNet, Slot>) -> BTreeMap<IpNet, Slot> {
        let is_host = |route: &&OtherRoute| route.dest.prefix_len() == route.dest.max_prefix_len();
        let hosts: Vec<_> = self.of_family().filter(is_host).collect();
        let routed = hosts.iter().filter_map(|route| Some((route.dest, self.by_gateway_of(route)?)));
        let mut servers: BTreeMap<IpNet, Slot> = routed.collect();
        if servers.is_empty() {
            // The route to the one that there was has gone with its uplink.
            let unrouted = |net: &IpNet| !hosts.iter().any(|route| route.dest == *net);
            servers.extend(known.iter().filter(|(net, _)| unrouted(net)).map(|(net, slot)| (*net, *slot)));
        }
        servers.retain(|net, _| self.is_covered(net.addr()));
        servers
    }

    /// The servers that rules of ours lead to, and by which uplink.
    fn known_servers(&self) -> BTreeMap<IpNet, Slot> {
        let rules = self.observed.kernel.rules.iter().filter(|rule| rule.family == self.family);
        let server = |rule: &Rule| match rule.selector {
            Selector::To(net) if Base::is_detour(rule.pref) => Some((net, Slot::of_table(rule.table)?)),
            _ => None,
        };
        rules.filter_map(server).collect()
    }

    fn of_family(&self) -> impl Iterator<Item = &OtherRoute> {
        self.observed.others.iter().filter(|route| Family::of(route.dest.addr()) == self.family)
    }

    /// The uplink by whose gateway a route leads.
    fn by_gateway_of(&self, route: &OtherRoute) -> Option<Slot> {
        let [(dev, Some(via))] = route.hops.as_slice() else { return None };
        let found = self.configured().find(|(uplink, leg)| {
            uplink.dev.index == *dev && leg.gateway.and_then(|gateway| gateway.ip()) == Some(*via)
        });
        found.map(|(uplink, _)| uplink.slot)
    }

    /// Whether what is not routed by itself to this address goes into a tunnel.
    fn is_covered(&self, ip: IpAddr) -> bool {
        let covers = |route: &&OtherRoute| {
            route.dest.prefix_len() <= self.family.covering_len() && route.dest.contains(&ip)
        };
        match self.of_family().filter(covers).max_by_key(|route| route.dest.prefix_len()) {
            Some(part) => !self.leads_out(&part.hops),
            None => self.a_stranger_leads(),
        }
    }

    /// Whether some of what is not routed by itself goes into a tunnel by routes that are more specific than a default.
    pub(super) fn is_covered_in_part(&self) -> bool {
        let is_part = |route: &&OtherRoute| route.dest.prefix_len() <= self.family.covering_len();
        self.of_family().filter(is_part).any(|part| !self.leads_out(&part.hops))
    }

    fn gets_through(&self, slot: Slot) -> bool {
        self.configured().any(|(uplink, leg)| uplink.slot == slot && leg.reachable())
    }
}
