//! An ISP that comes and goes.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, set};
use crate::kit::address::{ECHO, echoes4};
use crate::kit::{Lab, NewFlows, Spec, UdpFlow, Via, lab_or_skip};
use crate::watch::{RouteWatch, leg, rest, seconds, to, transitions, until, until_state, until_used};

/// How long it flaps.
const WHILE: Duration = Duration::from_secs(60);

fn flap(tiers: bool) {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    if tiers {
        set(&lab, 2, "tier=2");
        until_used(&lab, &[1]);
    }
    let routes = RouteWatch::start(&lab);
    let running = UdpFlow::start(&lab.client().ns, &Via::any(), to(5, ECHO), Duration::from_millis(20));
    let fresh = NewFlows::start(&lab.client().ns, &Via::any(), &echoes4(), 20);
    let before = transitions(&lab, 1).len();
    let flap = lab.isp(1).flap(seconds(2), seconds(1));
    std::thread::sleep(WHILE);
    let changes = routes.defaults();
    drop(flap);
    let (running, fresh) = (running.stop(), fresh.stop());
    println!("tiers: {tiers}; a minute of flaps: FIGURE {} changes of the default route", changes.len());
    println!("  {changes:?}");
    println!("  running: {}", running.summary());
    println!("  running: {:?}", running.ways());
    println!("  new flows: {}", fresh.summary());
    let went = transitions(&lab, 1).split_off(before);
    println!("  {went:?}");
    // Thirty flaps; each could have been two changes.
    assert!(changes.len() <= 8, "{changes:?}");
    assert!(running.ways().len() <= 4, "{:?}", running.ways());
    stability_brings_it_back(&lab, if tiers { &[1] } else { &[1, 2] });
}

fn stability_brings_it_back(lab: &Lab, used: &[u8]) {
    let status = lab.machine.status();
    println!("  after the last: {} {}", leg(&status, 1, "ipv4")["state"], leg(&status, 1, "ipv4")["health"]);
    let (took, _) = until(lab, "ISP 1 up", seconds(200), |status| leg(status, 1, "ipv4")["state"] == "up");
    until_used(lab, used);
    println!("  FIGURE up and in use again {took:.1?} after the last flap");
}

#[test]
fn a_preferred_isp_that_flaps_is_left_until_it_is_stable() {
    flap(true);
}

#[test]
fn a_balanced_isp_that_flaps_is_left_until_it_is_stable() {
    flap(false);
}

#[test]
fn a_second_failure_is_held_against_it() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    set(&lab, 2, "tier=2");
    until_used(&lab, &[1]);
    let traffic = NewFlows::start(&lab.client().ns, &Via::any(), &echoes4(), 20);
    for (failure, hold) in [(1, 0), (2, 10), (3, 20)] {
        rest(500);
        lab.isp(1).silent(true);
        until_state(&lab, 1, "down");
        lab.isp(1).silent(false);
        let back = Instant::now();
        if hold > 0 {
            until_state(&lab, 1, "held");
            let held = Instant::now();
            let status = lab.machine.status();
            let left = leg(&status, 1, "ipv4")["health"]["held_for_s"].as_u64().expect("a figure");
            assert!((hold - 2..=hold).contains(&left), "held for {left} s of {hold}");
            let text = lab.machine.cmd(&["uplinkctl"]).ok();
            println!("{text}");
            assert!(text.contains("held"), "{text}");
            until_state(&lab, 1, "up");
            println!("failure {failure}: held for {:.1?}", held.elapsed());
        }
        until_used(&lab, &[1]);
        println!("failure {failure}: in use {:.1?} after the ISP was back", back.elapsed());
    }
    // Held, it is better than nothing.
    lab.isp(1).silent(true);
    until_state(&lab, 1, "down");
    lab.isp(1).silent(false);
    until_state(&lab, 1, "held");
    lab.isp(2).silent(true);
    println!("a held one takes over after {:.1?}", until_used(&lab, &[1]));
    println!("{}", traffic.stop().summary());
}
