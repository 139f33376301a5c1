//! Policies by name: what systemd-resolved and dnsmasq answer leads.

use std::time::Duration;

use serde_json::Value;

use crate::ctl::{Ctl, installed, unheld};
use crate::dns::{own_resolvers, with_resolved};
use crate::kit::address::{internet4, resolver4};
use crate::kit::dns::ask;
use crate::kit::{Lab, Spec, Via, lab_or_skip};
use crate::policies::{all_by, echo4, some_by_both};
use crate::watch::seconds;

const LIMIT: Duration = Duration::from_secs(30);
const FILE: &str = "/etc/uplinkd/conf.d/20-policies.toml";
const NAMES: &str = "[[uplink]]\nmatch.interface = 'eth1'\nname = 'one'\n\n[[uplink]]\nmatch.interface = 'eth2'\nname = 'two'\n\n\
                     [[policy]]\nname = 'video'\nmatch.domain = 'video.example'\nuplinks = 'two'\n";
/// Every name has this address, where it is asked for.
const HOST: u8 = 1;

/// How many IPv4 addresses of names are known.
fn known(status: &Value) -> u64 {
    status["policies"][0]["ipv4"]["addresses"].as_u64().unwrap_or(0)
}

#[track_caller]
fn until_known(lab: &Lab, count: u64) {
    lab.machine.wait_status(&format!("{count} addresses"), LIMIT, |status| known(status) == count);
}

#[track_caller]
fn asks(lab: &Lab, name: &str) {
    let output = lab.machine.cmd(&["getent", "ahostsv4", name]);
    assert!(output.success() && output.stdout.contains(&internet4(HOST).to_string()), "{name}: {output}");
}

#[test]
fn what_resolved_answers_leads_its_policy() {
    let lab = lab_or_skip!(with_resolved(unheld(installed(Spec::router())).file(FILE, NAMES, 0o644)));
    lab.machine.wait_active(2);
    let own = lab.machine.netns();
    lab.machine.wait("resolved tells its answers", LIMIT, || {
        lab.machine.sh("journalctl -u uplinkd -o cat").ok().contains("tells its answers").then_some(())
    });
    asks(&lab, "www.example.org");
    asks(&lab, "badvideo.example");
    assert_eq!(known(&lab.machine.status()), 0, "others are no business of ours");
    some_by_both("router", own, &[echo4(HOST)]);

    asks(&lab, "a.b.Video.example");
    until_known(&lab, 1);
    println!("{}", lab.machine.cmd(&["uplinkctl"]).ok());
    for (who, ns) in [("router", own), ("client", &lab.client().ns)] {
        all_by(2, who, ns, &Via::any(), &[echo4(HOST)]);
        some_by_both(who, ns, &[11, 12, 13, 14].map(echo4));
    }
    lab.machine.cmd(&["systemctl", "kill", "-s", "KILL", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    until_known(&lab, 1);
    all_by(2, "router, after a kill", own, &Via::any(), &[echo4(HOST)]);

    // resolved begins anew, and is heard again.
    lab.machine.cmd(&["systemctl", "restart", "systemd-resolved"]).ok();
    lab.machine.write(FILE, &NAMES.replace("video.example", "film.example"));
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    until_known(&lab, 0);
    some_by_both("router, with another list", own, &[echo4(HOST)]);
    lab.machine.wait("it is heard again", LIMIT, || {
        asks(&lab, "film.example");
        (known(&lab.machine.status()) == 1).then_some(())
    });
    all_by(2, "router", own, &Via::any(), &[echo4(HOST)]);
}

/// The client's first connection is led already.
#[test]
fn what_dnsmasq_answers_leads_its_policy_at_once() {
    let lab = lab_or_skip!(own_resolvers(unheld(installed(Spec::router())).file(FILE, NAMES, 0o644)));
    lab.machine.wait_active(2);
    let client = &lab.client().ns;
    let lines = lab.machine.cmd(&["uplinkctl", "dnsmasq"]).ok();
    println!("{lines}");
    let sets = lines.lines().filter(|line| !line.starts_with('#')).map(|line| format!("--{line}"));
    let server = format!("--server={}", resolver4(1));
    let words = ["systemd-run", "--unit=names", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"];
    let rest = ["--no-hosts", "--no-resolv", "--listen-address=10.77.0.1", "--bind-interfaces", &server];
    let words: Vec<String> = words.into_iter().chain(rest).map(str::to_owned).chain(sets).collect();
    lab.machine.cmd(&words.iter().map(String::as_str).collect::<Vec<_>>()).ok();
    let resolver = "10.77.0.1".parse().expect("an address");
    lab.machine.wait("dnsmasq answers", LIMIT, || ask(client, resolver, "www.example.org", seconds(1)).ok());
    assert_eq!(known(&lab.machine.status()), 0);
    some_by_both("client", client, &[echo4(HOST)]);
    ask(client, resolver, "www.video.example", seconds(5)).expect("an answer");
    all_by(2, "client", client, &Via::any(), &[echo4(HOST)]);
    until_known(&lab, 1);
}
