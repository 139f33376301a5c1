//! What is decided by hand, and how everybody hears what has become of whom.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::ctl::{Ctl, installed, on};
use crate::kit::address::{ECHO, echoes4};
use crate::kit::process::Daemon;
use crate::kit::{HeldTcp, Lab, Output, Spec, Via, connect_many, lab_or_skip};
use crate::watch::{in_use, rest, seconds, state, to, until, until_state, until_used};

fn ctl(lab: &Lab, line: &str) -> Output {
    lab.machine.sh(&format!("uplinkctl {line}"))
}

/// Orders that return only when they are carried out, so nothing is waited for.
#[track_caller]
fn order(lab: &Lab, line: &str, used: &[u8]) -> Value {
    ctl(lab, line).ok();
    let status = lab.machine.status();
    assert_eq!(in_use(lab, &status, "ipv4"), used, "after {line}");
    status
}

#[test]
fn a_drained_uplink_keeps_what_runs_and_stays_drained_over_a_restart() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let ns = &lab.client().ns;
    let mut held: Vec<HeldTcp> =
        (1..=16).map(|n| HeldTcp::connect(ns, &Via::any(), to(n, ECHO)).expect("connects")).collect();
    let status = order(&lab, "drain eth1", &[2]);
    assert_eq!((state(&status, 1), &on(&status, "eth1")["drained"]), ("drained", &true.into()));
    assert!(ctl(&lab, "").ok().contains("drained"), "{}", ctl(&lab, ""));
    assert_eq!(connect_many(ns, &Via::any(), 40, &echoes4()).of(2), 40);
    for how in ["restart", "kill -s KILL"] {
        lab.machine.sh(&format!("systemctl {how} uplinkd")).ok();
        rest(1500);
        until_used(&lab, &[2]);
        until_state(&lab, 1, "drained");
    }
    // Dead and well again, it is still drained.
    lab.isp(2).silent(true);
    until_state(&lab, 2, "down");
    println!("with ISP 1 drained and ISP 2 dead: {}", ctl(&lab, "").ok());
    lab.isp(2).silent(false);
    until_used(&lab, &[2]);
    lab.isp(1).silent(true);
    until_state(&lab, 1, "down");
    lab.isp(1).silent(false);
    until_state(&lab, 1, "drained");
    let status = order(&lab, "undrain eth1", &[1, 2]);
    assert_eq!((state(&status, 1), &on(&status, "eth1")["drained"]), ("up", &false.into()));
    drop(held.drain(..));
    let mut held: Vec<HeldTcp> =
        (1..=16).map(|n| HeldTcp::connect(ns, &Via::any(), to(n, ECHO)).expect("connects")).collect();
    order(&lab, "drain eth2", &[1]);
    rest(1500);
    for held in &mut held {
        held.ping(seconds(2)).expect("what runs stays");
    }
    order(&lab, "undrain eth2", &[1, 2]);
}

#[test]
fn up_and_down_by_hand_hold_until_auto() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let status = order(&lab, "down eth1", &[2]);
    assert_eq!((state(&status, 1), &on(&status, "eth1")["manual"]), ("down", &"down".into()));
    assert!(ctl(&lab, "").ok().contains("taken down by hand"), "{}", ctl(&lab, ""));
    for how in ["restart", "kill -s KILL"] {
        lab.machine.sh(&format!("systemctl {how} uplinkd")).ok();
        rest(1500);
        until_used(&lab, &[2]);
        assert_eq!(on(&lab.machine.status(), "eth1")["manual"], "down", "after {how}");
    }
    let status = order(&lab, "auto eth1", &[1, 2]);
    assert_eq!((state(&status, 1), &on(&status, "eth1")["manual"]), ("up", &Value::Null));
    // Held up, it is used though nothing answers; let go, it is not.
    order(&lab, "up eth1", &[1, 2]);
    lab.isp(1).silent(true);
    rest(5000);
    let status = lab.machine.status();
    assert_eq!((state(&status, 1), in_use(&lab, &status, "ipv4")), ("up", vec![1, 2]));
    assert_eq!(on(&status, "eth1")["manual"], "up");
    order(&lab, "auto eth1", &[2]);
    until_state(&lab, 1, "down");
    order(&lab, "up eth1", &[1, 2]);
    // Without a carrier there is nothing to hold up.
    lab.isp(1).carrier(false);
    until_used(&lab, &[2]);
    lab.isp(1).carrier(true);
    until_used(&lab, &[1, 2]);
    // Let go, it has to prove itself first.
    lab.isp(1).silent(false);
    ctl(&lab, "auto eth1").ok();
    until_used(&lab, &[1, 2]);
}

#[test]
fn wrong_names_are_refused_with_a_word() {
    let lab = lab_or_skip!(installed(Spec::desktop()));
    lab.machine.wait_active(2);
    for order in ["drain", "undrain", "up", "down", "auto"] {
        for name in ["nobody", "eth9", "''", "main", "'a b'", "../x"] {
            let said = ctl(&lab, &format!("{order} {name}"));
            assert_eq!(said.status.code(), Some(1), "{said}");
            assert!(said.stderr.contains("there are: Wired-connection-1, Wired-connection-2"), "{said}");
        }
        assert_eq!(ctl(&lab, order).status.code(), Some(2), "{order} nobody");
    }
    // Past the command line, the bus refuses too.
    let call = "busctl call org.uplinkd.Uplinkd1 /org/uplinkd/Uplinkd1 org.uplinkd.Uplinkd1";
    for wrong in ["Override ss Wired-connection-1 sideways", "Override ss nobody up", "Drain sb nobody true"]
    {
        let said = lab.machine.sh(&format!("{call} {wrong}"));
        assert!(!said.success() && !said.stderr.is_empty(), "{said}");
        println!("{}", said.stderr.trim());
    }
    let status = lab.machine.status();
    assert_eq!(in_use(&lab, &status, "ipv4"), [1, 2]);
    // Nobody but root may.
    let said = lab.machine.sh("setpriv --reuid=65534 --regid=65534 --clear-groups uplinkctl down eth1");
    assert!(said.status.code() == Some(77), "{said}");
}

/// A process in the machine whose output is read while it runs.
pub(crate) struct Listener {
    file: PathBuf,
    _process: Daemon,
}

impl Listener {
    pub(crate) fn start(lab: &Lab, name: &str, words: &[&str]) -> Listener {
        let file = std::env::temp_dir().join(format!("uplinkd-{name}-{}", std::process::id()));
        let log = File::create(&file).expect("the temporary directory is writable");
        let process = Daemon::start_logged(lab.machine.netns(), &lab.machine.command(words), log);
        Listener { file, _process: process }
    }

    fn heard(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Waits until it has heard a line with all of these.
    #[track_caller]
    pub(crate) fn wait(&self, lab: &Lab, parts: &[&str]) -> String {
        let line = |text: &str| text.lines().find(|l| parts.iter().all(|p| l.contains(p))).map(str::to_owned);
        lab.machine.wait(&format!("{parts:?} in {}", self.heard()), seconds(15), || line(&self.heard()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        fs::remove_file(&self.file).ok();
    }
}

#[test]
fn everybody_hears_what_has_become_of_whom() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let follower = Listener::start(&lab, "follow", &["uplinkctl", "events", "--follow"]);
    let json = Listener::start(&lab, "json", &["uplinkctl", "events", "--follow", "--json"]);
    let signal = "--match=type='signal',interface='org.uplinkd.Uplinkd1',member='Transition'";
    let bus = Listener::start(&lab, "bus", &["busctl", "--system", "--json=short", "monitor", signal]);
    // What is past comes first.
    follower.wait(&lab, &["Wired-connection-1 ipv4: configuring -> up: "]);
    rest(1000);
    lab.isp(1).silent(true);
    let told = follower.wait(&lab, &["Wired-connection-1 ipv4: up -> down: ", "0 of 4 targets answered"]);
    println!("{told}");
    let object: Value = serde_json::from_str(&json.wait(&lab, &["\"to\":\"down\""])).expect("JSON");
    assert_eq!((&object["from"], &object["family"]), (&"up".into(), &"ipv4".into()));
    println!("{}", bus.wait(&lab, &["Transition", "Wired-connection-1", "\"down\""]));
    lab.isp(1).silent(false);
    follower.wait(&lab, &["Wired-connection-1 ipv4: down -> up: "]);
    let past = ctl(&lab, "events").ok();
    assert!(past.contains("Wired-connection-1 ipv4: up -> down: ") && past.contains("-> up: "), "{past}");
    let of_json = ctl(&lab, "events --json").ok();
    assert_eq!(of_json.lines().count(), past.lines().count());
    fields_of_the_journal(&lab);
    // Who follows is told of the daemon's end.
    lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
    follower.wait(&lab, &["uplinkd has stopped"]);
}

fn fields_of_the_journal(lab: &Lab) {
    let text =
        lab.machine.cmd(&["journalctl", "--no-pager", "-o", "json", "-u", "uplinkd", "F_TO=down"]).ok();
    let entries: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let [entry] = entries.as_slice() else { panic!("{text}") };
    let field = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let names = ["F_UPLINK", "F_FAMILY", "F_FROM", "F_TO", "PRIORITY", "SYSLOG_IDENTIFIER"];
    assert_eq!(names.map(field), ["Wired-connection-1", "ipv4", "up", "down", "4", "uplinkd"]);
    assert!(field("F_EVIDENCE").contains("0 of 4 targets answered"), "{entry}");
    println!("{}", field("MESSAGE"));
}

#[test]
fn an_order_holds_for_both_families() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6()));
    until(&lab, "both families", Duration::from_secs(20), |status| {
        ["ipv4", "ipv6"].iter().all(|family| in_use(&lab, status, family) == [1, 2])
    });
    for (there, back) in [("down", "auto"), ("drain", "undrain")] {
        let status = order(&lab, &format!("{there} eth2"), &[1]);
        assert_eq!(in_use(&lab, &status, "ipv6"), [1], "{there}");
        let status = order(&lab, &format!("{back} eth2"), &[1, 2]);
        assert_eq!(in_use(&lab, &status, "ipv6"), [1, 2], "{back}");
    }
}
