//! No ISP at all, and everything that comes after it.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, package, set};
use crate::kit::address::{ECHO, echoes4};
use crate::kit::{HeldTcp, Lab, Spec, UdpFlow, Via, connect_many, lab_or_skip};
use crate::watch::{in_use, rest, seconds, state, to, until, until_state, until_used};

const BLOCK: &str = "all-down = \"block\"\n";

/// The default routes of main, as `ip` prints them.
fn defaults(lab: &Lab) -> Vec<String> {
    let text = lab.machine.netns().cmd(&["ip", "-4", "route", "show", "table", "main", "default"]).ok();
    text.lines().map(str::to_owned).collect()
}

fn ours(routes: &[String]) -> Vec<&String> {
    routes.iter().filter(|route| route.contains("proto 177") || route.contains("proto uplinkd")).collect()
}

/// What must hold while no ISP leads out.
#[track_caller]
fn nothing_leads_out(lab: &Lab, block: bool) {
    let status = lab.machine.status();
    assert_eq!(in_use(lab, &status, "ipv4"), [0u8; 0]);
    let routes = defaults(lab);
    let of_managers = routes.iter().filter(|route| route.contains("proto dhcp")).count();
    assert_eq!(of_managers, 2, "the managers' own stand: {routes:?}");
    assert_eq!(ours(&routes), [""; 0], "{routes:?}");
    assert_eq!(blocked(lab), block);
    assert_eq!(status["blocked"]["ipv4"], block);
    let told = lab.machine.cmd(&["uplinkctl"]).ok();
    let said = |words: &str| told.contains(&format!("New ipv4 flows: no uplink; {words}"));
    assert!(said(if block { "nothing leaves" } else { "the managers' own routes decide" }), "{told}");
    // What is meant for one ISP's device still goes by its gateway, or nobody would find out that it is back.
    let way = lab.machine.netns().cmd(&["ip", "-4", "route", "get", "1.1.1.1", "oif", "eth1"]).ok();
    assert!(way.contains("via 192.168.1.254"), "{way}");
}

/// Whether a dead end stands ahead of main.
fn blocked(lab: &Lab) -> bool {
    let dead_end = lab.machine.netns().cmd(&["ip", "-4", "route", "show", "table", "7000"]).stdout;
    let rules = lab.machine.netns().cmd(&["ip", "-4", "rule"]).ok();
    let client = HeldTcp::connect(&lab.client().ns, &Via::any(), to(9, ECHO));
    assert!(client.is_err(), "nothing leads out");
    let stands = dead_end.contains("unreachable default") && rules.contains("32765:\tfrom all lookup 7000");
    assert_eq!(stands, !dead_end.is_empty(), "{dead_end} {rules}");
    stands
}

fn all_die_and_come_back(lab: &Lab, dying: [u8; 2], coming: [u8; 2], block: bool) {
    println!("{dying:?} die, {coming:?} come back, block: {block}");
    let calls: Vec<_> = [(1, &lab.client().ns), (2, &lab.client().ns), (3, lab.machine.netns())]
        .map(|(n, ns)| UdpFlow::start(ns, &Via::any(), to(n, ECHO), Duration::from_millis(50)))
        .into();
    rest(500);
    for isp in dying {
        lab.isp(isp).silent(true);
        until_state(lab, isp, "down");
    }
    rest(500);
    nothing_leads_out(lab, block);
    let first = Instant::now();
    lab.isp(coming[0]).silent(false);
    until_used(lab, &[coming[0]]);
    println!("  ISP {} in use {:.1?} after it was back", coming[0], first.elapsed());
    rest(1500);
    assert_eq!(ours(&defaults(lab)).len(), 1, "{:?}", defaults(lab));
    assert_eq!(lab.machine.netns().cmd(&["ip", "-4", "route", "show", "table", "7000"]).stdout, "");
    lab.isp(coming[1]).silent(false);
    until_used(lab, &[1, 2]);
    rest(1000);
    for call in calls.into_iter().map(UdpFlow::stop) {
        let recovery = call.recovery(first);
        println!("  a call: {recovery:?} {:?}", call.ways());
        assert!(recovery.recovered.is_some_and(|time| time < seconds(9)), "{recovery:?}");
    }
    let shares = connect_many(&lab.client().ns, &Via::any(), 60, &echoes4());
    assert_eq!((shares.isps(), shares.failures.len()), (vec![1, 2], 0));
}

#[test]
fn both_die_and_both_come_back_by_themselves() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    for isp in [1, 2] {
        set(&lab, isp, "hold=0s");
    }
    until_used(&lab, &[1, 2]);
    all_die_and_come_back(&lab, [1, 2], [1, 2], false);
    all_die_and_come_back(&lab, [1, 2], [2, 1], false);
    all_die_and_come_back(&lab, [2, 1], [2, 1], false);
    lab.machine.write("/etc/uplinkd/uplinkd.toml", BLOCK);
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    all_die_and_come_back(&lab, [1, 2], [2, 1], true);
    all_die_and_come_back(&lab, [2, 1], [1, 2], true);
}

/// The daemon comes to a machine whose ISPs are all dead.
fn start_with_both_dead(lab: &Lab, block: bool, start: impl FnOnce()) {
    for isp in [1, 2] {
        lab.isp(isp).silent(true);
    }
    start();
    for isp in [1, 2] {
        println!("ISP {isp} down after {:.1?}", until_state(lab, isp, "down"));
    }
    nothing_leads_out(lab, block);
    rest(3000);
    nothing_leads_out(lab, block);
    let back = Instant::now();
    for isp in [2, 1] {
        lab.isp(isp).silent(false);
    }
    until_used(lab, &[1, 2]);
    println!("both in use {:.1?} after they were back", back.elapsed());
    for isp in [1, 2] {
        assert_eq!(state(&lab.machine.status(), isp), "up");
    }
    let shares = connect_many(&lab.client().ns, &Via::any(), 60, &echoes4());
    assert_eq!((shares.isps(), shares.failures.len()), (vec![1, 2], 0));
}

#[test]
fn an_installation_while_both_are_dead_comes_to_life_with_them() {
    let lab = lab_or_skip!(Spec::router());
    start_with_both_dead(&lab, false, || {
        lab.machine.install_deb(&package());
    });
    // And a start of the daemon, as at boot: with nothing of ours in the kernel.
    for block in [false, true] {
        lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
        lab.machine.cmd(&["uplinkctl", "flush"]).ok();
        lab.machine.write("/etc/uplinkd/uplinkd.toml", if block { BLOCK } else { "" });
        start_with_both_dead(&lab, block, || drop(lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok()));
    }
    // And one that finds what stood when it was stopped.
    start_with_both_dead(&lab, true, || drop(lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok()));
    let (took, _) =
        until(&lab, "no events to come", seconds(1), |status| in_use(&lab, status, "ipv4") == [1, 2]);
    println!("{took:.1?}");
}
