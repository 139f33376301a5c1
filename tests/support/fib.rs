//! Routes and rules as the kernel stores them, ours and foreign alike.

use std::net::IpAddr;

use ipnet::IpNet;
use uplinkd::core::net::{Device, Family, IfIndex, IfName, Mark, OWNER, Pref, TableId, Weight};
use uplinkd::core::observed::ForeignRule;
use uplinkd::core::route::{NextHop, Route, RouteKey};
use uplinkd::core::rule::{Rule, Selector};

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FibRoute {
    pub(crate) key: RouteKey,
    pub(crate) protocol: u8,
    pub(crate) src: Option<IpAddr>,
    /// None for `unreachable`.
    pub(crate) legs: Vec<FibLeg>,
}

/// A leg of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FibLeg {
    pub(crate) dev: IfIndex,
    pub(crate) via: Option<IpAddr>,
    pub(crate) onlink: bool,
    pub(crate) weight: Weight,
    /// Its interface is down or has lost its last IPv4 address; it comes back by itself.
    pub(crate) dead: bool,
}

impl FibRoute {
    pub(crate) fn family(&self) -> Family {
        Family::of(self.key.dest.addr())
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.protocol == OWNER
    }

    pub(crate) fn of(route: &Route) -> Self {
        let leg = |hop: &NextHop| FibLeg {
            dev: hop.dev.index,
            via: hop.via,
            onlink: hop.onlink,
            weight: hop.weight,
            dead: false,
        };
        FibRoute {
            key: route.key.clone(),
            protocol: OWNER,
            src: route.src,
            legs: route.hops.iter().map(leg).collect(),
        }
    }

    /// As one of ours, with today's names.
    pub(crate) fn to_route(&self, name: impl Fn(IfIndex) -> Option<IfName>) -> Option<Route> {
        let hop = |leg: &FibLeg| {
            let dev = Device { index: leg.dev, name: name(leg.dev)? };
            Some(NextHop { dev, via: leg.via, onlink: leg.onlink, weight: leg.weight })
        };
        let hops = self.legs.iter().map(hop).collect::<Option<_>>()?;
        Some(Route { key: self.key.clone(), src: self.src, hops })
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FibRule {
    pub(crate) family: Family,
    pub(crate) pref: u32,
    pub(crate) not: bool,
    pub(crate) from: Option<IpNet>,
    pub(crate) to: Option<IpNet>,
    pub(crate) mark: Option<(u32, u32)>,
    pub(crate) iif: Option<String>,
    pub(crate) oif: Option<IfName>,
    /// None for `unreachable`.
    pub(crate) table: Option<TableId>,
    pub(crate) suppress: Option<u32>,
    pub(crate) protocol: u8,
    /// As it was written.
    pub(crate) text: String,
}

impl FibRule {
    /// A rule for every packet, as the kernel makes them itself.
    pub(crate) fn all(family: Family, pref: u32, table: TableId) -> Self {
        FibRule {
            family,
            pref,
            not: false,
            from: None,
            to: None,
            mark: None,
            iif: None,
            oif: None,
            table: Some(table),
            suppress: None,
            protocol: 2,
            text: format!("{pref}: from all lookup {table}"),
        }
    }

    pub(crate) fn of(rule: &Rule) -> Self {
        let mut fib = FibRule::all(rule.family, rule.pref.0, rule.table);
        (fib.protocol, fib.suppress, fib.text) = (OWNER, rule.suppress_prefixlen, String::new());
        fib.table = Some(rule.table).filter(|table| *table != TableId::NOWHERE);
        match &rule.selector {
            Selector::All => {}
            Selector::Mark(mark) => fib.mark = Some((mark.value(), mark.mask())),
            Selector::From(net) => fib.from = Some(*net),
            Selector::To(net) => fib.to = Some(*net),
            Selector::FromTo(from, to) => (fib.from, fib.to) = (Some(*from), Some(*to)),
            Selector::Oif(name) => fib.oif = Some(name.clone()),
        }
        fib
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.protocol == OWNER
    }

    /// As one of ours; what we never make is nobody's fault but the test's.
    pub(crate) fn to_rule(&self) -> Rule {
        let selector = match (self.mark, self.from, self.to, &self.oif) {
            (Some((value, mask)), ..) => Selector::Mark(Mark::new(value, mask)),
            (_, Some(from), Some(to), _) => Selector::FromTo(from, to),
            (_, Some(net), ..) => Selector::From(net),
            (_, _, Some(net), _) => Selector::To(net),
            (_, _, _, Some(name)) => Selector::Oif(name.clone()),
            _ => Selector::All,
        };
        let table = self.table.unwrap_or(TableId::NOWHERE);
        let (family, pref, suppress_prefixlen) = (self.family, Pref(self.pref), self.suppress);
        Rule { family, pref, selector, table, suppress_prefixlen }
    }

    /// As the view of the kernel tells of a foreign one (src/kernel/rtnl/message.rs).
    pub(crate) fn to_foreign(&self) -> ForeignRule {
        let decides = match self.table {
            Some(table) => table != TableId::LOCAL && self.suppress.is_none(),
            None => true,
        };
        let narrow = self.from.is_some() || self.to.is_some() || self.oif.is_some() || self.iif.is_some();
        ForeignRule {
            family: self.family,
            pref: Pref(self.pref),
            catch_all: !narrow && self.mark.is_some() == self.not && decides,
            fwmark: self.mark,
            table: self.table,
            iif: self.iif.as_deref().and_then(IfName::new).filter(|_| decides),
            text: self.text.clone(),
        }
    }
}
