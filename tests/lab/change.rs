//! Links, addresses and gateways that change under running flows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, on, ours, package, unheld};
use crate::kit::address::{ECHO, echoes4, internet4};
use crate::kit::{Lab, NewFlows, Spec, UdpFlow, Via, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(15);

/// Waits until our objects say this and do not say that any more; returns how long it took since `since`.
#[track_caller]
fn until(lab: &Lab, what: &str, since: Instant, wanted: &str, gone: &str) -> Duration {
    lab.machine.wait(what, LIMIT, || {
        let text = ours(&lab.machine);
        (text.contains(wanted) && !text.contains(gone)).then_some(())
    });
    since.elapsed()
}

#[test]
fn a_lost_carrier_costs_running_flows_a_packet() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    let ns = &lab.client().ns;
    let flows: Vec<UdpFlow> = (1..=16)
        .map(|n| {
            UdpFlow::start(ns, &Via::any(), SocketAddr::from((internet4(n), ECHO)), Duration::from_millis(10))
        })
        .collect();
    let fresh = NewFlows::start(ns, &Via::any(), &echoes4(), 200);
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let cut = start.elapsed();
    lab.isp(1).carrier(false);
    lab.machine.wait_active(1);
    std::thread::sleep(Duration::from_secs(2));
    lab.isp(1).carrier(true);
    lab.machine.wait_active(2);
    std::thread::sleep(Duration::from_secs(1));
    let report = fresh.stop();
    let (lost, sent) = report.lost_between(cut, cut + Duration::from_secs(1));
    println!(
        "new flows: {lost} of {sent} lost in the second after; {} of {} in all",
        report.lost(),
        report.sent()
    );
    let mut silences: Vec<Duration> = Vec::new();
    for report in flows.into_iter().map(UdpFlow::stop) {
        println!("running flow: {}", report.summary());
        silences.push(report.longest_silence());
    }
    silences.sort();
    println!(
        "running flows: longest silence {:?}, median {:?}",
        silences.last(),
        silences[silences.len() / 2]
    );
    assert!(lost * 100 <= sent * 2, "{lost} of {sent}");
    assert!(silences.iter().all(|silence| *silence < Duration::from_millis(150)), "{silences:?}");
}

#[test]
fn a_moved_gateway_and_a_changed_address_leave_nothing_stale() {
    let lab = lab_or_skip!(installed(unheld(Spec::router())));
    lab.machine.wait_active(2);
    lab.isp(1).move_gateway("192.168.1.77".parse().expect("an address"));
    lab.isp(1).blip();
    let in_main = || {
        let main = lab.machine.cmd(&["ip", "-4", "route", "show", "default", "proto", "dhcp"]).ok();
        main.contains("192.168.1.77").then_some(())
    };
    lab.machine.wait("NetworkManager's new gateway", LIMIT, in_main);
    let took = until(&lab, "the new gateway", Instant::now(), "via 192.168.1.77", "192.168.1.254");
    println!("gateway moved: ours within {took:?} of NetworkManager's own route");
    lab.isp(1).renumber("192.168.1.66".parse().expect("an address"));
    lab.isp(1).blip();
    let addressed =
        || lab.machine.cmd(&["ip", "-4", "addr", "show", "eth1"]).ok().contains("192.168.1.66").then_some(());
    lab.machine.wait("the new address", LIMIT, addressed);
    let took = until(&lab, "the new address", Instant::now(), "from 192.168.1.66", "192.168.1.10 ");
    println!("address changed: ours within {took:?} of the address");
    let status = lab.machine.wait_active(2);
    assert_eq!(on(&status, "eth1")["ipv4"]["addresses"][0], "192.168.1.66/24");
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);
}

#[test]
fn a_recreated_interface_and_a_restarted_manager_keep_slots_and_flows() {
    let lab = lab_or_skip!(installed(Spec::router()));
    let before = lab.machine.wait_active(2);
    let slot = on(&before, "eth2")["slot"].clone();
    lab.machine.netns().ip("link del eth2");
    lab.machine.wait_active(1);
    lab.isp(2).ns.ip(&format!(
        "link add lan type veth peer name eth2 address 02:77:00:00:00:02 netns {}\n\
         link set lan address 02:15:00:00:00:02 up\n\
         addr add 192.168.2.254/24 dev lan",
        lab.machine.netns().path()
    ));
    lab.isp(2).dhcp(false);
    lab.isp(2).dhcp(true);
    let after = lab.machine.wait_active(2);
    assert_eq!(on(&after, "eth2")["slot"], slot);
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);

    let ns = &lab.client().ns;
    let fresh = NewFlows::start(ns, &Via::any(), &echoes4(), 100);
    let rules = ours(&lab.machine);
    lab.machine.cmd(&["systemctl", "restart", "NetworkManager"]).ok();
    let connected = || {
        let devices = lab.machine.cmd(&["nmcli", "-t", "device"]).stdout;
        (devices.contains("eth1:ethernet:connected") && devices.contains("eth2:ethernet:connected"))
            .then_some(())
    };
    lab.machine.wait("NetworkManager again", LIMIT, connected);
    lab.machine.wait_active(2);
    let report = fresh.stop();
    println!("NetworkManager restarted: {}", report.summary());
    assert_eq!(ours(&lab.machine), rules);
    assert_eq!(report.lost(), 0, "{}", report.summary());
}

#[test]
fn it_starts_with_nothing_and_takes_in_what_comes() {
    let lab = lab_or_skip!(Spec::router().no_wait());
    for isp in [1, 2] {
        lab.isp(isp).carrier(false);
    }
    lab.machine.install_deb(&package());
    let status = lab.machine.wait_status("a daemon", LIMIT, |s| s["version"].is_string());
    println!("{}", lab.machine.cmd(&["uplinkctl"]).ok());
    assert_eq!(status["active"]["ipv4"], serde_json::json!([]));
    for isp in [1, 2] {
        let activated = Instant::now();
        lab.isp(isp).carrier(true);
        lab.machine.wait_active(isp.into());
        println!("uplink {isp} active {:?} after its carrier came, DHCP included", activated.elapsed());
    }
}
