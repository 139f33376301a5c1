//! What leaves otherwise than it would without us, and should not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::Ipv6Net;
use uplinkd::core::layout::{Base, MAIN_PREF, Slot};
use uplinkd::core::net::{Family, IfIndex, Pref, TableId};
use uplinkd::core::plan::Plan;
use uplinkd::core::route::Route;
use uplinkd::core::rule::Selector;

use super::arbitrary::destinations;
use super::fib::FibRule;
use super::kernel::Memory;
use super::lookup::{Packet, Verdict};

/// Whether it can be told from the rules at a moment what we change: see [`leak`].
pub(crate) fn is_judged(kernel: &Memory) -> bool {
    let into_ours = |r: &FibRule| !r.is_ours() && r.table.is_some_and(|t| Slot::of_table(t).is_some());
    let main_ahead = |r: &FibRule| {
        let takes_all = r.mark.is_none() && r.from.is_none() && r.suppress.is_none();
        !r.is_ours() && r.pref < 32766 && r.table == Some(TableId::MAIN) && takes_all
    };
    // Of two with one preference the earlier counts. Whoever lets the kernel choose is given one ahead of all of ours, so
    // only who insists on ours, and comes later, is behind.
    let behind = |(at, r): (usize, &FibRule)| {
        !r.is_ours()
            && kernel.rules[..at].iter().any(|o| o.is_ours() && (o.family, o.pref) == (r.family, r.pref))
    };
    let strange = kernel.rules.iter().any(|r| into_ours(r) || main_ahead(r));
    !strange && !kernel.rules.iter().enumerate().any(behind)
}

/// A packet that would not leave by an uplink if we were not there, but does now, or elsewhere than before.
///
/// What main has a route for that is longer than /1 is left to main ahead of whatever follows our block, unless that takes
/// everything: that much is intended, and so it is allowed. It includes a refusal: no rule can suppress an `unreachable` default that is the
/// best of main. A foreign rule that leads into a table of ours gets what it asks for. Where somebody has main asked
/// ahead of its usual place, our default there is ahead of tables that stood in for its own: a known limit.
pub(crate) fn leak(kernel: &Memory, plan: &Plan) -> Option<String> {
    let without = kernel.without_ours();
    if !is_judged(kernel) {
        return None;
    }
    let walled = |family| {
        let rules = kernel.rules.iter().filter(|r| r.family == family && !r.is_ours());
        rules.into_iter().any(|r| Pref(r.pref) < MAIN_PREF && r.to_foreign().catch_all)
    };
    let sources = sources(kernel, plan);
    let fits =
        |to: &IpAddr, from: &Option<IpAddr>| from.is_none_or(|from| Family::of(from) == Family::of(*to));
    let packets = destinations().into_iter().flat_map(|to| {
        let fitting = sources.iter().filter(move |from| fits(&to, from));
        fitting.map(move |from| Packet { from: *from, ..Packet::to(to) })
    });
    // Also one without an address yet, whose default is nobody else's.
    let uplinks: BTreeSet<IfIndex> = plan.uplinks.iter().map(|u| u.dev.index).collect();
    packets.into_iter().find_map(|packet| {
        let to = packet.to;
        let family = Family::of(to);
        let (before, after) = (without.lookup(packet), kernel.lookup(packet));
        let fine = match &before {
            Verdict::Nowhere => true,
            before if before.within(&uplinks) => {
                let blocks = |r: &Route| r.hops.is_empty() && r.key.dest.contains(&to);
                let refused = after == Verdict::Refused && plan.desired.routes.iter().any(blocks);
                refused || after.within(&uplinks)
            }
            before => *before == after,
        };
        let main = without.best(TableId::MAIN, packet);
        let left_to_main = main.is_some_and(|r| {
            r.legs.is_empty() || (r.key.dest.prefix_len() > family.covering_len() && !walled(family))
        });
        (!fine && !left_to_main).then(|| format!("{packet:?}: {before:?} without us, now {after:?}"))
    })
}

/// Some host with an address of a prefix.
pub(crate) fn host_of(net: &Ipv6Net) -> IpAddr {
    IpAddr::V6((net.addr().to_bits() | 0xff_0000_0000_0000_0009).into())
}

/// Sources that choose no uplink: none yet, a host on the LAN, and addresses of what is no uplink, a VPN's among them. Not
/// an address that was an uplink's until now: its rule goes when all else stands.
fn sources(kernel: &Memory, plan: &Plan) -> Vec<Option<IpAddr>> {
    let hosts = plan.uplinks.iter().flat_map(|u| &u.prefixes).map(host_of);
    let is_uplink = |dev| plan.uplinks.iter().any(|u| u.dev.index == dev);
    let is_left_over = |ip: IpAddr| {
        let rules =
            kernel.rules.iter().filter(|r| r.is_ours() && Base::is_ours(Pref(r.pref))).map(FibRule::to_rule);
        let mut of_it = rules.filter(|r| r.selector == Selector::From(ip.into()));
        of_it.any(|rule| !plan.desired.rules.contains(&rule))
    };
    let others = kernel.addresses.iter().filter(|a| a.global && !is_uplink(a.dev)).map(|a| a.ip);
    let others = others.filter(|ip| !is_left_over(*ip));
    let chosen: BTreeSet<_> = hosts.chain(others).collect();
    [None].into_iter().chain(chosen.into_iter().map(Some)).collect()
}
