//! The administrator's own nftables tables and routes, with the installed package.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::ctl::{Ctl, installed, unheld};
use crate::kit::address::{ECHO, echoes4, internet4};
use crate::kit::{Lab, Ns, Shares, Spec, Via, connect_many, lab_or_skip};

const FOLDER: &str = "/etc/uplinkd/nft.d";
const ROUTES: &str = "/etc/uplinkd/provider.routes";
const LIMIT: Duration = Duration::from_secs(30);

const UPLINKS: &str = "[[uplink]]\nmatch.interface = 'eth1'\nname = 'one'\n\n\
    [[uplink]]\nmatch.interface = 'eth2'\nname = 'two'\nroutes = '/etc/uplinkd/provider.routes'\n";

/// Counts what leaves by uplink two for one host, with a line that can be anything.
fn counting(line: &str) -> String {
    format!(
        "# Not the end: }}\ncounter seen {{ }}\nchain out {{\n\ttype filter hook postrouting priority 310\n{line}\n\
         \toifname $interface_two ct mark & $mark_mask == $mark_two ip daddr 203.0.113.5 counter name seen\n}}\n"
    )
}

fn spec() -> Spec {
    unheld(installed(Spec::router()))
        .file("/etc/uplinkd/conf.d/20-uplinks.toml", UPLINKS, 0o644)
        .file(ROUTES, "# Behind two alone.\n203.0.113.4/31\nrubbish\n", 0o644)
        .file(&format!("{FOLDER}/count.nft"), &counting(""), 0o644)
}

fn write(lab: &Lab, file: &str, text: &str) {
    lab.machine.write(&format!("{FOLDER}/{file}"), text);
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
}

/// Waits until some note of the status says all this; returns the note.
#[track_caller]
fn noted(lab: &Lab, words: &[&str]) -> String {
    let found = |status: &Value| {
        let notes = status["notes"].as_array().cloned().unwrap_or_default();
        notes
            .iter()
            .filter_map(Value::as_str)
            .find(|note| words.iter().all(|w| note.contains(w)))
            .map(str::to_owned)
    };
    let status =
        lab.machine.wait_status(&format!("a note of {words:?}"), LIMIT, |status| found(status).is_some());
    found(&status).expect("as was waited for")
}

/// Waits until no note says this.
#[track_caller]
fn unnoted(lab: &Lab, words: &str) {
    lab.machine
        .wait_status(&format!("no note of {words}"), LIMIT, |s| !s["notes"].to_string().contains(words));
}

fn tables(lab: &Lab) -> String {
    lab.machine.cmd(&["nft", "list", "tables"]).ok()
}

/// Waits until the table of a fragment is there, or is not.
#[track_caller]
fn wait_table(lab: &Lab, name: &str, there: bool) {
    let line = format!("table inet uplinkd_{name}\n");
    let what = format!("{}{line:?}", if there { "" } else { "no " });
    lab.machine.wait(&what, LIMIT, || (tables(lab).contains(&line) == there).then_some(()));
}

/// How many packets the fragment has counted, by the machine's own nft: an older one cannot read every table of a newer.
fn seen(lab: &Lab) -> u64 {
    let text = lab.machine.cmd(&["nft", "list", "counter", "inet", "uplinkd_count", "seen"]).ok();
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|number| number.parse().ok()).expect("nft prints the counter")
}

/// Makes connections to one host of the internet.
#[track_caller]
fn to(ns: &Ns, host: u8) -> Shares {
    let shares = connect_many(ns, &Via::any(), 20, &[SocketAddr::from((internet4(host), ECHO))]);
    assert!(shares.failures.is_empty(), "{shares:?}");
    shares
}

/// What is counted of some connections.
#[track_caller]
fn counts(lab: &Lab) -> u64 {
    let before = seen(lab);
    assert_eq!(to(&lab.client().ns, 5).isps(), [2]);
    let more = seen(lab) - before;
    assert!(more >= 20, "{more} packets of 20 connections");
    more
}

#[test]
fn a_fragment_counts_breaks_is_mended_and_goes() {
    let lab = lab_or_skip!(spec());
    lab.machine.wait_active(2);
    wait_table(&lab, "count", true);
    println!("packets of 20 connections that the fragment counted: {}", counts(&lab));
    outlives(&lab);

    // A broken one leaves what was loaded in force, and keeps nobody else from being loaded.
    lab.machine.write(&format!("{FOLDER}/other.nft"), "chain a { counter accept; }\n");
    write(&lab, "count.nft", &counting("\ttcp dport rubbish accept"));
    let note = noted(&lab, &["/etc/uplinkd/nft.d/count.nft:5:12-18: Error: ", "stays in force"]);
    println!("note: {note}");
    wait_table(&lab, "other", true);
    counts(&lab);
    let checked = lab.machine.cmd(&["uplinkctl", "check"]);
    assert!(checked.stderr.contains("/etc/uplinkd/nft.d/count.nft:5:12-18: Error: "), "{checked:?}");
    assert!(
        checked.stderr.contains("provider.routes:3: route: rubbish is not allowed; PREFIX"),
        "{checked:?}"
    );
    assert!(lab.machine.journal("uplinkd").contains("/etc/uplinkd/nft.d/count.nft:5:"));
    write(&lab, "count.nft", "chain a { accept; }\n}\ntable inet foreign {\n");
    noted(&lab, &["/etc/uplinkd/nft.d/count.nft:2: this } has no { before it"]);
    counts(&lab);
    assert!(!tables(&lab).contains("foreign"), "{}", tables(&lab));

    write(&lab, "count.nft", &counting("\tip daddr 203.0.113.5 counter comment \"mended\""));
    lab.machine.wait("the mended one", LIMIT, || {
        let table = lab.machine.cmd(&["nft", "list", "table", "inet", "uplinkd_count"]).stdout;
        table.contains("mended").then_some(())
    });
    unnoted(&lab, "count.nft");
    counts(&lab);
    // Whoever takes it gets it back; so does who takes a rule.
    for command in ["delete table inet uplinkd_count", "flush chain inet uplinkd_count out"] {
        lab.machine.nft(command);
        lab.machine.wait(command, LIMIT, || {
            let table = lab.machine.cmd(&["nft", "list", "table", "inet", "uplinkd_count"]).stdout;
            table.contains("mended").then_some(())
        });
    }
    counts(&lab);
    lab.machine.cmd(&["rm", &format!("{FOLDER}/count.nft")]).ok();
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    wait_table(&lab, "count", false);
    wait_table(&lab, "other", true);
}

/// Neither a restart nor a death nor a reload has anything loaded anew: counters go on.
#[track_caller]
fn outlives(lab: &Lab) {
    let before = seen(lab);
    for script in ["uplinkctl reload", "systemctl restart uplinkd", "systemctl kill -s KILL uplinkd"] {
        lab.machine.sh(script).ok();
        lab.machine.wait_active(2);
        lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "10"]).ok();
        assert_eq!(seen(lab), before, "{script}");
    }
}

#[test]
fn tables_of_others_stay_and_ours_go_with_the_package() {
    let lab = lab_or_skip!(spec());
    lab.machine.nft("table inet uplinkd_mine { chain a { counter accept; }; }");
    lab.machine.wait_active(2);
    write(&lab, "mine.nft", "chain b { drop; }\n");
    noted(&lab, &["somebody else has a table inet uplinkd_mine"]);
    lab.machine.cmd(&["uplinkctl", "flush"]).ok();
    let left = tables(&lab);
    assert!(left.contains("uplinkd_mine") && !left.contains("uplinkd_count"), "{left}");
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    wait_table(&lab, "count", true);
    lab.machine.sh("apt-get -q -y remove uplinkd").ok();
    let left = tables(&lab);
    assert!(left.contains("uplinkd_mine") && !left.contains("uplinkd_count"), "{left}");
    assert!(lab.machine.cmd(&["nft", "list", "table", "inet", "uplinkd_mine"]).ok().contains("chain a"));
}

#[test]
fn what_lies_behind_one_uplink_is_reached_by_it() {
    let lab = lab_or_skip!(spec());
    lab.machine.wait_active(2);
    noted(&lab, &["/etc/uplinkd/provider.routes:3: route: rubbish is not allowed"]);
    let (client, own) = (&lab.client().ns, lab.machine.netns());
    for ns in [client, own] {
        assert_eq!((to(ns, 4).isps(), to(ns, 5).isps()), (vec![2], vec![2]));
        let others = connect_many(ns, &Via::any(), 60, &echoes4()[10..]);
        assert!(others.failures.is_empty() && others.isps() == [1, 2], "{others:?}");
    }
    // Another file: by a router that is named, and not by the other any more.
    let text = format!("203.0.113.6 via {}\n", lab.isp(2).gateway());
    lab.machine.write(ROUTES, &text);
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "10"]).ok();
    unnoted(&lab, "provider.routes");
    assert_eq!(to(client, 6).isps(), [2]);
    lab.machine.wait("no route to 203.0.113.4/31", LIMIT, || {
        let all = lab.machine.cmd(&["ip", "route", "show", "table", "all", "proto", "177"]).ok();
        (!all.contains("203.0.113.4/31") && all.contains("203.0.113.6 via")).then_some(())
    });
    // Its uplink is taken out: it goes as all else does, and comes back.
    lab.machine.cmd(&["uplinkctl", "drain", "two"]).ok();
    assert_eq!(to(client, 6).isps(), [1]);
    lab.machine.cmd(&["uplinkctl", "undrain", "two"]).ok();
    lab.machine.wait_active(2);
    assert_eq!(to(client, 6).isps(), [2]);
    lab.isps().iter().for_each(|isp| isp.not_spoofed("routes"));
}
