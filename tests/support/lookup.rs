//! Where a packet would go: the rules by preference, in a table the longest prefix and then the lowest metric.

use std::collections::BTreeSet;
use std::net::IpAddr;

use uplinkd::core::net::{Family, IfIndex, TableId, Tos};

use super::fib::{FibRoute, FibRule};
use super::kernel::Memory;

/// A packet to be routed; nothing but `to` need be known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) from: Option<IpAddr>,
    pub(crate) to: IpAddr,
    pub(crate) mark: u32,
    /// What the socket is bound to.
    pub(crate) oif: Option<IfIndex>,
}

impl Packet {
    /// Of a socket that is bound to nothing.
    pub(crate) fn to(to: IpAddr) -> Self {
        Packet { from: None, to, mark: 0, oif: None }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It leaves by one of these.
    Legs(BTreeSet<(IfIndex, Option<IpAddr>)>),
    /// A route or a rule says that there is no way.
    Refused,
    /// Nobody says anything.
    Nowhere,
}

impl Verdict {
    /// Whether it can only leave by these interfaces.
    pub(crate) fn within(&self, devices: &BTreeSet<IfIndex>) -> bool {
        matches!(self, Verdict::Legs(legs) if legs.iter().all(|(dev, _)| devices.contains(dev)))
    }
}

impl Memory {
    /// Routes a packet.
    pub(crate) fn lookup(&self, packet: Packet) -> Verdict {
        let family = Family::of(packet.to);
        let rules = self.rules.iter().filter(|r| r.family == family && r.table != Some(TableId::LOCAL));
        for rule in rules.filter(|rule| self.takes(rule, packet)) {
            let Some(table) = rule.table else { return Verdict::Refused };
            let Some(route) = self.best(table, packet) else { continue };
            // A refusal is an error, which is not suppressed (fib_rules_lookup, net/core/fib_rules.c).
            let refusal = route.legs.is_empty();
            let short = rule.suppress.is_some_and(|len| u32::from(route.key.dest.prefix_len()) <= len);
            if short && !refusal {
                continue;
            }
            if route.legs.is_empty() {
                return Verdict::Refused;
            }
            let live = route.legs.iter().filter(|leg| !leg.dead && packet.oif.is_none_or(|o| o == leg.dev));
            return Verdict::Legs(live.map(|leg| (leg.dev, leg.via)).collect());
        }
        Verdict::Nowhere
    }

    fn takes(&self, rule: &FibRule, packet: Packet) -> bool {
        let oif = packet.oif.and_then(|index| self.name(index));
        let matches = rule.from.is_none_or(|net| packet.from.is_some_and(|ip| net.contains(&ip)))
            && rule.to.is_none_or(|net| net.contains(&packet.to))
            && rule.mark.is_none_or(|(value, mask)| packet.mark & mask == value)
            && rule.oif.as_ref().is_none_or(|name| oif.as_ref() == Some(name))
            && rule.iif.is_none();
        matches != rule.not
    }

    /// What a table says.
    pub(crate) fn best(&self, table: TableId, packet: Packet) -> Option<&FibRoute> {
        let fits = |r: &&FibRoute| {
            let live = |leg: &super::fib::FibLeg| !leg.dead && packet.oif.is_none_or(|o| o == leg.dev);
            // A refusal holds in IPv4 also of a packet that is bound to a device (fib_table_lookup comes to the type
            // ahead of the device); in IPv6 it has a device of its own.
            let refuses = r.legs.is_empty() && (packet.oif.is_none() || r.family() == Family::V4);
            let usable = r.key.tos == Tos::ANY && (refuses || r.legs.iter().any(live));
            r.key.table == table && r.key.dest.contains(&packet.to) && usable
        };
        let rank = |r: &&FibRoute| (u8::MAX - r.key.dest.prefix_len(), r.key.metric);
        self.routes.iter().filter(fits).min_by_key(rank)
    }
}
