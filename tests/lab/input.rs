//! Wrong configuration files: named with their place, and nothing changes.

use std::time::Duration;

use serde_json::Value;

use crate::ctl::{Ctl, installed, on, ours};
use crate::kit::{Lab, Spec, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(10);
const FILE: &str = "/etc/uplinkd/conf.d/10-test.toml";

/// The alerts and notes of a status, one a line.
pub(crate) fn notes(status: &Value) -> String {
    let list = |key: &str| status[key].as_array().map_or(&[][..], Vec::as_slice);
    list("alerts").iter().chain(list("notes")).filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

/// Writes a section about ISP 1's uplink, and has it read.
fn weigh(lab: &Lab, weight: u16) {
    lab.machine.write(FILE, &format!("[[uplink]]\nmatch.interface = \"eth1\"\nweight = {weight}\n"));
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    let route = || {
        let route = lab.machine.cmd(&["ip", "-4", "route", "show", "default", "proto", "177"]).ok();
        route.contains(&format!("dev eth1 weight {weight}")).then_some(())
    };
    lab.machine.wait(&format!("weight {weight} in the kernel"), LIMIT, route);
}

#[test]
fn a_wrong_file_is_named_and_changes_nothing() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    weigh(&lab, 3);
    let before = ours(&lab.machine);
    let head = "[[uplink]]\nmatch.interface = \"eth1\"\n";
    let twice = "name = \"x\"\n[[uplink]]\nmatch.interface = \"eth2\"\nname = \"x\"\n";
    for (fault, place) in [
        ("wieght = 5\n", ":3:1: "),
        ("weight = \"5\"\n", ":3:10: "),
        ("weight = 0\n", ":3:10: "),
        (twice, ":6:8: "),
        ("weight = = 5\n", ":3:10: "),
        ("", ": cannot be read: Permission denied"),
    ] {
        lab.machine.write(FILE, &format!("{head}{fault}"));
        if fault.is_empty() {
            lab.machine.cmd(&["chmod", "000", FILE]).ok();
        }
        let place = format!("{FILE}{place}");
        let said = lab.machine.cmd(&["uplinkctl", "reload"]);
        assert!(said.status.code() == Some(78) && said.stderr.contains(&place), "{said}");
        let said = lab.machine.cmd(&["systemctl", "reload", "uplinkd"]);
        assert!(!said.success(), "{said}");
        let refused = || lab.machine.journal("uplinkd").matches(&place).count();
        let so_far = refused();
        lab.machine.cmd(&["systemctl", "kill", "--signal=HUP", "uplinkd"]).ok();
        lab.machine.wait("the refusal in the log", LIMIT, || (refused() > so_far).then_some(()));
        let told = lab.machine.wait_status("a note", LIMIT, |s| notes(s).contains(&place));
        assert!(notes(&told).contains("the former configuration stays in use"), "{}", notes(&told));
        assert_eq!(ours(&lab.machine), before, "{fault:?}");
        assert_eq!(on(&told, "eth1")["weight"], 3);
        assert_eq!(lab.machine.cmd(&["systemctl", "is-active", "uplinkd"]).ok().trim(), "active");
    }
    weigh(&lab, 7);
    assert_eq!(notes(&lab.machine.status()), "");
    lab.machine.cmd(&["systemctl", "reload", "uplinkd"]).ok();

    // What matches nothing may come later.
    lab.machine.write(FILE, "[[uplink]]\nmatch.interface = \"wlan7\"\nweight = 5\n");
    lab.machine.cmd(&["systemctl", "reload", "uplinkd"]).ok();
    let note = format!("{FILE}:1: this [[uplink]] matches no interface at present");
    let told = lab.machine.wait_status("a note", LIMIT, |s| notes(s) == note);
    assert_eq!(on(&told, "eth1")["weight"], 1);
}

#[test]
fn a_start_with_a_broken_file_brings_the_uplinks_up_and_says_so() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    weigh(&lab, 3);
    lab.machine.write(FILE, "[[uplink]]\nmatch.interface = \"eth1\"\nweight = 0\n");
    // As a reboot does: nothing of ours is in the kernel.
    lab.machine.sh("uplinkctl flush; systemctl stop uplinkd; systemctl start uplinkd").ok();
    let told = lab.machine.wait_active(2);
    assert!(notes(&told).starts_with("NO CONFIGURATION IS IN USE"));
    for arguments in [&["uplinkctl"][..], &["uplinkctl", "status", "eth1"]] {
        let told = lab.machine.cmd(arguments).ok();
        assert!(told.starts_with("NO CONFIGURATION IS IN USE"), "{told}");
    }
    let said = lab.machine.cmd(&["uplinkctl", "reload"]);
    assert_eq!(said.status.code(), Some(78), "{said}");
    assert!(notes(&lab.machine.status()).starts_with("NO CONFIGURATION IS IN USE"));
    // A hook must not take the broken file for an empty one either.
    lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
    let before = ours(&lab.machine);
    let once = lab.machine.cmd(&["uplinkd", "--once"]);
    assert!(once.status.code() == Some(78) && once.stderr.contains(&format!("{FILE}:3:10: ")), "{once}");
    assert_eq!(ours(&lab.machine), before);
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    weigh(&lab, 4);
    assert_eq!(notes(&lab.machine.status()), "");
}
