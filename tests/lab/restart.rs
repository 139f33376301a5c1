//! Restart, death and upgrade: not one packet lost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::ctl::{Ctl, installed, package};
use crate::kit::address::{ECHO, echoes4, internet4};
use crate::kit::{Lab, NewFlows, Spec, UdpFlow, Via, lab_or_skip};

/// Runs something that no packet may be lost for.
fn without_loss(lab: &Lab, what: &str, disturb: impl FnOnce()) {
    assert_eq!(losses(lab, what, disturb), 0, "{what}");
}

/// Runs something under 200 new flows a second and 8 running ones of 100 packets a second, none of which may move, and
/// counts the packets that were lost.
pub(crate) fn losses(lab: &Lab, what: &str, disturb: impl FnOnce()) -> usize {
    let ns = &lab.client().ns;
    let running: Vec<UdpFlow> = (1..=8)
        .map(|n| {
            UdpFlow::start(ns, &Via::any(), SocketAddr::from((internet4(n), ECHO)), Duration::from_millis(10))
        })
        .collect();
    let fresh = NewFlows::start(ns, &Via::any(), &echoes4(), 200);
    std::thread::sleep(Duration::from_millis(300));
    disturb();
    std::thread::sleep(Duration::from_millis(700));
    let fresh = fresh.stop();
    println!("{what}: new flows: {}", fresh.summary());
    let mut lost = fresh.lost();
    for report in running.into_iter().map(UdpFlow::stop) {
        lost += report.lost();
        println!("{what}: a running flow: {}", report.summary());
        assert_eq!(report.seen().len(), 1, "{what}: a running flow moved: {}", report.summary());
    }
    lost
}

/// The daemon's process, once it answers.
fn daemon(lab: &Lab) -> String {
    lab.machine.wait_active(2);
    lab.machine.cmd(&["systemctl", "show", "-P", "MainPID", "uplinkd"]).ok().trim().to_owned()
}

#[test]
fn kill_restart_and_upgrade_lose_nothing() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    let first = daemon(&lab);
    without_loss(&lab, "kill -9", || {
        lab.machine.cmd(&["kill", "-9", &first]).ok();
        lab.machine.wait("another daemon", Duration::from_secs(5), || (daemon(&lab) != first).then_some(()));
    });
    without_loss(&lab, "restart", || drop(lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok()));
    let newer = newer_package();
    without_loss(&lab, "upgrade", || {
        lab.machine.install_deb(&newer);
    });
    let version = lab.machine.cmd(&["dpkg-query", "-W", "-f", "${Version}", "uplinkd"]).ok();
    assert!(version.ends_with("+later"), "{version}");
    daemon(&lab);
    std::fs::remove_file(newer).expect("remove the package again");
}

/// The package once more, under a later version.
fn newer_package() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("uplinkd-later-{}", std::process::id()));
    let deb = dir.with_extension("deb");
    let script = r#"dpkg-deb -R "$1" "$2"; sed -i '/^Version:/s/$/+later/' "$2/DEBIAN/control"; dpkg-deb -b "$2" "$3"; rm -r "$2""#;
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).arg(package()).arg(&dir).arg(&deb);
    assert!(command.status().expect("sh runs").success());
    deb
}
