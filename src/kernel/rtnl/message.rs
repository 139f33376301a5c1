//! Our rules and routes as netlink messages, and back: each pair side by side.
//!
//! A message that says more than our types can is not ours, whatever tag it carries.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use crate::core::net::{Device, Family, IfIndex, IfName, Mark, Metric, OWNER, Pref, TableId, Tos, Weight};
use crate::core::observed::ForeignRule;
use crate::core::route::{NextHop, Route, RouteKey};
use crate::core::rule::{Rule, Selector};

/// The family as netlink names it.
pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// A table number in the header's byte, or 0 where only the attribute can hold it.
fn table_byte(table: TableId) -> u8 {
    u8::try_from(table.0).unwrap_or(RouteHeader::RT_TABLE_UNSPEC)
}

/// A rule as a message, for adding and deleting alike.
pub(super) fn rule(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = address_family(rule.family);
    message.attributes.push(RuleAttribute::Priority(rule.pref.0));
    if rule.table == TableId::NOWHERE {
        message.header.action = RuleAction::Unreachable;
    } else {
        message.header.action = RuleAction::ToTable;
        message.header.table = table_byte(rule.table);
        message.attributes.push(RuleAttribute::Table(rule.table.0));
    }
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::from(OWNER)));
    if let Some(len) = rule.suppress_prefixlen {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(len));
    }
    if let Selector::From(net) | Selector::FromTo(net, _) = &rule.selector {
        message.header.src_len = net.prefix_len();
        message.attributes.push(RuleAttribute::Source(net.addr()));
    }
    match &rule.selector {
        Selector::All | Selector::From(_) => {}
        Selector::Mark(mark) => {
            message.attributes.push(RuleAttribute::FwMark(mark.value()));
            message.attributes.push(RuleAttribute::FwMask(mark.mask()));
        }
        Selector::To(net) | Selector::FromTo(_, net) => {
            message.header.dst_len = net.prefix_len();
            message.attributes.push(RuleAttribute::Destination(net.addr()));
        }
        Selector::Oif(name) => message.attributes.push(RuleAttribute::Oifname(name.to_string())),
    }
    message
}

fn is_zero(attribute: &DefaultNla) -> bool {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    value.iter().all(|byte| *byte == 0)
}

/// What a message of a rule says, before it is known whose it is.
#[derive(Default)]
struct RuleFields {
    pref: u32,
    table: u32,
    protocol: u8,
    suppress: Option<u32>,
    mark: Option<u32>,
    mask: Option<u32>,
    from: Option<IpAddr>,
    to: Option<IpAddr>,
    oif: Option<String>,
    iif: Option<String>,
    /// Takes fewer packets than the fields here say.
    more: Vec<String>,
    /// Gives its packets a realm, which chooses none of them.
    realm: bool,
}

impl RuleFields {
    fn of(message: &RuleMessage) -> Self {
        let mut fields = RuleFields { table: message.header.table.into(), ..RuleFields::default() };
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(pref) => fields.pref = *pref,
                RuleAttribute::Table(table) => fields.table = *table,
                RuleAttribute::Protocol(protocol) => fields.protocol = (*protocol).into(),
                // The kernel writes -1 where nothing is suppressed.
                RuleAttribute::SuppressPrefixLen(len) => {
                    fields.suppress = Some(*len).filter(|l| *l != u32::MAX)
                }
                RuleAttribute::SuppressIfGroup(u32::MAX) => {}
                RuleAttribute::FwMark(mark) => fields.mark = Some(*mark),
                RuleAttribute::FwMask(mask) => fields.mask = Some(*mask),
                RuleAttribute::Source(ip) => fields.from = Some(*ip),
                RuleAttribute::Destination(ip) => fields.to = Some(*ip),
                RuleAttribute::Oifname(name) => fields.oif = Some(name.clone()),
                RuleAttribute::Iifname(name) => {
                    fields.iif = Some(name.clone());
                    fields.more.push(format!("iif {name}"));
                }
                RuleAttribute::L3MDev(true) => fields.more.push("l3mdev".into()),
                RuleAttribute::UidRange(range) => {
                    fields.more.push(format!("uidrange {}-{}", range.start, range.end))
                }
                RuleAttribute::Goto(_) | RuleAttribute::L3MDev(false) => {}
                RuleAttribute::Realm(_) => fields.realm = true,
                // What is newer than the crate (FRA_DSCP, FRA_FLOWLABEL) chooses packets too, unless it is zero.
                RuleAttribute::Other(attribute) if is_zero(attribute) => {}
                other => fields.more.push(format!("{other:?}")),
            }
        }
        if message.header.tos != 0 {
            fields.more.push(format!("tos {:#x}", message.header.tos));
        }
        fields
    }

    /// The one selector of ours that says the same, where there is one.
    fn selector(&self, header: &netlink_packet_route::rule::RuleHeader) -> Option<Selector> {
        match (self.mark, self.from, self.to, &self.oif) {
            (None, None, None, None) => Some(Selector::All),
            (Some(mark), None, None, None) => {
                Some(Selector::Mark(Mark::new(mark, self.mask.unwrap_or(u32::MAX))))
            }
            (None, Some(ip), None, None) => IpNet::new(ip, header.src_len).ok().map(Selector::From),
            (None, None, Some(ip), None) => IpNet::new(ip, header.dst_len).ok().map(Selector::To),
            (None, Some(from), Some(to), None) => {
                let from = IpNet::new(from, header.src_len).ok()?;
                IpNet::new(to, header.dst_len).ok().map(|to| Selector::FromTo(from, to))
            }
            (None, None, None, Some(name)) => IfName::new(name).map(Selector::Oif),
            _ => None,
        }
    }
}

/// A rule of ours, or a foreign one.
pub(super) fn parse_rule(family: Family, message: &RuleMessage) -> Result<Rule, ForeignRule> {
    let fields = RuleFields::of(message);
    let header = &message.header;
    let to_table = header.action == RuleAction::ToTable && fields.table != TableId::NOWHERE.0;
    let refuses = header.action == RuleAction::Unreachable && fields.table == TableId::NOWHERE.0;
    let plain = (to_table || refuses)
        && fields.more.is_empty()
        && !fields.realm
        && !header.flags.contains(RuleFlags::Invert);
    let selector = fields.selector(header).filter(|_| plain && fields.protocol == OWNER);
    match selector {
        Some(selector) => Ok(Rule {
            family,
            pref: Pref(fields.pref),
            selector,
            table: TableId(fields.table),
            suppress_prefixlen: fields.suppress,
        }),
        None => Err(foreign_rule(family, message, &fields)),
    }
}

fn foreign_rule(family: Family, message: &RuleMessage, fields: &RuleFields) -> ForeignRule {
    let header = &message.header;
    let inverted = header.flags.contains(RuleFlags::Invert);
    let table = (header.action == RuleAction::ToTable).then_some(TableId(fields.table));
    let decides = match header.action {
        RuleAction::ToTable => table != Some(TableId::LOCAL) && fields.suppress.is_none(),
        RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => true,
        _ => false,
    };
    let narrow =
        fields.from.is_some() || fields.to.is_some() || fields.oif.is_some() || !fields.more.is_empty();
    let all = !narrow && fields.mark.is_some() == inverted;
    let mut text = format!("{}: {}from ", fields.pref, if inverted { "not " } else { "" });
    text += &fields.from.map_or("all".into(), |ip| format!("{ip}/{}", header.src_len));
    let mut say = |words: String| text = format!("{text} {words}");
    fields.to.iter().for_each(|ip| say(format!("to {ip}/{}", header.dst_len)));
    fields
        .mark
        .iter()
        .for_each(|mark| say(format!("fwmark {mark:#x}/{:#x}", fields.mask.unwrap_or(u32::MAX))));
    fields.oif.iter().for_each(|name| say(format!("oif {name}")));
    fields.more.iter().for_each(|more| say(more.clone()));
    match table {
        Some(table) => say(format!("lookup {table}")),
        None => say(format!("{:?}", header.action).to_lowercase()),
    }
    fields.suppress.iter().for_each(|len| say(format!("suppress_prefixlength {len}")));
    ForeignRule {
        family,
        pref: Pref(fields.pref),
        catch_all: all && decides,
        fwmark: fields.mark.map(|mark| (mark, fields.mask.unwrap_or(u32::MAX))),
        table,
        iif: fields.iif.as_deref().and_then(IfName::new).filter(|_| decides),
        text,
    }
}

/// What tells a route apart, and nothing more: the kernel compares whatever else a deletion mentions.
pub(super) fn route_key(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let RouteKey { table, dest, metric, tos } = &route.key;
    message.header.address_family = address_family(route.family());
    message.header.destination_prefix_length = dest.prefix_len();
    message.header.table = table_byte(*table);
    message.header.tos = tos.0;
    message.header.protocol = RouteProtocol::from(OWNER);
    message.header.scope = RouteScope::NoWhere;
    let dead_end = route.hops.is_empty();
    message.header.kind = if dead_end { RouteType::Unreachable } else { RouteType::Unicast };
    message.attributes.push(RouteAttribute::Table(table.0));
    message.attributes.push(RouteAttribute::Priority(metric.0));
    if dest.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(dest.addr().into()));
    }
    message
}

/// A whole route.
pub(super) fn route(route: &Route) -> RouteMessage {
    let mut message = route_key(route);
    let family = route.family();
    let through = route.hops.iter().any(|hop| hop.via.is_some());
    let local = family == Family::V4 && !through && !route.hops.is_empty();
    message.header.scope = if local { RouteScope::Link } else { RouteScope::Universe };
    message.attributes.extend(route.src.map(|ip| RouteAttribute::PrefSource(ip.into())));
    let gateway = |hop: &NextHop| {
        hop.via.map(|via| match (family, via) {
            (Family::V4, IpAddr::V6(ip)) => RouteAttribute::Via(RouteVia::Inet6(ip)),
            _ => RouteAttribute::Gateway(via.into()),
        })
    };
    if let [hop] = route.hops.as_slice() {
        message.attributes.push(RouteAttribute::Oif(hop.dev.index.0));
        message.attributes.extend(gateway(hop));
        if hop.onlink {
            message.header.flags |= RouteFlags::Onlink;
        }
    } else if !route.hops.is_empty() {
        let leg = |hop: &NextHop| {
            let mut leg = RouteNextHop::default();
            leg.interface_index = hop.dev.index.0;
            // One byte that counts from 0: a weight of 256 is 255 here.
            leg.hops = u8::try_from(hop.weight.get() - 1).unwrap_or(u8::MAX);
            leg.attributes.extend(gateway(hop));
            if hop.onlink {
                leg.flags = RouteNextHopFlags::Onlink;
            }
            leg
        };
        message.attributes.push(RouteAttribute::MultiPath(route.hops.iter().map(leg).collect()));
    }
    message
}

/// What a message of a route says.
pub(super) struct RouteFields {
    /// What tells it apart.
    pub(super) key: RouteKey,
    /// The source address that it sets.
    pub(super) src: Option<IpAddr>,
    /// Its legs: interface, gateway, on-link flag, weight. None for `unreachable` and the like.
    pub(super) hops: Vec<(IfIndex, Option<IpAddr>, bool, Weight)>,
    /// It is `unreachable` or the like.
    pub(super) dead_end: bool,
    /// Who made it.
    pub(super) protocol: u8,
}

impl RouteFields {
    /// Reads a message; none for what is not an ordinary route (local, broadcast, multicast, cached).
    pub(super) fn of(family: Family, message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let unicast = header.kind == RouteType::Unicast;
        let dead_end =
            matches!(header.kind, RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit);
        if !(unicast || dead_end) || header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let (mut table, mut metric, mut src, mut dest) = (u32::from(header.table), 0, None, None);
        let (mut oif, mut via, mut legs) = (None, None, Vec::new());
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(id) => table = *id,
                RouteAttribute::Priority(value) => metric = *value,
                RouteAttribute::PrefSource(ip) => src = address(ip),
                RouteAttribute::Destination(ip) => dest = address(ip),
                RouteAttribute::Oif(index) => oif = Some(IfIndex(*index)),
                RouteAttribute::MultiPath(hops) => legs.clone_from(hops),
                other => via = via.or(gateway_of(other)),
            }
        }
        let onlink = header.flags.contains(RouteFlags::Onlink);
        let mut hops: Vec<_> = legs.iter().map(leg).collect();
        if hops.is_empty() {
            hops.extend(oif.filter(|_| unicast).map(|oif| (oif, via, onlink, Weight::default())));
        }
        let dest = dest.unwrap_or(family.default_prefix().addr());
        let dest = IpNet::new(dest, header.destination_prefix_length).ok()?;
        let key = RouteKey { table: TableId(table), dest, metric: Metric(metric), tos: Tos(header.tos) };
        Some(RouteFields { key, src, hops, dead_end, protocol: header.protocol.into() })
    }

    /// As one of ours; none where a leg's interface has gone meanwhile.
    pub(super) fn into_route(self, device: impl Fn(IfIndex) -> Option<Device>) -> Option<Route> {
        let hop = |(index, via, onlink, weight)| Some(NextHop { dev: device(index)?, via, onlink, weight });
        let hops: Option<Vec<_>> = self.hops.into_iter().map(hop).collect();
        let hops = hops.filter(|hops| self.dead_end || !hops.is_empty())?;
        Some(Route { key: self.key, src: self.src, hops })
    }
}

fn leg(hop: &RouteNextHop) -> (IfIndex, Option<IpAddr>, bool, Weight) {
    let onlink = hop.flags.contains(RouteNextHopFlags::Onlink);
    let weight = Weight::new(u16::from(hop.hops) + 1).unwrap_or_default();
    (IfIndex(hop.interface_index), hop.attributes.iter().find_map(gateway_of), onlink, weight)
}

fn gateway_of(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(ip) => address(ip),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
