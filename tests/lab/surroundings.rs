//! A machine that lacks something, or where somebody else uses what is ours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, on, ours, package};
use crate::input::notes;
use crate::kit::address::{ECHO, internet4};
use crate::kit::{Lab, Spec, UdpFlow, Via, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(10);

/// Running flows of the client, which must neither move nor lose a packet.
fn flows(lab: &Lab) -> Vec<UdpFlow> {
    let start = |n| {
        let to = SocketAddr::from((internet4(n), ECHO));
        UdpFlow::start(&lab.client().ns, &Via::any(), to, Duration::from_millis(20))
    };
    (1..=12).map(start).collect()
}

#[track_caller]
fn none_moved(flows: Vec<UdpFlow>) {
    for report in flows.into_iter().map(UdpFlow::stop) {
        assert_eq!((report.seen().len(), report.lost()), (1, 0), "{}", report.summary());
    }
}

/// The slots by interface.
fn slots(lab: &Lab) -> [i64; 2] {
    let status = lab.machine.wait_active(2);
    ["eth1", "eth2"].map(|interface| on(&status, interface)["slot"].as_i64().expect("a slot"))
}

#[test]
fn without_nft_the_rest_works_and_its_return_mends_it() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    lab.machine.cmd(&["mv", "/usr/sbin/nft", "/usr/sbin/nft.away"]).ok();
    lab.machine.sh("uplinkctl reload; systemctl stop uplinkd; /usr/sbin/nft.away flush ruleset").ok();
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    let told = lab.machine.wait_status("a note", LIMIT, |s| notes(s).contains("no program nft"));
    assert_eq!(told["active"]["ipv4"].as_array().map(Vec::len), Some(2));
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);
    // Looked at often, said once.
    for _ in 0..5 {
        lab.machine.cmd(&["uplinkctl", "nudge"]).ok();
    }
    let log = lab.machine.journal("uplinkd");
    assert_eq!(log.matches("no program nft").count(), 1, "{log}");
    assert!(log.matches("conntrack -U").count() <= 2, "{log}");
    lab.machine.cmd(&["mv", "/usr/sbin/nft.away", "/usr/sbin/nft"]).ok();
    let back = Instant::now();
    lab.machine.wait_status("the table", Duration::from_secs(70), |s| notes(s).is_empty());
    println!("nft is back: its table stands after {:?}", back.elapsed());
    assert!(ours(&lab.machine).contains("table inet uplinkd"));
}

#[test]
fn a_second_instance_waits_briefly_and_says_why_it_goes() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    for arguments in [&["uplinkd"][..], &["uplinkd", "--once"]] {
        let start = Instant::now();
        let said = lab.machine.cmd(arguments);
        assert_eq!(said.status.code(), Some(1), "{said}");
        assert_eq!(said.stderr.lines().count(), 1, "{said}");
        assert!(said.stderr.contains("another uplinkd is running"), "{said}");
        assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    }
    // A lock that root made and nobody else may read must not keep the daemon's user out.
    lab.machine.sh("systemctl stop uplinkd; rm /run/uplinkd/lock; umask 077; uplinkd --once").ok();
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    lab.machine.sh("systemctl stop uplinkd; rm /run/uplinkd/lock; umask 077; touch /run/uplinkd/lock").ok();
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    // One that starts while a hook is at work waits for it.
    lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
    let hook = lab.machine.daemon(&["flock", "/run/uplinkd/lock", "sleep", "1"]);
    let held = || (!lab.machine.cmd(&["flock", "-n", "/run/uplinkd/lock", "true"]).success()).then_some(());
    lab.machine.wait("the lock to be held", LIMIT, held);
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    drop(hook);
    lab.machine.wait_active(2);
    assert_eq!(lab.machine.cmd(&["systemctl", "show", "-P", "NRestarts", "uplinkd"]).ok().trim(), "0");
    // Anybody else cannot hold the lock at all.
    let other = "setpriv --reuid nobody --regid nogroup --clear-groups flock -n /run/uplinkd/lock true";
    assert!(!lab.machine.sh(other).success());
}

#[test]
fn a_corrupt_memory_is_set_aside_and_no_flow_moves() {
    let lab = lab_or_skip!(installed(Spec::router()));
    let before = slots(&lab);
    let running = flows(&lab);
    for rubbish in ["", "{\"entries\": [", "[1, 2]", "\\377\\376"] {
        lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
        lab.machine.sh(&format!("printf '{rubbish}' >/var/lib/uplinkd/slots.json")).ok();
        lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
        assert_eq!(slots(&lab), before, "{rubbish:?}");
        lab.machine
            .sh("test -e /var/lib/uplinkd/slots.json.corrupt && rm /var/lib/uplinkd/slots.json.corrupt")
            .ok();
    }
    lab.machine.sh("systemctl stop uplinkd; rm /var/lib/uplinkd/slots.json; systemctl start uplinkd").ok();
    assert_eq!(slots(&lab), before);
    none_moved(running);
    let log = lab.machine.journal("uplinkd");
    assert_eq!(log.matches("2 slots learned back").count(), 4, "{log}");
}

#[test]
fn a_full_or_read_only_state_directory_is_told_and_mended() {
    let lab = lab_or_skip!(installed(Spec::router()));
    let before = slots(&lab);
    let running = flows(&lab);
    for (bar, unbar) in [
        (
            "dd if=/dev/zero of=/var/lib/uplinkd/filler bs=1k || true",
            "rm /var/lib/uplinkd/filler; uplinkctl nudge --wait 5",
        ),
        // The service has a copy of the mount, which stays read-only for as long as it runs.
        (
            "mount -o remount,ro /var/lib/uplinkd",
            "mount -o remount,rw /var/lib/uplinkd; systemctl restart uplinkd",
        ),
    ] {
        let mount = "mount -t tmpfs -o size=8k,mode=755,uid=uplinkd,gid=uplinkd state /var/lib/uplinkd";
        lab.machine.sh(&format!("systemctl stop uplinkd; {mount}; {bar}")).ok();
        lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
        let told = lab
            .machine
            .wait_status("a note", LIMIT, |s| notes(s).contains("the memory of slots is not kept"));
        println!("{}", notes(&told));
        assert_eq!(slots(&lab), before);
        lab.machine.sh(unbar).ok();
        lab.machine
            .wait_status("it to be written", LIMIT, |s| notes(s).is_empty() && on(s, "eth2").is_object());
        assert!(lab.machine.read("/var/lib/uplinkd/slots.json").contains("eth2"));
        lab.machine.sh("systemctl stop uplinkd; umount /var/lib/uplinkd; systemctl start uplinkd").ok();
        lab.machine.wait_active(2);
    }
    none_moved(running);
}

#[test]
fn what_others_use_of_ours_is_named_and_left_alone() {
    let lab = lab_or_skip!(Spec::router());
    lab.machine
        .sh("ip rule add pref 7101 from 10.9.9.9 lookup 100
         ip rule add pref 90 fwmark 0x1000000/0xff000000 lookup 99
         ip rule add pref 91 fwmark 0x7 lookup 7002
         ip route add default via 192.168.2.254 dev eth2 table 7001
         ip route add 192.168.2.0/24 dev eth2 table 7001
         ip route add 10.55.0.0/16 via 10.77.0.10 table 7002")
        .ok();
    let before = lab.machine.foreign_snapshot();
    lab.machine.install_deb(&package());
    let told = lab.machine.wait_active(2);
    let log = lab.machine.journal("uplinkd");
    for sign in ["\"7101: from", "fwmark 0x1000000", "lookup 7002", "table 7001", "table 7002"] {
        assert!(notes(&told).contains(sign), "{sign} in {}", notes(&told));
        assert!(log.contains(sign), "{sign} in {log}");
    }
    println!("{}", notes(&told));
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);
    let without_sysctls = |text: String| text.split("# sysctl").next().unwrap_or_default().to_owned();
    assert_eq!(without_sysctls(lab.machine.foreign_snapshot()), without_sysctls(before.clone()));
    // Also when they come later, into a table that is in use.
    let table = on(&told, "eth1")["table"].to_string();
    lab.machine.sh(&format!("ip route add 10.56.0.0/16 via 10.77.0.10 table {table}")).ok();
    let sign = format!("table {table} is ours");
    lab.machine.wait_status("a note", LIMIT, |s| notes(s).contains(&sign));
    lab.machine.sh(&format!("ip route del 10.56.0.0/16 table {table}")).ok();
    lab.machine.cmd(&["apt-get", "-q", "-y", "purge", "uplinkd"]).ok();
    assert_eq!(lab.machine.foreign_snapshot(), before);
}
