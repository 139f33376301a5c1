//! An upstream that falls silent behind its modem: how long anybody feels it.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, set};
use crate::kit::address::{ECHO, echoes4};
use crate::kit::{HeldTcp, Isp, Lab, NewFlows, Spec, Via, lab_or_skip};
use crate::watch::{Figures, Flow, Mix, in_use, rest, seconds, state, to, transitions, until, until_used};

/// Both goals are half of what is demanded here, because the machine may be busy.
const UNDER_TRAFFIC: Duration = Duration::from_secs(2);
const FROM_IDLE: Duration = Duration::from_secs(8);

/// A fault, and what it is called.
type Fault = (&'static str, fn(&Isp, bool));

const SILENT: Fault = ("silent", |isp, on| isp.silent(on));
const DEAF: Fault = ("deaf", |isp, on| isp.deaf(on));
const MUTE: Fault = ("mute", |isp, on| isp.mute(on));

/// A router with two ISPs where failures are forgiven at once, so that one lab has many.
fn prepare(lab: &Lab, tiers: bool) -> Vec<u8> {
    lab.machine.wait_active(2);
    for isp in [1, 2] {
        set(lab, isp, "hold=0s");
    }
    if tiers {
        set(lab, 2, "tier=2");
    }
    let used = if tiers { vec![1] } else { vec![1, 2] };
    until_used(lab, &used);
    used
}

/// Traffic, the fault under it, the recovery, and the way back.
fn once(lab: &Lab, used: &[u8], fault: Fault, copies: u8, figures: &mut Figures) {
    let mix = Mix::start(lab, copies);
    rest(1000);
    let at = Instant::now();
    fault.1(lab.isp(1), true);
    until_used(lab, &[2]);
    rest(1000);
    mix.stop(at, 1, figures);
    fault.1(lab.isp(1), false);
    figures.add("(ISP 1 in use again)", until_used(lab, used));
}

fn under_traffic(tiers: bool, faults: &[(Fault, usize)]) {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    let used = prepare(&lab, tiers);
    let copies = if tiers { 1 } else { 4 };
    for (fault, runs) in faults {
        let mut figures = Figures::default();
        for _ in 0..*runs {
            once(&lab, &used, *fault, copies, &mut figures);
        }
        println!("ISP 1: {:?}", transitions(&lab, 1));
        let back = figures.take("(ISP 1 in use again)");
        println!("  in use again after {back:.1?}");
        figures.judge(&format!("{}, tiers: {tiers}, under traffic", fault.0), UNDER_TRAFFIC);
    }
}

#[test]
fn a_preferred_isp_that_dies_under_traffic_is_left_within_a_second() {
    under_traffic(true, &[(SILENT, 2), (DEAF, 1), (MUTE, 1)]);
}

#[test]
fn a_balanced_isp_that_dies_under_traffic_is_left_within_a_second() {
    under_traffic(false, &[(SILENT, 1), (DEAF, 1), (MUTE, 1)]);
}

#[test]
fn an_isp_that_dies_while_nothing_flows_is_left_within_four_seconds() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    let used = prepare(&lab, true);
    let mut figures = Figures::default();
    for (name, fault) in [SILENT, SILENT, SILENT, DEAF, MUTE] {
        // Nobody sends anything, ever: only the daemon can find out.
        let at = Instant::now();
        fault(lab.isp(1), true);
        until(&lab, "ISP 2 in use", seconds(20), |status| in_use(&lab, status, "ipv4") == [2]);
        figures.add(&format!("{name}: nobody sends"), at.elapsed());
        fault(lab.isp(1), false);
        until_used(&lab, &used);
        rest(2500);
        // Somebody begins, now that it is dead, and tries again.
        let at = Instant::now();
        fault(lab.isp(1), true);
        let flows = Flow::Fresh(NewFlows::start(&lab.client().ns, &Via::any(), &echoes4(), 2));
        HeldTcp::connect(&lab.client().ns, &Via::any(), to(1, ECHO)).ok();
        let connected = at.elapsed();
        until_used(&lab, &[2]);
        rest(1100);
        let felt = flows.stop(at);
        figures.add(&format!("{name}: two datagrams a second"), felt.outage.expect("it came back"));
        figures.add(&format!("{name}: one patient connection"), connected);
        fault(lab.isp(1), false);
        until_used(&lab, &used);
        rest(2500);
    }
    println!("{:?}", transitions(&lab, 1));
    figures.judge("from idle", FROM_IDLE);
    assert_eq!(state(&lab.machine.status(), 1), "up");
}

/// Drops what an ISP forwards of IPv6, and only that; its router goes on announcing.
const SIX: Fault = ("IPv6 only", |isp, on| {
    isp.ns.nft("add table ip6 six\ndelete table ip6 six\n");
    if on {
        isp.ns
            .nft("table ip6 six { chain swallow { type filter hook forward priority -40; policy drop; }; }");
    }
});

#[test]
fn ipv6_fails_over_like_ipv4_and_by_itself() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6()).exclusive());
    let uses = |isps: &[u8]| {
        until(&lab, "IPv6 in use", seconds(30), |status| in_use(&lab, status, "ipv6") == isps).0
    };
    uses(&[1, 2]);
    prepare(&lab, true);
    uses(&[1]);
    for (fault, runs) in [(SILENT, 1), (SIX, 1)] {
        let mut figures = Figures::default();
        for _ in 0..runs {
            let mix = Mix::start6(&lab, 1);
            rest(1000);
            let at = Instant::now();
            fault.1(lab.isp(1), true);
            uses(&[2]);
            rest(1000);
            // Over IPv4 nobody sends.
            until_used(&lab, &[if fault.0 == SIX.0 { 1 } else { 2 }]);
            mix.stop(at, 1, &mut figures);
            fault.1(lab.isp(1), false);
            println!("  in use again after {:.1?}", uses(&[1]));
            until_used(&lab, &[1]);
        }
        figures.judge(&format!("IPv6, {}, under traffic", fault.0), UNDER_TRAFFIC);
    }
    let went = transitions(&lab, 1);
    assert_eq!(
        went.iter().filter(|(state, _)| state == "down").count(),
        1,
        "IPv4 went down by itself: {went:?}"
    );
}
