//! Flows that run by some other uplink when a policy begins to enforce its own.
//!
//! A flow is looked at with its first packet; what ran before would go on as it was. Of a running flow conntrack tells both
//! ends, its protocol and its mark. What a policy asks for beyond these is taken for met: better a connection too many begins
//! anew than that one goes on where it must not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Traffic, WITH_PORTS};
use crate::core::layout::{MARK_MASK, Slot};
use crate::core::net::{Family, PerFamily};

/// A flow as conntrack knows it, as it was when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Who began it.
    pub from: IpAddr,
    /// With whom.
    pub to: IpAddr,
    /// The IP protocol, by number.
    pub protocol: u8,
    /// The destination port, where the protocol has any.
    pub port: Option<u16>,
    /// Its mark.
    pub mark: u32,
}

/// A policy, as far as it matters to what runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which traffic it is for.
    pub traffic: Traffic,
    /// The families in which it is not looked past.
    pub in_force: PerFamily<bool>,
    /// Where it enforces something: the uplink, if anybody is called so.
    pub enforces: Option<Option<Slot>>,
}

/// What tells the flows that are where they must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The policies, in order.
    pub policies: Vec<Claim>,
    /// This machine's addresses.
    pub own: BTreeSet<IpAddr>,
    /// The prefixes on links of no uplink: what goes there leaves by none, or was let in.
    pub behind: Vec<IpNet>,
}

/// Whether a flow is some policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    Surely,
    Perhaps,
    Not,
}

impl Claims {
    /// The uplink on which a flow belongs that is on another; none in it where nobody is called as the policy says.
    ///
    /// What has no mark is told by our table, packet by packet.
    pub fn on(&self, flow: &Running) -> Option<Option<Slot>> {
        let comes_in = self.own.contains(&flow.to) || self.behind.iter().any(|net| net.contains(&flow.to));
        if flow.mark & MARK_MASK == 0 || comes_in {
            return None;
        }
        let family = Family::of(flow.from);
        for claim in self.policies.iter().filter(|claim| claim.in_force[family]) {
            match (claim.traffic.meets(flow, self.own.contains(&flow.from)), claim.enforces) {
                (Met::Not, _) | (Met::Perhaps, None) => {}
                (Met::Surely, None) => return None,
                (_, Some(only)) => {
                    let is_there = only.is_some_and(|slot| slot.mark().value() == flow.mark & MARK_MASK);
                    return (!is_there).then_some(only);
                }
            }
        }
        None
    }
}

impl Traffic {
    /// What it asks for beside addresses, as text by which it is known.
    pub fn beside_addresses(&self) -> String {
        let Traffic {
            from: _,
            to: _,
            domain,
            interface,
            protocol,
            ports,
            dscp,
            mac,
            user,
            group,
            unit,
            slice,
            time: _,
        } = self;
        // Of names it counts whether there are any: which addresses they have is told from outside.
        let named = !domain.is_empty();
        format!(
            "{named} {interface:?} {protocol:?} {ports:?} {dscp:?} {mac:?} {user:?} {group:?} {unit:?} {slice:?}"
        )
    }

    fn meets(&self, flow: &Running, is_own: bool) -> Met {
        // Each by name: what is asked for one day besides must be decided here.
        let Traffic {
            from,
            to,
            domain,
            interface,
            protocol,
            ports,
            dscp,
            mac,
            user,
            group,
            unit,
            slice,
            time: _,
        } = self;
        let in_one = |nets: &[IpNet], ip| nets.is_empty() || nets.iter().any(|net| net.contains(&ip));
        let port = flow.port.filter(|_| WITH_PORTS.contains(&flow.protocol));
        let in_range = |port: u16| ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
        // What was asked for before anybody listened is not known; nearly all would be none of these names.
        let met = domain.is_empty()
            && in_one(from, flow.from)
            && in_one(to, flow.to)
            && (protocol.is_empty() || protocol.contains(&flow.protocol))
            && (ports.is_empty() || port.is_some_and(in_range))
            && !(is_own && self.is_behind())
            && (is_own || !self.is_own());
        let of_sender = interface.is_empty() && dscp.is_empty() && mac.is_empty();
        let of_program = user.is_empty() && group.is_empty() && unit.is_empty() && slice.is_empty();
        let all_told = of_sender && of_program;
        match (met, all_told) {
            (false, _) => Met::Not,
            (true, true) => Met::Surely,
            (true, false) => Met::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u8) -> Slot {
        Slot::new(n).unwrap()
    }

    fn claims(policies: Vec<(Traffic, Option<Option<Slot>>)>) -> Claims {
        let claim =
            |(traffic, enforces)| Claim { traffic, in_force: PerFamily { v4: true, v6: true }, enforces };
        Claims {
            policies: policies.into_iter().map(claim).collect(),
            own: ["192.0.2.2".parse().unwrap()].into(),
            behind: vec!["10.1.0.0/24".parse().unwrap()],
        }
    }

    fn flow(from: &str, to: &str, port: u16, mark: u32) -> Running {
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        Running { from, to, protocol: 6, port: Some(port), mark }
    }

    #[test]
    fn a_flow_belongs_where_the_first_policy_says_that_is_surely_its_own() {
        let to = |net: &str| Traffic { to: vec![net.parse().unwrap()], ..Traffic::default() };
        let web = Traffic { ports: vec![(80, 80)], ..Traffic::default() };
        let cameras = Traffic { mac: vec!["02:00:5e:00:53:01".parse().unwrap()], ..Traffic::default() };
        let claims = claims(vec![
            (cameras, None),
            (to("203.0.113.9/32"), None),
            (to("203.0.113.0/24"), Some(Some(slot(2)))),
            (web, Some(None)),
        ]);
        let on = |to: &str, port, mark| claims.on(&flow("10.1.0.9", to, port, mark));
        // What of the first cannot be told leaves nothing to it.
        assert_eq!(on("203.0.113.1", 443, 0x0100_0000), Some(Some(slot(2))));
        assert_eq!(on("203.0.113.1", 443, 0x8200_0005), None, "it is there, with bits of others");
        assert_eq!(on("203.0.113.9", 80, 0x0100_0000), None, "an earlier policy's");
        assert_eq!(on("198.51.100.1", 80, 0x0100_0000), Some(None));
        assert_eq!(on("198.51.100.1", 443, 0x0100_0000), None);
        assert_eq!(on("203.0.113.1", 443, 0), None, "it has no mark");
        for answered in ["192.0.2.2", "10.1.0.7"] {
            assert_eq!(claims.on(&flow("198.51.100.7", answered, 80, 0x0100_0000)), None, "{answered}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_taken_for_met() {
        let nobody = Traffic { user: vec![(65534, 65534)], ports: vec![(80, 80)], ..Traffic::default() };
        let claims = claims(vec![(nobody, Some(Some(slot(2))))]);
        let on = |from: &str, port| claims.on(&flow(from, "203.0.113.1", port, 0x0100_0000));
        assert_eq!(on("192.0.2.2", 80), Some(Some(slot(2))));
        assert_eq!(on("192.0.2.2", 81), None);
        assert_eq!(on("10.1.0.9", 80), None, "no program of this machine sends it");
    }
}
