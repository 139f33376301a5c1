//! The way to the server of a tunnel, which must not depend on one uplink.
//!
//! A program that leads everything into its tunnel adds a route to its server, by the gateway that it found when it
//! started (OpenVPN's `redirect-gateway`, vpnc-script, NetworkManager's VPN plugins). When that uplink dies silently, the
//! route still leads there. When it loses its carrier, the route counts no more and the tunnel's packets go into the
//! tunnel. When its manager takes the configuration away, the route goes for good.
//!
//! So while such a route stands, and something covers the server that leads out of no uplink, a rule of ours leads to the
//! server by the uplink of the route for as long as that gets through, else by another. It is ahead of main. When the route
//! goes and the cover stays, the rule in the kernel is what tells of the server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::family::FamilyPlan;
use crate::core::layout::{Base, Slot};
use crate::core::net::Family;
use crate::core::observed::OtherRoute;
use crate::core::rule::{Rule, Selector};

impl FamilyPlan<'_> {
    /// The rules to the servers of tunnels.
    pub(super) fn detours(&mut self, base: Base, active: &[Slot]) {
        let family = self.family;
        let best = self.best(active).map(|uplink| uplink.slot);
        let way = |wish: Slot| if self.gets_through(wish) { wish } else { best.unwrap_or(wish) };
        let servers = self.servers();
        let rules = servers.into_iter().map(|(server, wish)| Rule {
            family,
            pref: base.detour(),
            selector: Selector::To(server),
            table: way(wish).table(),
            suppress_prefixlen: None,
        });
        let rules: Vec<_> = rules.collect();
        self.desired.rules.extend(rules);
    }

    /// The servers of tunnels, each with the uplink that it is to be reached by.
    fn servers(&self) -> BTreeMap<IpNet, Slot> {
        let hosts = self.of_family().filter(|route| route.dest.prefix_len() > 1);
        let known = self.observed.kernel.rules.iter().filter(|rule| rule.family == self.family);
        let known = known.filter_map(|rule| match rule.selector {
            Selector::To(net) if Base::is_detour(rule.pref) => Some((net, Slot::of_table(rule.table)?)),
            _ => None,
        });
        let gone = known.filter(|(net, _)| !hosts.clone().any(|route| route.dest == *net));
        let routed = hosts.clone().filter_map(|route| Some((route.dest, self.by_gateway_of(route)?)));
        gone.chain(routed).filter(|(net, _)| self.is_covered(net.addr())).collect()
    }

    fn of_family(&self) -> impl Iterator<Item = &OtherRoute> + Clone {
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
        match self.of_family().find(|route| route.dest.prefix_len() == 1 && route.dest.contains(&ip)) {
            Some(half) => !self.leads_out(&half.hops),
            None => self.main_defaults().first().is_some() && !self.main_leads_out(),
        }
    }

    fn gets_through(&self, slot: Slot) -> bool {
        self.configured().any(|(uplink, leg)| uplink.slot == slot && leg.reachable())
    }
}
