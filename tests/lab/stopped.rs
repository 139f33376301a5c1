//! The daemon dies, or stands still, while there is something to decide.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, set};
use crate::kit::address::{ECHO, echoes4};
use crate::kit::{Lab, NewFlows, Spec, UdpFlow, Via, lab_or_skip};
use crate::watch::{RouteWatch, in_use, rest, seconds, state, to, transitions, until_state, until_used};

fn pid(lab: &Lab) -> String {
    lab.machine.cmd(&["systemctl", "show", "-P", "MainPID", "uplinkd"]).ok().trim().to_owned()
}

/// Does something to the daemon while ISP 1 is dead, and demands that nobody feels it.
fn unfelt(lab: &Lab, what: &str, disturb: impl FnOnce()) {
    let ns = &lab.client().ns;
    let dest = |n| to(n, ECHO);
    let running: Vec<UdpFlow> =
        (1..=4).map(|n| UdpFlow::start(ns, &Via::any(), dest(n), Duration::from_millis(20))).collect();
    let own = UdpFlow::start(lab.machine.netns(), &Via::any(), dest(9), Duration::from_millis(20));
    let fresh = NewFlows::start(ns, &Via::any(), &echoes4(), 100);
    let routes = RouteWatch::start(lab);
    rest(500);
    let before = pid(lab);
    disturb();
    let start = Instant::now();
    while start.elapsed() < seconds(6) {
        let status = lab.machine.status();
        if !status["uplinks"][0].is_null() {
            assert_eq!(in_use(lab, &status, "ipv4"), [2], "{what}: {status}");
        }
        rest(100);
    }
    assert_ne!(pid(lab), before, "{what}");
    until_state(lab, 1, "down");
    println!("{what}: {:?}", transitions(lab, 1));
    println!("{what}: default routes: {:?}", routes.defaults());
    for report in running.into_iter().chain([own]).map(UdpFlow::stop).chain([fresh.stop()]) {
        assert_eq!((report.lost(), report.shares().isps()), (0, vec![2]), "{what}: {}", report.summary());
    }
    assert_eq!(routes.defaults(), [""; 0], "{what}");
}

fn dies_while_isp_1_is_dead(tiers: bool) {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    if tiers {
        set(&lab, 2, "tier=2");
        until_used(&lab, &[1]);
    }
    lab.isp(1).silent(true);
    until_state(&lab, 1, "down");
    until_used(&lab, &[2]);
    unfelt(&lab, "restart", || drop(lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok()));
    unfelt(&lab, "kill -9", || drop(lab.machine.cmd(&["kill", "-9", &pid(&lab)]).ok()));
    lab.isp(1).silent(false);
    println!("in use again after {:.1?}", until_used(&lab, if tiers { &[1] } else { &[1, 2] }));
}

#[test]
fn a_daemon_that_dies_does_not_bring_back_a_dead_preferred_isp() {
    dies_while_isp_1_is_dead(true);
}

#[test]
fn a_daemon_that_dies_does_not_bring_back_a_dead_balanced_isp() {
    dies_while_isp_1_is_dead(false);
}

#[test]
fn a_daemon_that_stood_still_condemns_nobody() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let routes = RouteWatch::start(&lab);
    for (what, rate) in [("idle", 0), ("with traffic", 50)] {
        let before = [1, 2].map(|isp| transitions(&lab, isp).len());
        let flows = (rate > 0).then(|| NewFlows::start(&lab.client().ns, &Via::any(), &echoes4(), rate));
        rest(2000);
        let pid = pid(&lab);
        lab.machine.cmd(&["kill", "-STOP", &pid]).ok();
        rest(10_000);
        lab.machine.cmd(&["kill", "-CONT", &pid]).ok();
        rest(6000);
        for isp in [1, 2] {
            let after = transitions(&lab, isp).split_off(before[usize::from(isp) - 1]);
            assert!(after.is_empty(), "{what}: ISP {isp}: {after:?}");
            assert_eq!(state(&lab.machine.status(), isp), "up");
        }
        if let Some(flows) = flows {
            let report = flows.stop();
            assert_eq!(report.lost(), 0, "{}", report.summary());
        }
        assert_eq!(self::pid(&lab), pid, "the watchdog has bitten");
    }
    assert_eq!(routes.defaults(), [""; 0]);
}

#[test]
fn a_daemon_that_stood_still_finds_out_what_happened_meanwhile() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let pid = pid(&lab);
    let flows = NewFlows::start(&lab.client().ns, &Via::any(), &echoes4(), 50);
    lab.machine.cmd(&["kill", "-STOP", &pid]).ok();
    lab.isp(1).silent(true);
    rest(5000);
    let awake = Instant::now();
    lab.machine.cmd(&["kill", "-CONT", &pid]).ok();
    until_used(&lab, &[2]);
    println!("FIGURE found out {:.1?} after it went on", awake.elapsed());
    assert!(awake.elapsed() < seconds(15));
    rest(500);
    println!("{}", flows.stop().summary());
}
