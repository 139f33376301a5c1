//! The administrator's own routes to what lies behind one uplink.
//!
//! They stand in the uplink's own table, for what is on it already; and, for what is new, in the table that is asked
//! directly ahead of main's own place, so behind every rule of a VPN and behind all of main but its defaults. There only
//! while the uplink can be given new flows: else such a destination is one like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{FamilyPlan, balanced_rules, hop_by, next_hop, usual_metric};
use crate::core::extra::ExtraRoute;
use crate::core::layout::BALANCED_TABLE;
use crate::core::net::Family;
use crate::core::route::{NextHop, Route, RouteKey};
use crate::core::uplink::{Leg, Uplink};

impl FamilyPlan<'_> {
    /// Plans those of all uplinks. Of several to one destination that of the uplink that stands best leads there.
    pub(in crate::core::plan) fn extra_routes(&mut self) {
        let family = self.family;
        let (mut own, mut leading, mut notes) = (Vec::new(), BTreeMap::new(), Vec::new());
        for (uplink, leg) in self.configured().filter(|(_, leg)| leg.takes_routes) {
            let src = leg.source().filter(IpAddr::is_ipv4);
            for extra in uplink.routes.iter().filter(|extra| Family::of(extra.dest.addr()) == family) {
                let hop = match way(uplink, leg, extra) {
                    Ok(hop) => hop,
                    Err(why) => {
                        notes.push(format!("{}: no route to {}: {why}", uplink.name, extra.dest));
                        continue;
                    }
                };
                let route = |table| Route {
                    key: RouteKey::new(table, extra.dest, usual_metric(family)),
                    src,
                    hops: vec![hop.clone()],
                };
                own.push(route(uplink.slot.table()));
                if let Some(rank) = uplink.rank(family) {
                    leading.entry((extra.dest, (rank, uplink.slot))).or_insert(route(BALANCED_TABLE));
                }
            }
        }
        self.notes.extend(notes);
        let mut taken: BTreeSet<RouteKey> =
            self.desired.routes.iter().map(|route| route.key.clone()).collect();
        let own = own.into_iter().filter(|route| taken.insert(route.key.clone()));
        self.desired.routes.extend(own);
        if leading.is_empty() || self.a_stranger_leads() {
            return;
        }
        // In the order of the map the best of each destination comes first.
        let leading = leading.into_values().filter(|route| taken.insert(route.key.clone()));
        self.desired.routes.extend(leading);
        self.desired.rules.extend(balanced_rules(family));
    }
}

/// The way there, or why the kernel would refuse it, or it would lead astray.
fn way(uplink: &Uplink, leg: &Leg, extra: &ExtraRoute) -> Result<NextHop, &'static str> {
    let on_link = |(net, _): &(IpNet, Option<IpAddr>)| net.contains(&extra.dest);
    if leg.connected.iter().any(on_link) {
        return Err("it lies on the link itself");
    }
    let Some(via) = extra.via else { return next_hop(uplink, leg).ok_or("the uplink has no gateway") };
    if leg.addresses.iter().any(|net| net.addr() == via) {
        return Err("the next hop is the uplink's own address");
    }
    let is_none = |(net, _): &(IpNet, Option<IpAddr>)| {
        net.addr().is_ipv4() && net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&via)
    };
    if leg.connected.iter().any(is_none) {
        return Err("the next hop is no host's address");
    }
    Ok(hop_by(uplink, leg, Some(via)))
}
