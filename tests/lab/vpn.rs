//! Default routes and rules of others: what wins over the uplinks, and what must not.

use std::time::Duration;

use crate::bus::by_hand;
use crate::ctl::{Ctl, ours, package, unheld};
use crate::input::notes;
use crate::kit::address::{echoes4, internet4};
use crate::kit::{Lab, Manager, NewFlows, Ns, Spec, Via, connect_many, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(10);

/// A router without a manager.
fn spec() -> Spec {
    unheld(Spec::router().manager(Manager::Nobody))
}

/// Configures the uplinks by hand, with these metrics, and installs the package.
fn start(lab: &Lab, metrics: [&str; 2]) {
    by_hand(lab, metrics);
    lab.machine.install_deb(&package());
    lab.machine.wait_active(2);
}

/// Waits until our objects have a text, or have it no more.
#[track_caller]
fn until(lab: &Lab, sign: &str, wanted: bool) {
    let what = format!("{sign} {}", if wanted { "there" } else { "gone" });
    lab.machine.wait(&what, LIMIT, || (ours(&lab.machine).contains(sign) == wanted).then_some(()));
}

/// A VPN's device. Nobody reads what goes into it; what matters is what does not go by the uplinks.
pub(crate) fn tunnel(lab: &Lab) {
    lab.machine.netns().ip("tuntap add mode tun dev tun0\naddr add 10.99.0.1/30 dev tun0\nlink set tun0 up");
}

/// How many packets of a second's new flows to the internet the ISPs have got. Those are UDP; what else they got in that
/// second is printed, as what is left of a TCP connection of before may go on by its source address. The addresses are those
/// of flows alone: what is probed has others.
fn leaked(lab: &Lab, ns: &Ns) -> u64 {
    for isp in lab.isps() {
        isp.ns.nft(
            "table ip leaks\ndelete table ip leaks\ntable ip leaks {
                counter leaked { }
                set others { type ipv4_addr . ipv4_addr . inet_proto . inet_service; flags dynamic; size 64; }
                chain c {
                    type filter hook prerouting priority -300;
                    iifname != lan return
                    ip daddr != 203.0.113.0/26 return
                    udp dport 7 counter name leaked accept
                    add @others { ip saddr . ip daddr . meta l4proto . th dport }
                }
            }\n",
        );
    }
    let flows = NewFlows::start(ns, &Via::any(), &echoes4(), 100);
    std::thread::sleep(Duration::from_secs(1));
    drop(flows);
    let count = |isp: &crate::kit::Isp| {
        let text = isp.ns.cmd(&["nft", "list", "table", "ip", "leaks"]).ok();
        if text.contains("elements") {
            println!("ISP {} also got:\n{text}", isp.number());
        }
        isp.ns.counter("ip leaks", "leaked")
    };
    lab.isps().iter().map(count).sum()
}

/// The VPN has all new flows of the machine and of its LAN; visitors are still answered by their door.
#[track_caller]
fn assert_vpn_wins(lab: &Lab, what: &str) {
    let way = || lab.machine.cmd(&["ip", "route", "get", &internet4(1).to_string()]).ok();
    lab.machine.wait(&format!("{what}: the way out"), LIMIT, || way().contains("tun0").then_some(()));
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    assert_eq!(leaked(lab, lab.machine.netns()), 0, "{what}: the machine");
    assert_eq!(leaked(lab, &lab.client().ns), 0, "{what}: the client");
    crate::balance::visitors_reach_the_machine(lab);
    crate::balance::bound_sockets_leave_by_their_uplink(lab);
}

#[track_caller]
fn assert_balanced(lab: &Lab) {
    for ns in [lab.machine.netns(), &lab.client().ns] {
        let shares = connect_many(ns, &Via::any(), 60, &echoes4());
        assert_eq!((shares.isps(), shares.answered()), (vec![1, 2], 60), "{shares:?}");
    }
}

#[test]
fn defaults_without_a_metric_are_balanced_by_a_table_of_our_own() {
    let lab = lab_or_skip!(spec());
    start(&lab, ["", "metric 10"]);
    until(&lab, "32765:", true);
    assert_balanced(&lab);
    println!("{}", ours(&lab.machine));
    // As scripts of ifupdown do by hand; ours is not in their way.
    lab.machine.sh("ip route del default; ip route add default via 192.168.1.254 dev eth1").ok();
    until(&lab, "32765:", true);
    lab.machine.sh("ip route del default via 192.168.1.254 dev eth1").ok();
    until(&lab, "32765:", false);
    lab.machine.sh("ip route add default via 192.168.1.254 dev eth1").ok();
    until(&lab, "32765:", true);
    lab.machine.sh("ip route replace default via 192.168.1.254 dev eth1 src 192.168.1.10").ok();
    lab.machine.sh("ip route del default via 192.168.2.254 dev eth2 metric 10").ok();
    lab.machine.wait_active(1);
    lab.machine.sh("ip route add default via 192.168.2.254 dev eth2 metric 10").ok();
    lab.machine.wait_active(2);
    until(&lab, "32765:", true);
    assert_balanced(&lab);
    // A VPN over it, by each of the ways in which they come.
    tunnel(&lab);
    lab.machine.sh("ip route add 0.0.0.0/1 dev tun0; ip route add 128.0.0.0/1 dev tun0").ok();
    assert_vpn_wins(&lab, "two halves over metric 0");
    lab.machine.sh("ip route del 0.0.0.0/1 dev tun0; ip route del 128.0.0.0/1 dev tun0").ok();
    assert_balanced(&lab);
    lab.machine
        .sh("ip route replace default dev tun0; ip route add default via 192.168.1.254 dev eth1 metric 5")
        .ok();
    assert_vpn_wins(&lab, "a default of metric 0");
    println!("{}", notes(&lab.machine.status()));
    lab.machine.sh("ip route replace default via 192.168.1.254 dev eth1; ip route del default metric 5").ok();
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    assert_balanced(&lab);
}

#[test]
fn a_better_default_of_a_vpn_wins() {
    let lab = lab_or_skip!(spec());
    start(&lab, ["metric 100", "metric 200"]);
    tunnel(&lab);
    for metric in [50, 0] {
        lab.machine.sh(&format!("ip route add default dev tun0 metric {metric}")).ok();
        assert_vpn_wins(&lab, &format!("a default of metric {metric}"));
        lab.machine.sh("ip route del default dev tun0").ok();
        assert_balanced(&lab);
    }
    lab.machine.sh("ip route add 0.0.0.0/1 dev tun0; ip route add 128.0.0.0/1 dev tun0").ok();
    assert_vpn_wins(&lab, "two halves");
    lab.machine.sh("ip route del 0.0.0.0/1 dev tun0; ip route del 128.0.0.0/1 dev tun0").ok();
    assert_balanced(&lab);
    // Also when it was there first.
    lab.machine.sh("systemctl stop uplinkd; uplinkctl flush; ip route add default dev tun0 metric 50").ok();
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    assert_vpn_wins(&lab, "a default that was there first");
}

#[test]
fn the_rules_of_wg_quick_win_in_both_orders() {
    let lab = lab_or_skip!(spec());
    start(&lab, ["metric 100", "metric 200"]);
    tunnel(&lab);
    let up = "ip route add default dev tun0 table 51820; ip rule add not fwmark 51820 table 51820; \
              ip rule add table main suppress_prefixlength 0";
    let down = "ip rule del table 51820; ip rule del table main suppress_prefixlength 0; \
                ip route flush table 51820";
    let before = ours(&lab.machine);
    lab.machine.sh(up).ok();
    until(&lab, "6000:", true);
    until(&lab, "7000:", false);
    assert_vpn_wins(&lab, "wg-quick after us");
    lab.machine.sh(down).ok();
    until(&lab, "7000:", true);
    until(&lab, "6000:", false);
    assert_eq!(ours(&lab.machine), before);
    assert_balanced(&lab);

    lab.machine.sh(&format!("systemctl stop uplinkd; uplinkctl flush; {up}")).ok();
    println!("{}", lab.machine.cmd(&["ip", "rule"]).ok());
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    assert_vpn_wins(&lab, "wg-quick before us");
    let log = lab.machine.journal("uplinkd");
    assert!(!log.contains("somebody keeps"), "{log}");
    lab.machine.sh(down).ok();
    lab.machine.wait("our block where it was", LIMIT, || (ours(&lab.machine) == before).then_some(()));
}
