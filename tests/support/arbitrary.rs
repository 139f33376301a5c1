//! Worlds that could be: whatever is drawn, the kernel would have taken.

mod build;
pub(crate) mod health;

use std::net::IpAddr;
use std::path::Path;

use build::add_line;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use uplinkd::config;
use uplinkd::core::net::{IfName, PerFamily};
use uplinkd::core::observed::{Manager, Stage};
use uplinkd::core::sysctl::Sysctl;

use super::world::World;

/// Interfaces that a machine may have: name, hardware type, kind.
const ROSTER: [(&str, u16, Option<&str>); 10] = [
    ("eth0", 1, None),
    ("eth1", 1, None),
    ("eth2.7", 1, Some("vlan")),
    ("wlan0", 1, None),
    ("wwan0", 519, None),
    ("ppp0", 512, Some("ppp")),
    ("br0", 1, Some("bridge")),
    ("tun0", 0xFFFE, Some("tun")),
    ("wg0", 0xFFFE, Some("wireguard")),
    ("mgmt", 1, Some("vrf")),
];

/// Metrics at which something can happen.
const METRICS: [u32; 13] = [0, 1, 2, 50, 99, 100, 101, 1023, 1024, 19_999, 20_000, 20_100, u32::MAX];

/// Preferences at which something can happen.
const PREFS: [u32; 16] =
    [1, 100, 999, 1499, 1500, 5270, 6499, 6250, 6999, 7000, 7100, 7250, 7499, 7500, 32_000, 32_764];

/// What networks announce: resolvers of ISPs' own, one that answers anybody, one that a VPN may lead to, one on a link,
/// and a router's link-local address.
pub(crate) const RESOLVERS: [&str; 9] = [
    "203.0.113.53",
    "203.0.113.54",
    "198.51.100.53",
    "9.9.9.9",
    "10.20.0.9",
    "192.168.1.1",
    "2001:db8:ffff::53",
    "2620:fe::fe",
    "fe80::1",
];

/// One interface, drawn.
#[derive(Debug, Clone)]
struct Port {
    roster: usize,
    index: u32,
    up: bool,
    carrier: bool,
    controller: Option<usize>,
    v4: Option<Net>,
    v6: Option<Net>,
    facts: Option<Facts>,
}

/// An address and what is behind it.
#[derive(Debug, Clone)]
struct Net {
    /// Networks are few, so that two interfaces can share one, and an address.
    net: u8,
    host: u8,
    prefix_len: u8,
    tentative: bool,
    second: bool,
    /// Whether the gateway's hardware address is known, and which it is.
    mac: Option<u8>,
    /// Metric, onlink, in main.
    default: Option<(u32, bool, bool)>,
}

#[derive(Debug, Clone)]
struct Facts {
    manager: Manager,
    profile: Option<(u8, u8)>,
    stage: Stage,
    metered: Option<bool>,
    flags: (bool, bool),
    told: bool,
    offered: bool,
    /// Which of [`RESOLVERS`] its network announces.
    resolvers: Vec<&'static str>,
    /// Whether systemd-resolved knows the link, and asks it.
    asked: Option<bool>,
    settings: Vec<(&'static str, &'static str)>,
}

fn net(v6: bool) -> impl Strategy<Value = Net> {
    let lens: &[u8] = if v6 { &[64, 64, 128] } else { &[24, 24, 30, 32] };
    let default =
        prop::option::weighted(0.8, (select(&METRICS[..]), any::<bool>(), prop::bool::weighted(0.85)));
    (
        0..4u8,
        2..5u8,
        select(lens),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
        prop::option::of(0..2u8),
        default,
    )
        .prop_map(|(net, host, prefix_len, tentative, second, mac, default)| Net {
            net,
            host,
            prefix_len,
            tentative,
            second,
            mac,
            default,
        })
}

fn facts() -> impl Strategy<Value = Facts> {
    let settings = vec![
        ("weight", "2"),
        ("weight", "256"),
        ("weight", "none"),
        ("quota", "10MB"),
        ("quota-day", "31"),
        ("tier", "1"),
        ("tier", "3"),
        ("metered", "true"),
        ("ignore", "true"),
        ("name", "dsl"),
        ("wieght", "2"),
    ];
    let stage = select(vec![Stage::Inactive, Stage::Configuring, Stage::Active, Stage::Active]);
    let yes = || prop::bool::weighted(0.1);
    let often = || prop::bool::weighted(0.9);
    let manager = select(Manager::ALL.to_vec());
    (
        (manager, prop::option::weighted(0.8, (0..4u8, 0..6u8))),
        stage,
        prop::option::of(any::<bool>()),
        (yes(), yes()),
        (any::<bool>(), any::<bool>()),
        subsequence(settings, 0..3),
        (subsequence(RESOLVERS.to_vec(), 0..3), prop::option::weighted(0.7, often())),
    )
        .prop_map(
            |((manager, profile), stage, metered, flags, (told, offered), settings, (resolvers, asked))| {
                Facts { manager, profile, stage, metered, flags, told, offered, resolvers, asked, settings }
            },
        )
}

fn port(roster: usize) -> impl Strategy<Value = Port> {
    let often = |p| prop::bool::weighted(p);
    (
        (0..2u32, often(0.9), often(0.85), prop::option::weighted(0.1, select(vec![6usize, 9]))),
        prop::option::weighted(0.8, net(false)),
        prop::option::weighted(0.5, net(true)),
        prop::option::weighted(0.5, facts()),
    )
        .prop_map(move |((replug, up, carrier, controller), v4, v6, facts)| Port {
            roster,
            // Plugged in again, it has another number.
            index: 2 + roster as u32 + 10 * replug,
            up,
            carrier: carrier && up,
            controller: controller.filter(|c| *c != roster),
            v4,
            v6,
            facts,
        })
}

/// Foreign rules and routes that other software makes, as `ip` prints them.
fn foreign_lines() -> impl Strategy<Value = Vec<String>> {
    let whole = select(vec![
        "6998: from all lookup main suppress_prefixlength 0\n6999: not from all fwmark 0xca6c lookup 51820",
        "32764: from all lookup main suppress_prefixlength 0\n32765: not from all fwmark 0xca6c lookup 51820",
        "5210: from all fwmark 0x80000/0xff0000 lookup main\n5270: from all lookup 52",
        "default dev wg0 table 51820",
        "default dev tun0 table 52",
        "10.20.0.0/16 dev tun0 table 52",
        "0.0.0.0/1 dev tun0\n128.0.0.0/1 dev tun0",
        "0.0.0.0/1 dev wg0",
        "-6 ::/1 dev tun0\n-6 8000::/1 dev tun0",
        "-6 default dev tun0 metric 50",
        "-6 default dev wg0 table 51820",
        "-6 5270: from all lookup 52",
        "-6 6999: not from all fwmark 0xca6c lookup 51820",
        "203.0.113.0/24 dev tun0",
        "198.51.100.128/25 dev eth0 table 7001",
        "unreachable default metric 30000",
        "unreachable default table 100",
        "6000: from all fwmark 0x1000000/0xff000000 lookup 100",
    ])
    .prop_map(str::to_owned);
    let vpn = (select(&METRICS[..]), select(vec!["tun0", "wg0", "eth0", "ppp0"]))
        .prop_map(|(metric, dev)| format!("default dev {dev} metric {metric}"));
    let rule = (
        any::<bool>(),
        select(&PREFS[..]),
        select(vec!["all", "10.1.0.0/16"]),
        select(vec!["52", "100", "51820", "main", "7001"]),
    )
        .prop_map(|(v6, pref, from, table)| {
            let (flag, from) = if v6 { ("-6 ", "all") } else { ("", from) };
            format!("{flag}{pref}: from {from} lookup {table}")
        });
    prop::collection::vec(prop_oneof![4 => whole, 2 => vpn, 2 => rule], 0..5)
}

fn sections() -> impl Strategy<Value = String> {
    let section = select(vec![
        "match.interface = 'eth*'\nweight = 3",
        "match.interface = '*0'\nquota = '10 MB'\nquota-day = 1",
        "match.interface = 'eth1'\nname = 'wan'",
        "match.interface = 'tun0'\ntier = 2",
        "match.interface = 'ppp0'\nignore = true",
        "match.type = 'wwan'\nmetered = false",
        "match.type = 'ethernet'\nname = 'cable'",
        "match.connection = 'Line-1'\ntier = 4",
        "match.connection = 'Line-2'\nname = 'Line-3'",
        "match.interface = 'nothing'\nweight = 256",
        "match.interface = 'eth0'\nprefix = '2001:db8:1:a00::/56'",
        "match.interface = 'eth*'\nprefix = '2001:db8:1:b00::/56'\nnat6 = 'prefix'",
        "match.interface = 'wlan0'\nprefix = '2001:db8:1:c00::/56'\nnat6 = 'none'",
        "match.interface = 'eth*'\nroutes = ['203.0.113.0/24', '10.2.0.0/16 via 192.0.2.99', '2001:db8:5::/48 via fe80::9']",
        "match.interface = '*0'\nroutes = ['203.0.113.0/24', '198.51.100.53', '10.20.0.9 via 198.18.0.1', '2001:db8:6::/48']",
    ]);
    let sections = prop::collection::vec(section, 0..3);
    (sections, select(ROUTERS.to_vec())).prop_map(|(sections, router)| {
        let sections: String = sections.iter().map(|section| format!("[[uplink]]\n{section}\n")).collect();
        sections + router
    })
}

/// What is said of the machine as a router; mostly nothing.
const ROUTERS: [&str; 9] = [
    "",
    "",
    "",
    "[router]\nenable = true\n",
    "[router]\nenable = false\n[[forward]]\nport = 80\nto = '10.1.0.9'\n",
    "[router]\nenable = true\nlan = 'eth1'\nmasquerade = false\n[firewall]\nenable = true\nallow = 'tcp:22'\n",
    "[[forward]]\nport = 80\nto = '10.1.0.9:8080'\nprotocol = 'both'\n[[forward]]\nport = 80\nto = 'fd00::9'\n",
    "[router]\nenable = true\n[[group]]\nmembers = [':lan', 'eth0', 'fiber']\n[[group]]\nmembers = ['eth1', ':uplink']\n",
    "[firewall]\nenable = true\nlog = false\n",
];

/// Any world.
pub(crate) fn world() -> impl Strategy<Value = World> {
    let ports: Vec<_> = (0..ROSTER.len()).map(|n| prop::option::weighted(0.5, port(n))).collect();
    let filters =
        prop::collection::vec((select(vec!["eth0", "eth1", "wlan0"]), select(vec!["0", "1", "2"])), 0..3);
    (ports, foreign_lines(), sections(), any::<(bool, bool)>(), filters, health::drawn()).prop_map(
        |(ports, foreign, config, (v4, v6), filters, health)| {
            let mut world = World { forwards: PerFamily { v4, v6 }, ..World::default() };
            // Two sections can give one name, which is refused: then there is no configuration.
            world.config = config::parse(Path::new("config.toml"), &config).unwrap_or_default();
            health.put(&mut world);
            for (name, value) in filters {
                let name = IfName::new(name).expect("a name");
                world.sysctls.insert(Sysctl::RpFilter(name), value.to_owned());
            }
            let ports: Vec<Port> = ports.into_iter().flatten().collect();
            ports.iter().for_each(|port| port.build(&ports, &mut world));
            for port in &ports {
                port.routes(&mut world);
            }
            for line in foreign.iter().flat_map(|lines| lines.lines()) {
                add_line(&mut world, line);
            }
            world
        },
    )
}

/// Destinations that tell tables apart.
pub(crate) fn destinations() -> Vec<IpAddr> {
    let texts = [
        "1.1.1.1",
        "203.0.113.77",
        "129.0.0.1",
        "10.20.0.9",
        "10.1.2.3",
        "192.168.0.50",
        "198.51.100.200",
        "2606:4700::1",
        "2001:db8:0:1::9",
        "9000::1",
    ];
    texts.iter().chain(&RESOLVERS).map(|text| text.parse().expect("an address")).collect()
}
