//! Bridges with containers and virtual machines behind them, whose makers masquerade and mark on their own.

mod networks;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use self::networks::{Network, PUBLISHED, docker, docker_nft, libvirt, podman};
use crate::balance::{visit_by_every_door, visitors_reach_the_machine};
use crate::bus::by_hand;
use crate::ctl::{Ctl, installed, on, ours, package, set};
use crate::kit::address::{ECHO, LAN_GATEWAY, echoes4, internet4};
use crate::kit::{
    HeldTcp, Isp, Lab, Manager, Ns, Server, Service, Spec, SteadyTcp, Via, connect_many, lab_or_skip,
};
use crate::watch::{rest, until_used};

fn echo_at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// Connects, and is answered.
#[track_caller]
fn reaches(ns: &Ns, to: SocketAddr) -> IpAddr {
    let mut held =
        HeldTcp::connect(ns, &Via::any(), to).unwrap_or_else(|e| panic!("{} to {to}: {e}", ns.name()));
    held.ping(Duration::from_secs(3)).expect("an answer");
    held.seen
}

/// All that containers do, over both uplinks.
fn live_beside(lab: &Lab, network: &Network) {
    let [(first, inside), (second, other)] = &network.inhabitants;
    let _service = Server::start(first, ECHO, Service::Echo);
    to_the_internet(lab, network);
    assert_eq!(reaches(second, echo_at(*inside, ECHO)), *other, "no NAT between neighbours");
    if network.publishes {
        reaches(&lab.client().ns, echo_at(LAN_GATEWAY, PUBLISHED));
        if network.hairpin {
            reaches(second, echo_at(LAN_GATEWAY, PUBLISHED));
        }
        visit_by_every_door(lab, PUBLISHED);
    }
    visitors_reach_the_machine(lab);
    assert_eq!(
        on(&lab.machine.status(), network.bridge),
        &serde_json::Value::Null,
        "a bridge became an uplink"
    );
}

/// New connections are shared out, each with the address of its uplink and of nobody else.
#[track_caller]
fn to_the_internet(lab: &Lab, network: &Network) {
    for (ns, _) in &network.inhabitants {
        let shares = connect_many(ns, &Via::any(), 60, &echoes4());
        assert!(shares.failures.is_empty() && shares.strange.is_empty(), "{shares:?}");
        assert_eq!(shares.isps(), [1, 2], "{shares:?}");
        println!("{}: {} of {} by ISP 1", ns.name(), shares.of(1), shares.answered());
    }
    for isp in lab.isps() {
        isp.not_spoofed(network.bridge);
    }
}

/// An ISP falls silent under the connections of some namespace with such addresses: they are reset, and made anew by the other.
pub(crate) fn move_with_the_uplink(lab: &Lab, ns: &Ns, addresses: &str) {
    let start = |n| {
        let to = echo_at(internet4(n), ECHO);
        SteadyTcp::dialogue(ns, &Via::any(), to, Duration::from_millis(100), None)
    };
    until_used(lab, &[1, 2]);
    let steady: Vec<_> = (1..=12).map(start).collect();
    rest(1000);
    let fault = std::time::Instant::now();
    lab.isp(1).silent(true);
    until_used(lab, &[2]);
    rest(2000);
    let (mut moved, mut unmoved) = (0, Vec::new());
    for steady in steady {
        let report = steady.stop();
        let recovery = report.recovery(fault);
        let Some(noticed) = recovery.noticed else {
            unmoved.push(recovery);
            continue;
        };
        moved += 1;
        println!(
            "{}: noticed {noticed:.1?}, again {:.1?}: {:?}",
            ns.name(),
            recovery.recovered,
            report.errors
        );
        assert_eq!(recovery.by, Some(2), "{report:?}");
        assert!(recovery.recovered.is_some(), "{recovery:?}");
    }
    assert!(
        moved > 0,
        "none of the connections ran by ISP 1: {unmoved:?}\n{}",
        lab.machine.cmd(&["uplinkctl", "events"])
    );
    let left = lab.machine.cmd(&[
        "conntrack",
        "-L",
        "-m",
        "0x1000000/0x3f000000",
        "-p",
        "tcp",
        "--state",
        "ESTABLISHED",
    ]);
    assert!(left.success() && !left.stdout.contains(addresses), "{left}");
    lab.isp(1).silent(false);
    until_used(lab, &[1, 2]);
}

/// Connections of containers survive a daemon that goes, and one that comes to a machine without anything of ours.
fn survive_restarts(lab: &Lab, network: &Network) {
    let ns = &network.inhabitants[1].0;
    let restart = "systemctl restart uplinkd";
    let flush = "systemctl stop uplinkd; uplinkctl flush; systemctl start uplinkd";
    for script in [restart, flush] {
        let connect = |n| HeldTcp::connect(ns, &Via::any(), echo_at(internet4(n), ECHO)).expect("connects");
        let mut held: Vec<_> = (1..=12).map(connect).collect();
        lab.machine.sh(script).ok();
        lab.machine.wait_active(2);
        if script == flush {
            // Without our rules, those of the uplink that main's own default does not use leave by the wrong one.
            lab.isps().iter().for_each(Isp::forget_spoofed);
        }
        for connection in &mut held {
            connection.ping(Duration::from_secs(3)).unwrap_or_else(|e| panic!("{script}: {e}"));
        }
        to_the_internet(lab, network);
    }
}

fn all_of_it(make: fn(&Lab) -> Network, before_us: bool) {
    let lab = lab_or_skip!(Spec::router());
    let early = before_us.then(|| make(&lab));
    lab.machine.install_deb(&package());
    lab.machine.wait_active(2);
    let network = early.unwrap_or_else(|| make(&lab));
    let theirs = |text: String| {
        text.split("# nft").nth(1).unwrap_or_default().split("# sysctl").next().map(str::to_owned)
    };
    let before = theirs(lab.machine.foreign_snapshot());
    live_beside(&lab, &network);
    // Also by an uplink that carries nothing of its own.
    set(&lab, 2, "tier=2");
    lab.machine.wait_active(1);
    if network.publishes {
        let _service = Server::start(&network.inhabitants[0].0, ECHO, Service::Echo);
        visit_by_every_door(&lab, PUBLISHED);
    }
    set(&lab, 2, "tier=1");
    lab.machine.wait_active(2);
    survive_restarts(&lab, &network);
    let (ns, address) = &network.inhabitants[1];
    move_with_the_uplink(&lab, ns, &address.to_string());
    assert_eq!(theirs(lab.machine.foreign_snapshot()), before, "their rules");
}

#[test]
fn podman_s_containers_use_both_uplinks_and_answer_by_the_right_door() {
    all_of_it(podman, false);
}

#[test]
fn docker_s_containers_use_both_uplinks_and_answer_by_the_right_door() {
    all_of_it(docker, true);
}

#[test]
fn docker_s_containers_do_so_with_nftables_as_well() {
    all_of_it(docker_nft, false);
}

#[test]
fn libvirt_s_machines_use_both_uplinks() {
    all_of_it(libvirt, true);
}

#[test]
fn a_desktop_that_docker_makes_forward_gets_its_table_at_once() {
    let lab = lab_or_skip!(installed(Spec::desktop()));
    lab.machine.wait_active(2);
    assert!(!ours(&lab.machine).contains("table inet uplinkd"));
    let network = docker(&lab);
    // As dockerd does that finds forwarding off.
    let switched = std::time::Instant::now();
    lab.machine.sh("sysctl -qw net.ipv4.ip_forward=1; iptables -P FORWARD DROP").ok();
    let there = || ours(&lab.machine).contains("table inet uplinkd").then_some(());
    lab.machine.wait("our table", Duration::from_secs(5), there);
    println!("our table stands {:?} after forwarding was switched on", switched.elapsed());
    to_the_internet(&lab, &network);
    let _service = Server::start(&network.inhabitants[0].0, ECHO, Service::Echo);
    visit_by_every_door(&lab, PUBLISHED);
}

#[test]
fn an_uplink_that_is_a_bridge_carries_its_guests_and_others() {
    let lab = lab_or_skip!(Spec::router().manager(Manager::Nobody));
    by_hand(&lab, ["metric 100", "metric 200"]);
    // As hosts of virtual machines have it: the uplink's port in a bridge, which has the address.
    let (lease, gateway) = (lab.isp(1).lease(), lab.isp(1).gateway());
    lab.machine.netns().ip(&format!(
        "link add br0 type bridge forward_delay 0\nlink set br0 address 02:77:00:00:00:01 up\n\
         addr del {lease}/24 dev eth1\nlink set eth1 master br0\naddr add {lease}/24 dev br0\n\
         route add default via {gateway} dev br0 metric 100"
    ));
    lab.machine.install_deb(&package());
    let status = lab.machine.wait_active(2);
    assert!(on(&status, "br0").is_object() && on(&status, "eth1").is_null(), "{status}");
    let network = libvirt(&lab);
    to_the_internet(&lab, &network);
    visitors_reach_the_machine(&lab);
    let shares = connect_many(&lab.client().ns, &Via::any(), 60, &echoes4());
    assert_eq!((shares.isps(), shares.answered()), (vec![1, 2], 60), "{shares:?}");
    // A guest on the uplink's own bridge is a neighbour of the modem, and none of our business.
    let guest = Ns::new("guest");
    lab.machine.netns().ip(&format!(
        "link add vnet9 type veth peer name eth0 netns {}\nlink set vnet9 master br0 up",
        guest.path()
    ));
    guest
        .ip(&format!("addr add 192.168.1.77/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}"));
    let shares = connect_many(&guest, &Via::any(), 12, &echoes4());
    assert_eq!((shares.of(1), shares.answered()), (12, 12), "{shares:?}");
}
