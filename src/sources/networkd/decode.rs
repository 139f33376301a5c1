//! From what networkd describes to facts about interfaces.
//!
//! Pure and total: a member that is missing or of another type is a fact that is missing. Decides which links networkd
//! manages and which of the routers that it has heard of are its gateway; does not decide what is an uplink.

use std::net::IpAddr;

use ipnet::Ipv6Net;
use serde_json::Value as Json;

use super::network::Network;
use crate::core::net::{Family, IfName, PerFamily};
use crate::core::observed::{IpFacts, LinkFacts, Manager, Profile, Stage};
use crate::sources::dhcp;

/// A managed link, as far as networkd describes it.
#[derive(Debug)]
pub(super) struct Described {
    /// The index of the interface.
    pub(super) index: u32,
    /// Its .network file.
    pub(super) file: Option<String>,
    /// Routers that announced themselves, whether or not as a way out.
    announced: Vec<IpAddr>,
    facts: LinkFacts,
}

/// The links that networkd manages; none where the answer has no list of any.
pub(super) fn links(document: &Json) -> Option<Vec<Described>> {
    let links = document.get("Interfaces")?.as_array()?;
    Some(links.iter().filter_map(described).collect())
}

fn described(link: &Json) -> Option<Described> {
    let interface = IfName::new(text(link, "Name")?)?;
    let index = u32::try_from(link.get("Index")?.as_u64()?).ok()?;
    let stage = stage(text(link, "AdministrativeState")?, text(link, "OperationalState"))?;
    let file = text(link, "NetworkFile").map(str::to_owned);
    let facts = LinkFacts {
        profile: file.as_deref().and_then(|file| profile(link, file, &interface)),
        interface,
        manager: Manager::Networkd,
        stage,
        metered: None,
        // Its kinds are the kernel's, which tells them better.
        vpn: false,
        // Said by 257, not by 252; the file tells both.
        shared: link.get("DHCPServer").is_some_and(Json::is_object),
        ip: PerFamily::from_fn(|family| IpFacts {
            gateway: gateway(link, family),
            offered: Vec::new(),
            resolvers: list(link, "DNS").filter_map(|dns| address(dns, "Address", family)).collect(),
            // OnlineState tells that there are addresses, not that they lead anywhere.
            connectivity: None,
            delegated: if family == Family::V6 { delegated(link) } else { Vec::new() },
        }),
        settings: Vec::new(),
        notes: Vec::new(),
    };
    Some(Described { index, file, announced: announced(link), facts })
}

impl Described {
    /// The facts, with what was found in files.
    pub(super) fn with(self, network: &Network<'_>, problems: Vec<String>, lease: Option<&str>) -> LinkFacts {
        let mut facts = self.facts;
        facts.settings = network.places();
        facts.notes = problems;
        facts.shared |= network.shares();
        facts.ip.v4.offered = lease.map(offered).unwrap_or_default();
        // Without a default route it may be no way out; where networkd was told to take none, nothing else is known.
        if network.leaves_routers() {
            facts.ip.v6.offered = self.announced;
        }
        facts
    }
}

/// `AdministrativeState` and `OperationalState` (networkctl(1)). A link waits for its carrier in the state "configuring".
fn stage(administrative: &str, operational: Option<&str>) -> Option<Stage> {
    let waits = operational.is_none_or(|state| ["missing", "off", "no-carrier", "dormant"].contains(&state));
    match administrative {
        "unmanaged" => None,
        "configuring" if !waits => Some(Stage::Configuring),
        "configured" if !waits => Some(Stage::Active),
        _ => Some(Stage::Inactive),
    }
}

fn profile(link: &Json, file: &str, interface: &IfName) -> Option<Profile> {
    let (_, name) = file.rsplit_once('/')?;
    let kind = text(link, "Type").unwrap_or_default().to_owned();
    Some(Profile { id: file.to_owned(), uuid: format!("{name}@{interface}"), kind })
}

/// The gateway of the best default route that networkd itself has put there.
///
/// networkd 257 hides the one of a router advertisement, since it is a nexthop object; the kernel's own routes have it.
fn gateway(link: &Json, family: Family) -> Option<IpAddr> {
    let number = |route: &Json, name| route.get(name).and_then(Json::as_u64);
    let defaults = list(link, "Routes").filter(|route| {
        number(route, "DestinationPrefixLength") == Some(0)
            && number(route, "SourcePrefixLength").unwrap_or(0) == 0
            && text(route, "ConfigSource").is_some_and(|source| source != "foreign")
    });
    let gateways = defaults.filter_map(|route| {
        let gateway = address(route, "Gateway", family).filter(|ip| dhcp::can_be_gateway(*ip))?;
        Some((number(route, "Priority"), gateway))
    });
    gateways.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

/// The routers that addresses and routes of the link were learned from by neighbour discovery.
fn announced(link: &Json) -> Vec<IpAddr> {
    let learned = list(link, "Addresses").chain(list(link, "Routes"));
    let learned = learned.filter(|entry| text(entry, "ConfigSource") == Some("NDisc"));
    let mut routers: Vec<IpAddr> = learned
        .filter_map(|entry| address(entry, "ConfigProvider", Family::V6))
        .filter(|ip| dhcp::can_be_gateway(*ip))
        .collect();
    routers.sort();
    routers.dedup();
    routers
}

/// The prefixes that were delegated over a link. 257 tells them; with 252 nothing is known.
fn delegated(link: &Json) -> Vec<Ipv6Net> {
    let prefix = |prefix: &Json| match address(prefix, "Prefix", Family::V6)? {
        IpAddr::V6(ip) => {
            let length = u8::try_from(prefix.get("PrefixLength")?.as_u64()?).ok()?;
            Ipv6Net::new(ip, length).ok().map(|net| net.trunc())
        }
        IpAddr::V4(_) => None,
    };
    link.get("DHCPv6Client")
        .into_iter()
        .flat_map(|client| list(client, "Prefixes"))
        .filter_map(prefix)
        .collect()
}

/// The gateways in a lease as networkd keeps it, `KEY=VALUE` on each line.
fn offered(lease: &str) -> Vec<IpAddr> {
    let option = |name: &str| lease.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    dhcp::offered(option("CLASSLESS_ROUTES"), option("ROUTER"))
}

fn list<'t>(json: &'t Json, name: &str) -> impl Iterator<Item = &'t Json> {
    json.get(name).and_then(Json::as_array).into_iter().flatten()
}

fn text<'t>(json: &'t Json, name: &str) -> Option<&'t str> {
    json.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// An address as its bytes, where it is of a family.
fn address(json: &Json, name: &str, family: Family) -> Option<IpAddr> {
    let bytes = json.get(name)?.as_array()?.iter().map(|byte| u8::try_from(byte.as_u64()?).ok());
    let bytes = bytes.collect::<Option<Vec<u8>>>()?;
    match family {
        Family::V4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        Family::V6 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    }
}

#[cfg(test)]
mod tests;
