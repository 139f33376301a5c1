//! From what was drawn to a world: only what a kernel would have taken.

use std::net::IpAddr;

use uplinkd::core::net::{Family, IfIndex, IfName, MacAddr, Metric, TableId, Tos, Weight};
use uplinkd::core::observed::{Address, Link, LinkFacts, Neighbour, Profile};
use uplinkd::core::route::RouteKey;

use super::{Facts, Net, Port, ROSTER};
use crate::support::fib::{FibLeg, FibRoute};
use crate::support::kernel::Memory;
use crate::support::text;
use crate::support::world::World;

/// Adds what one line says, where its interface is there and the kernel would take it.
pub(super) fn add_line(world: &mut World, line: &str) {
    let there = |(_, name): (&str, &str)| world.index(name.split(' ').next().unwrap_or(name)).is_some();
    if line.split_once("dev ").is_none_or(there) {
        let mut next = world.clone();
        text::add(&mut next, line);
        keep_if_possible(world, next);
    }
}

fn keep_if_possible(world: &mut World, next: World) {
    let Some(route) = next.routes.last().filter(|_| next.routes.len() > world.routes.len()) else {
        let twice = next.rules.last().is_some_and(|rule| world.rules.contains(rule));
        return if !twice {
            *world = next
        };
    };
    // `ip route add` refuses a second route of one key; only some others insist.
    let there =
        world.routes.iter().any(|r| r.key == route.key && (route.protocol == 3 || r.legs == route.legs));
    if !there && Memory::of(world).check(route).is_ok() {
        *world = next;
    }
}

impl Port {
    fn name(&self) -> IfName {
        IfName::new(ROSTER[self.roster].0).expect("a name")
    }

    pub(super) fn build(&self, ports: &[Port], world: &mut World) {
        let (_, arphrd, kind) = ROSTER[self.roster];
        let dev = IfIndex(self.index);
        let controller = ports.iter().find(|port| Some(port.roster) == self.controller);
        world.links.push(Link {
            index: dev,
            name: self.name(),
            kind: kind.map(str::to_owned),
            arphrd,
            mac: (arphrd == 1).then_some(MacAddr([2, 0, 0, 0, 0, self.roster as u8])),
            up: self.up,
            carrier: self.carrier,
            controller: controller.map(|port| IfIndex(port.index)),
            mtu: if arphrd == 512 { 1492 } else { 1500 },
        });
        for (family, net) in self.nets() {
            let address = |host, secondary| Address {
                dev,
                ip: net.ip(family, host),
                prefix_len: net.prefix_len,
                peer: None,
                secondary,
                tentative: net.tentative && family == Family::V6,
                global: true,
                deprecated: net.tentative && net.second,
            };
            world.addresses.push(address(net.host, false));
            if net.second {
                world.addresses.push(address(net.host + 10, family == Family::V4 && net.prefix_len == 24));
            }
            let mac = net.mac.map(|mac| MacAddr([2, 0, 0, 0, 1, mac]));
            world.neighbours.extend(mac.map(|mac| Neighbour { dev, ip: net.gateway(family), mac }));
        }
        world.asked.extend(self.facts.as_ref().and_then(|facts| Some((dev, facts.asked?))));
        world.managed.extend(self.facts.as_ref().map(|facts| self.facts(facts)));
    }

    /// IPv6 addresses do not outlive `ip link set down`.
    fn nets(&self) -> impl Iterator<Item = (Family, &Net)> {
        let v6 = self.v6.as_ref().filter(|_| self.up).map(|net| (Family::V6, net));
        self.v4.as_ref().map(|net| (Family::V4, net)).into_iter().chain(v6)
    }

    fn facts(&self, facts: &Facts) -> LinkFacts {
        let mut told = text::unknown(self.name(), facts.manager);
        told.profile = facts.profile.map(|(id, uuid)| Profile {
            id: format!("Line {id}"),
            uuid: format!("00000000-0000-4000-8000-00000000000{uuid}"),
            kind: match (ROSTER[self.roster].0, ROSTER[self.roster].1) {
                ("wlan0", _) => "802-11-wireless",
                (_, 519) => "gsm",
                (_, 512) => "pppoe",
                _ => "802-3-ethernet",
            }
            .to_owned(),
        });
        (told.stage, told.metered) = (facts.stage, facts.metered);
        (told.vpn, told.shared) = facts.flags;
        for ip in facts.resolvers.iter().map(|text| text.parse::<IpAddr>().expect("an address")) {
            told.ip[Family::of(ip)].resolvers.push(ip);
        }
        facts.settings.iter().for_each(|(key, value)| text::set(&mut told, (key, value)));
        for (family, net) in self.nets() {
            told.ip[family].gateway = facts.told.then(|| net.gateway(family));
            told.ip[family].offered.extend(facts.offered.then(|| net.gateway(family)));
        }
        told
    }

    /// The defaults of its manager, by DHCP or RA.
    pub(super) fn routes(&self, world: &mut World) {
        let one_end = ROSTER[self.roster].1 != 1;
        for (family, net) in self.nets() {
            let Some((metric, onlink, main)) = net.default else { continue };
            let table = if main { TableId::MAIN } else { TableId(100) };
            let via = (!one_end).then(|| net.gateway(family));
            let key =
                RouteKey { table, dest: family.default_prefix(), metric: Metric(metric), tos: Tos::ANY };
            let leg = FibLeg {
                dev: IfIndex(self.index),
                via,
                onlink: onlink && via.is_some(),
                weight: Weight::default(),
                dead: false,
            };
            let mut next = world.clone();
            next.routes.push(FibRoute { key, protocol: 16, src: None, legs: vec![leg] });
            keep_if_possible(world, next);
        }
    }
}

impl Net {
    fn ip(&self, family: Family, host: u8) -> IpAddr {
        match family {
            Family::V4 => IpAddr::from([192, 168, self.net, host]),
            Family::V6 => IpAddr::from([0x2001, 0xdb8, u16::from(self.net), 0, 0, 0, 0, u16::from(host)]),
        }
    }

    /// In IPv6 mostly the router's link-local address, which is the same everywhere.
    fn gateway(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.ip(family, 1),
            Family::V6 if self.net == 3 => self.ip(family, 1),
            Family::V6 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
        }
    }
}
