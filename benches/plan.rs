//! How long a round of deciding takes with as many uplinks as there can be: discover, plan and diff.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use uplinkd::config::{self, Config};
use uplinkd::core::balance::Choices;
use uplinkd::core::diff::diff;
use uplinkd::core::health::Health;
use uplinkd::core::net::{Family, IfIndex, IfName, MacAddr, Metric, PerFamily, TableId};
use uplinkd::core::observed::{Address, DefaultRoute, Link, Observed};
use uplinkd::core::plan::plan;
use uplinkd::core::slots::Slots;

fn main() {
    for count in [4, 63] {
        measure(&format!("{count} uplinks, both families"), count, &Config::default());
    }
    for (policies, prefixes) in [(10, 0), (1000, 0), (1, 100_000)] {
        let what = format!("63 uplinks, {policies} policies, {prefixes} prefixes");
        measure(&what, 63, &configured(policies, prefixes));
    }
}

fn measure(what: &str, count: u8, config: &Config) {
    let (observed, slots) = settled(count, config);
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            let plan =
                plan(config, &observed, &slots, &Health::default(), &Choices::default(), &BTreeMap::new());
            let changes = diff(&plan.desired, &observed.kernel);
            assert!(changes.is_empty(), "{changes:?}");
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{what}: median {:?}, longest {:?}", times[100], times[199]);
}

/// Policies that ask for some of everything, and the first of them for so many prefixes.
fn configured(policies: usize, prefixes: u32) -> Config {
    let policy = |n: usize| {
        let list = |prefix: u32| format!("'100.{}.{}.{}'", prefix >> 16, prefix >> 8 & 255, prefix & 255);
        let to: Vec<_> = (0..if n == 0 { prefixes } else { 0 }).map(|n| list(2 * n)).collect();
        format!(
            "[[policy]]\nmatch = {{ from = '10.{}.{}.0/24', to = [{}'192.0.2.{}'], ports = {} }}\nuplinks = 'eth1'\n",
            n >> 8,
            n & 255,
            to.iter().map(|net| format!("{net}, ")).collect::<String>(),
            n & 255,
            n + 1,
        )
    };
    let text: String = (0..policies).map(policy).collect();
    config::parse(Path::new("uplinkd.toml"), &text).expect("a configuration")
}

/// A router with so many uplinks whose kernel is as it should be.
fn settled(count: u8, config: &Config) -> (Observed, Slots) {
    let mut observed = Observed { forwards: PerFamily { v4: true, v6: true }, ..Observed::default() };
    for n in 1..=count {
        let index = IfIndex(n.into());
        observed.links.push(Link {
            index,
            name: IfName::new(&format!("eth{n}")).expect("a name"),
            kind: None,
            arphrd: 1,
            mac: Some(MacAddr([2, 0, 0, 0, 0, n])),
            up: true,
            carrier: true,
            controller: None,
            mtu: 1500,
        });
        let addresses = [format!("10.{n}.0.2"), format!("2001:db8:{n}::2")];
        let gateways = [format!("10.{n}.0.1"), "fe80::1".to_owned()];
        for ((family, ip), gateway) in Family::BOTH.into_iter().zip(addresses).zip(gateways) {
            observed.addresses.push(Address {
                dev: index,
                ip: ip.parse().expect("an address"),
                prefix_len: if family == Family::V4 { 24 } else { 64 },
                peer: None,
                secondary: false,
                tentative: false,
                global: true,
                deprecated: false,
            });
            observed.defaults.push(DefaultRoute {
                family,
                table: TableId::MAIN,
                metric: Metric(100 + u32::from(n)),
                hops: vec![(index, Some(gateway.parse().expect("an address")))],
            });
        }
    }
    let plan =
        plan(config, &observed, &Slots::default(), &Health::default(), &Choices::default(), &BTreeMap::new());
    observed.kernel.rules = plan.desired.rules.iter().cloned().collect();
    observed.kernel.routes = plan.desired.routes.iter().cloned().collect();
    observed.kernel.ruleset = plan.desired.ruleset.as_ref().map(|ruleset| ruleset.generation());
    observed.kernel.policies = plan.desired.policies.as_ref().map(|table| table.loaded());
    observed.kernel.sysctls = plan.desired.sysctls.clone();
    (observed, plan.slots)
}
