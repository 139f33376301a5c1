//! A world as text, written as `ip` and `nmcli` print it.
//!
//! ```text
//! # The number, the name, the flags, the type; then, where there are any, kind and master.
//! 2: eth0: <UP,LOWER_UP> ether 02:00:5e:00:53:02
//!     inet 192.0.2.10/24                 # also: peer PREFIX, scope link, secondary, tentative, deprecated
//!     inet6 2001:db8:1::10/64
//!     neigh 192.0.2.1 lladdr 02:00:5e:00:53:01
//!     offer 192.0.2.10 192.0.2.1         # the address and router that a DHCP client's hook wrote down
//!     nm connection "Fiber" 6f1b… 802-3-ethernet activated
//!     nm metered yes                     # also: vpn, shared
//!     nm IP4.GATEWAY 192.0.2.1           # also: IP6.GATEWAY
//!     nm DHCP4.routers 192.0.2.1         # also: DHCP6.routers; what the network offers
//!     nm IP4.DNS 192.0.2.53              # also: IP6.DNS; again for each
//!     nm DHCP6.ip6_prefix 2001:db8:1::/56
//!     nm user.data uplinkd.weight=2
//!     resolved default-route yes         # also: no; systemd-resolved knows the link
//!     networkd file /etc/systemd/network/eth0.network ether configured
//!     networkd IP4.GATEWAY 192.0.2.1     # and the rest as of NetworkManager
//!     networkd X-Uplinkd weight=2
//! 3: ppp0: <UP,LOWER_UP> ppp mtu 1492 kind ppp  # also: none, rawip, loopback; without an mtu it is 1500
//!
//! default via 192.0.2.1 dev eth0 proto dhcp src 192.0.2.10 metric 100
//! -6 default via fe80::1 dev eth0 proto ra metric 1024
//! default metric 50 nexthop via 192.0.2.1 dev eth0 weight 1 nexthop dev ppp0 weight 2
//! unreachable default table 52
//! 6999: not from all fwmark 0xca6c lookup 51820
//! -6 5270: from all lookup 52
//! forwarding ipv4
//! time 2026-11-21T19:00:00+01:00
//! sysctl net/ipv4/conf/eth0/rp_filter 1
//! networkd deletes                       # also: unread, spares; what it does to routes and rules of others
//! cgroup system.slice/x.service 77       # a control group that is there, and its number
//! unheard NetworkManager: no answer
//! slot 1: name profile 6f1b… on eth0     # what the daemon remembers; also: interface eth0, name dsl; then: drained
//!
//! # What is known of health: the slot, the family, where it stands and why.
//! probing                                # an uplink of which nothing is known has yet to prove itself
//! health 1 ipv4 down: no answer          # also: unproven, up, degraded, portal, held; after it: unanswered
//! manual 1 down                          # also: up
//! leaving 1 ipv4                         # the running flows on it that are no policy's should move
//! leaving 1 ipv4 mail                    # those of a policy; `all`: those of everybody
//! usage 1 9GB 2026-12-01                 # what was used of its quota, and when that is renewed
//! vacated 192.0.2.10                     # an uplink had this address and will not have it again
//!
//! # What the method has made of rates and round-trip times.
//! choice ipv4 2 1                        # the slots in the order in which they are to lead
//! full ipv4 1                            # the slots that have no room
//! ```
//!
//! Connected routes of addresses and the three usual rules need not be written; neither need settings that are 0.

use std::collections::BTreeMap;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uplinkd::core::health::{Manual, Opinion, Standing};
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{Family, IfIndex, IfName, Metric, TableId, Tos, Weight};
use uplinkd::core::observed::{Address, Link, LinkFacts, Manager, Neighbour, Offer, Place, Profile, Stage};
use uplinkd::core::plan::Customer;
use uplinkd::core::policy::Cgroup;
use uplinkd::core::quota::Usage;
use uplinkd::core::route::RouteKey;
use uplinkd::core::slots::Slots;
use uplinkd::core::sysctl::Sysctl;
use uplinkd::core::tending::Tending;

use super::fib::{FibLeg, FibRoute, FibRule};
use super::words::{Words, net};
use super::world::World;

/// Reads a world; panics with the line at fault, since a person has to mend it.
pub(crate) fn parse(text: &str) -> World {
    let mut world = World::default();
    let mut masters = Vec::new();
    let mut slots = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split(" #").next().filter(|line| !line.starts_with('#')).unwrap_or("");
        if line.trim().is_empty() {
            continue;
        }
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            read(&mut world, &mut masters, &mut slots, line)
        }));
        assert!(read.is_ok(), "line {}: {line}", number + 1);
    }
    for (at, master) in masters {
        world.links[at].controller = world.index(master);
        assert!(world.links[at].controller.is_some(), "no such master: {master}");
    }
    world.slots = serde_json::from_value::<Slots>(json!({ "entries": slots })).expect("a memory of slots");
    world
}

/// Adds what one line says to a world.
pub(crate) fn add(world: &mut World, line: &str) {
    read(world, &mut Vec::new(), &mut Vec::new(), line);
}

fn read<'a>(
    world: &mut World,
    masters: &mut Vec<(usize, &'a str)>,
    slots: &mut Vec<serde_json::Value>,
    line: &'a str,
) {
    let mut words = Words::of(line);
    if line.starts_with(' ') {
        return of_link(world, &mut words);
    }
    let family = if words.taken("-6") { Family::V6 } else { Family::V4 };
    let first = words.next();
    match first {
        "time" => world.time = Some(OffsetDateTime::parse(words.next(), &Rfc3339).unwrap()),
        "forwarding" => {
            while words.more() {
                match words.next() {
                    "ipv4" => world.forwards.v4 = true,
                    "ipv6" => world.forwards.v6 = true,
                    other => panic!("{other}"),
                }
            }
        }
        "sysctl" => {
            let key = Sysctl::from_path(words.next()).expect("a setting of ours");
            world.sysctls.insert(key, words.next().to_owned());
        }
        "networkd" => {
            world.networkd = Some(match words.next() {
                "spares" => Tending::Spares,
                "unread" => Tending::Unread,
                "deletes" => Tending::of([], true),
                other => panic!("{other}"),
            });
        }
        "cgroup" => {
            world.cgroups.push(Cgroup { path: words.next().to_owned(), id: words.next().parse().unwrap() })
        }
        "unheard" => world.unheard.push(line.trim_start_matches("unheard ").to_owned()),
        "probing" => world.health.probing = true,
        "health" => {
            let (key, opinion) = health(&mut words, line);
            world.health.opinions.insert(key, opinion);
        }
        "manual" => {
            let (slot, word) = (numbered(&mut words), words.next());
            let manual = [Manual::Up, Manual::Down].into_iter().find(|m| m.as_str() == word);
            world.health.manual.insert(slot, manual.expect("up or down"));
        }
        "leaving" => {
            let (slot, family) = (numbered(&mut words), family_of(words.next()));
            let whose = match words.more().then(|| words.next()) {
                None => Customer::Usual,
                Some("all") => Customer::All,
                Some(policy) => Customer::Policy(policy.to_owned()),
            };
            world.health.leaving.insert((whose, slot, family));
        }
        "usage" => {
            let slot = numbered(&mut words);
            let used = words.next().parse().expect("an amount");
            let renewed = words.more().then(|| serde_json::from_value(json!(words.next())).expect("a date"));
            world.usages.insert(slot, Usage { used, renewed });
        }
        "vacated" => drop(world.health.vacated.insert(words.parsed())),
        "choice" => {
            let family = family_of(words.next());
            world.choices[family].order = all_numbered(&mut words);
        }
        "full" => {
            let family = family_of(words.next());
            world.choices[family].full = all_numbered(&mut words).into_iter().collect();
        }
        "slot" => slots.push(slot(slots.len(), &mut words)),
        _ if first.ends_with(':') && words.next_ends_with(':') => {
            let index = IfIndex(first.trim_end_matches(':').parse().expect("a number"));
            let (link, master) = link(index, &mut words);
            masters.extend(master.map(|master| (world.links.len(), master)));
            world.links.push(link);
        }
        _ if first.ends_with(':') => {
            let pref = first.trim_end_matches(':').parse().expect("a preference");
            let mut rule = rule(family, pref, &mut words);
            rule.text = line.trim_start_matches("-6 ").to_owned();
            world.rules.push(rule);
        }
        _ => {
            let route = route(world, family, first, &mut words);
            world.routes.push(route);
        }
    }
}

fn link<'a>(index: IfIndex, words: &mut Words<'a>) -> (Link, Option<&'a str>) {
    let name = IfName::new(words.next().trim_end_matches(':')).expect("a name");
    let flags = words.next();
    let (mut arphrd, mut mac, mut kind, mut master, mut mtu) = (1, None, None, None, 1500);
    while words.more() {
        match words.next() {
            "ether" => mac = Some(words.parsed()),
            "ppp" => arphrd = 512,
            "rawip" => arphrd = 519,
            "loopback" => arphrd = 772,
            "none" => arphrd = 0xFFFE,
            "mtu" => mtu = words.parsed(),
            "kind" => kind = Some(words.next().to_owned()),
            "master" => master = Some(words.next()),
            other => panic!("{other}"),
        }
    }
    let has = |flag| flags.trim_matches(['<', '>']).split(',').any(|f| f == flag);
    let (up, carrier) = (has("UP"), has("LOWER_UP"));
    (Link { index, name, kind, arphrd, mac, up, carrier, controller: None, mtu }, master)
}

fn of_link(world: &mut World, words: &mut Words) {
    let link = world.links.last().expect("a link ahead of it");
    let (dev, name) = (link.index, link.name.clone());
    match words.next() {
        "inet" | "inet6" => {
            let net = words.net();
            let mut address = Address {
                dev,
                ip: net.addr(),
                prefix_len: net.prefix_len(),
                peer: None,
                secondary: false,
                tentative: false,
                global: true,
                deprecated: false,
            };
            while words.more() {
                match words.next() {
                    "peer" => {
                        let peer = words.net();
                        (address.peer, address.prefix_len) = (Some(peer.addr()), peer.prefix_len());
                    }
                    "scope" => address.global = words.next() == "global",
                    "secondary" => address.secondary = true,
                    "tentative" => address.tentative = true,
                    "deprecated" => address.deprecated = true,
                    other => panic!("{other}"),
                }
            }
            world.addresses.push(address);
        }
        "neigh" => {
            let ip = words.parsed();
            assert_eq!(words.next(), "lladdr");
            world.neighbours.push(Neighbour { dev, ip, mac: words.parsed() });
        }
        "resolved" => {
            assert_eq!(words.next(), "default-route");
            world.asked.insert(dev, words.next() == "yes");
        }
        "offer" => {
            world.offers.push(Offer { interface: name, address: words.parsed(), router: words.parsed() });
        }
        "nm" => facts(told(world, name, Manager::NetworkManager), words),
        "networkd" => facts(told(world, name, Manager::Networkd), words),
        other => panic!("{other}"),
    }
}

/// What a manager says of an interface, to be added to.
fn told(world: &mut World, interface: IfName, manager: Manager) -> &mut LinkFacts {
    let known = world.managed.iter().position(|f| f.interface == interface && f.manager == manager);
    let at = known.unwrap_or(world.managed.len());
    if known.is_none() {
        world.managed.push(unknown(interface, manager));
    }
    &mut world.managed[at]
}

/// A manager that has an interface and says nothing of it.
pub(crate) fn unknown(interface: IfName, manager: Manager) -> LinkFacts {
    LinkFacts {
        interface,
        manager,
        profile: None,
        stage: Stage::Inactive,
        metered: None,
        vpn: false,
        shared: false,
        ip: Default::default(),
        settings: Vec::new(),
        notes: Vec::new(),
    }
}

fn facts(facts: &mut LinkFacts, words: &mut Words) {
    match words.next() {
        "connection" => {
            let (id, uuid, kind) = (words.next().into(), words.next().into(), words.next().into());
            facts.profile = Some(Profile { id, uuid, kind });
            facts.stage = match words.next() {
                "activated" => Stage::Active,
                "activating" => Stage::Configuring,
                other => panic!("{other}"),
            };
        }
        "file" => {
            let (id, kind) = (words.next().to_owned(), words.next().into());
            let name = id.rsplit('/').next().expect("a path");
            facts.profile = Some(Profile { uuid: format!("{name}@{}", facts.interface), id, kind });
            facts.stage = match words.next() {
                "configured" => Stage::Active,
                "configuring" => Stage::Configuring,
                "no-carrier" => Stage::Inactive,
                other => panic!("{other}"),
            };
        }
        "metered" => facts.metered = Some(words.next() == "yes"),
        "vpn" => facts.vpn = true,
        "shared" => facts.shared = true,
        "IP4.GATEWAY" => facts.ip.v4.gateway = Some(words.parsed()),
        "IP6.GATEWAY" => facts.ip.v6.gateway = Some(words.parsed()),
        "DHCP4.routers" => facts.ip.v4.offered.push(words.parsed()),
        "DHCP6.routers" => facts.ip.v6.offered.push(words.parsed()),
        "IP4.DNS" => facts.ip.v4.resolvers.push(words.parsed()),
        "IP6.DNS" => facts.ip.v6.resolvers.push(words.parsed()),
        "DHCP6.ip6_prefix" => facts.ip.v6.delegated.push(words.parsed()),
        "user.data" => {
            let pair = words.next().strip_prefix("uplinkd.").and_then(|pair| pair.split_once('='));
            set(facts, pair.expect("uplinkd.KEY=VALUE"));
        }
        "X-Uplinkd" => set(facts, words.next().split_once('=').expect("KEY=VALUE")),
        other => panic!("{other}"),
    }
}

/// A setting in the manager's own place for the link, named as the managers' sources name it.
pub(crate) fn set(facts: &mut LinkFacts, (key, value): (&str, &str)) {
    let id = facts.profile.as_ref().map_or("?", |profile| profile.id.as_str());
    let origin = match facts.manager {
        Manager::NetworkManager => format!("profile {id:?}"),
        Manager::Networkd => id.to_owned(),
    };
    if facts.settings.is_empty() {
        facts.settings.push(Place { origin, pairs: BTreeMap::new() });
    }
    facts.settings[0].pairs.insert(key.to_owned(), value.to_owned());
}

fn table(words: &mut Words) -> TableId {
    match words.next() {
        "main" => TableId::MAIN,
        "default" => TableId(253),
        number => TableId(number.parse().expect("a table")),
    }
}

fn route(world: &World, family: Family, first: &str, words: &mut Words) -> FibRoute {
    let dest = if first == "unreachable" { words.next() } else { first };
    let dest = match dest {
        "default" => family.default_prefix(),
        dest => net(dest),
    };
    let usual = if dest.addr().is_ipv6() { 1024 } else { 0 };
    let key = RouteKey { table: TableId::MAIN, dest, metric: Metric(usual), tos: Tos::ANY };
    let mut route = FibRoute { key, protocol: 3, src: None, legs: Vec::new() };
    let leg = |dev, via| FibLeg { dev, via, onlink: false, weight: Weight::default(), dead: false };
    let mut via = None;
    while words.more() {
        match words.next() {
            "via" => via = Some(words.parsed()),
            "dev" => {
                let dev = world.index(words.next()).expect("an interface from above");
                route.legs.push(leg(dev, via.take()));
            }
            "onlink" => route.legs.last_mut().expect("dev first").onlink = true,
            "weight" => {
                let weight = Weight::new(words.parsed()).expect("a weight");
                route.legs.last_mut().expect("dev first").weight = weight;
            }
            "nexthop" => {}
            "tos" => {
                route.key.tos =
                    Tos(u8::from_str_radix(words.next().trim_start_matches("0x"), 16).expect("hex"))
            }
            "metric" => route.key.metric = Metric(words.parsed()),
            "table" => route.key.table = table(words),
            "src" => route.src = Some(words.parsed()),
            "scope" => assert!(["link", "global"].contains(&words.next())),
            "proto" => {
                let known =
                    [("kernel", 2), ("boot", 3), ("static", 4), ("ra", 9), ("dhcp", 16), ("bgp", 186)];
                let word = words.next();
                route.protocol = known.iter().find(|(name, _)| *name == word).expect("a protocol").1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(route.legs.is_empty(), first == "unreachable", "legs");
    route
}

fn rule(family: Family, pref: u32, words: &mut Words) -> FibRule {
    let mut rule = FibRule::all(family, pref, TableId::MAIN);
    rule.protocol = 3;
    rule.not = words.taken("not");
    let selected = |text: &str| (text != "all").then(|| net(text));
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).expect("a number"),
        None => text.parse().expect("a number"),
    };
    while words.more() {
        match words.next() {
            "from" => rule.from = selected(words.next()),
            "to" => rule.to = selected(words.next()),
            "fwmark" => {
                let word = words.next();
                let (value, mask) = word.split_once('/').unwrap_or((word, "0xffffffff"));
                rule.mark = Some((number(value), number(mask)));
            }
            "iif" => rule.iif = Some(words.next().to_owned()),
            "oif" => rule.oif = IfName::new(words.next()),
            "lookup" => rule.table = Some(table(words)),
            "unreachable" => rule.table = None,
            "suppress_prefixlength" => rule.suppress = Some(words.parsed()),
            other => panic!("{other}"),
        }
    }
    rule
}

/// An entry of the memory, in the form of its file.
fn slot(seen: usize, words: &mut Words) -> serde_json::Value {
    let slot: u8 = words.next().trim_end_matches(':').parse().expect("a slot");
    let name = words.next();
    let identity = BTreeMap::from([(words.next(), words.next())]);
    assert_eq!(words.next(), "on");
    let interface = words.next();
    let drained = words.taken("drained");
    json!({
        "slot": slot, "name": name, "identity": identity, "interface": interface, "seen": seen, "drained": drained
    })
}

fn all_numbered(words: &mut Words) -> Vec<Slot> {
    let mut slots = Vec::new();
    while words.more() {
        slots.push(numbered(words));
    }
    slots
}

fn numbered(words: &mut Words) -> Slot {
    Slot::new(words.parsed()).expect("1 to 63")
}

fn family_of(word: &str) -> Family {
    match word {
        "ipv4" => Family::V4,
        "ipv6" => Family::V6,
        other => panic!("{other}"),
    }
}

/// Where a family of an uplink stands; the reason is the rest of the line.
fn health(words: &mut Words, line: &str) -> ((Slot, Family), Opinion) {
    let key = (numbered(words), family_of(words.next()));
    let standing = match words.next().trim_end_matches(':') {
        "unproven" => Standing::Unproven,
        "up" => Standing::Up,
        "degraded" => Standing::Degraded,
        "portal" => Standing::Portal,
        "down" => Standing::Down,
        "held" => Standing::Held,
        other => panic!("{other}"),
    };
    let proven = !words.taken("unanswered:") && standing != Standing::Unproven;
    let why = line.split_once(": ").map_or("", |(_, why)| why.trim());
    (key, Opinion { proven, ..Opinion::new(standing, why.to_owned()) })
}
