//! Addresses that uplinks had and have no more, and when what runs over them is ended.
//!
//! Nothing in the kernel tells of an address that has gone, so those of the last round are remembered. What is
//! masqueraded to it the kernel forgets by itself (net/netfilter/nf_nat_masquerade.c). Connections of this machine, and
//! flows that somebody's `snat` or `dnat` ties to it, stay, and talk in vain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::core::layout::Slot;
use crate::core::net::{Family, IfIndex};
use crate::core::plan::Plan;
use crate::core::uplink::Uplink;

/// A manager that sets up a link anew takes its address away and gives it back in less.
const GRACE: Duration = Duration::from_secs(1);
/// What waits in vain for a way out for so long has lost patience by itself (tcp_retries2, tcp(7)).
const MEMORY: Duration = Duration::from_secs(900);

/// The addresses that uplinks have, and those that they had.
#[derive(Debug, Clone, Default)]
pub struct Vacated {
    held: BTreeMap<IpAddr, Held>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
struct Held {
    slot: Slot,
    dev: IfIndex,
    /// Gone, and given up from then on.
    at: Option<Instant>,
}

impl Vacated {
    /// Takes in what a round found, and what it ended.
    pub fn follow(&mut self, plan: &Plan, now: Instant) {
        let ended = &plan.desired.vacated;
        self.held.retain(|ip, held| {
            let lately = held.at.is_none_or(|at| now.saturating_duration_since(at) < MEMORY);
            lately && !ended.contains(ip)
        });
        let mut here = BTreeMap::new();
        for uplink in &plan.uplinks {
            let held = Held { slot: uplink.slot, dev: uplink.dev.index, at: None };
            let nets = Family::BOTH.iter().flat_map(|&family| &uplink.legs[family].addresses);
            here.extend(nets.map(|net| (net.addr(), held)));
        }
        let known: BTreeSet<IpAddr> = self.held.keys().copied().collect();
        for (ip, held) in self.held.iter_mut().filter(|(ip, _)| !here.contains_key(ip)) {
            let uplink = plan.uplinks.iter().find(|uplink| uplink.slot == held.slot);
            let given_up = if held.is_replaced(*ip, uplink, &known) { now } else { now + GRACE };
            held.at = Some(held.at.map_or(given_up, |at| at.min(given_up)));
        }
        self.held.extend(here);
    }

    /// Those that are given up.
    pub fn due(&self, now: Instant) -> BTreeSet<IpAddr> {
        self.held.iter().filter(|(_, held)| held.at.is_some_and(|at| at <= now)).map(|(ip, _)| *ip).collect()
    }

    /// When the next is given up.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.held.values().filter_map(|held| held.at).filter(|at| *at > now).min()
    }
}

impl Held {
    /// Whether it will not come back: its device has gone, as at a redial, or another address took its place.
    fn is_replaced(&self, ip: IpAddr, uplink: Option<&Uplink>, known: &BTreeSet<IpAddr>) -> bool {
        uplink.is_none_or(|uplink| {
            let mut now = uplink.legs[Family::of(ip)].addresses.iter();
            uplink.dev.index != self.dev || now.any(|net| !known.contains(&net.addr()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::{Device, IfName};
    use crate::core::uplink::{Gateway, Leg};

    const MS: Duration = Duration::from_millis(1);

    /// A round with these uplinks: slot, index of the device, addresses.
    fn round(uplinks: &[(u8, u32, &str)]) -> Plan {
        let uplink = |&(slot, index, addresses): &(u8, u32, &str)| {
            let addresses = addresses.split_whitespace().map(|net| net.parse().unwrap()).collect();
            let leg = Leg { link: true, gateway: Some(Gateway::Link), addresses, ..Leg::default() };
            let dev = Device { index: IfIndex(index), name: IfName::new("ppp0").unwrap() };
            Uplink { dev, ..Uplink::example(slot, leg) }
        };
        Plan { uplinks: uplinks.iter().map(uplink).collect(), ..Plan::default() }
    }

    /// Follows rounds, each with the time at which it comes; tells which address is given up when.
    fn given_up(rounds: &[(u32, Plan)]) -> Vec<(String, u128)> {
        let (mut vacated, start) = (Vacated::default(), Instant::now());
        for (at, plan) in rounds {
            vacated.follow(plan, start + *at * MS);
        }
        let gone = vacated.held.iter().filter_map(|(ip, held)| Some((ip.to_string(), held.at?)));
        gone.map(|(ip, at)| {
            assert!(vacated.due(at).contains(&ip.parse().unwrap()));
            assert!(vacated.due(at - MS).is_empty() && vacated.next(at - MS) == Some(at));
            (ip, (at - start).as_millis())
        })
        .collect()
    }

    #[test]
    fn what_will_not_come_back_is_given_up_at_once() {
        let before = (0, round(&[(1, 5, "192.0.2.1/32"), (2, 3, "198.51.100.2/24")]));
        let old = |at| vec![("192.0.2.1".to_owned(), at)];
        // The device has gone; it is another; the address is another.
        let gone = round(&[(2, 3, "198.51.100.2/24")]);
        let redialled = round(&[(1, 6, ""), (2, 3, "198.51.100.2/24")]);
        let renumbered = round(&[(1, 5, "192.0.2.9/32"), (2, 3, "198.51.100.2/24")]);
        for plan in [gone, redialled, renumbered] {
            assert_eq!(given_up(&[before.clone(), (100, plan)]), old(100));
        }
        // It may come back; and then another takes its place.
        let bare = (100, round(&[(1, 5, ""), (2, 3, "198.51.100.2/24")]));
        let other = (400, round(&[(1, 5, "192.0.2.9/32"), (2, 3, "198.51.100.2/24")]));
        assert_eq!(given_up(&[before.clone(), bare.clone()]), old(1100));
        assert_eq!(given_up(&[before.clone(), bare.clone(), other]), old(400));
        assert_eq!(given_up(&[before.clone(), bare, (400, before.1)]), []);
    }

    #[test]
    fn of_several_one_that_is_back_first_does_not_end_the_others() {
        let both = round(&[(1, 5, "192.0.2.1/32 192.0.2.2/32")]);
        let (none, first) = (round(&[(1, 5, "")]), round(&[(1, 5, "192.0.2.1/32")]));
        let rounds = [(0, both.clone()), (100, none), (200, first), (300, both)];
        assert_eq!(given_up(&rounds[..3]), [("192.0.2.2".to_owned(), 1100)]);
        assert_eq!(given_up(&rounds), []);
    }

    #[test]
    fn what_was_ended_is_forgotten_and_so_is_what_waits_too_long() {
        let (before, after) = (round(&[(1, 5, "192.0.2.1/32")]), round(&[(1, 6, "192.0.2.9/32")]));
        let mut ended = after.clone();
        ended.desired.vacated.extend(["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(given_up(&[(0, before.clone()), (100, after.clone()), (150, ended)]), []);
        let late = 100 + u32::try_from(MEMORY.as_millis()).unwrap();
        assert_eq!(given_up(&[(0, before), (100, after.clone()), (late, after)]), []);
    }
}
