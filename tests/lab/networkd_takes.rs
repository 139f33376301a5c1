//! systemd-networkd takes away what is not its own, unless it is told not to; and others who keep taking.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ctl::{Ctl, installed, ours};
use crate::kit::address::{echoes4, echoes6};
use crate::kit::process::Daemon;
use crate::kit::spec::Manager;
use crate::kit::{Lab, NewFlows, Spec, Via, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(30);
const DROP_IN: &str = "/etc/systemd/networkd.conf.d/10-uplinkd.conf";

/// What the kernel says of our objects, with times, from the start of the value on.
struct Monitor<'a>(&'a Lab, Option<Daemon>);

impl<'a> Monitor<'a> {
    fn start(lab: &'a Lab) -> Monitor<'a> {
        let script = "exec ip -ts -o -N monitor rule route >/run/monitor";
        let monitor = Monitor(lab, Some(lab.machine.daemon(&["sh", "-c", script])));
        let heard = || {
            lab.machine.sh("ip rule add pref 1 to 192.0.2.99 lookup 99; ip rule del pref 1").ok();
            lab.machine.read("/run/monitor").contains("192.0.2.99").then_some(())
        };
        lab.machine.wait("the monitor", LIMIT, heard);
        monitor
    }

    /// For each deletion of an object of ours: the object, and after how many milliseconds it was there again.
    fn stop(mut self) -> Vec<(String, f64)> {
        drop(self.1.take());
        let text = self.0.machine.read("/run/monitor");
        let (mut away, mut gaps) = (BTreeMap::new(), Vec::new());
        for line in text.lines().filter(|line| line.contains("proto 177")) {
            let Some((stamp, object)) = line.trim_start_matches('[').split_once(']') else { continue };
            // Two messages at once can be torn in the file.
            let Some(at) = seconds(stamp) else { continue };
            let object = object.trim();
            match object.strip_prefix("Deleted ") {
                Some(object) => drop(away.insert(object.trim().to_owned(), at)),
                None => gaps.extend(away.remove(object).map(|since| (object.to_owned(), (at - since) * 1e3))),
            }
        }
        gaps.extend(away.into_keys().map(|object| (object, f64::INFINITY)));
        gaps
    }
}

/// `2026-11-21T11:50:00.123456`: seconds of the day.
fn seconds(stamp: &str) -> Option<f64> {
    let time = stamp.split('T').nth(1).unwrap_or_default();
    time.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

fn has_note(lab: &Lab, sign: &str) -> bool {
    lab.machine.status()["notes"]
        .as_array()
        .is_some_and(|notes| notes.iter().any(|note| note.as_str().is_some_and(|note| note.contains(sign))))
}

/// Does something to networkd under traffic of both families; returns which of our objects were taken, and for how long
/// in milliseconds.
fn disturbed(lab: &Lab, what: &str, command: &str) -> Vec<(String, f64)> {
    lab.machine.wait_both_families();
    let whole = ours(&lab.machine);
    let monitor = Monitor::start(lab);
    let ns = lab.machine.netns();
    let flows = [echoes4(), echoes6()].map(|to| NewFlows::start(ns, &Via::any(), &to, 100));
    std::thread::sleep(Duration::from_millis(300));
    lab.machine.sh(command).ok();
    lab.machine.wait("all of ours again", LIMIT, || (ours(&lab.machine) == whole).then_some(()));
    std::thread::sleep(Duration::from_millis(500));
    for (family, flows) in ["IPv4", "IPv6"].into_iter().zip(flows) {
        println!("{what}: {command}: {family}: {}", flows.stop().summary());
    }
    let gaps = monitor.stop();
    let mut times: Vec<f64> = gaps.iter().map(|(_, gap)| *gap).collect();
    times.sort_by(f64::total_cmp);
    let (median, longest) = (times.get(times.len() / 2), times.last());
    println!(
        "{what}: {command}: {} of ours taken; back after {median:.1?}, at most {longest:.1?} ms",
        times.len()
    );
    gaps
}

/// The rule that rests on no uplink: only a foreign hand takes it.
fn lasting(gaps: &[(String, f64)]) -> Vec<&(String, f64)> {
    gaps.iter().filter(|(object, _)| object.starts_with("7000:")).collect()
}

#[test]
fn networkd_with_our_settings_spares_us_and_without_them_is_mended_at_once() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6().manager(Manager::Networkd)).exclusive());
    lab.machine.wait_both_families();
    assert!(has_note(&lab, "systemctl restart systemd-networkd"), "it was started before the package came");
    lab.machine.sh("systemctl restart systemd-networkd").ok();
    lab.machine.wait("an end of the note", LIMIT, || (!has_note(&lab, "systemd-networkd")).then_some(()));
    let commands = ["networkctl reload", "networkctl reconfigure eth1", "systemctl restart systemd-networkd"];
    for command in commands {
        let gaps = disturbed(&lab, "with our settings", command);
        assert!(lasting(&gaps).is_empty(), "{command}: {gaps:?}");
    }
    // What was seen is for the daemon to write down: a dry run of root's leaves no file behind.
    let memory = "/run/uplinkd/networkd";
    lab.machine
        .sh(&format!("systemctl stop uplinkd; rm {memory}; uplinkctl plan --full; ! test -e {memory}"))
        .ok();
    lab.machine.sh("systemctl start uplinkd").ok();
    lab.machine.wait_both_families();
    lab.machine.cmd(&["test", "-e", memory]).ok();
    // What an upgrade writes anew is not unread for that.
    lab.machine.sh("touch /usr/lib/systemd/networkd.conf.d/10-uplinkd.conf; systemctl restart uplinkd").ok();
    lab.machine.wait_both_families();
    assert!(!has_note(&lab, "systemd-networkd"), "{:?}", lab.machine.status()["notes"]);

    lab.machine.sh(&format!("mkdir -p /etc/systemd/networkd.conf.d; ln -s /dev/null {DROP_IN}; systemctl restart systemd-networkd")).ok();
    lab.machine.wait("a note", LIMIT, || has_note(&lab, "lacks ManageForeignRoutes=no").then_some(()));
    let mut taken = 0;
    for command in commands {
        // Peace, or it would count as a fight.
        std::thread::sleep(Duration::from_secs(3));
        let gaps = disturbed(&lab, "without", command);
        taken += lasting(&gaps).len();
        // A busy machine is late now and then; the fastest tells what the daemon needs.
        let fastest = lasting(&gaps).iter().map(|(_, gap)| *gap).min_by(f64::total_cmp);
        assert!(fastest.is_none_or(|gap| gap < 100.0), "{command}: {gaps:?}");
    }
    assert!(taken > 0, "networkd spares what is not its own now?");
    let log = lab.machine.journal("uplinkd");
    assert!(!log.contains("somebody keeps"), "{log}");
}

#[test]
fn who_keeps_deleting_is_answered_ever_more_slowly_and_holds_nothing_else_up() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let whole = ours(&lab.machine);
    let monitor = Monitor::start(&lab);
    let script = "while :; do ip rule del pref 7101 2>/dev/null; sleep 0.05; done";
    lab.machine.cmd(&["systemd-run", "-q", "--unit=deleter", "sh", "-c", script]).ok();
    lab.machine.wait("a note", LIMIT, || has_note(&lab, "somebody keeps taking away").then_some(()));
    std::thread::sleep(Duration::from_secs(5));
    // Meanwhile a failover is as quick as ever, and other objects are put back at once.
    lab.isp(2).carrier(false);
    lab.machine.wait_active(1);
    lab.isp(2).carrier(true);
    lab.machine.wait_active(2);
    lab.machine.sh("ip rule del pref 7102").ok();
    let back = || lab.machine.cmd(&["ip", "rule"]).ok().contains("7102:").then_some(());
    lab.machine.wait("another rule", Duration::from_secs(2), back);
    lab.machine.cmd(&["systemctl", "stop", "deleter"]).ok();
    let gaps = monitor.stop();
    let contested: Vec<f64> = gaps.iter().filter(|(o, _)| o.contains("7101:")).map(|(_, gap)| *gap).collect();
    println!("put back {} times, after {contested:.0?} ms", contested.len());
    assert!((11..40).contains(&contested.len()), "{contested:?}");
    assert!(contested.iter().any(|gap| *gap > 700.0), "{contested:?}");
    let log = lab.machine.journal("uplinkd");
    let said: Vec<&str> = log.lines().filter(|line| line.contains("somebody keeps")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("ip -4 rule add pref 7101 fwmark"), "{said:?}");
    let peace = Duration::from_secs(120);
    lab.machine.wait("the rule again", peace, || (ours(&lab.machine) == whole).then_some(()));
    lab.machine.wait("an end of the note", peace, || (!has_note(&lab, "somebody keeps")).then_some(()));
    lab.machine.sh("ip rule del pref 7101").ok();
    lab.machine
        .wait("a quick repair", Duration::from_secs(2), || (ours(&lab.machine) == whole).then_some(()));
}
