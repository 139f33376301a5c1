//! Policies whose uplink is chosen by what is measured, with real load and real delays.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ctl::Ctl;
use crate::kit::address::ECHO;
use crate::kit::{HeldTcp, Lab, Load, Spec, UdpFlow, Via, lab_or_skip};
use crate::policies::{all_by, echo4, some_by_both, spec};
use crate::watch::{rest, seconds, to, until};

/// Both ways of both lines.
const LINE: u32 = 10_000_000;
const LINES: &str = "[[uplink]]\nmatch.interface = 'eth*'\ndownload = '10M'\nupload = '10M'\n\n";

/// A policy for the first servers, which prefers the second uplink, and asks for nothing else.
fn policy(method: &str) -> Spec {
    spec(&format!(
        "{LINES}[[policy]]\nname = 'some'\nmatch.to = '203.0.113.0/28'\nmethod = '{method}'\nuplinks = ['two', 'one']\n"
    ))
    .exclusive()
}

/// Waits until the policy uses this uplink alone; returns how long that took.
#[track_caller]
fn uses(lab: &Lab, name: &str) -> Duration {
    let used = serde_json::json!([name]);
    let what = format!("the policy uses {name}");
    until(lab, &what, seconds(90), |status| status["policies"][0]["ipv4"]["uplinks"] == used).0
}

/// New flows of the policy, the LAN's and the router's, go by this ISP, and all others by both.
#[track_caller]
fn goes_by(lab: &Lab, isp: u8, when: &str) {
    let name = if isp == 1 { "one" } else { "two" };
    uses(lab, name);
    for (who, ns) in [("client", &lab.client().ns), ("router", lab.machine.netns())] {
        all_by(isp, &format!("{when}, {who}"), ns, &Via::any(), &[1, 2, 3, 4].map(echo4));
        some_by_both(&format!("{when}, {who}"), ns, &others());
    }
}

/// Servers of whom the policy does not speak.
fn others() -> [SocketAddr; 8] {
    [20, 21, 22, 23, 24, 25, 26, 27].map(echo4)
}

/// For so many seconds the policy uses this uplink alone.
#[track_caller]
fn stays(lab: &Lab, name: &str, time: u64, when: &str) {
    let start = Instant::now();
    while start.elapsed() < seconds(time) {
        let status = lab.machine.status();
        let uplinks = &status["policies"][0]["ipv4"]["uplinks"];
        assert_eq!(*uplinks, serde_json::json!([name]), "{when}, after {:.1?}", start.elapsed());
        rest(200);
    }
}

/// Restarts the daemon, which is to go on with what was chosen, whatever the figures are by then.
#[track_caller]
fn restart(lab: &Lab, name: &str, time: u64) {
    lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok();
    stays(lab, name, time, "after a restart");
}

#[test]
fn an_overflow_policy_spills_and_comes_back_beside_a_weighted_default() {
    let lab = lab_or_skip!(policy("overflow"));
    lab.machine.wait_both_families();
    goes_by(&lab, 2, "with room");
    let ns = &lab.client().ns;
    let call = UdpFlow::start(ns, &Via::any(), to(5, ECHO), Duration::from_millis(50));
    let load = Load::start(ns, &Via::any(), to(1, ECHO), LINE * 93 / 100);
    println!("policy, overflow: FIGURE spills {:.1?} after it is at 93 %", uses(&lab, "one"));
    goes_by(&lab, 1, "the first of its list is full");
    restart(&lab, "one", 8);
    goes_by(&lab, 1, "the first of its list is full, after a restart");
    load.set(LINE * 60 / 100);
    println!("policy, overflow: FIGURE comes back {:.1?} after it is at 60 %", uses(&lab, "two"));
    goes_by(&lab, 2, "there is room again");
    assert_eq!(load.stop().into_iter().collect::<Vec<_>>(), [Some(2)], "the load was not moved");
    let call = call.stop();
    assert_eq!((call.ways().len(), call.lost()), (1, 0), "a running flow: {}", call.summary());
}

#[test]
fn a_lowest_latency_policy_moves_beside_a_weighted_default() {
    let lab = lab_or_skip!(policy("lowest-latency"));
    lab.machine.wait_both_families();
    let delay = |isp, ms| lab.isp(isp).delay(Duration::from_millis(ms));
    delay(1, 10);
    delay(2, 50);
    println!("policy, lowest latency: FIGURE moves {:.1?} after the first is 40 ms worse", uses(&lab, "one"));
    goes_by(&lab, 1, "it is nearer");
    let call = UdpFlow::start(&lab.client().ns, &Via::any(), to(5, ECHO), Duration::from_millis(50));
    restart(&lab, "one", 5);
    delay(1, 50);
    delay(2, 10);
    println!(
        "policy, lowest latency: FIGURE moves {:.1?} after the other is 40 ms better",
        uses(&lab, "two")
    );
    goes_by(&lab, 2, "now this one is");
    let call = call.stop();
    assert_eq!((call.ways().len(), call.lost()), (1, 0), "a running flow: {}", call.summary());
}

/// A policy whose uplink has failed and is back calls its own flows back, as its own failback says; those that the default
/// route gave to the other uplink stay there.
#[test]
fn failback_of_a_policy_moves_its_flows_and_no_others() {
    let lab = lab_or_skip!(spec(
        "[[uplink]]\nmatch.interface = 'eth*'\nhold = '0s'\nfailback = 'keep'\n\n\
         [[policy]]\nname = 'some'\nmatch.to = '203.0.113.0/28'\nmethod = 'priority'\nuplinks = ['two', 'one']\n\
         failback = 'drain'\ndrain-time = '5s'\n"
    ));
    lab.machine.wait_both_families();
    goes_by(&lab, 2, "both are well");
    lab.isp(2).silent(true);
    uses(&lab, "one");
    let (ns, own) = (&lab.client().ns, lab.machine.netns());
    let call = |n| UdpFlow::start(ns, &Via::any(), to(n, ECHO), Duration::from_millis(50));
    let (called, other) = (call(5), call(30));
    let held = |ns, n| HeldTcp::connect(ns, &Via::any(), to(n, ECHO)).expect("connects");
    let [mut client, mut router] = [ns, own].map(|ns| held(ns, 6));
    let [mut others_client, mut others_router] = [ns, own].map(|ns| held(ns, 31));
    lab.isp(2).silent(false);
    uses(&lab, "two");
    let back = Instant::now();
    rest(2000);
    for (who, tcp) in [("client", &mut client), ("router", &mut router)] {
        tcp.ping(seconds(3)).unwrap_or_else(|error| panic!("{who}: ended before its time: {error}"));
    }
    for (who, tcp) in [("client", &mut client), ("router", &mut router)] {
        let ends = lab.machine.wait(who, seconds(40), || tcp.ping(seconds(1)).err());
        println!(
            "policy, drain: FIGURE {who}: {ends} {:.1?} after the better one was in use",
            back.elapsed()
        );
    }
    assert!(back.elapsed() >= seconds(4), "{:?}", back.elapsed());
    for (who, tcp) in [("client", &mut others_client), ("router", &mut others_router)] {
        tcp.ping(seconds(3)).unwrap_or_else(|error| panic!("{who}: what no policy is for: {error}"));
    }
    // Sockets of this machine end first; the call has to be let go after that.
    rest(3000);
    let (called, other) = (called.stop(), other.stop());
    println!("policy, drain: the call of the policy went {:?}", called.ways());
    let ways: Vec<_> = called.ways().iter().map(|way| way.isp).collect();
    assert_eq!((ways, other.ways().len()), (vec![Some(1), Some(2)], 1), "{}", other.summary());
    assert!(called.lost() <= 10 && other.lost() == 0, "{}, {}", called.summary(), other.summary());
}
