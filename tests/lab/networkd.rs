//! systemd-networkd: what it knows, what it was told not to use, what its files say for us, and NetworkManager beside it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::balance::bound_sockets_leave_by_their_uplink;
use crate::ctl::{Ctl, installed, on, ours, package, unheld};
use crate::input::notes;
use crate::kit::address::{echoes4, echoes6};
use crate::kit::{IspSpec, Lab, Manager, Spec, Via, connect_many, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(30);

const SERVICE: &str = "/usr/lib/systemd/system/systemd-networkd.service";
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";

fn path(isp: u8) -> String {
    format!("/etc/systemd/network/eth{isp}.network")
}

/// A .network file with DHCP and RA; `more` are further sections.
fn file(isp: u8, more: &str) -> String {
    format!(
        "[Match]\nName=eth{isp}\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=yes\n\n[DHCPv4]\nRouteMetric={}\n\n{more}",
        1023 + u32::from(isp)
    )
}

/// The same; what it has it keeps while networkd is stopped.
fn kept(isp: u8, more: &str) -> String {
    file(isp, more).replace("[Network]\n", "[Network]\nKeepConfiguration=dhcp-on-stop\n")
}

fn spec() -> Spec {
    installed(unheld(Spec::router().manager(Manager::Networkd)))
}

fn has(status: &Value, family: &str, count: usize) -> bool {
    status["active"][family].as_array().is_some_and(|list| list.len() == count)
}

/// No note but the one which says that networkd was started before the package told it to spare us.
fn no_notes(status: &Value) -> bool {
    notes(status).lines().all(|note| note.contains("systemctl restart systemd-networkd"))
}

/// New connections of the client and of the machine itself use both uplinks, and none fails.
#[track_caller]
fn balanced(lab: &Lab) {
    for ns in [&lab.client().ns, lab.machine.netns()] {
        let shares = connect_many(ns, &Via::any(), 100, &echoes4());
        println!("{} of {} by ISP 1", shares.of(1), shares.answered());
        assert!(shares.failures.is_empty() && shares.isps() == [1, 2], "{shares:?}");
    }
}

#[test]
fn both_families_of_both_uplinks_are_found() {
    let lab = lab_or_skip!(spec().ipv6());
    let both = |s: &Value| has(s, "ipv4", 2) && has(s, "ipv6", 2) && no_notes(s);
    let told = lab.machine.wait_status("both by both families", LIMIT, both);
    for isp in [1, 2] {
        let device = lab.isp(isp).device();
        let uplink = on(&told, &device);
        assert_eq!(
            (&uplink["manager"], &uplink["name"]),
            (&"systemd-networkd".into(), &device.clone().into())
        );
        assert_eq!(uplink["profile"]["id"], path(isp));
        assert_eq!(uplink["ipv4"]["gateway"], lab.isp(isp).gateway().to_string());
        // 257 has it behind a nexthop object.
        let gateway = uplink["ipv6"]["gateway"].as_str().unwrap_or_default();
        assert!(gateway.starts_with("fe80::"), "{uplink}");
    }
    assert_eq!(on(&told, "lan0"), &Value::Null);
    let page = lab.machine.cmd(&["uplinkctl", "status", "eth1"]).ok();
    assert!(page.contains("by systemd-networkd, /etc/systemd/network/eth1.network"), "{page}");
    balanced(&lab);
    bound_sockets_leave_by_their_uplink(&lab);
    let shares = connect_many(lab.machine.netns(), &Via::any(), 100, &echoes6());
    assert!(shares.failures.is_empty() && shares.isps() == [1, 2], "{shares:?}");
    assert!(lab.machine.cmd(&["uplinkctl", "check"]).success());
    let version = lab.machine.cmd(&["networkctl", "--version"]).ok();
    println!("FIGURE {}", version.lines().next().unwrap_or_default());
}

#[test]
fn a_gateway_that_networkd_is_told_not_to_use_is_used() {
    let unused = "[DHCPv4]\nUseGateway=no\n\n[IPv6AcceptRA]\nUseGateway=no\n";
    let lan = "[Match]\nName=lan0\n\n[Network]\nAddress=10.77.0.1/24\nIPv6AcceptRA=no\nDHCPServer=yes\n";
    let lab = lab_or_skip!(
        spec()
            .ipv6()
            .file(&path(1), &file(1, "[DHCPv4]\nUseRoutes=no\n"), 0o644)
            .file(&path(2), &file(2, unused), 0o644)
            .file("/etc/systemd/network/lan0.network", lan, 0o644)
            .no_wait()
    );
    let told = lab.machine.wait_status("both active", LIMIT, |s| has(s, "ipv4", 2) && has(s, "ipv6", 2));
    let machine = lab.machine.netns();
    let foreign = machine.cmd(&["sh", "-c", "ip -4 route show default | grep -v -e 'proto 177' -e uplinkd"]);
    assert_eq!(foreign.stdout.lines().filter(|line| line.starts_with("default")).count(), 0, "{foreign}");
    for isp in [1, 2] {
        let uplink = on(&told, &lab.isp(isp).device());
        assert_eq!(uplink["ipv4"]["gateway"], lab.isp(isp).gateway().to_string());
        let table = uplink["table"].to_string();
        let routes = machine.cmd(&["ip", "-4", "route", "show", "table", &table]).ok();
        assert!(routes.contains(&format!("default via {}", lab.isp(isp).gateway())), "{routes}");
    }
    assert_eq!(on(&told, "lan0"), &Value::Null, "it gives out addresses");
    balanced(&lab);
    bound_sockets_leave_by_their_uplink(&lab);
    for isp in [1, 2] {
        let shares = connect_many(machine, &Via::device(&lab.isp(isp).device()), 20, &echoes6());
        assert_eq!(shares.of(isp), 20, "{shares:?}");
        lab.isp(isp).not_spoofed("bound sockets");
    }
}

#[test]
fn a_lease_that_names_another_router_is_followed() {
    let lab = lab_or_skip!(
        spec()
            .isps([IspSpec::new(1).renew_after(4), IspSpec::new(2)])
            .file(&path(1), &file(1, "[DHCPv4]\nUseRoutes=no\n"), 0o644)
            .no_wait()
    );
    lab.machine.wait_active(2);
    let moved = "192.168.1.253";
    lab.isp(1).move_gateway(moved.parse().expect("an address"));
    let start = Instant::now();
    // A question that met no server is asked again after half of what is left of two minutes.
    let limit = Duration::from_secs(150);
    lab.machine.wait_status("the other router", limit, |s| on(s, "eth1")["ipv4"]["gateway"] == moved);
    println!("FIGURE followed {:?} after the modem moved; leases are renewed after 4 s", start.elapsed());
    lab.machine.wait_active(2);
    balanced(&lab);
}

/// Puts a file of ISP 1's uplink there, has networkd read it, and waits for what it says.
#[track_caller]
fn reloaded(lab: &Lab, path: &str, text: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    lab.machine.write(path, text);
    let start = Instant::now();
    lab.machine.cmd(&["networkctl", "reload"]).ok();
    let told = lab.machine.wait_status(what, LIMIT, wanted);
    println!("FIGURE {what}: {:?} after networkctl reload", start.elapsed());
    told
}

#[test]
fn a_link_is_set_where_networkd_is_told_of_it() {
    let dropin = |name: &str| format!("/etc/systemd/network/eth1.network.d/{name}.conf");
    let usr = "/usr/lib/systemd/network/eth1.network.d/20-shop.conf";
    let lab = lab_or_skip!(spec());
    lab.machine.wait_active(2);
    let is = |key: &'static str, value: Value| move |s: &Value| on(s, "eth1")[key] == value;
    let slot = on(&lab.machine.status(), "eth1")["slot"].clone();
    let base = file(1, "[X-Uplinkd]\nweight=3\nwieght=4\n");
    let told = reloaded(&lab, &path(1), &base, "weight 3 by the file", is("weight", 3.into()));
    assert!(notes(&told).contains("/etc/systemd/network/eth1.network: wieght: no such key here"), "{told}");
    reloaded(&lab, usr, "[X-Uplinkd]\nweight=4\n", "weight 4 by a drop-in", is("weight", 4.into()));
    reloaded(&lab, &dropin("50-a"), "[X-Uplinkd]\ntier=2\nname=dsl\n", "tier 2", is("tier", 2.into()));
    assert_eq!(on(&lab.machine.status(), "eth1")["name"], "dsl");
    assert_eq!(on(&lab.machine.status(), "eth1")["slot"], slot);
    // Masked: that of /usr counts no more. networkd itself need not have read it.
    lab.machine.sh(&format!("ln -s /dev/null {}; uplinkctl reload", dropin("20-shop"))).ok();
    lab.machine.wait_status("weight 3 again", LIMIT, is("weight", 3.into()));
    // And files of ours win over it, by hand and by command.
    lab.machine.cmd(&["uplinkctl", "set", "dsl", "weight=7"]).ok();
    lab.machine.wait_status("weight 7", LIMIT, is("weight", 7.into()));
    let written = lab.machine.read("/etc/uplinkd/conf.d/50-uplinkctl.toml");
    assert!(written.contains("eth1") && written.contains("weight = 7"), "{written}");
    lab.machine.cmd(&["uplinkctl", "set", "dsl", "weight="]).ok();
    lab.machine.wait_status("weight 3 once more", LIMIT, is("weight", 3.into()));
    // What cannot be read is told, and the rest counts.
    lab.machine.sh(&format!("chmod 600 {}; uplinkctl reload", dropin("50-a"))).ok();
    let secret = |s: &Value| notes(s).contains("50-a.conf: cannot be read: Permission denied");
    let told = lab.machine.wait_status("a note", LIMIT, secret);
    assert_eq!((&on(&told, "eth1")["tier"], &on(&told, "eth1")["weight"]), (&1.into(), &3.into()));
    // networkd cannot read it either, and would leave the link alone for that.
    lab.machine.cmd(&["rm", &dropin("50-a")]).ok();
    let gone = |s: &Value| s.is_object() && on(s, "eth1").is_null();
    reloaded(&lab, &path(1), &file(1, "[X-Uplinkd]\nignore=true\n"), "eth1 left alone", gone);
    let shares = connect_many(lab.machine.netns(), &Via::any(), 40, &echoes4());
    assert!(shares.failures.is_empty(), "{shares:?}");
}

#[test]
fn networkd_and_networkmanager_each_keep_an_uplink() {
    let lab = lab_or_skip!(installed(
        Spec::router()
            .link(WANTED, SERVICE)
            .file(
                "/etc/NetworkManager/conf.d/unmanaged.conf",
                "[keyfile]\nunmanaged-devices=interface-name:eth1\n",
                0o644
            )
            .file(&path(1), &kept(1, "[X-Uplinkd]\nweight=2\n"), 0o644)
    ));
    lab.machine.wait_active(2);
    let told = lab.machine.status();
    let who =
        ["eth1", "eth2"].map(|device| on(&told, device)["manager"].as_str().unwrap_or("nobody").to_owned());
    assert_eq!(who, ["systemd-networkd", "NetworkManager"]);
    assert!(on(&told, "eth1")["weight"] == 2 && no_notes(&told), "{told}");
    let other = on(&told, "eth2")["name"].as_str().unwrap_or_default().to_owned();
    lab.machine.cmd(&["uplinkctl", "set", &other, "weight=3"]).ok();
    lab.machine.wait_status("weight 3", LIMIT, |s| on(s, "eth2")["weight"] == 3);
    assert!(
        !lab.machine.cmd(&["test", "-e", "/etc/uplinkd/conf.d/50-uplinkctl.toml"]).success(),
        "in the profile"
    );
    balanced(&lab);
    // Each goes away alone, and the other's link is not touched.
    for (service, isp) in [("systemd-networkd", 1u8), ("NetworkManager", 2)] {
        lab.machine.cmd(&["systemctl", "stop", &format!("{service}.service")]).ok();
        lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
        balanced(&lab);
        lab.machine.cmd(&["systemctl", "start", &format!("{service}.service")]).ok();
        let there = |s: &Value| has(s, "ipv4", 2) && !on(s, &format!("eth{isp}"))["profile"].is_null();
        lab.machine.wait_status(&format!("{service} again"), LIMIT, there);
    }
    // Both at one link: people are told.
    lab.machine.write(&path(2), &file(2, ""));
    lab.machine.cmd(&["networkctl", "reload"]).ok();
    let fight = |s: &Value| notes(s).contains("eth2: two network managers configure it");
    lab.machine.wait_status("a note about both", LIMIT, fight);
}

fn signal(lab: &Lab, signal: &str) {
    lab.machine.cmd(&["systemctl", "kill", &format!("--signal={signal}"), "systemd-networkd"]).ok();
}

#[test]
fn networkd_restarts_stops_comes_late_and_hangs() {
    let lab = lab_or_skip!(spec().file(&path(1), &kept(1, ""), 0o644).file(&path(2), &kept(2, ""), 0o644));
    lab.machine.wait_active(2);
    let whole = ours(&lab.machine);
    let mended = |what: &str| {
        let start = Instant::now();
        lab.machine.wait(what, LIMIT, || (ours(&lab.machine) == whole).then_some(()));
        println!("FIGURE {what}: whole {:?} later", start.elapsed());
        lab.machine.wait_active(2);
        balanced(&lab);
    };
    lab.machine.cmd(&["systemctl", "restart", "systemd-networkd"]).ok();
    mended("restarted");
    lab.machine.sh("systemctl stop systemd-networkd.socket systemd-networkd.service").ok();
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    mended("stopped");
    // A daemon that starts now knows the uplinks by their interfaces, and is the same to the kernel.
    lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok();
    let alone = lab
        .machine
        .wait_status("it alone", LIMIT, |s| has(s, "ipv4", 2) && on(s, "eth1")["manager"].is_null());
    assert!(no_notes(&alone), "{alone}");
    mended("without networkd");
    assert!(
        !lab.machine.cmd(&["systemctl", "is-active", "--quiet", "systemd-networkd"]).success(),
        "never started by us"
    );
    lab.machine.cmd(&["systemctl", "start", "systemd-networkd"]).ok();
    let back = |s: &Value| has(s, "ipv4", 2) && on(s, "eth2")["manager"] == "systemd-networkd";
    lab.machine.wait_status("networkd late", LIMIT, back);
    mended("started late");
    signal(&lab, "STOP");
    let start = Instant::now();
    lab.isp(1).carrier(false);
    lab.machine.wait_active(1);
    println!("FIGURE carrier lost: taken out after {:?} while networkd hangs", start.elapsed());
    lab.machine
        .wait_status("a note", LIMIT, |s| notes(s).contains("systemd-networkd does not answer within"));
    lab.isp(1).carrier(true);
    lab.machine.wait_active(2);
    signal(&lab, "CONT");
    let heard = |s: &Value| no_notes(s) && has(s, "ipv4", 2);
    lab.machine.wait_status("networkd heard", Duration::from_secs(70), heard);
}

#[test]
fn a_machine_without_networkd_gets_it_later() {
    let lab = lab_or_skip!(Spec::router().manager(Manager::Nobody));
    crate::bus::by_hand(&lab, ["metric 100", "metric 200"]);
    lab.machine.install_deb(&package());
    let told = lab.machine.wait_active(2);
    assert!(on(&told, "eth1")["manager"].is_null() && notes(&told).is_empty(), "{told}");
    let slots = ["eth1", "eth2"].map(|device| on(&told, device)["slot"].clone());
    for isp in [1, 2] {
        lab.machine.write(&path(isp), &file(isp, "[X-Uplinkd]\nweight=2\n"));
    }
    lab.machine.cmd(&["systemctl", "start", "systemd-networkd"]).ok();
    let weighed =
        |s: &Value| has(s, "ipv4", 2) && ["eth1", "eth2"].iter().all(|device| on(s, device)["weight"] == 2);
    let told = lab.machine.wait_status("networkd's settings", LIMIT, weighed);
    assert_eq!(
        ["eth1", "eth2"].map(|device| on(&told, device)["slot"].clone()),
        slots,
        "they are the same uplinks"
    );
    balanced(&lab);
}
