//! ISPs that are bad and not dead: what degrades one, and what is not to be held against it.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, set};
use crate::kit::address::{DESTINATIONS, ECHO, RESOLVERS4, RESOLVERS6, echoes4, internet4};
use crate::kit::{Filter, Lab, NewFlows, Spec, UdpFlow, Via, connect_many, lab_or_skip};
use crate::watch::{
    RouteWatch, in_use, rest, seconds, state, to, transitions, until, until_state, until_used,
};

/// A router that prefers ISP 1.
#[track_caller]
fn preferring(lab: &Lab) {
    lab.machine.wait_active(2);
    set(lab, 2, "tier=2");
    until_used(lab, &[1]);
}

/// A browser's worth of traffic by the LAN client.
fn light_traffic(lab: &Lab) -> NewFlows {
    NewFlows::start(&lab.client().ns, &Via::any(), &echoes4(), 10)
}

/// Lets an ISP be bad until it is degraded, and then well again; returns what it went through.
fn bad_and_well_again(lab: &Lab, what: &str, bad: impl Fn(bool)) -> Vec<String> {
    let flows = light_traffic(lab);
    let before = transitions(lab, 1).len();
    bad(true);
    println!("{what}: degraded after {:.1?}", until_state(lab, 1, "degraded"));
    until_used(lab, &[2]);
    let shares = connect_many(&lab.client().ns, &Via::any(), 60, &echoes4());
    assert_eq!(shares.of(2), 60, "{what}: new connections avoid it: {shares:?}");
    // It stays so for as long as it is bad.
    let start = Instant::now();
    while start.elapsed() < seconds(10) {
        assert_ne!(state(&lab.machine.status(), 1), "up", "{what}: {:?}", transitions(lab, 1));
        rest(500);
    }
    bad(false);
    let (took, _) = until(lab, "ISP 1 well again", seconds(90), |status| state(status, 1) == "up");
    println!("{what}: up {took:.1?} after it ended");
    until_used(lab, &[1]);
    println!("{what}: new flows meanwhile: {}", flows.stop().summary());
    let went: Vec<_> = transitions(lab, 1).split_off(before);
    println!("{what}: {went:?}");
    went.into_iter().map(|(state, _)| state).collect()
}

#[test]
fn loss_degrades_an_isp_until_it_ends() {
    let lab = lab_or_skip!(installed(Spec::router()));
    preferring(&lab);
    let went = bad_and_well_again(&lab, "30 % lost each way", |on| lab.isp(1).lose(if on { 30 } else { 0 }));
    assert!(!went.contains(&"down".to_owned()), "{went:?}");
}

#[test]
fn delay_degrades_an_isp_until_it_ends() {
    let lab = lab_or_skip!(installed(Spec::router()));
    preferring(&lab);
    let delay = |on| lab.isp(1).delay(Duration::from_millis(if on { 800 } else { 0 }));
    let went = bad_and_well_again(&lab, "800 ms", delay);
    // What usually answers at once is missed at once; late answers take that back.
    println!("800 ms: {} verdicts were taken back", went.iter().filter(|state| *state == "down").count());
    assert!(went.iter().filter(|state| *state == "down").count() <= 1, "{went:?}");
}

/// What must be nothing to an uplink: with traffic, and watched for 30 s.
fn is_nothing(lab: &Lab, what: &str, used: &[u8], happens: impl Fn(bool)) {
    let routes = RouteWatch::start(lab);
    let before = transitions(lab, 1).len() + transitions(lab, 2).len();
    let flows = light_traffic(lab);
    let running = UdpFlow::start(&lab.client().ns, &Via::any(), to(5, ECHO), Duration::from_millis(50));
    happens(true);
    let start = Instant::now();
    while start.elapsed() < seconds(30) {
        let status = lab.machine.status();
        assert_eq!((state(&status, 1), state(&status, 2)), ("up", "up"), "{what}: {:?}", transitions(lab, 1));
        assert_eq!(in_use(lab, &status, "ipv4"), used, "{what}");
        rest(500);
    }
    happens(false);
    rest(3000);
    let (flows, running) = (flows.stop(), running.stop());
    println!("{what}: new flows: {}", flows.summary());
    assert_eq!((flows.lost(), running.lost(), running.ways().len()), (0, 0, 1), "{what}");
    assert_eq!(routes.defaults(), [""; 0], "{what}: the default route was rewritten");
    assert_eq!(transitions(lab, 1).len() + transitions(lab, 2).len(), before, "{what}");
}

#[test]
fn a_filtered_protocol_is_nothing() {
    let lab = lab_or_skip!(installed(Spec::router()));
    preferring(&lab);
    for filter in [Filter::Icmp, Filter::Dns, Filter::Tcp] {
        is_nothing(&lab, &format!("{filter:?} filtered"), &[1], |on| lab.isp(1).filter(filter, on));
    }
}

#[test]
fn the_outage_of_one_operator_is_nothing() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6()));
    lab.machine.wait_active(2);
    until(&lab, "IPv6 in use", seconds(20), |status| in_use(&lab, status, "ipv6") == [1, 2]);
    for operator in [0, 2, 5] {
        let address = RESOLVERS4[operator];
        is_nothing(&lab, &format!("outage of {address}"), &[1, 2], |on| {
            lab.internet.outage(address, on);
            lab.internet.outage(RESOLVERS6[operator.min(3)], on);
        });
    }
}

#[test]
fn filtered_protocols_and_nobody_who_sends_are_nothing() {
    let lab = lab_or_skip!(installed(Spec::router()));
    preferring(&lab);
    let routes = RouteWatch::start(&lab);
    let before = transitions(&lab, 1).len();
    for filter in [Filter::Icmp, Filter::Dns] {
        lab.isp(1).filter(filter, true);
    }
    rest(20_000);
    assert_eq!(transitions(&lab, 1).len(), before, "{:?}", transitions(&lab, 1));
    assert_eq!(routes.defaults(), [""; 0]);
    let dests: Vec<_> = (1..=DESTINATIONS).map(|n| (internet4(n), ECHO).into()).collect();
    assert_eq!(connect_many(&lab.client().ns, &Via::any(), 40, &dests).of(1), 40);
}
