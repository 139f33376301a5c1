//! The way to the resolvers of each uplink.
//!
//! Host routes in the table that is asked directly ahead of main's own place, so behind every rule of a VPN and behind
//! every route of main but its defaults; and only while main's own best default leads out of an uplink. Those that are
//! idle are refused: a program is told at once, and asks the next, where it would wait for seconds.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{FamilyPlan, balanced_rules, next_hop, usual_metric};
use crate::core::layout::BALANCED_TABLE;
use crate::core::plan::resolvers::Resolvers;
use crate::core::probe::is_public_resolver;
use crate::core::route::{NextHop, Route, RouteKey};
use crate::core::scope::leaves_the_link;
use crate::core::uplink::{Leg, Uplink};

impl FamilyPlan<'_> {
    /// Keeps questions to a resolver on the uplink that announced it.
    pub(in crate::core::plan) fn resolvers(&mut self, resolvers: &Resolvers) {
        let routes: Vec<Route> =
            self.uplinks.iter().flat_map(|uplink| self.to_resolvers(uplink, resolvers)).collect();
        if routes.is_empty() || self.a_stranger_leads() {
            return;
        }
        self.desired.routes.extend(routes);
        self.desired.rules.extend(balanced_rules(self.family));
    }

    /// The routes to the resolvers of one uplink, where they do not lie on a link of this machine.
    fn to_resolvers(&self, uplink: &Uplink, resolvers: &Resolvers) -> Vec<Route> {
        let leg = &uplink.legs[self.family];
        let refused = resolvers.idle.contains(&(uplink.slot, self.family));
        let Some(hops) = self.way(uplink, leg, refused) else { return Vec::new() };
        let src = leg.source().filter(|ip| ip.is_ipv4() && !hops.is_empty());
        let near = super::near(self.observed, self.family);
        let beyond = |ip: &&IpAddr| leaves_the_link(**ip) && !near.iter().any(|net| net.contains(*ip));
        // Those answer anybody, so that there is no need to refuse them to whoever asks them by choice.
        let refusable = |ip: &&IpAddr| !refused || !is_public_resolver(**ip);
        let found: BTreeSet<IpAddr> =
            leg.resolvers.iter().filter(beyond).filter(refusable).copied().collect();
        let route = |ip: IpAddr| {
            let key = RouteKey::new(BALANCED_TABLE, IpNet::from(ip), usual_metric(self.family));
            Route { key, src, hops: hops.clone() }
        };
        found.difference(&resolvers.shared).copied().map(route).collect()
    }

    /// The legs of such a route: none where it refuses; nothing where there is to be no route.
    fn way(&self, uplink: &Uplink, leg: &Leg, refused: bool) -> Option<Vec<NextHop>> {
        if refused {
            return Some(Vec::new());
        }
        let leads_out = leg.configured() && leg.takes_routes && leg.reachable();
        leads_out.then(|| next_hop(uplink, leg)).flatten().map(|hop| vec![hop])
    }
}
