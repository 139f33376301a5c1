//! The gateway, asked for its hardware address.

use uplinkd::probes::{Outcome, Way, ask};

use super::namespace::sh;
use super::{LONG, SHORT, run};

#[test]
fn gateways_are_asked_by_the_kernel() {
    run("gateways_are_asked_by_the_kernel", |world| async move {
        let ask_via = |way: &Way, gateway: Option<&str>, limit| {
            let way = Way { gateway: gateway.map(|ip| ip.parse().unwrap()), ..way.clone() };
            async move { ask(&"arp".parse().unwrap(), &way, limit).await }
        };
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        for (way, gateway, nobody, silence) in [
            (world.way.clone(), "192.0.2.1", "192.0.2.9", "no answer to ARP"),
            (world.v6(), "2001:db8:1::1", "2001:db8:1::9", "no answer to neighbour discovery"),
        ] {
            // Without an entry, reachable, stale.
            for _ in 0..2 {
                let answer = ask_via(&way, Some(gateway), LONG).await;
                assert!(matches!(answer.outcome, Outcome::Answered(_)) && answer.packets == 1, "{answer:?}");
            }
            sh(&format!("ip neigh change {gateway} dev e0 nud stale"));
            let answer = ask_via(&way, Some(gateway), LONG).await;
            assert!(matches!(answer.outcome, Outcome::Answered(_)), "{answer:?}");
            // The kernel's verdict, and our own limit.
            let answer = ask_via(&way, Some(nobody), LONG).await;
            assert!(answer.outcome == failed(silence) && answer.packets == 3, "{answer:?}");
            assert_eq!(ask_via(&way, Some(nobody), SHORT).await.outcome, failed(silence));
            assert_eq!(ask_via(&way, None, LONG).await.outcome, failed("the link has no gateway to ask"));
            // Another machine takes over the address without a word.
            world.server.sh(&["ip link set p0 address 02:00:00:00:00:77"]);
            let answer = ask_via(&way, Some(gateway), LONG).await;
            assert!(matches!(answer.outcome, Outcome::Answered(_)), "{answer:?}");
            world.server.sh(&["ip link set p0 address 02:00:00:00:00:78"]);
            // What somebody fixed stays.
            sh(&format!("ip neigh replace {gateway} dev e0 lladdr 02:00:00:00:00:01 nud permanent"));
            assert!(
                matches!(ask_via(&way, Some(gateway), LONG).await.outcome, Outcome::Failed(why) if why.contains("fixed"))
            );
            assert!(sh(&format!("ip neigh show {gateway} dev e0")).contains("PERMANENT"));
        }
        sh("ip -6 neigh replace 2001:db8:1::7 dev e0 lladdr 02:00:00:00:00:01 router nud reachable");
        ask_via(&world.v6(), Some("2001:db8:1::7"), SHORT).await;
        let entry = sh("ip -6 neigh show 2001:db8:1::7 dev e0");
        assert!(entry.contains("router") && entry.contains("PROBE"), "{entry}");
    });
}
