//! Uplinks without a manager on the bus: ifupdown, dhclient and dhcpcd, seen through the kernel and their hooks.

use std::time::Duration;

use crate::ctl::{Ctl, installed, on, ours};
use crate::kit::address::echoes4;
use crate::kit::spec::Manager;
use crate::kit::{IspSpec, Lab, Spec, Via, connect_many, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(20);

/// A router whose interfaces nobody manages yet, with leases that are renewed every few seconds.
fn bare() -> Spec {
    with_isps([1, 2].map(|number| IspSpec::new(number).renew_after(4)))
}

fn with_isps(isps: [IspSpec; 2]) -> Spec {
    let interfaces = "auto lo lan0\niface lo inet loopback\niface lan0 inet static\n address 10.77.0.1/24\n\
                      iface eth1 inet dhcp\niface eth2 inet dhcp\n";
    let spec = Spec::router().isps(isps).manager(Manager::Nobody).no_wait();
    installed(spec.file("/etc/network/interfaces", interfaces, 0o644))
}

fn sh(lab: &Lab, script: &str) -> String {
    lab.machine.sh(script).ok()
}

/// New connections of a client go out both ways, and bound ones each by its own.
#[track_caller]
fn both_carry(lab: &Lab) {
    lab.machine.wait_active(2);
    println!(
        "{}\n{}",
        sh(lab, "uplinkctl"),
        sh(lab, "ip route show default; ip route show table 7000 2>&1 || true")
    );
    let shares = connect_many(&lab.client().ns, &Via::any(), 40, &echoes4());
    println!("{shares:?}");
    assert_eq!(shares.answered(), 40, "{shares:?}");
    assert_eq!(shares.isps(), [1, 2], "{shares:?}");
    crate::balance::bound_sockets_leave_by_their_uplink(lab);
}

/// The ISP's gateway moves, and the next lease tells it.
#[track_caller]
fn gateway_moves(lab: &Lab, isp: u8) {
    let gateway = format!("192.168.{isp}.77");
    lab.isp(isp).move_gateway(gateway.parse().expect("an address"));
    let device = lab.isp(isp).device();
    lab.machine.wait_status("the new gateway", LIMIT, |s| on(s, &device)["ipv4"]["gateway"] == *gateway);
    lab.machine.wait("it in our routes", LIMIT, || ours(&lab.machine).contains(&gateway).then_some(()));
}

#[test]
fn ifupdown_with_dhclient_has_one_default_and_both_uplinks() {
    let lab = lab_or_skip!(bare());
    sh(&lab, "mv /usr/sbin/dhcpcd /usr/sbin/dhcpcd.away; ifup -a");
    sh(&lab, "ifup eth1 eth2");
    let defaults = lab.machine.defaults4();
    assert_eq!(defaults, [("eth1".to_owned(), 0)], "the second client's default could not be added");
    assert!(!sh(&lab, "ip route show default").contains("eth2"));
    both_carry(&lab);
    gateway_moves(&lab, 2);
    both_carry(&lab);
    // A restart knows no more than the kernel and the hook's file tell.
    sh(&lab, "systemctl restart uplinkd");
    both_carry(&lab);
    sh(&lab, "ifdown eth2");
    lab.machine.wait_active(1);
    assert_eq!(sh(&lab, "ls -A /run/uplinkd-offers"), "eth1\n", "the offer has gone with the lease");
    assert_eq!(connect_many(&lab.client().ns, &Via::any(), 10, &echoes4()).of(1), 10);
    // ifup returns when the routing stands.
    let text = sh(&lab, "ifup eth2 >&2; ip -N rule; ip -N route show table 7000");
    for sign in ["oif eth2", "from 192.168.2.10", "nexthop via 192.168.2.77"] {
        assert!(text.contains(sign), "{sign} is missing when ifup returns:\n{text}");
    }
    both_carry(&lab);
    // The other way round: the one with the default goes, so that nobody has one.
    sh(&lab, "ifdown eth1");
    lab.machine.wait_active(1);
    println!("{}", sh(&lab, "uplinkctl; ip rule; ip route show table all default"));
}

#[test]
fn ifupdown_with_dhcpcd_has_a_default_for_each() {
    let lab = lab_or_skip!(bare());
    sh(&lab, "mv /usr/sbin/dhclient /usr/sbin/dhclient.away; ifup -a; ifup eth1 eth2");
    let defaults = sh(&lab, "ip -4 route show default proto dhcp");
    assert_eq!(defaults.matches("metric 100").count(), 2, "dhcpcd makes metrics of its own: {defaults}");
    both_carry(&lab);
    gateway_moves(&lab, 1);
    both_carry(&lab);
    sh(&lab, "ifdown eth2");
    lab.machine.wait_active(1);
    sh(&lab, "ifup eth2");
    both_carry(&lab);
}

#[test]
fn classless_routes_overrule_the_router() {
    let lab = lab_or_skip!(with_isps([1, 2].map(|number| IspSpec::new(number).classless())));
    let address = "ip addr add 10.77.0.1/24 dev lan0; ip link set lan0 up";
    sh(
        &lab,
        &format!("{address}; dhclient -4 eth1; dhclient -4 -pf /run/eth2.pid -lf /run/eth2.leases eth2"),
    );
    assert_eq!(lab.machine.defaults4(), [("eth1".to_owned(), 0)], "the second client's could not be added");
    let told = |routes: &str| {
        let text = sh(&lab, "cat /run/uplinkd-offers/eth2");
        assert_eq!(text, format!("192.168.2.10\n192.168.2.253\n{routes}\n"));
        lab.machine
            .wait_status("its gateway", LIMIT, |s| on(s, "eth2")["ipv4"]["gateway"] == "192.168.2.254");
        both_carry(&lab);
    };
    told("16 10 9 192 168 2 253 0 192 168 2 254");
    sh(&lab, "dhclient -r -pf /run/eth2.pid -lf /run/eth2.leases eth2");
    lab.machine.wait_active(1);
    sh(&lab, "dhcpcd -4 --nogateway eth2");
    told("10.9.0.0/16 192.168.2.253 0.0.0.0/0 192.168.2.254");
}

#[test]
fn plain_clients_are_heard_even_where_they_make_no_default() {
    let lab = lab_or_skip!(bare());
    sh(
        &lab,
        "ip addr add 10.77.0.1/24 dev lan0; ip link set lan0 up; (umask 077; dhclient -4 eth1); dhcpcd -4 --nogateway eth2",
    );
    let modes = sh(&lab, "stat -c %a /run/uplinkd-offers /run/uplinkd-offers/*");
    assert_eq!(modes, "755\n644\n644\n", "the daemon may read them, whatever the clients' umask");
    both_carry(&lab);
    assert!(
        !sh(&lab, "ip route show default")
            .lines()
            .any(|line| line.contains("eth2") && !line.contains("nexthop"))
    );
    gateway_moves(&lab, 2);
    both_carry(&lab);
    // An offer dies with its address, also where its client had no time to take it back.
    sh(&lab, "pkill -KILL dhcpcd; ip addr flush dev eth2");
    lab.machine.wait_active(1);
    assert!(sh(&lab, "cat /run/uplinkd-offers/eth2").starts_with("192.168.2.10\n192.168.2.77\n"));
    lab.machine.wait_status("no gateway", LIMIT, |s| on(s, "eth2")["ipv4"]["gateway"].is_null());
    sh(&lab, "dhclient -r eth1");
    assert_eq!(sh(&lab, "ls -A /run/uplinkd-offers"), "eth2\n");
}

#[test]
fn without_the_daemon_ifupdown_reconciles_once() {
    let lab = lab_or_skip!(bare());
    sh(
        &lab,
        "mv /usr/sbin/dhcpcd /usr/sbin/dhcpcd.away; ifup -a; systemctl disable -q --now uplinkd; ifup eth1 eth2",
    );
    let has_second = || {
        let text = ours(&lab.machine);
        assert!(text.contains("oif eth1"), "{text}");
        (text.contains("oif eth2"), text.contains("from 192.168.2.10"), text.contains("nexthop"))
    };
    assert_eq!(has_second(), (true, true, true));
    sh(&lab, "ifdown eth2");
    assert!(!has_second().1 && !has_second().2, "{}", ours(&lab.machine));
    // Nor is anything asked of systemd where there is none.
    sh(
        &lab,
        "mv /usr/bin/systemctl /usr/bin/systemctl.away; ifup eth2; mv /usr/bin/systemctl.away /usr/bin/systemctl",
    );
    assert_eq!(has_second(), (true, true, true));
}
