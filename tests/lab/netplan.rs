//! Netplan, which writes the files of either manager and has them read.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ctl::{Ctl, installed, on, package, set};
use crate::input::notes;
use crate::kit::address::echoes4;
use crate::kit::{Install, Lab, Manager, Spec, Via, connect_many, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(60);
const FILE: &str = "/etc/netplan/50-uplinks.yaml";

/// `netplan apply` has udev read its rules again, and there is no udev in the lab.
const UDEVADM: (&str, &str) = ("/usr/local/bin/udevadm", "#!/bin/sh\nexit 0\n");

/// Two uplinks with DHCP; `more` are lines of the second.
fn uplinks(renderer: &str, more: &str) -> String {
    format!(
        "network:\n  version: 2\n  renderer: {renderer}\n  ethernets:\n    lan0:\n      addresses: [10.77.0.1/24]\n    \
         eth1:\n      dhcp4: true\n    eth2:\n      dhcp4: true\n{more}"
    )
}

/// Writes the file and applies it as an administrator does.
#[track_caller]
fn apply(lab: &Lab, yaml: &str) {
    let start = Instant::now();
    lab.machine.write_mode(FILE, yaml.as_bytes(), 0o600);
    let done = lab.machine.sh("PATH=/usr/local/bin:$PATH netplan apply");
    assert!(done.success(), "{done}");
    println!("FIGURE netplan apply took {:?}", start.elapsed());
}

/// Both uplinks are there by this manager, and carry two to one.
#[track_caller]
fn weighed(lab: &Lab, manager: &str) -> Value {
    let wanted = |s: &Value| {
        s["active"]["ipv4"].as_array().is_some_and(|list| list.len() == 2)
            && ["eth1", "eth2"].iter().all(|device| on(s, device)["manager"] == manager)
            && on(s, "eth1")["weight"] == 2
    };
    let told = lab.machine.wait_status(&format!("both by {manager}, two to one"), LIMIT, wanted);
    let shares = connect_many(&lab.client().ns, &Via::any(), 300, &echoes4());
    println!("FIGURE {manager}: {} of {} by ISP 1", shares.of(1), shares.answered());
    // Five sigma of 300 flows, two of three by ISP 1.
    assert!(shares.failures.is_empty() && (159..=241).contains(&shares.of(1)), "{shares:?}");
    told
}

#[test]
fn renderer_networkd() {
    let dropin = "/etc/systemd/network/10-netplan-eth1.network.d/uplinkd.conf";
    let lab = lab_or_skip!(
        Spec::router()
            .manager(Manager::Nobody)
            .install(Install::None)
            .file(UDEVADM.0, UDEVADM.1, 0o755)
            .file(dropin, "[X-Uplinkd]\nweight=2\n", 0o644)
    );
    lab.machine.install_deb(&package());
    apply(&lab, &uplinks("networkd", ""));
    let told = weighed(&lab, "systemd-networkd");
    assert_eq!(notes(&told), "", "Netplan's own files are secret, and that is nobody's trouble");
    assert_eq!(on(&told, "eth1")["profile"]["id"], "/run/systemd/network/10-netplan-eth1.network");
    assert_eq!(on(&told, "eth1")["name"], "eth1");
    let slot = on(&told, "eth1")["slot"].clone();
    println!("{}", lab.machine.sh("ls -l /run/systemd/network; netplan info | head -3").ok());
    // Another time, with a default route that networkd is not to install.
    apply(&lab, &uplinks("networkd", "      dhcp4-overrides:\n        use-routes: false\n"));
    let left = || {
        let routes = lab.machine.cmd(&["ip", "-4", "route", "show", "default", "proto", "dhcp"]).ok();
        (routes.contains("eth1") && !routes.contains("eth2")).then_some(())
    };
    lab.machine.wait("eth2 without a route of its own", LIMIT, left);
    let told = weighed(&lab, "systemd-networkd");
    assert_eq!(on(&told, "eth2")["ipv4"]["gateway"], lab.isp(2).gateway().to_string());
    assert_eq!(on(&told, "eth1")["slot"], slot);
}

#[test]
fn renderer_networkmanager() {
    // NetworkManager keeps off cables unless Netplan tells it otherwise, as on Ubuntu.
    let lab = lab_or_skip!(installed(Spec::router().file(UDEVADM.0, UDEVADM.1, 0o755)));
    lab.machine.wait_active(2);
    lab.machine.sh("rm -f /etc/NetworkManager/system-connections/lan.nmconnection").ok();
    apply(&lab, &uplinks("NetworkManager", ""));
    let by_netplan = |s: &Value| {
        s["active"]["ipv4"].as_array().is_some_and(|list| list.len() == 2)
            && ["eth1", "eth2"].iter().all(|d| {
                let id = on(s, d)["profile"]["id"].as_str().unwrap_or_default().to_owned();
                id == format!("netplan-{d}")
            })
    };
    let told = lab.machine.wait_status("Netplan's profiles", LIMIT, by_netplan);
    assert_eq!(on(&told, "eth1")["name"], "netplan-eth1");
    set(&lab, 1, "weight=2");
    weighed(&lab, "NetworkManager");
    println!("{}", lab.machine.sh("ls -l /run/NetworkManager/system-connections /etc/netplan").ok());
}
