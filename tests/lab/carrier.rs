//! A cable that is pulled, and one that is loose.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, set};
use crate::kit::address::{BULK, ECHO};
use crate::kit::{HeldTcp, Lab, Ns, Spec, SteadyTcp, UdpFlow, Via, lab_or_skip};
use crate::watch::{Figures, Mix, rest, seconds, state, to, transitions, until, until_used};

#[track_caller]
fn preferring(lab: &Lab) {
    lab.machine.wait_active(2);
    for isp in [1, 2] {
        set(lab, isp, "hold=0s");
    }
    set(lab, 2, "tier=2");
    until_used(lab, &[1]);
}

#[test]
fn flows_leave_an_isp_whose_cable_is_pulled() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    preferring(&lab);
    let mut figures = Figures::default();
    for _ in 0..3 {
        let mix = Mix::start(&lab, 1);
        rest(1000);
        let at = Instant::now();
        lab.isp(1).carrier(false);
        until_used(&lab, &[2]);
        rest(2500);
        mix.stop(at, 1, &mut figures);
        lab.isp(1).carrier(true);
        println!("in use again after {:.1?}", until_used(&lab, &[1]));
        rest(500);
    }
    println!("{:?}", transitions(&lab, 1));
    figures.judge("a cable that is pulled", seconds(4));
}

/// What runs while the cable is loose: connections that wait, that listen and that talk.
struct Connections {
    held: HeldTcp,
    listens: SteadyTcp,
    talks: SteadyTcp,
    call: UdpFlow,
}

impl Connections {
    fn start(ns: &Ns) -> Connections {
        let (any, talk) = (Via::any(), Duration::from_millis(50));
        Connections {
            held: HeldTcp::connect(ns, &any, to(1, ECHO)).expect("connects"),
            listens: SteadyTcp::download(ns, &any, to(2, BULK), None),
            talks: SteadyTcp::dialogue(ns, &any, to(3, ECHO), talk, None),
            call: UdpFlow::start(ns, &any, to(4, ECHO), Duration::from_millis(20)),
        }
    }

    /// Which connections broke.
    fn stop(mut self, what: &str, at: Instant) -> Vec<String> {
        let ping = self.held.ping(seconds(10));
        let call = self.call.stop();
        println!("{what}: the call: {}, {:?}", call.summary(), call.ways());
        let mut broken: Vec<String> = ping.err().map(|error| format!("held: {error}")).into_iter().collect();
        for (name, steady) in [("listens", self.listens), ("talks", self.talks)] {
            let report = steady.stop();
            println!("{what}: {name}: FIGURE {:.2?} without data", report.recovery(at).silent_for);
            broken.extend(report.errors.iter().map(|(_, error)| format!("{name}: {error}")));
        }
        broken.into_iter().map(|broken| format!("{what}: {broken}")).collect()
    }
}

#[test]
fn a_loose_cable_costs_no_connection() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    preferring(&lab);
    let mut broken = Vec::new();
    for (who, ns) in [("client", &lab.client().ns), ("router", lab.machine.netns())] {
        for milliseconds in [100, 300, 300, 500] {
            let connections = Connections::start(ns);
            rest(500);
            let at = Instant::now();
            lab.isp(1).carrier(false);
            rest(milliseconds);
            lab.isp(1).carrier(true);
            until_used(&lab, &[1]);
            rest(2500);
            broken.extend(connections.stop(&format!("{who}, {milliseconds} ms"), at));
            until(&lab, "ISP 1 up", seconds(20), |status| state(status, 1) == "up");
        }
    }
    println!("{:?}", transitions(&lab, 1));
    println!("broken: {broken:#?}");
    // A client that talks meanwhile loses its connection: the kernel routes its next packet by the other ISP at once,
    // and NAT then forgets the binding. That is the price of calls that go on after one packet.
    broken.retain(|broken| !(broken.starts_with("client") && broken.contains("talks")));
    assert!(broken.is_empty(), "{broken:#?}");
}
