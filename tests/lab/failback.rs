//! What becomes of flows that moved away when the better ISP is back.

use std::time::Instant;

use crate::ctl::{Ctl, installed, set};
use crate::kit::address::{BULK, ECHO};
use crate::kit::{Lab, Spec, SteadyTcp, UdpFlow, UdpReport, Via, lab_or_skip};
use crate::watch::{Figures, Mix, rest, seconds, state, to, until, until_used};

const INTERVAL: std::time::Duration = std::time::Duration::from_millis(20);

/// A call of the client's, and a download, that go to ISP 2 while ISP 1 is dead; stops both some time after it is back.
fn a_call(lab: &Lab, failback: &str, stays: u64) -> (UdpReport, Instant) {
    for assignment in failback.split(' ') {
        set(lab, 2, assignment);
    }
    until_used(lab, &[1]);
    let ns = &lab.client().ns;
    let call = UdpFlow::start(ns, &Via::any(), to(5, ECHO), INTERVAL);
    let download = SteadyTcp::download(ns, &Via::any(), to(6, BULK), None);
    rest(500);
    lab.isp(1).silent(true);
    until_used(lab, &[2]);
    rest(1500);
    lab.isp(1).silent(false);
    until_used(lab, &[1]);
    let back = Instant::now();
    rest(stays);
    let download = download.stop();
    println!("{failback}: download: {:?} {:?}", download.connections, download.errors);
    let call = call.stop();
    let since = back.saturating_duration_since(call.start);
    let (lost, sent) = call.lost_between(since.saturating_sub(seconds(1)), call.ran);
    println!("{failback}: the call went {:?}", call.ways());
    println!("{failback}: FIGURE {lost} of {sent} packets were lost after ISP 1 was back");
    assert!(lost <= 10, "{}", call.summary());
    (call, back)
}

/// When the call came back to ISP 1 after that was in use again, if it did.
fn moved_back(call: &UdpReport, back: Instant) -> Option<f64> {
    let back = back.saturating_duration_since(call.start).as_secs_f64();
    let ways = call.ways();
    let last = ways.last().filter(|way| way.isp == Some(1) && ways.len() > 2)?;
    Some(last.from.as_secs_f64() - back)
}

#[test]
fn flows_stay_or_come_back_as_failback_says() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    for isp in [1, 2] {
        set(&lab, isp, "hold=0s");
    }
    set(&lab, 2, "tier=2");

    let (call, back) = a_call(&lab, "failback=keep", 6000);
    assert_eq!(call.ways().last().and_then(|way| way.isp), Some(2), "{:?}", call.ways());
    assert_eq!(moved_back(&call, back), None);

    let (call, back) = a_call(&lab, "failback=drain drain-time=3s", 6000);
    let moved = moved_back(&call, back).expect("it moved");
    println!("drain: FIGURE moved {moved:.2} s after ISP 1 was in use again");
    assert!((2.0..5.0).contains(&moved), "{moved}");

    let (call, back) = a_call(&lab, "failback=force", 3000);
    let moved = moved_back(&call, back).expect("it moved");
    println!("force: FIGURE moved {moved:.2} s after the status said that ISP 1 is in use again");
    assert!(moved < 1.0, "{moved}");
}

#[test]
fn flows_that_were_kept_leave_when_their_isp_goes_too() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    for isp in [1, 2] {
        set(&lab, isp, "hold=0s");
    }
    set(&lab, 2, "tier=2");
    for (what, fails) in [("silent", true), ("without a carrier", false)] {
        until_used(&lab, &[1]);
        let mix = Mix::start(&lab, 1);
        rest(500);
        lab.isp(1).silent(true);
        until_used(&lab, &[2]);
        rest(1500);
        lab.isp(1).silent(false);
        until_used(&lab, &[1]);
        rest(1000);
        let fault = Instant::now();
        if fails {
            lab.isp(2).silent(true)
        } else {
            lab.isp(2).carrier(false)
        }
        rest(6000);
        let mut figures = Figures::default();
        mix.stop(fault, 2, &mut figures);
        figures.judge(&format!("kept on ISP 2, which is {what}"), seconds(4));
        if fails {
            lab.isp(2).silent(false)
        } else {
            lab.isp(2).carrier(true)
        }
        until(&lab, "ISP 2 up", seconds(30), |status| state(status, 2) == "up");
    }
}
