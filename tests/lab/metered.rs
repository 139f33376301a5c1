//! A metered ISP that stands by: what it costs, and how soon it serves.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, on, set};
use crate::kit::address::ECHO;
use crate::kit::{Lab, Spec, UdpFlow, Via, lab_or_skip};
use crate::watch::{Figures, leg, rest, seconds, state, to, transitions, until, until_used};

/// A router with a metered ISP 2.
#[track_caller]
fn prepare(lab: &Lab) {
    lab.machine.wait_active(2);
    set(lab, 1, "hold=0s");
    set(lab, 2, "metered=true");
    until_used(lab, &[1]);
    let status = lab.machine.status();
    let standby = on(&status, "eth2");
    assert_eq!(
        (&standby["tier"], &standby["metered"], &standby["failback"]),
        (&2.into(), &true.into(), &"force".into())
    );
}

fn probe_bytes(lab: &Lab, isp: u8) -> u64 {
    leg(&lab.machine.status(), isp, "ipv4")["health"]["probe_bytes"].as_u64().expect("a figure")
}

#[test]
fn a_metered_isp_that_stands_by_is_hardly_asked() {
    let lab = lab_or_skip!(installed(Spec::router()));
    prepare(&lab);
    // What was begun before it was metered is over.
    rest(3000);
    let window = Duration::from_secs(70);
    let before = [1, 2].map(|isp| probe_bytes(&lab, isp));
    std::thread::sleep(window);
    let after = [1, 2].map(|isp| probe_bytes(&lab, isp));
    for (isp, (before, after)) in (1..).zip(before.into_iter().zip(after)) {
        let bytes = after - before;
        let monthly = bytes as f64 / window.as_secs_f64() * 86_400.0 * 30.0 / 1e6;
        println!("FIGURE ISP {isp}: {bytes} bytes of probes in {window:?}, {monthly:.1} MB in 30 days");
        if isp == 2 {
            assert!(monthly < 20.0, "{monthly}");
        }
    }
    assert_eq!(state(&lab.machine.status(), 2), "up");
}

#[test]
fn a_metered_isp_takes_over_and_is_left_again_at_once() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    prepare(&lab);
    let mut figures = Figures::default();
    for _ in 0..3 {
        let flow = UdpFlow::start(&lab.client().ns, &Via::any(), to(5, ECHO), Duration::from_millis(20));
        rest(1000);
        let fault = Instant::now();
        lab.isp(1).silent(true);
        until_used(&lab, &[2]);
        rest(1000);
        let back = Instant::now();
        lab.isp(1).silent(false);
        until_used(&lab, &[1]);
        rest(1500);
        let report = flow.stop();
        let [_, over, again] = report.ways()[..] else { panic!("{:?}", report.ways()) };
        assert_eq!((over.isp, again.isp), (Some(2), Some(1)));
        let from = |since: Instant| since.saturating_duration_since(report.start);
        figures.add("the running flow is on the metered ISP", over.from.saturating_sub(from(fault)));
        figures.add("it is on the better one after that is back", again.from.saturating_sub(from(back)));
        let (lost, _) = report.lost_between(from(back), report.ran);
        println!("{lost} lost on the way back");
    }
    println!("{:?}", transitions(&lab, 2));
    figures.judge("metered", seconds(9));
}

#[test]
fn a_metered_isp_that_dies_while_it_stands_by_is_found_out_in_time() {
    let lab = lab_or_skip!(installed(Spec::router()));
    prepare(&lab);
    rest(2000);
    lab.isp(2).silent(true);
    let (took, _) = until(&lab, "ISP 2 down", seconds(80), |status| state(status, 2) == "down");
    println!("FIGURE found dead after {took:.1?} while it stood by");
    let before = probe_bytes(&lab, 2);
    lab.isp(2).silent(false);
    let (took, _) = until(&lab, "ISP 2 up", seconds(80), |status| state(status, 2) == "up");
    println!("FIGURE found well after {took:.1?}, for {} bytes", probe_bytes(&lab, 2) - before);
}
