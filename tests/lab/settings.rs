//! Settings from files, from profiles and by `uplinkctl set`.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bus::by_hand;
use crate::ctl::{Ctl, installed, on};
use crate::input::notes;
use crate::kit::address::{ECHO, internet4};
use crate::kit::{Lab, Manager, Spec, UdpFlow, Via, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(10);
const FILE: &str = "/etc/uplinkd/conf.d/10-test.toml";
const UUID: &str = "3d1f2c4e-7a6b-4c5d-8e9f-0a1b2c3d4e5f";

/// A profile of ISP 1's uplink with settings in its user data.
fn profile(user: &str) -> String {
    format!(
        "[connection]\nid=Fibre one\nuuid={UUID}\ntype=ethernet\ninterface-name=eth1\n\n[user]\n{user}\n\n\
         [ipv4]\nmethod=auto\ndns-search=example.org;\nroute-metric=55\n\n[ipv6]\nmethod=auto\n"
    )
}

fn spec(user: &str) -> Spec {
    installed(Spec::router().profile("one", &profile(user)))
}

/// Has a file read, and waits until an uplink's settings are as wanted.
fn expect(lab: &Lab, file: &str, interface: &str, wanted: &Value) {
    lab.machine.write(FILE, file);
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    let as_wanted = |status: &Value| {
        let uplink = on(status, interface);
        wanted.as_object().is_some_and(|keys| keys.iter().all(|(key, value)| uplink[key] == *value))
    };
    lab.machine.wait_status(&format!("{interface} with {wanted} by {file:?}"), LIMIT, as_wanted);
}

#[test]
fn every_match_reaches_its_uplink_and_files_win_over_profiles() {
    let lab = lab_or_skip!(spec("uplinkd.weight=5\nuplinkd.tier=3\nuplinkd.name=fromuser\nuplinkd.wrong=1"));
    let told = lab.machine.wait_status("user data", LIMIT, |s| on(s, "eth1")["weight"] == 5);
    assert_eq!(on(&told, "eth1")["name"], "fromuser");
    assert_eq!(told["active"]["ipv4"].as_array().map(Vec::len), Some(1));
    assert!(notes(&told).contains("wrong: no such key here"), "{}", notes(&told));
    let slot = on(&told, "eth1")["slot"].clone();
    for (n, criterion) in [
        "interface = \"eth1\"",
        "interface = [\"eth9\", \"e?h1\"]",
        "connection = \"Fibre one\"",
        &format!("connection = \"{UUID}\""),
        "mac = \"02:77:00:00:00:01\"",
        "type = \"ethernet\"",
    ]
    .into_iter()
    .enumerate()
    {
        let file =
            format!("[[uplink]]\nmatch = {{ {criterion} }}\nweight = {}\nname = \"file{n}\"\n", n + 10);
        let wanted = json!({"weight": n + 10, "name": format!("file{n}"), "tier": 3, "slot": slot});
        expect(&lab, &file, "eth1", &wanted);
    }
    let told = lab.machine.status();
    assert_eq!(on(&told, "lan0"), &Value::Null, "a match by type makes no uplink of a LAN: {told}");
    // All that are given must fit, and the later wins key by key.
    let both = "[[uplink]]\nmatch = { interface = \"eth1\", mac = \"02:77:00:00:00:02\" }\nweight = 99\n\
                [[uplink]]\nmatch.interface = \"eth*\"\nweight = 8\nmetered = true\n\
                [[uplink]]\nmatch.interface = \"eth1\"\ntier = 9\n";
    expect(&lab, both, "eth1", &json!({"weight": 8, "metered": true, "tier": 9, "name": "fromuser"}));
    expect(&lab, both, "eth2", &json!({"weight": 8, "metered": true, "tier": 2}));
    let ignore = "[[uplink]]\nmatch.interface = \"eth1\"\nignore = true\n";
    lab.machine.write(FILE, ignore);
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    lab.machine.wait_status("eth1 left alone", LIMIT, |s| on(s, "eth1").is_null() && !s.is_null());
    expect(&lab, "", "eth1", &json!({"weight": 5, "tier": 3, "name": "fromuser", "slot": slot}));
}

#[test]
fn set_changes_a_profiles_user_data_and_nothing_else() {
    let lab = lab_or_skip!(spec("other.key=stays\nuplinkd.weight=5"));
    lab.machine.wait_active(2);
    let path = "/etc/NetworkManager/system-connections/one.nmconnection";
    let settings = || {
        let text = lab.machine.read(path);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.retain(|line| {
            !line.is_empty() && !line.starts_with("uplinkd.") && !line.starts_with("timestamp=")
        });
        lines.sort();
        lines
    };
    // NetworkManager writes a profile in its own way; what it says is compared, so once through its hands first.
    lab.machine.cmd(&["uplinkctl", "set", "Fibre-one", "weight=6"]).ok();
    let before = settings();
    let active = || {
        lab.machine
            .cmd(&["nmcli", "-g", "GENERAL.CON-PATH,GENERAL.DBUS-PATH", "connection", "show", "Fibre one"])
            .ok()
    };
    let activation = active();
    let flows: Vec<UdpFlow> = (1..=8)
        .map(|n| {
            let to = SocketAddr::from((internet4(n), ECHO));
            UdpFlow::start(&lab.client().ns, &Via::any(), to, Duration::from_millis(20))
        })
        .collect();
    lab.machine.cmd(&["uplinkctl", "set", "eth1", "weight=7", "tier=1", "metered=true", "name=fibre"]).ok();
    let told = lab.machine.wait_status("weight 7", LIMIT, |s| on(s, "eth1")["weight"] == 7);
    assert_eq!(on(&told, "eth1")["name"], "fibre");
    let text = lab.machine.read(path);
    for line in [
        "uplinkd.weight=7",
        "uplinkd.tier=1",
        "uplinkd.metered=true",
        "uplinkd.name=fibre",
        "other.key=stays",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    lab.machine.cmd(&["uplinkctl", "set", "fibre", "weight=", "tier=", "metered=", "name="]).ok();
    lab.machine.wait_status("weight 1", LIMIT, |s| on(s, "eth1")["weight"] == 1);
    assert!(!lab.machine.read(path).contains("uplinkd."), "{}", lab.machine.read(path));
    assert_eq!(settings(), before);
    assert_eq!(active(), activation);
    for report in flows.into_iter().map(UdpFlow::stop) {
        assert_eq!((report.seen().len(), report.lost()), (1, 0), "{}", report.summary());
    }
    let said = lab.machine.cmd(&["uplinkctl", "set", "nobody", "weight=2"]);
    assert!(said.status.code() == Some(1) && said.stderr.contains("there are: Fibre-one"), "{said}");
    lab.machine.write(FILE, "[[uplink]]\nmatch.interface = \"eth1\"\nweight = 9\n");
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    let said = lab.machine.cmd(&["uplinkctl", "set", "eth1", "weight=2"]).ok();
    assert!(said.contains("but weight stays 9"), "{said}");
}

#[test]
fn members_of_the_group_may_and_others_may_not() {
    let polkit = "[main]\nauth-polkit=true\n\n[connectivity]\nenabled=false\n";
    let lab = lab_or_skip!(spec("").file("/etc/NetworkManager/conf.d/lab.conf", polkit, 0o644));
    lab.machine.wait_active(2);
    lab.machine.sh("useradd -m -G uplinkd alice; useradd -m bob").ok();
    let by = |who: &str, line: &str| lab.machine.cmd(&["su", who, "-s", "/bin/sh", "-c", line]);
    by("alice", "uplinkctl set eth1 weight=4").ok();
    lab.machine.wait_status("weight 4", LIMIT, |s| on(s, "eth1")["weight"] == 4);
    for line in ["reload", "nudge --wait 5", "flush", "reload", "nudge --wait 5"] {
        by("alice", &format!("uplinkctl {line}")).ok();
    }
    // Figures of probes change all the time.
    let steady = |mut status: serde_json::Value| {
        for uplink in status["uplinks"].as_array_mut().expect("a list") {
            (uplink["ipv4"]["health"], uplink["ipv6"]["health"]) = Default::default();
        }
        status
    };
    let before = steady(lab.machine.wait_active(2));
    let routing = crate::ctl::ours(&lab.machine);
    for line in ["set eth1 weight=9", "reload", "nudge", "flush", "forget eth1"] {
        let said = by("bob", &format!("uplinkctl {line}"));
        assert_eq!(said.status.code(), Some(77), "{said}");
        assert_eq!(said.stderr.lines().count(), 1, "{said}");
    }
    for line in ["", "status --json", "plan", "plan --full", "check"] {
        by("bob", &format!("uplinkctl {line}")).ok();
    }
    assert_eq!(steady(lab.machine.status()), before);
    assert_eq!(crate::ctl::ours(&lab.machine), routing);
}

#[test]
fn set_writes_a_file_where_no_manager_keeps_the_link() {
    let lab = lab_or_skip!(Spec::router().manager(Manager::Nobody));
    by_hand(&lab, ["metric 100", "metric 200"]);
    lab.machine.install_deb(&crate::ctl::package());
    lab.machine.wait_active(2);
    let file = "/etc/uplinkd/conf.d/50-uplinkctl.toml";
    lab.machine.cmd(&["uplinkctl", "set", "eth1", "weight=3", "name=dsl"]).ok();
    let told = lab.machine.wait_status("weight 3", LIMIT, |s| on(s, "eth1")["weight"] == 3);
    assert_eq!(on(&told, "eth1")["name"], "dsl");
    println!("{}", lab.machine.read(file));
    lab.machine.sh("useradd -m -G uplinkd alice; useradd -m bob").ok();
    lab.machine.cmd(&["su", "alice", "-c", "uplinkctl set dsl weight=4"]).ok();
    lab.machine.wait_status("weight 4", LIMIT, |s| on(s, "eth1")["weight"] == 4);
    let before = lab.machine.read(file);
    let said = lab.machine.cmd(&["su", "bob", "-c", "uplinkctl set dsl weight=5"]);
    assert_eq!((said.status.code(), said.stderr.lines().count()), (Some(77), 1), "{said}");
    let said = lab.machine.cmd(&["uplinkctl", "set", "eth2", "name=dsl"]);
    assert!(!said.success() && said.stderr.contains("dsl is taken at"), "{said}");
    assert_eq!(lab.machine.read(file), before);
    lab.machine.cmd(&["uplinkctl", "set", "dsl", "weight=", "name="]).ok();
    lab.machine.wait_status("weight 1", LIMIT, |s| on(s, "eth1")["weight"] == 1);
}
