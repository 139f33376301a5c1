//! Persistence, what is done for all, and what a group denies.

use super::enforced::tcp;
use super::*;
use uplinkd::core::net::Weight;
use uplinkd::core::nft::{Groups, Steered};

#[test]
fn clients_stay_where_they_are_over_reloads_and_losses() {
    namespace::run("clients_stay_where_they_are_over_reloads_and_losses", &["nft"], || async {
        let net = router().await;
        for n in 20..60 {
            net.lan.sh(&[
                &format!("ip address add 10.1.0.{n}/24 dev eth"),
                &format!("ip address add fd00::{n}/64 dev eth nodad"),
            ]);
        }
        let text = |same: &str, more: &str| {
            configured(&format!(
                "{more}[[policy]]\nname = 'bank'\nmatch.ports = 7\nmethod = 'persistence'\nsame = '{same}'\nidle = '1h'\n"
            ))
        };
        let both = Verdict::Take(vec![(slot(1), 1), (slot(2), 1)]);
        let clients: Vec<&'static str> = (20..60)
            .flat_map(|n| [format!("10.1.0.{n}"), format!("fd00::{n}")].map(|text| &*text.leak()))
            .collect();
        let seen = |to: usize| -> Vec<u8> {
            let probe = |from: &&'static str| {
                let to = if from.contains(':') {
                    ["2001:db8:9::1", "2001:db8:9::2"]
                } else {
                    ["203.0.113.1", "203.0.113.2"]
                }[to];
                Probe { from: Some(from), to, ..LAN }
            };
            clients.iter().map(|from| probe(from).goes_by(&net).unwrap()).collect()
        };
        let config = text("client", "");
        load(&table(&config, |_| both.clone())).await;
        let first = seen(0);
        let of_first = first.iter().filter(|n| **n == 1).count();
        assert!((24..=56).contains(&of_first), "{of_first} of 80 by the first");
        assert_eq!(seen(0), first, "again");
        assert_eq!(seen(1), first, "to another destination");
        // The first is lost, and comes back: who was on it has moved, and does not move again.
        load(&table(&config, |_| by(2))).await;
        assert!(seen(0).iter().all(|n| *n == 2));
        load(&table(&config, |_| both.clone())).await;
        assert!(seen(0).iter().all(|n| *n == 2), "who has moved stays");
        // Also where the table is another, with a policy more ahead, and its maps stay.
        let more = text("client", "[[policy]]\nmatch.from = '192.168.0.0/16'\n");
        load(&table(&more, |_| both.clone())).await;
        assert!(seen(0).iter().all(|n| *n == 2), "over a reload");
        // Without a memory, as after a reboot, the same numbers lead to the same uplinks.
        nft::drop_table("uplinkd_policy").await.unwrap();
        load(&table(&config, |_| both.clone())).await;
        assert_eq!(seen(0), first, "after a reboot");
        let pairs = text("client-and-destination", "");
        load(&table(&pairs, |_| both.clone())).await;
        assert!(!sh("nft list maps").contains("_client_"), "the other memory is gone");
        let (here, there) = (seen(0), seen(1));
        assert_ne!(here, there, "destinations tell apart");
        assert_eq!((seen(0), seen(1)), (here, there));
    });
}

/// What this machine sends has no address of its own until it has an uplink; so its destinations stay.
#[test]
fn this_machine_stays_where_it_is_with_each_destination() {
    namespace::run("this_machine_stays_where_it_is_with_each_destination", &["nft"], || async {
        let net = router().await;
        let both = Verdict::Take(vec![(slot(1), 1), (slot(2), 1)]);
        let others: Vec<&'static str> = (20..60)
            .flat_map(|n| [format!("203.0.113.{n}"), format!("2001:db8:9::{n}")].map(|text| &*text.leak()))
            .collect();
        others.iter().for_each(|other| serve(&net, other));
        let seen = || -> Vec<u8> {
            let probe = |to: &&'static str| Probe { from: None, to, ..LAN };
            others.iter().map(|to| probe(to).goes_by(&net).unwrap()).collect()
        };
        for same in ["client", "client-and-destination"] {
            let config = configured(&format!(
                "[[policy]]\nname = 'bank'\nmatch.ports = 7\nmethod = 'persistence'\nsame = '{same}'\n"
            ));
            load(&table(&config, |_| both.clone())).await;
            lead_out_by(1);
            let first = seen();
            let of_first = first.iter().filter(|n| **n == 1).count();
            assert!((24..=56).contains(&of_first), "{same}: {of_first} of 80 by the first");
            lead_out_by(2);
            assert_eq!(seen(), first, "{same}: whatever address the route gives it");
            load(&table(&config, |_| by(2))).await;
            assert!(seen().iter().all(|n| *n == 2));
            load(&table(&config, |_| both.clone())).await;
            assert!(seen().iter().all(|n| *n == 2), "{same}: who has moved stays");
        }
    });
}

/// What `[balance]` asks for and no route can do is done for all, behind all policies.
#[test]
fn a_method_for_all_is_behind_all_policies() {
    namespace::run("a_method_for_all_is_behind_all_policies", &["nft"], || async {
        let net = router().await;
        let config = configured(
            "[balance]\nmethod = 'enforced'\nuplink = 'two'\n[[policy]]\nmatch.ports = 8\nuplinks = 'one'\n",
        );
        load(&table(&config, |place| by(if place == 0 { 1 } else { 2 }))).await;
        for probe in [LAN, LAN6, OWN, OWN6] {
            assert_eq!(probe.goes_by(&net), Some(2), "{probe:?}");
            assert_eq!(Probe { port: 8, ..probe }.goes_by(&net), Some(1), "{probe:?}");
        }
    });
}

/// What a group denies a LAN, no policy gives it.
#[test]
fn nobody_gets_an_uplink_that_his_group_denies_him() {
    namespace::run("nobody_gets_an_uplink_that_his_group_denies_him", &["nft"], || async {
        let net = router().await;
        let denied = [(slot(2), [name("lan")].into())].into();
        let around = Surroundings { denied, ..around() };
        let both = Verdict::Take(vec![(slot(1), 1), (slot(2), 1)]);
        for method in ["weighted", "persistence", "fastest"] {
            let config = configured(&format!("[[policy]]\nmatch.ports = 7\nmethod = '{method}'\n"));
            load(&table_amid(&around, &config, |_| both.clone())).await;
            for probe in [LAN, LAN6, tcp(LAN), LAN, LAN6, tcp(LAN6), LAN, LAN6] {
                assert_eq!(probe.goes_by(&net), Some(1), "{method}: {probe:?}");
            }
            load(&table_amid(&around, &config, |_| by(2))).await;
            for probe in [LAN, LAN6, tcp(LAN)] {
                assert_eq!(probe.goes_by(&net), Some(1), "{method}, the other alone: {probe:?}");
            }
            for probe in [OWN, OWN6, tcp(OWN)] {
                assert_eq!(probe.goes_by(&net), Some(2), "{method}, this machine: {probe:?}");
            }
        }
        let config = configured("[[policy]]\nmatch.ports = 7\nmethod = 'enforced'\nuplinks = 'two'\n");
        load(&table_amid(&around, &config, |_| by(2))).await;
        // The group leads him by his own.
        let shares = PerFamily::from_fn(|_| vec![(slot(1), Weight::new(1).unwrap())]);
        let groups = Groups {
            uplinks: ["wan1", "wan2"].map(name).into(),
            members: ["lan", "wan1", "wan2"].map(name).into(),
            pairs: [(name("lan"), name("wan1")), (name("wan1"), name("lan"))].into(),
            steered: vec![Steered { lan: name("lan"), shares }],
        };
        let uplinks = vec![(name("wan1"), slot(1)), (name("wan2"), slot(2))];
        nft::load(&Ruleset { uplinks, groups, ..Ruleset::default() }.text()).await.unwrap();
        assert_eq!(Probe { port: 8, ..LAN }.goes_by(&net), Some(1), "what no policy is for");
        for probe in [LAN, LAN6, tcp(LAN)] {
            assert_eq!(probe.goes_by(&net), None, "enforced: {probe:?}");
        }
    });
}
