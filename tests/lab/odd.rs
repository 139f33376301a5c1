//! Probes that are configured badly, and a machine on which not everything works.

use std::time::Instant;

use serde_json::Value;

use crate::ctl::{Ctl, installed, package, set};
use crate::kit::address::echoes4;
use crate::kit::{Lab, Spec, Via, connect_many, lab_or_skip};
use crate::watch::{leg, rest, seconds, state, transitions, until, until_state, until_used};

#[test]
fn dead_resolvers_do_not_keep_uplinks_from_use() {
    let lab = lab_or_skip!(Spec::router());
    for isp in lab.isps() {
        isp.dhcp(false);
    }
    lab.machine.install_deb(&package());
    let start = Instant::now();
    until_used(&lab, &[1, 2]);
    println!("FIGURE in use {:.1?} after the installation, without a resolver", start.elapsed());
    println!("{:?}", transitions(&lab, 1));
    rest(5000);
    assert_eq!(["up", "up"], [1, 2].map(|isp| state(&lab.machine.status(), isp).to_owned()));
    lab.isp(1).silent(true);
    println!("FIGURE left after {:.1?}", until_used(&lab, &[2]));
}

/// What each target of an ISP's uplink last said.
fn said(lab: &Lab, isp: u8) -> Vec<String> {
    let status = lab.machine.status();
    let targets = leg(&status, isp, "ipv4")["health"]["targets"].as_array().cloned().unwrap_or_default();
    targets.iter().map(|t| format!("{}: {}", t["probe"], t["said"])).collect()
}

#[test]
fn a_target_of_ones_own_proves_nothing() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    for own in ["192.168.1.10", "192.168.2.10", "10.77.0.1"] {
        set(&lab, 1, &format!("probes=icmp:{own};tcp:{own}:22"));
        until_state(&lab, 1, "down");
        rest(2000);
        println!("{:?}", said(&lab, 1));
        assert!(said(&lab, 1).iter().all(|said| said.contains("is an address of this machine")));
        assert_eq!([1, 2].map(|isp| state(&lab.machine.status(), isp).to_owned()), ["down", "up"]);
        let detail = lab.machine.cmd(&["uplinkctl", "status", "Wired-connection-1"]).ok();
        assert!(detail.contains("is an address of this machine"), "{detail}");
    }
    let refused = lab.machine.cmd(&["uplinkctl", "set", "Wired-connection-1", "probes=icmp:127.0.0.1"]);
    assert_eq!(refused.status.code(), Some(2), "{refused}");
    set(&lab, 1, "probes=");
    until_used(&lab, &[1, 2]);
}

/// The processes of the service, and the daemon's memory in kB.
fn weight(lab: &Lab) -> (usize, u64) {
    let show =
        |what: &str| lab.machine.cmd(&["systemctl", "show", "-P", what, "uplinkd"]).ok().trim().to_owned();
    let processes = lab.machine.read(&format!("/sys/fs/cgroup{}/cgroup.procs", show("ControlGroup")));
    let status = lab.machine.read(&format!("/proc/{}/status", show("MainPID")));
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    (processes.lines().count(), memory.and_then(|kb| kb.parse().ok()).expect("a figure"))
}

const HANG: &str = "#!/bin/sh\nexec sleep 1000\n";
const FLOOD: &str = "#!/bin/sh\nexec yes\n";
const FORK: &str = "#!/bin/sh\nsleep 1000 &\nsetsid sleep 1000 &\nexit 0\n";
const DEAF: &str = "#!/bin/sh\ntrap '' TERM INT HUP\nwhile :; do sleep 1; done\n";
const FAIL: &str = "#!/bin/sh\necho nothing there >&2\nexit 3\n";
const GOOD: &str = "#!/bin/sh\ngrep -q 1 \"/sys/class/net/$UPLINKD_DEVICE/carrier\"\n";

/// Programs are run for files of the administrator's only, not for profiles.
const PROBES: &str = "/etc/uplinkd/conf.d/probes.toml";

#[test]
fn bad_programs_hurt_only_their_own_uplink() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    set(&lab, 1, "hold=0s");
    let bad =
        [("hang", HANG, "down"), ("flood", FLOOD, "down"), ("deaf", DEAF, "down"), ("fail", FAIL, "down")];
    for (name, script, wanted) in bad.into_iter().chain([("fork", FORK, "up"), ("good", GOOD, "up")]) {
        let path = format!("/usr/local/bin/{name}");
        lab.machine.write_mode(&path, script.as_bytes(), 0o755);
        lab.machine.sh(&format!("rm -f {PROBES}; uplinkctl reload")).ok();
        until_used(&lab, &[1, 2]);
        let start = weight(&lab);
        let section = format!("[[uplink]]\nmatch.interface = \"eth1\"\nprobes = \"command:{path}\"\n");
        lab.machine.write_mode(PROBES, section.as_bytes(), 0o644);
        lab.machine.cmd(&["uplinkctl", "reload"]).ok();
        if wanted == "down" {
            until_state(&lab, 1, "down");
        }
        rest(10_000);
        let status = lab.machine.status();
        println!(
            "{name}: {} {:?}; processes and kB {start:?} then {:?}",
            state(&status, 1),
            said(&lab, 1),
            weight(&lab)
        );
        assert_eq!(
            (state(&status, 1), state(&status, 2)),
            (wanted, "up"),
            "{name}: {:?}",
            transitions(&lab, 1)
        );
        let shares = connect_many(&lab.client().ns, &Via::any(), 30, &echoes4());
        assert_eq!(shares.failures.len(), 0, "{name}: {shares:?}");
        let (processes, memory) = weight(&lab);
        assert!(memory < start.1 + 8000, "{name}: {memory} kB after {start:?}");
        assert!(name == "fork" || processes <= start.0 + 4, "{name}: {processes} processes after {start:?}");
    }
    // What a program left behind outside of its group ends with the service.
    lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok();
    until_used(&lab, &[1, 2]);
    let left = lab.machine.sh("pgrep -c sleep || true").ok();
    println!("left behind: {}", left.trim());
    let (_, status) =
        until(&lab, "no notes", seconds(5), |status| status["notes"] == Value::Array(Vec::new()));
    assert_eq!(state(&status, 1), "up");
}
