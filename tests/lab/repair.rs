//! What others take away is put back; what is theirs is never touched.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, ours};
use crate::kit::{Spec, lab_or_skip};

#[test]
fn every_object_that_is_deleted_comes_back() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6()).exclusive());
    lab.machine.wait_status("both families", Duration::from_secs(15), |s| {
        s["active"]["ipv4"].as_array().map(Vec::len) == Some(2)
            && s["active"]["ipv6"].as_array().map(Vec::len) == Some(2)
    });
    let whole = ours(&lab.machine);
    println!("{whole}");
    let mut victims: Vec<String> = vec!["nft delete table inet uplinkd".into(), "nft flush ruleset".into()];
    for family in ["-4", "-6"] {
        let rules = lab.machine.sh(&format!("ip -N {family} rule | grep 'proto 177'")).ok();
        victims.extend(rules.lines().map(|line| {
            let (pref, rest) = line.split_once(':').expect("PREF: SELECTOR");
            let rest = rest.trim().replace("from all ", "").replace("proto", "protocol");
            format!("ip {family} rule del pref {pref} {rest}")
        }));
        let tables = [("main", "default"), ("7001", "default"), ("7002", "default")];
        victims.extend(
            tables.map(|(table, dest)| format!("ip {family} route del {dest} table {table} proto 177")),
        );
        victims.extend([1, 2].map(|n| format!("ip {family} route flush table {}", 7000 + n)));
    }
    let mut times = Vec::new();
    for victim in &victims {
        // Not so fast that it would count as a fight, which is answered ever more slowly on purpose.
        std::thread::sleep(Duration::from_millis(2500));
        let deleted = Instant::now();
        lab.machine.sh(victim).ok();
        lab.machine.wait(&format!("repair of: {victim}"), Duration::from_secs(5), || {
            (ours(&lab.machine) == whole).then_some(())
        });
        times.push((deleted.elapsed(), victim));
    }
    times.sort();
    for (time, victim) in &times {
        println!("{time:?} (with the two commands' own time) {victim}");
    }
    let log = lab.machine.journal("uplinkd");
    assert!(!log.contains("somebody keeps"), "{log}");
}
