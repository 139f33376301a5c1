//! Fastest response: the uplink by which a destination answers first leads what goes there, and nobody waits to find out.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ctl::{Ctl, installed, unheld};
use crate::kit::address::{ECHO, internet4, internet6};
use crate::kit::{HeldTcp, Lab, Ns, Spec, Via, connect_many, isp_of, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(30);

/// Two uplinks by turns, and the policy.
const POLICIES: &str = "[[uplink]]\nmatch.interface = 'eth1'\nname = 'one'\n\n\
     [[uplink]]\nmatch.interface = 'eth2'\nname = 'two'\n\n\
     [[policy]]\nname = 'quick'\nmatch.to = ['203.0.113.0/26', '2001:db8:ffff::/122']\nmethod = 'fastest'\n";

fn quick() -> Spec {
    unheld(installed(Spec::router().ipv6())).file("/etc/uplinkd/conf.d/20-quick.toml", POLICIES, 0o644)
}

fn dest(family: &str, n: u8) -> SocketAddr {
    match family {
        "ipv4" => (internet4(n), ECHO).into(),
        _ => (internet6(n), ECHO).into(),
    }
}

/// The policy as the status has it.
fn leg(status: &Value, family: &str) -> Value {
    let all = status["policies"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["name"] == "quick").map(|one| one[family].clone()).unwrap_or_default()
}

/// Waits until these uplinks carry what is new for the policy.
#[track_caller]
fn carried_by(lab: &Lab, uplinks: &[&str]) {
    lab.machine.wait_status(&format!("the policy over {uplinks:?}"), LIMIT, |status| {
        ["ipv4", "ipv6"].iter().all(|family| leg(status, family)["uplinks"] == json!(uplinks))
    });
}

/// Counts what the machine itself exchanges with the destinations: nothing but races.
fn count(lab: &Lab) {
    let rule = |hook: &str, side: &str, way: &str| {
        let match_of =
            |word: &str, net: &str| format!("{word} {side} {net} tcp {way} {ECHO} counter name {hook}s");
        format!(
            "counter {hook}s {{ }}; chain {hook} {{ type filter hook {hook} priority 300; {}; {}; }}",
            match_of("ip", "203.0.113.0/26"),
            match_of("ip6", "2001:db8:ffff::/122")
        )
    };
    let (out, into) = (rule("output", "daddr", "dport"), rule("input", "saddr", "sport"));
    lab.machine.nft(&format!("table inet races {{ {out}; {into}; }}\n"));
}

/// Packets and bytes that were counted, both ways.
fn counted(lab: &Lab) -> (u64, u64) {
    let text = lab.machine.cmd(&["nft", "list", "counters", "table", "inet", "races"]).ok();
    let after = |word: &str| {
        let words: Vec<_> = text.split_whitespace().collect();
        words.windows(2).filter(|two| two[0] == word).filter_map(|two| two[1].parse::<u64>().ok()).sum()
    };
    (after("packets"), after("bytes"))
}

/// How long the first connection to each destination takes, by ISP.
fn first_contacts(ns: &Ns, dests: &[SocketAddr]) -> Vec<(u8, Duration)> {
    let one = |to: &SocketAddr| {
        let start = Instant::now();
        let stream = ns.run(|| Via::any().tcp(*to, LIMIT)).expect("connects");
        let took = start.elapsed();
        let held = HeldTcp::over(stream).expect("is greeted");
        (isp_of(held.seen).expect("an ISP's address"), took)
    };
    dests.iter().map(one).collect()
}

/// All of some connections go by one ISP.
#[track_caller]
fn all_by(isp: u8, what: &str, ns: &Ns, dests: &[SocketAddr]) {
    let shares = connect_many(ns, &Via::any(), 2 * dests.len(), dests);
    assert!(shares.failures.is_empty() && shares.isps() == [isp], "{what}: {shares:?}");
}

#[test]
fn winners_lead_and_nobody_waits_for_a_race() {
    let lab = lab_or_skip!(quick());
    lab.machine.wait_both_families();
    carried_by(&lab, &["one", "two"]);
    lab.isp(1).delay(Duration::from_millis(80));
    lab.isp(2).delay(Duration::from_millis(20));
    count(&lab);
    let (client, own) = (&lab.client().ns, lab.machine.netns());
    for family in ["ipv4", "ipv6"] {
        let (mine, its) = ([1, 2, 3, 4, 5, 6].map(|n| dest(family, n)), [7, 8].map(|n| dest(family, n)));
        let before = counted(&lab);
        let first = first_contacts(client, &mine);
        for (isp, took) in &first {
            println!("{family}: FIGURE a first contact by ISP {isp} in {took:.1?}");
            // As long as the way is, with a machine that is busy; not the time of the other way, or of a race beside it.
            let way = Duration::from_millis(if *isp == 1 { 80 } else { 20 });
            assert!((way..way + Duration::from_millis(55)).contains(took), "{first:?}");
        }
        assert_eq!(first.iter().filter(|(isp, _)| *isp == 1).count(), 3, "by turns: {first:?}");
        let won = |count: usize| {
            let what = format!("{count} winners of {family}");
            let wanted = |status: &Value| leg(status, family)["races"]["leads"] == json!({ "two": count });
            leg(&lab.machine.wait_status(&what, LIMIT, wanted), family)["races"].clone()
        };
        let races = won(mine.len());
        // The answers that came too late are told off meanwhile.
        std::thread::sleep(Duration::from_millis(500));
        let (packets, bytes) = counted(&lab);
        let (packets, bytes) = (packets - before.0, bytes - before.1);
        let told = races["bytes"].as_u64().expect("bytes");
        println!(
            "{family}: FIGURE {} races: {packets} packets, {bytes} bytes on the wire, {told} told",
            mine.len()
        );
        println!("{family}: FIGURE {races}");
        assert_eq!((&races["run"], &races["won"], &races["left_out"]), (&json!(6), &json!(6), &json!(0)));
        // Two each of SYN, SYN-ACK and RST; an ACK where the machine was too busy to be in time with the RST.
        assert!((6 * 6..=6 * 9).contains(&packets), "{races}");
        assert!(told.abs_diff(bytes) * 5 < bytes, "told {told}, counted {bytes}");
        let known = races["known_after_us"].as_u64().expect("a time");
        assert!((20_000..80_000).contains(&known), "known after {known} µs");

        // What this machine sends itself begins with its own first contacts, and follows as well.
        first_contacts(own, &its);
        let hits = won(8)["hits"].as_u64().expect("hits");
        all_by(2, "the client's", client, &mine);
        all_by(2, "the machine's", own, &its);
        all_by(2, "the client's to others' destinations", client, &its);
        let races = won(8);
        println!(
            "{family}: FIGURE 20 more connections: {} hits",
            races["hits"].as_u64().unwrap_or_default() - hits
        );
        assert_eq!((races["hits"].as_u64(), &races["run"]), (Some(hits + 20), &json!(8)), "{races}");
    }
    let told = lab.machine.cmd(&["uplinkctl"]).ok();
    assert!(told.contains("RACES") && told.contains("8 of 8"), "{told}");
    println!("{told}");

    // The memory is the kernel's: nothing is lost with the daemon, and nothing needs it.
    lab.machine.sh("systemctl kill -s KILL uplinkd; systemctl stop uplinkd").ok();
    let known: Vec<_> =
        ["ipv4", "ipv6"].iter().flat_map(|f| [1, 2, 3, 4, 5, 6].map(|n| dest(f, n))).collect();
    all_by(2, "without a daemon", client, &known);
    let unknown: Vec<_> = [10, 11, 12, 13].map(|n| dest("ipv4", n)).to_vec();
    assert_eq!(connect_many(client, &Via::any(), 4, &unknown).of(1), 2, "by turns without a daemon");
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    carried_by(&lab, &["one", "two"]);
    all_by(2, "after its return", client, &known);

    lab.isps().iter().for_each(|isp| isp.not_spoofed("races"));
    // A winner that is lost leads nobody, from the moment that it is known; and again when it is back.
    lab.isp(2).carrier(false);
    let start = Instant::now();
    // Each with a new first packet: one that is lost is sent again after a second, which is the client's own time.
    let knock = || client.run(|| Via::any().tcp(known[0], Duration::from_millis(250)));
    let reached = || knock().and_then(HeldTcp::over).is_ok_and(|held| isp_of(held.seen) == Some(1));
    lab.machine.wait("another way", LIMIT, || reached().then_some(()));
    println!("FIGURE another way {:.0?} after the carrier of the winner was lost", start.elapsed());
    carried_by(&lab, &["one"]);
    all_by(1, "the winner is lost", client, &known);
    lab.isp(2).carrier(true);
    carried_by(&lab, &["one", "two"]);
    all_by(2, "the winner is back", client, &known);
    for isp in lab.isps().iter().filter(|isp| isp.spoofed() > 0) {
        println!("after the loss, by ISP {} with another's address: {}", isp.number(), isp.spoofers());
    }
}

#[test]
fn races_end_with_their_policy_and_begin_with_it() {
    let lab = lab_or_skip!(quick());
    lab.machine.wait_both_families();
    carried_by(&lab, &["one", "two"]);
    lab.isp(1).delay(Duration::from_millis(60));
    let client = &lab.client().ns;
    let write = |text: &str| {
        lab.machine.write("/etc/uplinkd/conf.d/20-quick.toml", text);
        lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    };
    let leads = |count: u64| {
        lab.machine.wait_status(&format!("{count} winners"), LIMIT, |status| {
            leg(status, "ipv4")["races"]["leads"] == json!({ "two": count })
        });
    };
    first_contacts(client, &[dest("ipv4", 1), dest("ipv4", 2)]);
    leads(2);
    // Nobody answers there, or it is no address of the internet: by turns as ever, and no winner.
    drop(client.run(|| Via::any().tcp((internet4(3), 9).into(), Duration::from_secs(3))));
    lab.machine.wait_status("a race that nobody wins", LIMIT, |status| {
        let races = &leg(status, "ipv4")["races"];
        races["run"] == 3 && races["won"] == 2
    });
    write(&POLICIES.replace("'fastest'", "'weighted'"));
    lab.machine.wait_status("no races", LIMIT, |status| {
        leg(status, "ipv4")["state"] == "used" && leg(status, "ipv4").get("races").is_none()
    });
    let table = lab.machine.cmd(&["nft", "list", "table", "inet", "uplinkd_policy"]).ok();
    assert!(!table.contains("winners_") && !table.contains(" log "), "{table}");
    let shares = connect_many(client, &Via::any(), 8, &[dest("ipv4", 1)]);
    assert_eq!((shares.of(1), shares.of(2)), (4, 4), "{shares:?}");
    write(POLICIES);
    carried_by(&lab, &["one", "two"]);
    first_contacts(client, &[dest("ipv4", 4)]);
    leads(1);
    lab.machine.cmd(&["uplinkctl", "flush"]).ok();
    assert!(!lab.machine.cmd(&["nft", "list", "tables"]).ok().contains("uplinkd_policy"));
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    carried_by(&lab, &["one", "two"]);
    first_contacts(client, &[dest("ipv4", 5)]);
    leads(1);
}
