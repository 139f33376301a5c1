//! From NetworkManager's objects to facts about interfaces.
//!
//! Pure and total: a property that is missing or of another type is a fact that is missing. Decides which device
//! speaks for an interface and which profile it has; does not decide what is an uplink.

use std::collections::HashMap;
use std::net::IpAddr;

use zbus::zvariant::{Dict, ObjectPath, Value};

use super::profile::Details;
use crate::core::health::Connectivity;
use crate::core::net::{Family, IfName, PerFamily};
use crate::core::observed::{IpFacts, LinkFacts, Manager, Place, Profile, Stage};
use crate::sources::dhcp;

/// The reply of `ObjectManager.GetManagedObjects`: properties by interface by object.
pub(super) type Objects<'m> = HashMap<ObjectPath<'m>, HashMap<&'m str, Properties<'m>>>;

type Properties<'m> = HashMap<&'m str, Value<'m>>;

/// `NMDeviceState`: below it NetworkManager leaves the device alone (unknown, unmanaged).
const MANAGED: u32 = 20;

/// `NMActivationStateFlags`: somebody else set the interface up, and NetworkManager only shows it.
const EXTERNAL: u32 = 0x80;

/// The profiles whose details count: those active on a device by NetworkManager's own doing.
pub(super) fn profiles_in_use<'m>(objects: &Objects<'m>) -> Vec<ObjectPath<'m>> {
    let mut paths: Vec<_> = devices(objects)
        .filter_map(|device| device.active.filter(|active| !is_external(active)))
        .filter_map(|active| path(active, "Connection").cloned())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// What all this says of each managed interface, by name.
pub(super) fn link_facts<'m>(
    objects: &Objects<'m>,
    details: &HashMap<ObjectPath<'m>, Details>,
) -> Vec<LinkFacts> {
    let mut facts: Vec<_> =
        devices(objects).filter_map(|device| device.link_facts(objects, details)).collect();
    // A modem's control port and its network port can both name one interface; the one in use knows more.
    facts.sort_by(|a, b| a.interface.cmp(&b.interface).then(b.stage.cmp(&a.stage)));
    facts.dedup_by(|a, b| a.interface == b.interface);
    facts
}

/// A managed device and the activation on it.
struct Device<'t, 'm> {
    properties: &'t Properties<'m>,
    state: u32,
    active: Option<&'t Properties<'m>>,
}

fn devices<'t, 'm>(objects: &'t Objects<'m>) -> impl Iterator<Item = Device<'t, 'm>> {
    objects.values().filter_map(|interfaces| {
        let properties = interfaces.get("org.freedesktop.NetworkManager.Device")?;
        let state = number(properties, "State").filter(|state| *state >= MANAGED)?;
        let active = "org.freedesktop.NetworkManager.Connection.Active";
        let active = referenced(objects, properties, "ActiveConnection", active);
        Some(Device { properties, state, active })
    })
}

impl<'m> Device<'_, 'm> {
    fn link_facts(
        &self,
        objects: &Objects<'m>,
        details: &HashMap<ObjectPath<'m>, Details>,
    ) -> Option<LinkFacts> {
        let interface =
            ["IpInterface", "Interface"].into_iter().find_map(|name| text(self.properties, name))?;
        let own = self.active.filter(|active| !is_external(active));
        let details =
            own.and_then(|active| details.get(path(active, "Connection")?)).cloned().unwrap_or_default();
        let profile = own.and_then(profile);
        let origin = format!("profile {:?}", profile.as_ref().map_or("?", |profile| profile.id.as_str()));
        Some(LinkFacts {
            interface: IfName::new(interface)?,
            manager: Manager::NetworkManager,
            profile,
            stage: stage(self.state),
            metered: self.metered(),
            vpn: self.active.is_some_and(is_vpn),
            shared: details.shared,
            ip: PerFamily::from_fn(|family| self.ip(objects, family)),
            settings: vec![Place { origin, pairs: details.settings }],
            notes: Vec::new(),
        })
    }

    /// `NMMetered`: 1 and 2 are said by the profile, 3 and 4 guessed from the network.
    fn metered(&self) -> Option<bool> {
        match number(self.properties, "Metered")? {
            1 | 3 => Some(true),
            2 | 4 => Some(false),
            _ => None,
        }
    }

    fn ip(&self, objects: &Objects<'m>, family: Family) -> IpFacts {
        let (property, interface) = match family {
            Family::V4 => ("Ip4Config", "org.freedesktop.NetworkManager.IP4Config"),
            Family::V6 => ("Ip6Config", "org.freedesktop.NetworkManager.IP6Config"),
        };
        let config = referenced(objects, self.properties, property, interface);
        let gateway = config
            .and_then(|config| text(config, "Gateway")?.parse().ok())
            .filter(|ip: &IpAddr| Family::of(*ip) == family && dhcp::can_be_gateway(*ip));
        let offered = match family {
            Family::V4 => self.offered(objects),
            // Routers advertise themselves; the kernel's routes and neighbours show them, NetworkManager does not.
            Family::V6 => Vec::new(),
        };
        let resolvers = config.map(|config| resolvers(config, family)).unwrap_or_default();
        let delegated = match family {
            Family::V4 => Vec::new(),
            Family::V6 => self.option(objects, family, "ip6_prefix").map(dhcp::delegated).unwrap_or_default(),
        };
        IpFacts { gateway, offered, resolvers, connectivity: self.connectivity(objects, family), delegated }
    }

    /// `NMConnectivityState`. A device says "full" where nobody checks, so whether somebody does counts first.
    fn connectivity(&self, objects: &Objects<'m>, family: Family) -> Option<Connectivity> {
        let manager = objects.values().find_map(|o| o.get("org.freedesktop.NetworkManager"))?;
        if manager.get("ConnectivityCheckEnabled") != Some(&Value::from(true)) {
            return None;
        }
        let property = match family {
            Family::V4 => "Ip4Connectivity",
            Family::V6 => "Ip6Connectivity",
        };
        match number(self.properties, property)? {
            1 => Some(Connectivity::None),
            2 => Some(Connectivity::Portal),
            3 => Some(Connectivity::Limited),
            4 => Some(Connectivity::Full),
            _ => None,
        }
    }

    fn offered(&self, objects: &Objects<'m>) -> Vec<IpAddr> {
        let option = |wanted| self.option(objects, Family::V4, wanted);
        let classless =
            option("rfc3442_classless_static_routes").or_else(|| option("ms_classless_static_routes"));
        dhcp::offered(classless, option("routers"))
    }

    /// What the lease says of one thing.
    fn option<'t>(&self, objects: &'t Objects<'m>, family: Family, wanted: &str) -> Option<&'t str> {
        let (property, interface) = match family {
            Family::V4 => ("Dhcp4Config", "org.freedesktop.NetworkManager.DHCP4Config"),
            Family::V6 => ("Dhcp6Config", "org.freedesktop.NetworkManager.DHCP6Config"),
        };
        match referenced(objects, self.properties, property, interface)?.get("Options")? {
            Value::Dict(options) => text_in(options, wanted),
            _ => None,
        }
    }
}

/// The name servers of a link: texts in `NameserverData`, and, where only that is known, bytes in `Nameservers`.
fn resolvers(config: &Properties<'_>, family: Family) -> Vec<IpAddr> {
    let array = |name: &str| match config.get(name) {
        Some(Value::Array(array)) => array.iter().map(unpacked).collect(),
        _ => Vec::new(),
    };
    let text = |entry: &Value<'_>| {
        let Value::Dict(entry) = entry else { return None };
        text_in(entry, "address")?.parse().ok()
    };
    let bytes = |entry: &Value<'_>| {
        let bytes: Vec<u8> = entry.try_clone().ok()?.try_into().ok()?;
        Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))
    };
    let mut found: Vec<IpAddr> = array("NameserverData").into_iter().filter_map(text).collect();
    if found.is_empty() && family == Family::V6 {
        found = array("Nameservers").into_iter().filter_map(bytes).collect();
    }
    found.retain(|ip| Family::of(*ip) == family);
    found
}

/// A text in a dictionary.
fn text_in<'t>(dict: &'t Dict<'_, '_>, wanted: &str) -> Option<&'t str> {
    let (_, value) = dict.iter().find(|(key, _)| **key == Value::from(wanted))?;
    <&str>::try_from(unpacked(value)).ok()
}

fn unpacked<'v, 'm>(value: &'v Value<'m>) -> &'v Value<'m> {
    match value {
        Value::Value(inner) => inner,
        other => other,
    }
}

fn profile(active: &Properties<'_>) -> Option<Profile> {
    Some(Profile {
        id: text(active, "Id")?.to_owned(),
        uuid: text(active, "Uuid")?.to_owned(),
        kind: text(active, "Type")?.to_owned(),
    })
}

/// `NMDeviceState`: 40 prepare to 90 secondaries, 100 activated.
fn stage(state: u32) -> Stage {
    match state {
        40..=90 => Stage::Configuring,
        100 => Stage::Active,
        _ => Stage::Inactive,
    }
}

fn is_vpn(active: &Properties<'_>) -> bool {
    let kind = text(active, "Type").unwrap_or_default();
    ["vpn", "wireguard", "tun"].contains(&kind) || active.get("Vpn") == Some(&Value::from(true))
}

fn is_external(active: &Properties<'_>) -> bool {
    number(active, "StateFlags").is_some_and(|flags| flags & EXTERNAL != 0)
}

/// The object that a property points to, as it shows one of its interfaces.
fn referenced<'t, 'm>(
    objects: &'t Objects<'m>,
    properties: &Properties<'m>,
    name: &str,
    interface: &str,
) -> Option<&'t Properties<'m>> {
    objects.get(path(properties, name)?)?.get(interface)
}

fn path<'t, 'm>(properties: &'t Properties<'m>, name: &str) -> Option<&'t ObjectPath<'m>> {
    match properties.get(name)? {
        Value::ObjectPath(path) => Some(path),
        _ => None,
    }
}

/// A text that says something: NetworkManager writes "" for none.
fn text<'t>(properties: &'t Properties<'_>, name: &str) -> Option<&'t str> {
    match properties.get(name)? {
        Value::Str(text) => Some(text.as_str()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

fn number(properties: &Properties<'_>, name: &str) -> Option<u32> {
    match properties.get(name)? {
        Value::U32(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
