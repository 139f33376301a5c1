//! What `uplinkctl` tells: the plan, the status, and what follows its orders.

use std::time::Duration;

use crate::ctl::{Ctl, installed, on, ours};
use crate::input::notes;
use crate::kit::{Machine, Spec, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(10);

fn ctl(machine: &Machine, arguments: &str) -> String {
    machine.sh(&format!("uplinkctl {arguments}")).ok()
}

#[test]
fn the_plan_is_what_is_applied() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6()));
    lab.machine.wait_active(2);
    lab.machine
        .wait_status("both families", LIMIT, |s| s["active"]["ipv6"].as_array().map(Vec::len) == Some(2));
    assert_eq!(ctl(&lab.machine, "plan"), "# nothing would change\n");
    let whole = ours(&lab.machine);
    let sysctls = "sysctl net.ipv4.fib_multipath_hash_policy net.ipv6.fib_multipath_hash_policy \
                   net.ipv4.conf.eth1.ignore_routes_with_linkdown net.ipv6.conf.eth2.ignore_routes_with_linkdown";
    let settings = lab.machine.sh(sysctls).ok();
    let nobody = "setpriv --reuid nobody --regid nogroup --clear-groups uplinkctl plan --full";
    let full = lab.machine.sh(nobody).ok();
    // All but what is loaded in nftables now, which a plan of the whole does not depend on.
    let full: String = full
        .lines()
        .filter(|line| !line.starts_with("# nftables: "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(full, ctl(&lab.machine, "plan --full"), "everybody is told the same");
    // Flushed, the plan of what would change is the whole of it; and a shell that carries it out does what we do.
    ctl(&lab.machine, "flush");
    assert_eq!(ours(&lab.machine), "");
    assert_eq!(ctl(&lab.machine, "plan"), full);
    lab.machine.write("/root/plan.sh", &full);
    println!("{}", lab.machine.sh("grep -v ^conntrack /root/plan.sh | sh -e").ok());
    assert_eq!(ours(&lab.machine), whole);
    assert_eq!(lab.machine.sh(sysctls).ok(), settings);
    assert_eq!(ctl(&lab.machine, "plan"), "# nothing would change\n");
    // What is missing is told, and exactly that is put back.
    lab.machine.sh("ip rule del pref 7301; ip -6 route del default table 7002 proto 177").ok();
    let planned = ctl(&lab.machine, "plan");
    assert_eq!(planned.lines().count(), 2, "{planned}");
    let log = || lab.machine.journal("uplinkd");
    let lines_before = log().lines().count();
    ctl(&lab.machine, "reload");
    ctl(&lab.machine, "nudge --wait 5");
    assert_eq!(ours(&lab.machine), whole);
    let log = log();
    let added: Vec<&str> =
        log.lines().skip(lines_before).filter_map(|line| line.split("]: ").nth(1)).collect();
    for line in planned.lines() {
        assert!(added.contains(&line), "{line} in {added:?}");
    }
}

#[test]
fn orders_do_what_they_say_and_the_status_follows() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    for line in [" | head -1", "status --json | head -c 1", "plan --full | head -1"] {
        let said = lab.machine.sh(&format!("uplinkctl {line}"));
        assert!(said.success() && said.stderr.is_empty(), "{said}");
    }
    // States: standing by, down, gone, forgotten.
    ctl(&lab.machine, "set eth2 tier=2");
    lab.machine.wait_active(1);
    assert!(ctl(&lab.machine, "").contains("up, stands by 192.168.2.10"), "{}", ctl(&lab.machine, ""));
    let name = on(&lab.machine.status(), "eth2")["name"].as_str().expect("a name").to_owned();
    let said = lab.machine.cmd(&["uplinkctl", "forget", &name]);
    assert!(said.status.code() == Some(1) && said.stderr.contains("is present"), "{said}");
    lab.isp(2).carrier(false);
    lab.machine.wait_status("down", LIMIT, |s| {
        ["down", "absent"].map(Into::into).contains(&on(s, "eth2")["ipv4"]["state"])
    });
    println!("{}", ctl(&lab.machine, ""));
    lab.machine.netns().ip("link del eth2");
    lab.machine.wait_status("absent", LIMIT, |s| on(s, "eth2")["ipv4"]["state"] == "absent");
    println!("{}", ctl(&lab.machine, ""));
    ctl(&lab.machine, &format!("forget {name}"));
    let told = lab.machine.wait_status("forgotten", LIMIT, |s| on(s, "eth2").is_null() && !s.is_null());
    assert_eq!(told["uplinks"].as_array().map(Vec::len), Some(1), "{told}");
    assert!(!lab.machine.read("/var/lib/uplinkd/slots.json").contains("eth2"));
    assert_eq!(lab.machine.cmd(&["uplinkctl", "forget", &name]).status.code(), Some(1));

    // A flush lasts until a reload, whatever happens.
    ctl(&lab.machine, "flush");
    assert!(notes(&lab.machine.status()).contains("flushed: nothing is managed until"));
    lab.isp(1).blip();
    ctl(&lab.machine, "nudge --wait 5");
    assert_eq!(ours(&lab.machine), "");
    ctl(&lab.machine, "reload");
    ctl(&lab.machine, "nudge --wait 5");
    assert!(ours(&lab.machine).contains("oif eth1"));
    assert_eq!(notes(&lab.machine.status()), "");

    lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
    for line in ["", "plan", "reload", "nudge --wait 1", "forget x", "set x tier=2"] {
        let said = lab.machine.sh(&format!("uplinkctl {line}"));
        assert_eq!(said.status.code(), Some(69), "{said}");
        assert!(said.stderr.contains("systemctl start uplinkd"), "{said}");
    }
    ctl(&lab.machine, "flush");
    assert_eq!(ours(&lab.machine), "");
}
