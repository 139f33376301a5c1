//! Rules, routes and events over rtnetlink, on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod namespace;

use std::time::Duration;

use namespace::sh;
use tokio::time::timeout;
use uplinkd::core::layout::{BALANCED_PREF, BALANCED_TABLE, BYPASS_PREF, Base, Slot};
use uplinkd::core::net::{Device, Family, IfIndex, IfName, Metric, PerFamily, TableId, Tos, Weight};
use uplinkd::core::route::{NextHop, Route, RouteKey};
use uplinkd::core::rule::{Rule, Selector};
use uplinkd::kernel::rtnl::{Events, Rtnl, View};

/// Two links with a carrier, and an address of each family on both.
fn links() {
    // Duplicate address detection would be heard of in the middle of a test.
    sh("sysctl -w net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0");
    for (name, peer, v4, v6) in [
        ("e0", "p0", "192.0.2.10/24", "2001:db8:1::10/64"),
        ("e1", "p1", "198.51.100.10/24", "2001:db8:2::10/64"),
    ] {
        sh(&format!("ip link add {name} type veth peer name {peer}"));
        sh(&format!("ip link set {peer} up"));
        sh(&format!("ip link set {name} up"));
        sh(&format!("ip address add {v4} dev {name}"));
        sh(&format!("ip address add {v6} dev {name} nodad"));
    }
}

fn device(name: &str) -> Device {
    let index = nix::net::if_::if_nametoindex(name).unwrap();
    Device { index: IfIndex(index), name: IfName::new(name).unwrap() }
}

fn hop(name: &str, via: Option<&str>) -> NextHop {
    let via = via.map(|ip| ip.parse().unwrap());
    NextHop { dev: device(name), via, onlink: false, weight: Weight::default() }
}

fn weighted(weight: u16, hop: &NextHop) -> NextHop {
    NextHop { weight: Weight::new(weight).unwrap(), ..hop.clone() }
}

fn route(table: TableId, dest: &str, metric: u32, src: Option<&str>, hops: &[&NextHop]) -> Route {
    let key = RouteKey { table, dest: dest.parse().unwrap(), metric: Metric(metric), tos: Tos::ANY };
    Route { key, src: src.map(|ip| ip.parse().unwrap()), hops: hops.iter().copied().cloned().collect() }
}

fn slot(n: u8) -> Slot {
    Slot::new(n).unwrap()
}

async fn routes(rtnl: &Rtnl) -> Vec<Route> {
    let mut routes = rtnl.look().await.unwrap().routes;
    routes.sort();
    routes
}

fn rules() -> Vec<Rule> {
    let base = Base::USUAL;
    let mut rules = Vec::new();
    for family in Family::BOTH {
        let rule = |pref, selector, table, suppress_prefixlen| Rule {
            family,
            pref,
            selector,
            table,
            suppress_prefixlen,
        };
        let (address, prefix) = match family {
            Family::V4 => ("192.0.2.10", "198.51.100.0/25"),
            Family::V6 => ("2001:db8:1::10", "2001:db8:1:a00::/56"),
        };
        let of_slot = |n| {
            let (slot, table) = (slot(n), slot(n).table());
            [
                rule(base.mark(slot), Selector::Mark(slot.mark()), table, None),
                rule(
                    base.from_address(slot),
                    Selector::From(address.parse::<std::net::IpAddr>().unwrap().into()),
                    table,
                    None,
                ),
                rule(base.from_address(slot), Selector::From(prefix.parse().unwrap()), table, None),
                rule(base.device(slot), Selector::Oif(IfName::new("gone.7").unwrap()), table, None),
            ]
        };
        rules.push(rule(base.main(), Selector::All, TableId::MAIN, Some(1)));
        rules.extend([1, 63].into_iter().flat_map(of_slot));
        for half in family.default_prefix().subnets(1).unwrap() {
            rules.push(rule(BYPASS_PREF, Selector::To(half), TableId::MAIN, Some(0)));
        }
        rules.push(rule(BALANCED_PREF, Selector::All, BALANCED_TABLE, None));
    }
    rules.sort();
    rules
}

#[test]
fn rules_are_added_seen_and_deleted() {
    namespace::run("rules_are_added_seen_and_deleted", &["ip"], || async {
        let rtnl = Rtnl::open().unwrap();
        let seen = |view: View| {
            let mut rules = view.rules;
            rules.sort();
            (rules, view.foreign_rules.into_iter().map(|rule| rule.text).collect::<Vec<_>>())
        };
        // Differs from one of ours in its protocol alone, and must outlive it.
        sh("ip rule add pref 7000 lookup main suppress_prefixlength 1");
        let (none, foreign) = seen(rtnl.look().await.unwrap());
        assert_eq!(none, []);
        assert!(
            foreign.contains(&"7000: from all lookup main suppress_prefixlength 1".to_owned()),
            "{foreign:?}"
        );
        for _ in 0..2 {
            for rule in rules() {
                rtnl.add_rule(&rule).await.unwrap();
            }
            assert_eq!(seen(rtnl.look().await.unwrap()), (rules(), foreign.clone()), "each is there once");
        }
        for _ in 0..2 {
            for rule in rules() {
                rtnl.del_rule(&rule).await.unwrap();
            }
            assert_eq!(seen(rtnl.look().await.unwrap()), (Vec::new(), foreign.clone()));
        }
    });
}

#[test]
fn routes_are_put_seen_and_deleted() {
    namespace::run("routes_are_put_seen_and_deleted", &["ip"], || async {
        links();
        let rtnl = Rtnl::open().unwrap();
        let (one, two) = (hop("e0", Some("192.0.2.1")), hop("e1", Some("198.51.100.1")));
        let (far, link) = (NextHop { onlink: true, ..hop("e0", Some("172.31.1.1")) }, hop("e1", None));
        let (six, seven) = (hop("e0", Some("fe80::1")), hop("e1", Some("fe80::1")));
        let far6 = NextHop { onlink: true, ..hop("e0", Some("2001:db8:ffff::1")) };
        let table = slot(1).table();
        let (all, all6) = ("0.0.0.0/0", "::/0");
        // Each takes the place of the one before it.
        let steps: [&[Route]; 6] = [
            &[
                route(table, all, 0, Some("192.0.2.10"), &[&one]),
                route(table, all6, 1024, None, &[&six]),
                route(TableId::MAIN, all, 99, None, &[&weighted(256, &one), &weighted(1, &two)]),
                route(TableId::MAIN, all6, 1023, None, &[&weighted(2, &six), &weighted(256, &seven)]),
            ],
            &[
                route(table, all, 0, None, &[&far]),
                route(table, all6, 1024, None, &[&far6]),
                route(TableId::MAIN, all, 99, None, &[&weighted(3, &two), &weighted(7, &far)]),
                route(TableId::MAIN, all6, 1023, None, &[&weighted(1, &seven), &weighted(1, &far6)]),
            ],
            &[
                route(table, all, 0, Some("198.51.100.10"), &[&link]),
                route(table, all6, 1024, None, &[&link]),
                route(TableId::MAIN, all, 99, None, &[&two]),
                route(TableId::MAIN, all6, 1023, None, &[&six]),
            ],
            // No legs: unreachable.
            &[
                route(table, all, 0, Some("198.51.100.10"), &[&link]),
                route(table, all6, 1024, None, &[&link]),
                route(TableId::MAIN, all, 99, None, &[]),
                route(TableId::MAIN, all6, 1023, None, &[]),
            ],
            &[
                route(table, all, 0, None, &[&weighted(1, &link), &weighted(2, &one)]),
                route(table, all6, 1024, None, &[&weighted(5, &seven), &weighted(1, &six)]),
                route(TableId::MAIN, all, 99, None, &[&weighted(1, &one), &weighted(1, &two)]),
                route(TableId::MAIN, all6, 1023, None, &[&weighted(1, &six), &weighted(1, &seven)]),
            ],
            &[
                route(table, all, 0, None, &[&one]),
                route(table, all6, 1024, None, &[&six]),
                route(TableId::MAIN, all, 99, None, &[]),
                route(TableId::MAIN, all6, 1023, None, &[]),
            ],
        ];
        let rest = [
            route(table, "192.0.2.0/24", 0, Some("192.0.2.10"), &[&hop("e0", None)]),
            route(table, "203.0.113.254/32", 0, None, &[&hop("e0", None)]),
            route(table, "2001:db8:1::/64", 1024, None, &[&hop("e0", None)]),
            route(BALANCED_TABLE, all, 0, None, &[&one, &two]),
        ];
        for step in steps {
            let mut wanted = [step, &rest].concat();
            wanted.sort();
            for _ in 0..2 {
                for route in &wanted {
                    rtnl.put_route(route).await.unwrap_or_else(|error| panic!("{}: {error:?}", route.spec()));
                }
                assert_eq!(routes(&rtnl).await, wanted);
            }
        }
        for _ in 0..2 {
            for route in steps[5].iter().chain(&rest) {
                rtnl.del_route(route).await.unwrap();
            }
            assert_eq!(routes(&rtnl).await, []);
        }
    });
}

#[test]
fn foreign_routes_outlive_ours() {
    namespace::run("foreign_routes_outlive_ours", &["ip"], || async {
        links();
        let rtnl = Rtnl::open().unwrap();
        let gateway = |family| if family == Family::V4 { "192.0.2.1" } else { "fe80::1" };
        for family in Family::BOTH {
            let flag = family.ip_flag();
            let dest = family.default_prefix().to_string();
            let metric = if family == Family::V4 { 0 } else { 1024 };
            for (table, metric) in [(TableId::MAIN, 99), (slot(1).table(), metric)] {
                let ours = route(table, &dest, metric, None, &[&hop("e0", Some(gateway(family)))]);
                let show = || sh(&format!("ip {flag} route show default table {table}"));
                rtnl.put_route(&ours).await.unwrap();
                // Somebody takes ours over: then it is theirs, and nothing of ours is left to delete.
                let theirs = format!("default via {} dev e0 metric {metric} proto static", gateway(family));
                sh(&format!("ip {flag} route replace {theirs} table {table}"));
                rtnl.del_route(&ours).await.unwrap();
                assert!(show().contains("proto static"), "{}", show());
                // Neither does one that comes between our look and our change.
                assert!(rtnl.put_route(&ours).await.is_err(), "{}", show());
                assert!(show().contains("proto static") && !show().contains("177"), "{}", show());
                let view = rtnl.look().await.unwrap();
                assert_eq!(view.routes, []);
                let found = view.defaults.iter().any(|d| (d.table, d.metric) == (table, Metric(metric)));
                assert!(found && view.foreign_tables.contains(&table) == (table != TableId::MAIN));
                sh(&format!("ip {flag} route flush table {table} proto static"));
            }
        }
    });
}

#[test]
fn what_the_kernel_refuses_is_told() {
    namespace::run("what_the_kernel_refuses_is_told", &["ip"], || async {
        links();
        let rtnl = Rtnl::open().unwrap();
        let table = slot(1).table();
        let unreached = route(table, "0.0.0.0/0", 0, None, &[&hop("e0", Some("203.0.113.1"))]);
        let unreached6 = route(table, "::/0", 1024, None, &[&hop("e0", Some("2001:db8:ffff::1"))]);
        let not_ours = route(table, "0.0.0.0/0", 0, Some("192.0.2.99"), &[&hop("e0", Some("192.0.2.1"))]);
        let mere_device =
            route(TableId::MAIN, "::/0", 99, None, &[&hop("e0", Some("fe80::1")), &hop("e1", None)]);
        for refused in [unreached, unreached6, not_ours, mere_device] {
            assert!(rtnl.put_route(&refused).await.is_err(), "{}", refused.spec());
        }
        let fine = route(table, "0.0.0.0/0", 0, None, &[&hop("e0", Some("192.0.2.1"))]);
        rtnl.put_route(&fine).await.unwrap();
        sh("ip link set e0 down");
        assert_eq!(routes(&rtnl).await, [], "flushed without a word");
        assert!(rtnl.put_route(&fine).await.is_err(), "an interface that is down takes no route");
    });
}

const SOON: Duration = Duration::from_millis(200);

/// Why the watch woke up; none when it did not.
async fn heard(events: &mut Events) -> Option<&'static str> {
    timeout(SOON, events.next(&Default::default())).await.ok().map(|reason| reason.unwrap())
}

/// Lets everything pass that still comes.
async fn quiet(events: &mut Events) {
    while heard(events).await.is_some() {}
}

#[test]
fn events_are_heard_that_can_matter() {
    namespace::run("events_are_heard_that_can_matter", &["ip"], || async {
        links();
        let rtnl = Rtnl::open().unwrap();
        let rule = &rules()[0];
        let table = slot(1).table();
        let ours = route(table, "192.0.2.0/24", 0, None, &[&hop("e0", None)]);
        let ours6 = route(table, "2001:db8:1::/64", 1024, None, &[&hop("e0", None)]);
        rtnl.add_rule(rule).await.unwrap();
        rtnl.put_route(&ours).await.unwrap();
        rtnl.put_route(&ours6).await.unwrap();
        let mut events = Events::open().unwrap();
        quiet(&mut events).await;
        for (line, reason) in [
            (format!("ip {} rule del {}", rule.family.ip_flag(), rule.spec()), Some("rule")),
            (format!("ip -4 route del {}", ours.spec()), Some("route")),
            (format!("ip -6 route del {}", ours6.spec()), Some("route")),
            ("ip route add 0.0.0.0/1 via 192.0.2.1".into(), Some("route")),
            ("ip -6 route add default via fe80::1 dev e0 metric 50".into(), Some("route")),
            ("ip route add 203.0.113.0/24 via 192.0.2.1 proto bgp".into(), None),
            ("ip -6 route add 2001:db8:9::/48 via fe80::1 dev e0 proto bgp".into(), None),
            ("ip route add default via 192.0.2.1 proto bgp table 100".into(), Some("route")),
            ("sysctl -w net.ipv4.ip_forward=1".into(), Some("forwarding")),
            ("sysctl -w net.ipv6.conf.all.forwarding=1".into(), Some("forwarding")),
            ("ip address add 192.0.2.11/24 dev e0".into(), Some("address")),
            ("ip link set e1 down".into(), Some("link")),
        ] {
            sh(&line);
            let first = heard(&mut events).await;
            assert_eq!(first, reason, "{line}");
            quiet(&mut events).await;
        }
    });
}

#[test]
fn forwarding_is_seen() {
    namespace::run("forwarding_is_seen", &["ip"], || async {
        links();
        let rtnl = Rtnl::open().unwrap();
        let seen = async |setting: &str| {
            sh(&format!("sysctl -w {setting}"));
            rtnl.look().await.unwrap().forwards
        };
        let off = PerFamily { v4: false, v6: false };
        assert_eq!(seen("net.ipv4.ip_forward=0").await, off);
        assert_eq!(seen("net.ipv4.ip_forward=1").await, PerFamily { v4: true, v6: false });
        assert_eq!(seen("net.ipv4.ip_forward=0").await, off);
        assert_eq!(seen("net.ipv6.conf.e0.forwarding=1").await, PerFamily { v4: false, v6: true });
        assert_eq!(seen("net.ipv6.conf.lo.forwarding=1").await, PerFamily { v4: false, v6: true });
    });
}
