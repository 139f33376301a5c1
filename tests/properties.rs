//! What holds for every machine: proptest draws worlds, and the kernel in memory lives through them.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use ipnet::Ipv6Net;
use proptest::prelude::*;
use proptest::sample::Index;
use support::arbitrary::health::choices;
use support::arbitrary::{RESOLVERS, destinations, world};
use support::fib::FibRoute;
use support::kernel::Memory;
use support::leak::{host_of, is_judged, leak};
use support::lookup::{Packet, Verdict};
use support::promises::check_layout;
use support::round::{Daemon, Round};
use support::scenario;
use support::world::World;
use uplinkd::config::AllDown;
use uplinkd::core::diff::diff;
use uplinkd::core::layout::{BYPASS_PREF, SOURCES_PREF};
use uplinkd::core::net::{Family, IfIndex, TableId};
use uplinkd::core::observed::Address;
use uplinkd::core::plan::{Plan, plan};
use uplinkd::core::rule::Selector;
use uplinkd::core::scope::leaves_the_link;
use uplinkd::core::uplink::Uplink;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// One round is enough, a second one finds nothing to do, and the same changes again change nothing.
    #[test]
    fn one_round_is_enough(world in world()) {
        let (mut kernel, mut daemon) = (Memory::of(&world), Daemon::default());
        let foreign = kernel.foreign();
        let round = daemon.round(&world, &mut kernel);
        prop_assert_eq!(kernel.foreign(), foreign, "foreign objects are untouched");
        let settled = kernel.clone();
        for change in round.changes.iter().filter(|c| !c.to_string().starts_with("conntrack")) {
            prop_assert_eq!(kernel.apply(change), Ok(()));
        }
        prop_assert_eq!(format!("{:?}", kernel.routes), format!("{:?}", settled.routes));
        prop_assert_eq!(&kernel.rules, &settled.rules);
        prop_assert_eq!(daemon.round(&world, &mut kernel).changes, []);
        prop_assert_eq!(&daemon.slots, &round.plan.slots, "a settled memory does not change");
    }

    /// The rules that plan.rs promises to keep.
    #[test]
    fn plans_keep_to_the_layout(world in world()) {
        let mut kernel = Memory::of(&world);
        let round = Daemon::default().round(&world, &mut kernel);
        let again = Daemon::default().decide(&world, &Memory::of(&world)).plan;
        prop_assert_eq!(&again.desired, &round.plan.desired, "the same world makes the same plan");
        check_layout(&kernel, &round.plan)?;
        support::quota::check(&round.plan, world.config.balance.method(), &world.health)?;
    }

    /// In what order the kernel and the managers list things does not matter.
    ///
    /// Addresses of one interface and routes of one metric are left in theirs: there the first one counts.
    #[test]
    fn the_order_of_lists_is_irrelevant(world in world(), seed in any::<Index>()) {
        let mut observed = Memory::of(&world).observe(&world);
        let one = plan(&world.config, &observed, &world.slots, &world.health, &world.chosen(), &world.usages);
        let turn = |len: usize| if len == 0 { 0 } else { seed.index(len) };
        let links = turn(observed.links.len());
        observed.links.rotate_left(links);
        let managed = turn(observed.managed.len());
        observed.managed.rotate_left(managed);
        let neighbours = turn(observed.neighbours.len());
        observed.neighbours.rotate_left(neighbours);
        observed.defaults.sort_by_key(|d| d.table);
        observed.addresses.sort_by_key(|a| std::cmp::Reverse(a.dev));
        observed.foreign_rules.reverse();
        let other = plan(&world.config, &observed, &world.slots, &world.health, &world.chosen(), &world.usages);
        prop_assert_eq!(one.desired, other.desired);
        prop_assert_eq!(one.uplinks, other.uplinks);
    }

    /// From any world into any other, the scenarios among them, one round is enough each time, and on the way there
    /// is never a moment without a default or with a leak.
    #[test]
    fn a_walk_through_worlds_converges(worlds in prop::collection::vec(world(), 1..3), visits in prop::collection::vec(any::<(bool, Index)>(), 2..6)) {
        let scenarios = SCENARIOS.with(Clone::clone);
        let (mut kernel, mut daemon) = (Memory::default(), Daemon::default());
        for (drawn, index) in visits {
            let world = if drawn { index.get(&worlds) } else { index.get(&scenarios) };
            kernel.become_world(world);
            let foreign = kernel.foreign();
            let round = daemon.decide(world, &kernel);
            apply_watched(&mut kernel, &round)?;
            prop_assert_eq!(kernel.foreign(), foreign, "foreign objects are untouched");
            prop_assert_eq!(daemon.round(world, &mut kernel).changes, []);
            check_layout(&kernel, &round.plan)?;
        }
    }

    /// Whichever one change fails, the next round mends it.
    #[test]
    fn any_failure_is_mended(before in world(), world in world()) {
        let (mut start, mut daemon) = (Memory::of(&before), Daemon::default());
        daemon.round(&before, &mut start);
        start.become_world(&world);
        let round = daemon.decide(&world, &start);
        for failed in 0..round.changes.len() {
            let (mut kernel, mut daemon) = (start.clone(), daemon.clone());
            for (at, change) in round.changes.iter().enumerate().filter(|(at, _)| *at != failed) {
                // What depends on the one that failed may fail with it.
                let _ = (at, kernel.apply(change));
            }
            daemon.round(&world, &mut kernel);
            prop_assert_eq!(daemon.round(&world, &mut kernel).changes, [], "after a failure of {}", round.changes[failed]);
        }
    }

    /// What others take away, take over or double is as it was after one round.
    #[test]
    fn damage_is_repaired(mut world in world(), blows in prop::collection::vec((0..4u8, any::<Index>()), 1..4)) {
        // One of which nothing is known is in use for as long as the kernel says so, and what is damaged says nothing.
        world.health.probing = false;
        let (mut kernel, mut daemon) = (Memory::of(&world), Daemon::default());
        daemon.round(&world, &mut kernel);
        let settled = sorted(&kernel);
        for (blow, index) in blows {
            let rules: Vec<_> = (0..kernel.rules.len()).filter(|&at| kernel.rules[at].is_ours()).collect();
            let routes: Vec<_> = (0..kernel.routes.len()).filter(|&at| kernel.routes[at].is_ours()).collect();
            match blow {
                0 if !rules.is_empty() => drop(kernel.rules.remove(*index.get(&rules))),
                1 if !rules.is_empty() => {
                    let at = *index.get(&rules);
                    kernel.rules.insert(at, kernel.rules[at].clone());
                }
                2 if !routes.is_empty() => drop(kernel.routes.remove(*index.get(&routes))),
                3 if kernel.ruleset.is_some() => kernel.ruleset = None,
                _ => {}
            }
        }
        daemon.round(&world, &mut kernel);
        prop_assert_eq!(sorted(&kernel), settled);
    }

    /// A packet that is bound to an uplink by its source, its mark or its device leaves by it, whatever VPN there is.
    #[test]
    fn pinned_packets_stay_on_their_uplink(world in world()) {
        let mut kernel = Memory::of(&world);
        let plan = Daemon::default().round(&world, &mut kernel).plan;
        for to in destinations() {
            let family = Family::of(to);
            // Where main says nothing but /1 and defaults.
            let main = kernel.best(TableId::MAIN, Packet::to(to));
            if led_by_others(&kernel, &plan, family)
                || main.is_some_and(|r| r.key.dest.prefix_len() > 1 || (r.legs.is_empty() && !r.is_ours()))
            {
                continue;
            }
            let shared = |ip| kernel.addresses.iter().filter(|a| a.ip == ip).count() > 1;
            // Also one that is down: by its mark and its device the probes go out that find out when it is back.
            for uplink in plan.uplinks.iter().filter(|u| u.legs[family].link) {
                // Somebody else's route in our table is a clash, of which a note tells.
                if kernel.best(uplink.slot.table(), Packet::to(to)).is_some_and(|r| !r.is_ours()) {
                    continue;
                }
                let only = BTreeSet::from([uplink.dev.index]);
                for packet in bound(uplink, to).filter(|packet| packet.from.is_none_or(|ip| !shared(ip))) {
                    if refused_by_others(&kernel, packet) {
                        continue;
                    }
                    let verdict = kernel.lookup(packet);
                    prop_assert!(verdict.within(&only), "{:?}: {:?}", packet, verdict);
                }
            }
        }
    }

    /// Another choice is for what is new: what is bound to an uplink leaves by it still, no flow is ended, and nothing at
    /// all is done where it comes to the same.
    #[test]
    fn a_choice_moves_no_running_flow(mut world in world(), choices in choices()) {
        // Who was chosen was not left: its flows are not to be moved.
        world.health.leaving.clear();
        let (mut kernel, mut daemon) = (Memory::of(&world), Daemon::default());
        let before = daemon.round(&world, &mut kernel).plan;
        let settled = kernel.clone();
        world.choices = choices;
        let Round { plan: after, changes } = daemon.round(&world, &mut kernel);
        prop_assert_eq!((&after.uplinks, &after.ready), (&before.uplinks, &before.ready));
        prop_assert_eq!((&after.desired.moves, &after.desired.vacated), (&before.desired.moves, &before.desired.vacated));
        prop_assert!(after.active != before.active || changes.is_empty(), "{:?}", changes);
        let pairs = destinations().into_iter().flat_map(|to| after.uplinks.iter().map(move |uplink| (to, uplink)));
        let pairs = pairs.filter(|(to, _)| !led_by_others(&kernel, &after, Family::of(*to)));
        for (to, uplink) in pairs.filter(|(to, uplink)| uplink.legs[Family::of(*to)].link) {
            let only = BTreeSet::from([uplink.dev.index]);
            let shared = |ip| kernel.addresses.iter().filter(|a| a.ip == ip).count() > 1;
            let bound = bound(uplink, to).filter(|packet| packet.from.is_none_or(|ip| !shared(ip)));
            let held = bound.filter(|packet| settled.lookup(*packet).within(&only));
            for packet in held.filter(|packet| !refused_by_others(&kernel, *packet)) {
                let verdict = kernel.lookup(packet);
                prop_assert!(verdict.within(&only), "{:?}: {:?} after {:?}", packet, verdict, changes);
            }
        }
    }

    /// What comes from a prefix that is delegated by an uplink leaves by it while it carries what is new, wherever that
    /// would leave by some uplink without us.
    #[test]
    fn delegated_sources_leave_by_their_uplink(world in world()) {
        let mut kernel = Memory::of(&world);
        let plan = Daemon::default().round(&world, &mut kernel).plan;
        let without = kernel.without_ours();
        let uplinks: BTreeSet<IfIndex> = plan.uplinks.iter().map(|u| u.dev.index).collect();
        let strange = |r: &FibRoute| r.legs.is_empty() || r.legs.iter().any(|leg| !uplinks.contains(&leg.dev));
        let in_main = without.routes.iter().filter(|r| r.key.table == TableId::MAIN && r.family() == Family::V6);
        let usual = without.rules.iter().all(|r| r.family == Family::V4 || [0, 32766, 32767].contains(&r.pref));
        // Which of several with one metric is in force depends on their order.
        if !usual || in_main.into_iter().any(strange) {
            return Ok(());
        }
        let rules: Vec<_> = plan.desired.rules.iter().filter(|r| r.pref == SOURCES_PREF).collect();
        for uplink in plan.uplinks.iter().filter(|u| plan.active.v6.contains(&u.slot)) {
            let own = |net: &&Ipv6Net| {
                let others = plan.uplinks.iter().filter(|u| u.slot != uplink.slot);
                let on_link = |u: &&Uplink| u.legs.v6.connected.iter().any(|(on, _)| on.contains(&IpNet::V6(**net)));
                let same = |other: &Ipv6Net| other.contains(*net) || net.contains(other);
                !others.clone().any(|u| u.prefixes.iter().any(same)) && !others.clone().any(|u| on_link(&u))
            };
            for net in uplink.prefixes.iter().filter(own) {
                prop_assert!(rules.iter().any(|r| r.selector == Selector::From(IpNet::V6(*net))), "{} of {}", net, uplink.name);
                for to in destinations().into_iter().filter(IpAddr::is_ipv6) {
                    let packet = Packet { from: Some(host_of(net)), ..Packet::to(to) };
                    let main = kernel.best(TableId::MAIN, packet);
                    if main.is_none_or(|r| r.key.dest.prefix_len() == 0) {
                        let verdict = kernel.lookup(packet);
                        prop_assert!(verdict.within(&BTreeSet::from([uplink.dev.index])), "{:?}: {:?}", packet, verdict);
                    }
                }
            }
        }
    }

    /// A resolver is asked through the uplink that announced it, or not at all, wherever the uplinks are what main's own
    /// default leads to; one that several announced goes as it would without us, by some uplink.
    #[test]
    fn resolvers_are_asked_through_their_uplink(world in world()) {
        let mut kernel = Memory::of(&world);
        let plan = Daemon::default().round(&world, &mut kernel).plan;
        let without = kernel.without_ours();
        let announced = |ip| plan.uplinks.iter().filter(move |u| u.legs[Family::of(ip)].resolvers.contains(&ip));
        for ip in RESOLVERS.map(|text| text.parse().unwrap()) {
            let family = Family::of(ip);
            let uplinks = plan.uplinks.iter().filter(|u| u.legs[family].configured());
            let uplinks: BTreeSet<IfIndex> = uplinks.map(|u| u.dev.index).collect();
            let main = without.best(TableId::MAIN, Packet::to(ip));
            let usual = without.rules.iter().all(|r| r.family != family || [0, 32766, 32767].contains(&r.pref));
            // Of several defaults with one metric it depends on their order which is in force.
            let rivals = |best: &FibRoute| {
                let of_its_metric = without.routes.iter().filter(move |r| r.key == best.key);
                of_its_metric.flat_map(|r| &r.legs).any(|leg| !uplinks.contains(&leg.dev))
            };
            let by_default = main.is_some_and(|r| r.key.dest.prefix_len() == 0 && !rivals(r));
            let near = |a: &Address| IpNet::new(a.ip, a.prefix_len).unwrap().contains(&ip);
            let near = !leaves_the_link(ip) || world.addresses.iter().any(near);
            let [one] = announced(ip).collect::<Vec<_>>()[..] else { continue };
            let stands = one.legs[family].preference().is_some() && plan.slots.multihomed();
            if !usual || near || !by_default || !stands || !without.lookup(Packet::to(ip)).within(&uplinks) {
                continue;
            }
            let verdict = kernel.lookup(Packet::to(ip));
            prop_assert!(verdict.within(&BTreeSet::from([one.dev.index])), "{} of {}: {:?}", ip, one.name, verdict);
        }
    }

    /// Somebody is always asked: none is switched off unless another that is well is on.
    #[test]
    fn some_resolver_is_always_asked(world in world()) {
        let mut kernel = Memory::of(&world);
        let asked = kernel.asked.values().any(|asked| *asked);
        let plan = Daemon::default().round(&world, &mut kernel).plan;
        prop_assert_eq!(kernel.asked.values().any(|asked| *asked), asked);
        let is_well = |u: &Uplink| Family::BOTH.iter().any(|&f| !u.legs[f].resolvers.is_empty() && u.legs[f].preference().is_some());
        let stands_in = plan.uplinks.iter().any(|u| kernel.asked.get(&u.dev) == Some(&true) && is_well(u));
        prop_assert!(plan.desired.unasked.is_empty() || stands_in);
        for dev in &plan.desired.unasked {
            prop_assert!(plan.uplinks.iter().any(|u| u.dev == *dev && !is_well(u)), "{} is asked no more", dev);
        }
    }

    /// Where nothing is to leave when all are down, nothing does by a default of an uplink's; and what was better before
    /// us is still better.
    #[test]
    fn nothing_leaves_when_all_are_down(mut world in world()) {
        world.config.all_down = AllDown::Block;
        let mut kernel = Memory::of(&world);
        let plan = Daemon::default().round(&world, &mut kernel).plan;
        let without = kernel.without_ours();
        for to in destinations() {
            let family = Family::of(to);
            let ruled = kernel.rules.iter().any(|r| !r.is_ours() && r.family == family && ![0, 32766, 32767].contains(&r.pref));
            if !plan.active[family].is_empty() || !plan.slots.multihomed() || ruled {
                continue;
            }
            let configured = plan.uplinks.iter().any(|u| u.legs[family].configured());
            let uplinks: BTreeSet<IfIndex> = plan.uplinks.iter().map(|u| u.dev.index).collect();
            let Some(best) = without.best(TableId::MAIN, Packet::to(to)) else { continue };
            let same = without.routes.iter().filter(|r| r.key == best.key);
            let mut legs = same.flat_map(|r| &r.legs).peekable();
            let theirs = legs.peek().is_some() && legs.all(|leg| uplinks.contains(&leg.dev));
            let after = kernel.lookup(Packet::to(to));
            if best.key.dest.prefix_len() == 0 && theirs && configured {
                prop_assert_eq!(after, Verdict::Refused, "{}", to);
            } else {
                prop_assert_eq!(after, without.lookup(Packet::to(to)), "{}", to);
            }
        }
    }

    /// Everything of ours goes when it is asked to, and nothing else does.
    #[test]
    fn a_flush_leaves_nothing_of_ours(world in world()) {
        let before = Memory::of(&world);
        let mut kernel = before.clone();
        Daemon::default().round(&world, &mut kernel);
        for change in diff(&Default::default(), &kernel.observe(&world).kernel) {
            prop_assert_eq!(kernel.apply(&change), Ok(()));
        }
        prop_assert_eq!((&kernel.routes, &kernel.rules), (&before.routes, &before.rules));
        prop_assert_eq!((&kernel.sysctls, &kernel.originals), (&before.sysctls, &before.originals));
        prop_assert_eq!((&kernel.asked, &kernel.unasked), (&before.asked, &before.unasked));
        prop_assert_eq!(kernel.ruleset, None);
    }

    /// An uplink keeps its slot while it is the same: with other numbers, without its routes, without its manager.
    #[test]
    fn slots_are_stable(world in world()) {
        let mut daemon = Daemon::default();
        let first = daemon.decide(&world, &Memory::of(&world)).plan;
        let mut renumbered = renumbered(&world);
        renumbered.links.reverse();
        let bare = World { routes: Vec::new(), neighbours: Vec::new(), ..world.clone() };
        let silent = World { managed: Vec::new(), ..world.clone() };
        for (what, other) in [("renumbered", renumbered), ("bare", bare), ("silent", silent), ("again", world)] {
            let later = daemon.decide(&other, &Memory::of(&other)).plan;
            for uplink in &first.uplinks {
                let same = later.uplinks.iter().find(|u| u.dev.name == uplink.dev.name);
                prop_assert_eq!(same.map_or(uplink.slot, |u| u.slot), uplink.slot, "{} {}", what, uplink.dev);
            }
        }
    }
}

thread_local! {
    static SCENARIOS: Vec<World> = scenario::all().into_iter().map(|s| s.world).collect();
}

/// Whether a rule of somebody else stands ahead of ours or among them.
fn led_by_others(kernel: &Memory, plan: &Plan, family: Family) -> bool {
    let ours = plan.desired.rules.iter().filter(|r| r.family == family).map(|r| r.pref.0);
    let last = ours.filter(|pref| *pref < BYPASS_PREF.0).max();
    let mut foreign = kernel.rules.iter().filter(|r| !r.is_ours() && r.family == family);
    foreign.find(|r| r.pref != 0).map(|r| r.pref) < last
}

/// Whether somebody's refusal in main takes a packet: that cannot be suppressed.
fn refused_by_others(kernel: &Memory, packet: Packet) -> bool {
    kernel.best(TableId::MAIN, packet).is_some_and(|route| route.legs.is_empty() && !route.is_ours())
}

/// Packets that an uplink's own sources, its mark and its device bind to it.
fn bound(uplink: &Uplink, to: IpAddr) -> impl Iterator<Item = Packet> {
    let leg = &uplink.legs[Family::of(to)];
    let own = leg.addresses.iter().filter(|_| leg.preference().is_some()).map(|net| net.addr());
    let by_source = own.map(move |ip| Packet { from: Some(ip), ..Packet::to(to) });
    let by_mark = Packet { mark: uplink.slot.mark().value(), ..Packet::to(to) };
    let by_device = Packet { oif: Some(uplink.dev.index), ..Packet::to(to) };
    by_source.chain([by_mark, by_device])
}

/// What lies in a kernel, in an order of its own.
fn sorted(kernel: &Memory) -> Vec<String> {
    let routes = kernel.routes.iter().map(|route| format!("{route:?}"));
    let mut all: Vec<_> = routes.chain(kernel.rules.iter().map(|rule| format!("{rule:?}"))).collect();
    all.sort();
    all.push(format!("{:?} {:?}", kernel.ruleset, kernel.sysctls));
    all
}

#[test]
fn the_sixty_fourth_uplink_is_left_alone() {
    let link = |n: u8| {
        format!(
            "{n}: ppp{n}: <UP,LOWER_UP> ppp kind ppp\n    inet 192.0.2.{n} peer 198.51.100.{n}/32\n\
             default dev ppp{n} metric {n}\n"
        )
    };
    let text: String = (10..75).map(link).collect();
    let world = support::text::parse(&text);
    let (mut kernel, mut daemon) = (Memory::of(&world), Daemon::default());
    let plan = daemon.round(&world, &mut kernel).plan;
    assert_eq!((plan.uplinks.len(), plan.active.v4.len()), (63, 63));
    let left: Vec<_> = plan.notes.iter().map(|note| note.split(':').next().unwrap()).collect();
    assert_eq!(left, ["ppp73", "ppp74"]);
    assert_eq!(daemon.round(&world, &mut kernel).changes, []);
    // One of the others goes: then there is room for one of them, and nobody else moves.
    let fewer = support::text::parse(&text.replace(&link(20), ""));
    kernel.become_world(&fewer);
    let later = daemon.round(&fewer, &mut kernel).plan;
    let slot =
        |plan: &Plan, name: &str| plan.uplinks.iter().find(|u| u.dev.name.as_str() == name).map(|u| u.slot);
    assert_eq!(slot(&later, "ppp73"), slot(&plan, "ppp20"));
    for uplink in plan.uplinks.iter().filter(|u| u.dev.name.as_str() != "ppp20") {
        assert_eq!(slot(&later, uplink.dev.name.as_str()), Some(uplink.slot));
    }
}

fn renumbered(world: &World) -> World {
    let mut world = world.clone();
    let next = |index: &mut IfIndex| index.0 += 100;
    world.links.iter_mut().for_each(|l| next(&mut l.index));
    world.links.iter_mut().filter_map(|l| l.controller.as_mut()).for_each(next);
    world.addresses.iter_mut().for_each(|a| next(&mut a.dev));
    world.neighbours.iter_mut().for_each(|n| next(&mut n.dev));
    world.routes.iter_mut().flat_map(|r| &mut r.legs).for_each(|leg| next(&mut leg.dev));
    world
}

/// Carries out the changes, and looks after each whether a packet that found its way before and finds it afterwards
/// would have found it meanwhile.
fn apply_watched(kernel: &mut Memory, Round { plan, changes }: &Round) -> Result<(), TestCaseError> {
    let found = |kernel: &Memory| -> Vec<bool> {
        destinations().iter().map(|to| kernel.lookup(Packet::to(*to)) != Verdict::Nowhere).collect()
    };
    let (first, leaked) = (found(kernel), !is_judged(kernel) || leak(kernel, plan).is_some());
    let mut moments = Vec::new();
    for change in changes {
        prop_assert_eq!(kernel.apply(change), Ok(()), "the kernel refuses: {}", change);
        moments.push((change, found(kernel), leak(kernel, plan)));
    }
    let last = found(kernel);
    for (change, found, leak) in moments {
        for (at, to) in destinations().iter().enumerate() {
            prop_assert!(found[at] || !first[at] || !last[at], "no way to {} after: {}", to, change);
        }
        prop_assert!(leaked || leak.is_none(), "after {}: {}", change, leak.unwrap_or_default());
    }
    Ok(())
}
