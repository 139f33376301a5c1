//! What watches traffic in the lab, shown on faults that end when the test says so.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::address::{BULK, ECHO, echoes4, internet4};
use crate::kit::{IspSpec, Lab, NewFlows, NewTcp, Ns, Recovery, Spec, SteadyTcp, UdpFlow, Via, lab_or_skip};

const INTERVAL: Duration = Duration::from_millis(10);
/// How long the faults last.
const FAULT: Duration = Duration::from_secs(1);
/// A program's patience.
const PATIENCE: Duration = Duration::from_millis(300);

fn to(n: u8, port: u16) -> SocketAddr {
    (internet4(n), port).into()
}

fn rest(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Whether a time is as wanted: earlier by what had been waited when the fault came, or later by what a busy machine, or
/// TCP's retransmissions, may take.
#[track_caller]
fn assert_near(what: &str, time: Option<Duration>, wanted: Duration, more: u64) {
    let near = time
        .is_some_and(|time| time + INTERVAL * 15 >= wanted && time < wanted + Duration::from_millis(more));
    assert!(near, "{what}: {time:?} instead of {wanted:?}");
}

/// One of everything, all by the default route.
struct Watch {
    flow: UdpFlow,
    flows: NewFlows,
    connections: NewTcp,
    download: SteadyTcp,
    impatient: SteadyTcp,
    dialogue: SteadyTcp,
}

impl Watch {
    fn start(ns: &Ns) -> Watch {
        let via = Via::any();
        Watch {
            flow: UdpFlow::start(ns, &via, to(1, ECHO), INTERVAL),
            flows: NewFlows::start(ns, &via, &echoes4(), 50),
            connections: NewTcp::start(ns, &via, &echoes4(), 50, PATIENCE),
            download: SteadyTcp::download(ns, &via, to(2, BULK), None),
            impatient: SteadyTcp::download(ns, &via, to(3, BULK), Some(PATIENCE)),
            dialogue: SteadyTcp::dialogue(ns, &via, to(4, ECHO), INTERVAL * 10, Some(PATIENCE)),
        }
    }

    /// What each says: the flow, the patient download, the impatient one, the dialogue.
    #[track_caller]
    fn stop(self, fault: Instant) -> [Recovery; 4] {
        let (flow, flows, connections) = (self.flow.stop(), self.flows.stop(), self.connections.stop());
        println!("ways of the flow: {:?}", flow.ways());
        assert_eq!(flow.answers().len(), flow.answered());
        println!("new flows: {}, failed until {:?}", flows.summary(), flows.failed_until(fault));
        println!("new connections: {}, until {:?}", connections.summary(), connections.failed_until(fault));
        assert_near("new flows", Some(flows.failed_until(fault)), FAULT, 60);
        assert_near("new connections", Some(connections.failed_until(fault)), FAULT, 60);
        assert_near("new flows", flows.recovered_after(fault), FAULT, 100);
        let [download, impatient, dialogue] = [self.download, self.impatient, self.dialogue].map(|steady| {
            let report = steady.stop();
            println!("{:?}, errors {:?}", report.connections, report.errors);
            report.recovery(fault)
        });
        let all = [flow.recovery(fault), download, impatient, dialogue];
        for (what, recovery) in ["running flow", "patient", "impatient", "dialogue"].iter().zip(&all) {
            println!("{what}: {recovery:?}");
        }
        assert_near("running flow", all[0].recovered, FAULT, 100);
        assert_near("running flow", Some(all[0].silent_for), FAULT, 100);
        all
    }
}

#[test]
fn clients_see_a_silence_begin_and_end() {
    let lab = lab_or_skip!(Spec::router().isps([IspSpec::new(1)]).exclusive());
    lab.machine.netns().nft(
        "table ip by_hand { chain post { type nat hook postrouting priority srcnat;
            oifname eth1 masquerade; }; }",
    );
    let watch = Watch::start(&lab.client().ns);
    rest(500);
    let fault = Instant::now();
    lab.isp(1).silent(true);
    thread::sleep(FAULT.saturating_sub(fault.elapsed()));
    lab.isp(1).silent(false);
    // TCP doubles its pauses, so a patient one may find out a second after the end.
    rest(2000);
    let [flow, download, impatient, dialogue] = watch.stop(fault);
    assert!([flow, download, impatient, dialogue].iter().all(|recovery| recovery.by == Some(1)));
    assert_eq!((flow.noticed, download.noticed), (None, None));
    assert_near("patient", download.recovered, FAULT, 1500);
    for recovery in [impatient, dialogue] {
        assert_near("impatient", recovery.noticed, PATIENCE, 200);
        assert_near("impatient", recovery.recovered, FAULT, 600);
    }
}

/// Takes away the default route by ISP 1, and thereby moves what is new to ISP 2.
fn move_away(lab: &Lab) {
    lab.machine.netns().cmd(&["ip", "-4", "route", "del", "default", "dev", "eth1"]).ok();
}

#[test]
fn the_machines_own_see_the_way_change() {
    let lab = lab_or_skip!(Spec::desktop().exclusive());
    let watch = Watch::start(lab.machine.netns());
    rest(500);
    let fault = Instant::now();
    lab.isp(1).silent(true);
    thread::sleep(FAULT.saturating_sub(fault.elapsed()));
    move_away(&lab);
    rest(1500);
    let [flow, download, impatient, dialogue] = watch.stop(fault);
    assert_eq!((flow.by, impatient.by, dialogue.by), (Some(2), Some(2), Some(2)));
    // Nobody tells it: its packets have an address of ISP 1's.
    assert_eq!((download.noticed, download.recovered, download.by), (None, None, None));
    assert!(download.silent_for > FAULT * 2);
    for recovery in [impatient, dialogue] {
        assert_near("impatient", recovery.noticed, PATIENCE, 200);
        assert_near("impatient", recovery.recovered, FAULT, 600);
    }
}

#[test]
fn a_connection_that_is_closed_is_made_again_at_once() {
    let lab = lab_or_skip!(Spec::desktop());
    let download = SteadyTcp::download(lab.machine.netns(), &Via::any(), to(2, BULK), None);
    rest(500);
    let fault = Instant::now();
    lab.internet.hang_up();
    rest(500);
    let report = download.stop();
    let recovery = report.recovery(fault);
    println!("{recovery:?}");
    assert_eq!((report.connections.len(), report.errors.len()), (2, 1));
    assert!(recovery.noticed < Some(Duration::from_millis(100)) && recovery.noticed.is_some());
    assert!(recovery.silent_for < Duration::from_millis(200));
    assert!(report.recovered_after(fault) < Some(Duration::from_millis(200)));
}
