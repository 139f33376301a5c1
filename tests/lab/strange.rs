//! Names that were made to harm, and a storm of events.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, on, ours, unheld};
use crate::kit::{Spec, UdpFlow, Via, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(10);

/// Names of profiles that a network or a joker may choose, as keyfiles write them (`\n` is a line's end there).
const NAMES: [&str; 7] = [
    "$(touch /tmp/owned)\\nrm -rf x",
    "a'; \"b\" `touch /tmp/owned` 0x1 # }",
    "7001 main\\n255\\tlocal",
    "../../etc/passwd",
    "ÄÖ Привет 你好 \u{202e}olleh \u{1f600}",
    "\\s\\s\\t",
    "main",
];

#[test]
fn names_that_inject_do_no_harm() {
    let lab = lab_or_skip!(installed(unheld(Spec::router())));
    lab.machine.wait_active(2);
    let long = "x".repeat(200);
    for name in NAMES.into_iter().chain([long.as_str()]) {
        let profile = format!(
            "[connection]\nid={name}\nuuid=3d1f2c4e-7a6b-4c5d-8e9f-0a1b2c3d4e5f\ntype=ethernet\ninterface-name=eth1\n\n\
             [user]\nuplinkd.name={name}\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=ignore\n"
        );
        lab.machine.profile("strange", &profile);
        lab.machine.cmd(&["nmcli", "connection", "up", "3d1f2c4e-7a6b-4c5d-8e9f-0a1b2c3d4e5f"]).ok();
        let uuid = "3d1f2c4e-7a6b-4c5d-8e9f-0a1b2c3d4e5f";
        lab.machine.wait_status(name, LIMIT, |s| {
            on(s, "eth1")["profile"]["uuid"] == uuid && on(s, "eth1")["active"] == true
        });
        let status = lab.machine.wait_active(2);
        let word = on(&status, "eth1")["name"].as_str().unwrap_or_default().to_owned();
        println!("{name:.40} -> {word}");
        let sane = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(!word.is_empty() && word.len() <= 32 && word.chars().all(sane), "{word}");
        // ip(8) reads the names of tables, and complains on its standard error.
        for command in [
            &["ip", "rule"][..],
            &["ip", "route", "show", "table", "main"],
            &["nft", "list", "table", "inet", "uplinkd"],
        ] {
            let said = lab.machine.cmd(command);
            assert!(said.success() && said.stderr.is_empty(), "{name}: {said}");
        }
        let table = lab.machine.cmd(&["ip", "-N", "route", "show", "table", &word]).ok();
        assert!(table.contains("192.168.1.254"), "{word} names its table: {table}");
        let shown = lab.machine.cmd(&["uplinkctl"]).ok();
        assert!(!shown.contains(['\u{1b}', '\u{202e}', '\t']), "{shown:?}");
        let said = lab.machine.cmd(&["uplinkctl", "set", &word, "weight=2"]);
        assert!(said.success(), "{said}");
        assert!(!lab.machine.cmd(&["test", "-e", "/tmp/owned"]).success(), "{name}");
    }
    let main = lab.machine.cmd(&["ip", "-N", "route", "show", "table", "main"]).ok();
    assert!(main.contains("10.77.0.0/24"), "main is still main: {main}");
}

#[test]
fn interfaces_with_odd_names_are_left_alone_or_served() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let ns = lab.machine.netns();
    for name in ["a\"b;c", "$(reboot)", "x'y`z", "\u{1b}[31m", "ÄÖÜ", "a.b", "-n", "all!"] {
        let made = ns.cmd(&["ip", "link", "add", "name", name, "type", "bridge"]);
        if !made.success() {
            println!("{name:?}: not even ip makes it");
            continue;
        }
        ns.cmd(&["ip", "addr", "add", "172.31.7.2/24", "dev", name]).ok();
        ns.cmd(&["ip", "link", "set", name, "up"]).ok();
        ns.cmd(&["ip", "route", "add", "default", "via", "172.31.7.1", "dev", name, "metric", "7000"]).ok();
        ns.cmd(&["ip", "rule", "add", "pref", "88", "iif", name, "fwmark", "0x1000000", "lookup", "main"]);
        lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
        let shown = lab.machine.cmd(&["uplinkctl"]).ok();
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
        let status = lab.machine.status();
        println!("{name:?}: {}", on(&status, name)["name"]);
        assert!(!shown.contains("failed:"), "{shown}");
        assert!(lab.machine.cmd(&["nft", "list", "table", "inet", "uplinkd"]).success());
        ns.cmd(&["ip", "rule", "del", "pref", "88"]);
        ns.cmd(&["ip", "link", "del", name]).ok();
    }
    lab.machine.wait_active(2);
}

/// The daemon's processor time in ticks of 10 ms, and its resident memory in kB.
fn cost(machine: &crate::kit::Machine) -> (u64, u64) {
    let pid = machine.cmd(&["systemctl", "show", "-P", "MainPID", "uplinkd"]).ok();
    let stat = machine.read(&format!("/proc/{}/stat", pid.trim()));
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let number = |text: Option<&&str>| text.and_then(|text| text.parse().ok()).expect("a number");
    let status = machine.read(&format!("/proc/{}/status", pid.trim()));
    let rss = status.lines().find(|line| line.starts_with("VmRSS")).expect("VmRSS");
    let ticks: u64 = number(fields.get(11)) + number(fields.get(12));
    (ticks, number(rss.split_whitespace().collect::<Vec<_>>().get(1)))
}

#[test]
fn a_storm_of_events_costs_little_and_hides_nothing() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    lab.machine.netns().ip("link add storm0 type veth peer name storm1\nlink set storm1 up");
    // Two events for each, and as many of the other end's carrier: some thousands a second.
    let lines = "link set storm0 up\nlink set storm0 down\n".repeat(250);
    lab.machine.write("/root/storm", &lines);
    let storm = || lab.machine.cmd(&["ip", "-batch", "/root/storm"]).ok();
    storm();
    let (_, memory) = cost(&lab.machine);
    let flow = UdpFlow::start(
        lab.machine.netns(),
        &Via::any(),
        crate::kit::address::echoes4()[0],
        Duration::from_millis(20),
    );
    let (ticks, _) = cost(&lab.machine);
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(10) {
        storm();
        rounds += 1;
    }
    let took = start.elapsed();
    let (after, grown) = cost(&lab.machine);
    let percent = (after - ticks) * 1000 / u64::try_from(took.as_millis()).expect("ten seconds");
    println!(
        "{} changes a second for {took:?}: {percent} % of a processor; {memory} kB before, {grown} kB after",
        rounds * 500 / took.as_secs()
    );
    assert!(percent < 40, "{percent} %");
    assert!(grown < memory + 2048, "{memory} kB, then {grown} kB");
    // In the midst of it, what matters is seen.
    lab.machine.netns().ip("rule del pref 7301");
    let deleted = Instant::now();
    storm();
    lab.machine.wait("the repair", LIMIT, || ours(&lab.machine).contains("7301:").then_some(()));
    println!("a repair during the storm: {:?}", deleted.elapsed());
    let report = flow.stop();
    assert_eq!(report.lost(), 0, "{}", report.summary());
    assert!(!lab.machine.journal("uplinkd").contains("failed"));
}
