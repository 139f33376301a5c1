//! One complete look at the kernel's links, addresses, routes, rules and neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::rule::RuleMessage;

use super::message::{RouteFields, address_family, parse_rule};
use super::{Error, Rtnl};
use crate::core::layout::{BALANCED_TABLE, Base, Slot};
use crate::core::net::{Device, Family, IfIndex, IfName, MacAddr, OWNER, PerFamily, TableId, Tos};
use crate::core::nft::ETHERNET_MTU;
use crate::core::observed::{Address, DefaultRoute, ForeignRule, Link, Neighbour, OtherRoute};
use crate::core::route::Route;
use crate::core::rule::Rule;
use crate::core::sysctl::Sysctl;

/// What rtnetlink tells.
#[derive(Debug, Default)]
pub struct View {
    /// Interfaces.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Neighbours.
    pub neighbours: Vec<Neighbour>,
    /// Foreign default routes.
    pub defaults: Vec<DefaultRoute>,
    /// Other foreign routes of main.
    pub others: Vec<OtherRoute>,
    /// Tables of ours in which somebody else has routes.
    pub foreign_tables: BTreeSet<TableId>,
    /// Foreign rules.
    pub foreign_rules: Vec<ForeignRule>,
    /// Our routes.
    pub routes: Vec<Route>,
    /// Our rules.
    pub rules: Vec<Rule>,
    /// Whether packets that arrive on some interface are forwarded.
    pub forwards: PerFamily<bool>,
    /// Settings of interfaces, which the kernel sends along with them.
    pub sysctls: BTreeMap<Sysctl, String>,
}

impl Rtnl {
    /// Looks at everything.
    pub async fn look(&self) -> Result<View, Error> {
        let mut view = View::default();
        for message in self.dump("dump links", RouteNetlinkMessage::GetLink(LinkMessage::default())).await? {
            if let RouteNetlinkMessage::NewLink(link) = message {
                view.add_link(&link);
            }
        }
        for message in
            self.dump("dump addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?
        {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                view.addresses.extend(parse_address(&address));
            }
        }
        for family in Family::BOTH {
            let mut request = RouteMessage::default();
            request.header.address_family = address_family(family);
            for message in self.dump("dump routes", RouteNetlinkMessage::GetRoute(request)).await? {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    view.add_route(family, &route);
                }
            }
            let mut request = RuleMessage::default();
            request.header.family = address_family(family);
            for message in self.dump("dump rules", RouteNetlinkMessage::GetRule(request)).await? {
                if let RouteNetlinkMessage::NewRule(rule) = message {
                    view.add_rule(family, &rule);
                }
            }
            let mut request = NeighbourMessage::default();
            request.header.family = address_family(family);
            for message in self.dump("dump neighbours", RouteNetlinkMessage::GetNeighbour(request)).await? {
                if let RouteNetlinkMessage::NewNeighbour(neighbour) = message {
                    view.neighbours.extend(parse_neighbour(&neighbour));
                }
            }
        }
        Ok(view)
    }
}

impl View {
    fn add_link(&mut self, message: &LinkMessage) {
        let mut name = None;
        let (mut kind, mut mac, mut controller) = (None, None, None);
        let mut mtu = ETHERNET_MTU;
        let (mut v4, mut v6) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = IfName::new(text),
                LinkAttribute::Address(bytes) => {
                    mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddr)
                }
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                LinkAttribute::Controller(index) if *index != 0 => controller = Some(IfIndex(*index)),
                LinkAttribute::LinkInfo(infos) => {
                    kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                LinkAttribute::AfSpecUnspec(specs) => {
                    for spec in specs {
                        match spec {
                            AfSpecUnspec::Inet(parts) => {
                                v4 = parts.iter().find_map(|part| match part {
                                    AfSpecInet::DevConf(conf) => Some(*conf),
                                    _ => None,
                                });
                            }
                            AfSpecUnspec::Inet6(parts) => {
                                v6 = parts.iter().find_map(|part| match part {
                                    AfSpecInet6::DevConf(conf) => Some(*conf),
                                    _ => None,
                                });
                            }
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        // An interface whose name cannot be written into a rule safely is none for us.
        let Some(name) = name else { return };
        let flags = message.header.flags;
        if !flags.contains(LinkFlags::Loopback) {
            self.forwards.v4 |= v4.as_ref().is_some_and(|conf| conf.forwarding != 0);
            self.forwards.v6 |= v6.as_ref().is_some_and(|conf| conf.forwarding != 0);
        }
        if let Some(conf) = v4 {
            self.sysctls.insert(Sysctl::RpFilter(name.clone()), conf.rp_filter.to_string());
            let linkdown = conf.ignore_routes_with_linkdown.to_string();
            self.sysctls.insert(Sysctl::IgnoreLinkdown(Family::V4, name.clone()), linkdown);
        }
        if let Some(conf) = v6 {
            let linkdown = conf.ignore_routes_with_linkdown.to_string();
            self.sysctls.insert(Sysctl::IgnoreLinkdown(Family::V6, name.clone()), linkdown);
            self.sysctls.insert(Sysctl::AcceptRa(name.clone()), conf.accept_ra.to_string());
        }
        self.links.push(Link {
            index: IfIndex(message.header.index),
            name,
            kind,
            arphrd: message.header.link_layer_type.into(),
            mac,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            controller,
            mtu,
        });
    }

    fn device(&self, index: IfIndex) -> Option<Device> {
        let link = self.links.iter().find(|link| link.index == index)?;
        Some(Device { index, name: link.name.clone() })
    }

    fn add_route(&mut self, family: Family, message: &RouteMessage) {
        let Some(fields) = RouteFields::of(family, message) else { return };
        let table = fields.key.table;
        let in_our_range = table == BALANCED_TABLE || Slot::of_table(table).is_some();
        if fields.protocol == OWNER && (in_our_range || table == TableId::MAIN) {
            let route = fields.into_route(|index| self.device(index));
            self.routes.extend(route);
            return;
        }
        if in_our_range {
            self.foreign_tables.insert(table);
        }
        if fields.key.tos != Tos::ANY {
            return;
        }
        let hops = fields.hops.iter().map(|&(dev, via, ..)| (dev, via)).collect();
        if table == TableId::MAIN && OtherRoute::matters(fields.key.dest, fields.protocol) {
            self.others.push(OtherRoute { dest: fields.key.dest, hops });
        } else if fields.key.dest.prefix_len() == 0 {
            self.defaults.push(DefaultRoute { family, table, metric: fields.key.metric, hops });
        }
    }

    fn add_rule(&mut self, family: Family, message: &RuleMessage) {
        match parse_rule(family, message) {
            Ok(rule) if Base::is_ours(rule.pref) => self.rules.push(rule),
            // Our tag, but not where ours can be: somebody else took the number, and it stays theirs.
            Ok(_) => {}
            Err(foreign) => self.foreign_rules.push(foreign),
        }
    }
}

fn parse_address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    // IFA_ADDRESS is the peer where IFA_LOCAL differs from it, else the address itself (if_addr.h).
    let ip: IpAddr = local.or(address)?;
    Some(Address {
        dev: IfIndex(message.header.index),
        ip,
        prefix_len: message.header.prefix_len,
        peer: address.filter(|peer| *peer != ip),
        secondary: flags.contains(AddressFlags::Secondary),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
        global: message.header.scope == AddressScope::Universe,
        deprecated: flags.contains(AddressFlags::Deprecated),
    })
}

fn parse_neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::from(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::from(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    Some(Neighbour { dev: IfIndex(message.header.ifindex), ip: ip?, mac: MacAddr(mac?) })
}
