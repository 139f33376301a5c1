//! Data caps: what is counted, what follows at each limit, and that nothing begins it anew but its day.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use crate::ctl::{Ctl, installed, on, package};
use crate::kit::address::{BULK, ECHO, echoes4};
use crate::kit::{
    HeldTcp, Lab, Line, Manager, Ns, Spec, TcpDownload, UdpFlow, Via, connect_many, lab_or_skip,
};
use crate::kit::{IspSpec, line::DEVICE};
use crate::manual::Listener;
use crate::watch::{in_use, seconds, state, to, until, until_state, until_used};

const FILE: &str = "/etc/uplinkd/conf.d/20-quota.toml";
const MB: u64 = 1_000_000;

/// A quota of 20 MB, of which 10 MB are soft, for the uplink on an interface.
fn quota(interface: &str) -> String {
    format!(
        "[[uplink]]\nmatch.interface = \"{interface}\"\nquota = \"20 MB\"\nquota-day = 17\nquota-soft = 50\n"
    )
}

fn used(lab: &Lab, interface: &str) -> u64 {
    on(&lab.machine.status(), interface)["quota"]["used_bytes"].as_u64().expect("a figure")
}

/// What the kernel has counted on a link, both ways.
fn counted(ns: &Ns, device: &str) -> u64 {
    let text = ns.cmd(&["ip", "-s", "-j", "link", "show", device]).ok();
    let links: Value = serde_json::from_str(&text).expect("JSON");
    ["rx", "tx"].map(|way| links[0]["stats64"][way]["bytes"].as_u64().expect("a figure")).iter().sum()
}

/// Loads so many bytes through a device.
#[track_caller]
fn load(lab: &Lab, device: &str, bytes: u64) {
    let download =
        TcpDownload::start(lab.machine.netns(), &Via::device(device), to(3, BULK)).expect("connects");
    lab.machine.wait(&format!("{bytes} bytes by {device}"), seconds(60), || {
        let report = download.progress();
        assert_eq!(report.broke, None, "{report:?}");
        (report.bytes >= bytes).then_some(())
    });
    download.stop();
}

#[track_caller]
fn until_level(lab: &Lab, interface: &str, level: &str) -> Value {
    let reached = |status: &Value| on(status, interface)["quota"]["level"] == level;
    until(lab, &format!("{interface} {level}"), seconds(20), reached).1
}

/// Waits until what was counted is what the kernel says, but for what comes meanwhile.
#[track_caller]
fn agrees(lab: &Lab, device: &str, before: (u64, u64)) -> u64 {
    let grown = || {
        let (used, counted) = (used(lab, device), counted(lab.machine.netns(), device));
        (used - before.0, counted - before.1)
    };
    lab.machine.wait("what the kernel counted is counted", seconds(10), || {
        let (of_quota, of_kernel) = grown();
        (of_kernel.abs_diff(of_quota) < 20_000).then_some(of_quota)
    })
}

#[test]
fn a_quota_lowers_the_tier_and_then_takes_the_uplink_out() {
    let lab = lab_or_skip!(installed(Spec::router().file(FILE, &quota("eth1"), 0o644)));
    lab.machine.wait_active(2);
    let follower = Listener::start(&lab, "quota", &["uplinkctl", "events", "--follow"]);
    let before = (used(&lab, "eth1"), counted(lab.machine.netns(), "eth1"));
    let first = on(&lab.machine.status(), "eth1").clone();
    assert_eq!((&first["tier"], &first["quota"]["limit_bytes"]), (&1.into(), &(20 * MB).into()));
    let client = &lab.client().ns;
    let held: Vec<_> =
        (1..=16).map(|n| HeldTcp::connect(client, &Via::any(), to(n, ECHO)).expect("connects")).collect();
    let mut by_first: Vec<_> =
        held.into_iter().filter(|tcp| crate::kit::isp_of(tcp.seen) == Some(1)).collect();
    assert!(!by_first.is_empty());

    load(&lab, "eth1", 10 * MB);
    let status = until_level(&lab, "eth1", "soft");
    until_used(&lab, &[2]);
    println!("FIGURE soft at {} bytes of {}", used(&lab, "eth1"), 10 * MB);
    assert_eq!(state(&status, 1), "up");
    follower.wait(&lab, &["quota: within -> soft: at least 50 % of its quota of 20 MB is used; renewed on "]);
    assert_eq!(connect_many(client, &Via::any(), 60, &echoes4()).of(2), 60, "new flows spare it");
    for tcp in &mut by_first {
        tcp.ping(seconds(3)).expect("what runs stays");
    }
    assert_eq!(on(&lab.machine.status(), "eth1")["tier"], 1, "it is the tier that was said");
    let grown = agrees(&lab, "eth1", before);
    println!("FIGURE the kernel and the quota agree on {grown} bytes");

    // It is killed, and stopped while three megabytes go over the link: all of it counts.
    lab.machine.sh("systemctl kill -s KILL uplinkd").ok();
    lab.machine.sh("systemctl stop uplinkd").ok();
    load(&lab, "eth1", 3 * MB);
    lab.machine.sh("systemctl start uplinkd").ok();
    until_used(&lab, &[2]);
    let grown_more = agrees(&lab, "eth1", before);
    println!("FIGURE killed and stopped: {} bytes were added", grown_more - grown);
    assert!(grown_more - grown >= 3 * MB);

    // At the hard limit what runs over it has to leave, too.
    let own = HeldTcp::connect(lab.machine.netns(), &Via::device("eth1"), to(5, ECHO)).expect("connects");
    let flow = UdpFlow::start(client, &Via::any(), to(9, ECHO), Duration::from_millis(20));
    let left = (20 * MB).saturating_sub(used(&lab, "eth1"));
    load(&lab, "eth1", left);
    let status = until_level(&lab, "eth1", "hard");
    until_state(&lab, 1, "capped");
    println!("FIGURE hard at {} bytes of {}", used(&lab, "eth1"), 20 * MB);
    assert_eq!(on(&status, "eth1")["quota"]["left_bytes"], 0);
    let page = lab.machine.cmd(&["uplinkctl", "status", "eth1"]).ok();
    println!("{page}");
    assert!(
        page.contains("ipv4: capped for") && page.contains("its quota of 20 MB is used up; renewed on "),
        "{page}"
    );
    assert!(lab.machine.journal("uplinkd").contains("quota: soft -> hard"));
    by_first.push(own);
    for tcp in &mut by_first {
        lab.machine
            .wait("what ran over it ends", seconds(20), || tcp.ping(seconds(1)).is_err().then_some(()));
    }
    assert_eq!(flow.stop().lost(), 0, "what was elsewhere felt nothing");
    assert_eq!(connect_many(client, &Via::any(), 40, &echoes4()).of(2), 40);

    // By hand it is used, whatever it has left; and by hand what was counted is put right.
    lab.machine.sh("uplinkctl up eth1").ok();
    assert_eq!(in_use(&lab, &lab.machine.status(), "ipv4"), [1, 2]);
    lab.machine.sh("uplinkctl auto eth1").ok();
    assert_eq!(in_use(&lab, &lab.machine.status(), "ipv4"), [2]);
    lab.machine.sh("systemctl restart uplinkd").ok();
    until_state(&lab, 1, "capped");
    let said = lab.machine.sh("uplinkctl quota eth1 5MB").ok();
    assert!(said.contains("quota 20 MB: 5") && said.contains(" left, renewed on "), "{said}");
    until_used(&lab, &[1, 2]);
    let past = lab.machine.sh("uplinkctl events").ok();
    assert!(past.contains("quota: hard -> within"), "{past}");
    println!("{}", lab.machine.sh("uplinkctl").ok());
    wrong_orders(&lab);
}

fn wrong_orders(lab: &Lab) {
    for (line, told) in [
        ("quota eth2 5MB", "Wired-connection-2 has no quota"),
        ("quota eth1 lots", "\"lots\" is not allowed; a number with B, kB"),
        ("set eth2 quota=5GB", "quota: without quota-day beside it"),
        ("set eth2 quota=0GB quota-day=1", "quota: 0GB is not allowed; an amount from 1 MB to 1000 TB"),
    ] {
        let said = lab.machine.sh(&format!("uplinkctl {line}"));
        assert!(!said.success() && said.stderr.contains(told), "{line}: {said}");
    }
    lab.machine.write(FILE, "[[uplink]]\nmatch.interface = \"eth1\"\nquota = \"20 MB\"\n");
    let said = lab.machine.sh("uplinkctl check");
    assert!(
        said.status.code() == Some(78) && said.stderr.contains("20-quota.toml:3:9: quota: without"),
        "{said}"
    );
    let nobody = lab.machine.sh("setpriv --reuid=65534 --regid=65534 --clear-groups uplinkctl quota eth1 0B");
    assert!(nobody.status.code() == Some(77), "{nobody}");
    // Where the profile keeps it, without a file.
    lab.machine.sh("uplinkctl set eth2 quota=5GB quota-day=31").ok();
    let status = lab.machine.wait_status("a quota of the profile", seconds(10), |s| {
        on(s, "eth2")["quota"]["limit_bytes"] == 5000 * MB
    });
    assert_eq!(on(&status, "eth2")["quota"]["day"], 31);
}

#[test]
fn a_line_that_redials_goes_on_counting_where_it_was() {
    let file = quota(DEVICE);
    let spec = Spec::router().isps([IspSpec::new(1), IspSpec::new(2).no_dhcp()]).manager(Manager::Nobody);
    let lab = lab_or_skip!(spec.file(FILE, &file, 0o644));
    lab.machine.netns().ip(
        "addr add 10.77.0.1/24 dev lan0\nlink set lan0 up\naddr add 192.168.1.10/24 dev eth1\nlink set eth1 up\n\
         route add default via 192.168.1.254 dev eth1 metric 100\n",
    );
    let address = |n| Ipv4Addr::new(10, 64, n, 2);
    let mut line = Line::dial(&lab, 2, address(1));
    lab.machine.install_deb(&package());
    lab.machine.wait_active(2);
    let mut total = 0;
    // By and by: with the daemon there, and with one that is stopped or killed over the redial.
    for (n, meanwhile) in [(2, "true"), (3, "systemctl stop uplinkd"), (4, "systemctl kill -s KILL uplinkd")]
    {
        let before = used(&lab, DEVICE);
        assert!(before >= total, "{before} after {total}");
        load(&lab, DEVICE, 2 * MB);
        lab.machine
            .wait("it is counted", seconds(10), || (used(&lab, DEVICE) >= before + 2 * MB).then_some(()));
        // Somebody writes it down within five seconds.
        std::thread::sleep(seconds(6));
        let seen = used(&lab, DEVICE);
        lab.machine.sh(meanwhile).ok();
        line.hang_up(&lab);
        line = Line::dial(&lab, 2, address(n));
        load(&lab, DEVICE, MB);
        lab.machine.sh("systemctl start uplinkd").ok();
        lab.machine.wait_active(2);
        let kernel = counted(lab.machine.netns(), DEVICE);
        total = lab.machine.wait("the new device counts as well", seconds(20), || {
            Some(used(&lab, DEVICE)).filter(|used| *used >= seen + kernel)
        });
        let now = counted(lab.machine.netns(), DEVICE);
        println!(
            "FIGURE after {meanwhile}: {seen} before, {kernel} to {now} on the new device, {total} in all"
        );
        assert!(total <= seen + now + 20_000, "nothing counts twice");
    }
    drop(line);
}

#[test]
fn the_last_uplink_at_its_limit_does_as_all_down_says() {
    let lab = lab_or_skip!(installed(Spec::router().file(FILE, &quota("eth1"), 0o644)));
    lab.machine.wait_active(2);
    lab.isp(2).carrier(false);
    until_used(&lab, &[1]);
    lab.machine.sh("uplinkctl quota eth1 20MB").ok();
    let status = lab.machine.status();
    assert_eq!((state(&status, 1), in_use(&lab, &status, "ipv4")), ("capped", vec![]));
    let client = &lab.client().ns;
    let told = lab.machine.sh("uplinkctl").ok();
    assert!(
        told.contains("what leaves by the managers' own default routes goes on, beyond the quota"),
        "{told}"
    );
    assert_eq!(connect_many(client, &Via::any(), 20, &echoes4()).of(1), 20, "keep: it goes on");
    lab.machine.write("/etc/uplinkd/conf.d/30-block.toml", "all-down = \"block\"\n");
    lab.machine.sh("uplinkctl reload").ok();
    let told = until(&lab, "nothing leaves", seconds(10), |status| status["blocked"]["ipv4"] == true).1;
    assert!(crate::input::notes(&told).contains("nothing leaves, as all-down is block"), "{told}");
    assert!(HeldTcp::connect(client, &Via::any(), to(9, ECHO)).is_err(), "block: nothing leaves");
    lab.isp(2).carrier(true);
    until_used(&lab, &[2]);
    assert_eq!(connect_many(client, &Via::any(), 20, &echoes4()).of(2), 20);
}

#[test]
fn the_day_of_renewal_is_one_of_the_local_time_zone() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    // One of them has another date than the UTC of the lab now, and moving there needs no restart.
    for zone in ["Pacific/Kiritimati", "Etc/GMT+12", "Pacific/Kiritimati"] {
        let script = format!("ln -sf /usr/share/zoneinfo/{zone} /etc/localtime; date '+%-d %F'");
        let said = lab.machine.sh(&script).ok();
        let (day, today) = said.trim().split_once(' ').expect("a day and a date");
        lab.machine.write(FILE, &quota("eth1").replace("17", day));
        lab.machine.sh("uplinkctl reload").ok();
        let begins = |s: &Value| on(s, "eth1")["quota"]["since"] == today;
        let status = lab.machine.wait_status(&format!("a period from {today} on"), seconds(20), begins);
        println!("{zone}: {}", on(&status, "eth1")["quota"]);
    }
}
