//! D-Bus and NetworkManager absent, late, gone and frozen.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ctl::{Ctl, installed, on, ours, package};
use crate::input::notes;
use crate::kit::address::echoes4;
use crate::kit::{Lab, Manager, NewFlows, Spec, Via, connect_many, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(15);

/// Configures the uplinks as ifupdown does, without any manager; `metrics` of their default routes.
pub(crate) fn by_hand(lab: &Lab, metrics: [&str; 2]) {
    let mut lines = String::new();
    for (isp, metric) in lab.isps().iter().zip(metrics) {
        let (device, lease, gateway) = (isp.device(), isp.lease(), isp.gateway());
        lines += &format!("addr add {lease}/24 dev {device}\nlink set {device} up\n");
        lines += &format!("route add default via {gateway} dev {device} {metric}\n");
    }
    if lab.client.is_some() {
        lines += "addr add 10.77.0.1/24 dev lan0\nlink set lan0 up\n";
    }
    lab.machine.netns().ip(&lines);
}

#[test]
fn without_a_bus_the_kernel_alone_is_enough() {
    let lab = lab_or_skip!(Spec::router().manager(Manager::Nobody));
    by_hand(&lab, ["metric 100", "metric 200"]);
    lab.machine.sh("systemctl stop dbus.socket dbus.service; rm -f /run/dbus/system_bus_socket").ok();
    lab.machine.install_deb(&package());
    let whole = || {
        let text = ours(&lab.machine);
        ["oif eth1", "oif eth2", "nexthop via 192.168.2.254", "table inet uplinkd"]
            .iter()
            .all(|sign| text.contains(sign))
            .then_some(())
    };
    lab.machine.wait("the routing", LIMIT, whole);
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);
    let shares = connect_many(&lab.client().ns, &Via::any(), 60, &echoes4());
    assert_eq!(shares.isps(), [1, 2]);
    assert!(lab.machine.journal("uplinkd").contains("no D-Bus, so uplinks are found from the kernel alone"));
    assert!(lab.machine.cmd(&["uplinkctl", "plan", "--full"]).ok().contains("# no D-Bus"));
    let asked = lab.machine.cmd(&["uplinkctl"]);
    assert!(asked.status.code() == Some(69) && asked.stderr.contains("systemctl start dbus"), "{asked}");
    lab.isp(1).carrier(false);
    let moved = || (!ours(&lab.machine).contains("nexthop")).then_some(());
    lab.machine.wait("one uplink less", LIMIT, moved);
    lab.isp(1).carrier(true);
    lab.machine.wait("both again", LIMIT, whole);
    // It was there before the bus.
    lab.machine.cmd(&["systemctl", "start", "dbus.socket", "dbus.service"]).ok();
    let start = Instant::now();
    // Its name can be taken, and its status be asked, a moment before it has looked again.
    let heard = |s: &Value| on(s, "eth2").is_object() && notes(s).is_empty();
    lab.machine.wait_status("it on the bus", LIMIT, heard);
    println!("on the bus {:?} after it came", start.elapsed());
    assert_eq!(lab.machine.cmd(&["systemctl", "show", "-P", "NRestarts", "uplinkd"]).ok().trim(), "0");
    // And it stays when the bus goes again.
    let before = ours(&lab.machine);
    lab.machine.sh("systemctl stop dbus.socket dbus.service; systemctl start dbus.socket dbus.service").ok();
    let told = lab.machine.wait_status("it on the new bus", LIMIT, heard);
    assert_eq!(told["active"]["ipv4"].as_array().map(Vec::len), Some(2));
    assert_eq!(ours(&lab.machine), before);
}

#[test]
fn a_manager_that_stops_and_starts_moves_nothing() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let before = ours(&lab.machine);
    let fresh = NewFlows::start(&lab.client().ns, &Via::any(), &echoes4(), 100);
    lab.machine.cmd(&["systemctl", "stop", "NetworkManager"]).ok();
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    assert_eq!(ours(&lab.machine), before);
    lab.machine.wait_active(2);
    // A daemon that starts now knows the uplinks by their interfaces only.
    lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    assert_eq!(ours(&lab.machine), before);
    lab.machine.cmd(&["systemctl", "start", "NetworkManager"]).ok();
    let told = lab.machine.wait_status("the profiles again", LIMIT, |s| !on(s, "eth2")["profile"].is_null());
    assert_eq!(notes(&told), "");
    let report = fresh.stop();
    println!("{}", report.summary());
    assert_eq!(report.lost(), 0);
    assert_eq!(ours(&lab.machine), before);
}

#[test]
fn a_frozen_manager_holds_nothing_up_and_is_heard_again() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    let signal = |signal: &str| {
        lab.machine.cmd(&["systemctl", "kill", &format!("--signal={signal}"), "NetworkManager"]).ok();
    };
    signal("STOP");
    let start = Instant::now();
    lab.isp(1).carrier(false);
    lab.machine.wait_active(1);
    println!("carrier lost: taken out after {:?} while NetworkManager hangs", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    lab.machine.wait_status("a note", LIMIT, |s| notes(s).contains("NetworkManager does not answer"));
    lab.isp(1).carrier(true);
    lab.machine.wait_active(2);
    lab.machine.sh("ip rule del pref 7301").ok();
    let start = Instant::now();
    let repaired = || ours(&lab.machine).contains("7301:").then_some(());
    lab.machine.wait("the repair", LIMIT, repaired);
    println!("repaired after {:?} while NetworkManager hangs", start.elapsed());
    // One that starts meanwhile waits for it, but not for ever.
    let start = Instant::now();
    lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    println!("restarted: it goes on without after {:?}", start.elapsed());
    signal("CONT");
    let start = Instant::now();
    let heard = |s: &serde_json::Value| notes(s).is_empty() && !on(s, "eth1")["profile"].is_null();
    lab.machine.wait_status("NetworkManager heard", Duration::from_secs(70), heard);
    println!("heard again after {:?}", start.elapsed());
    let log = lab.machine.journal("uplinkd");
    println!("{} lines of log about it", log.matches("NetworkManager does not answer").count());
}
