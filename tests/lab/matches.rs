//! What policies match beside packets: units of systemd that start, are made anew and go.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ctl::{Ctl, installed, unheld};
use crate::kit::address::{ECHO, internet4};
use crate::kit::{Lab, Spec, isp_of, lab_or_skip};

const FILE: &str = "/etc/uplinkd/conf.d/20-policies.toml";
const LIMIT: Duration = Duration::from_secs(60);

/// All goes by the first uplink unless a policy sends it by the second.
const NAMES: &str = "[[uplink]]\nmatch.interface = 'eth1'\nname = 'one'\n\n[[uplink]]\nmatch.interface = 'eth2'\nname = 'two'\ntier = 2\n\n";

fn spec(policies: &str) -> Spec {
    unheld(installed(Spec::desktop())).file(FILE, &format!("{NAMES}{policies}"), 0o644)
}

/// A service that connects again and again, and writes down when, in µs, and from which address it was seen.
fn service(lab: &Lab, file: &str, log: &str, more: &str) {
    let script = format!(
        "while :; do exec 3<>/dev/tcp/{}/{ECHO} && read -r line <&3 && echo $$ ${{EPOCHREALTIME/[.,]/}} ${{line%% *}} >>/run/{log}; \
         exec 3>&-; sleep 0.004; done",
        internet4(1)
    );
    lab.machine.write_mode(
        &format!("/usr/local/bin/{log}"),
        format!("#!/bin/bash\n{script}\n").as_bytes(),
        0o755,
    );
    let text = format!("[Service]\nExecStart=/usr/local/bin/{log}\n{more}\n");
    lab.machine.write(&format!("/etc/systemd/system/{file}"), &text);
    lab.machine.cmd(&["systemctl", "daemon-reload"]).ok();
}

/// When the last process that wrote a log made connections, and by which ISP.
fn seen(lab: &Lab, log: &str) -> Vec<(u64, u8)> {
    let text = lab.machine.sh(&format!("cat /run/{log} 2>/dev/null || true")).ok();
    let lines: Vec<Vec<_>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let process = lines.last().map(|words| words[0]);
    let of_last = lines.iter().filter(|words| words.len() == 3 && Some(words[0]) == process);
    of_last.filter_map(|words| Some((words[1].parse().ok()?, isp_of(words[2].parse().ok()?)?))).collect()
}

/// Empties a log, does something, and waits until some connections went by an ISP. Returns all.
#[track_caller]
fn until_by(lab: &Lab, log: &str, isp: u8, action: &str) -> Vec<(u64, u8)> {
    lab.machine.sh(&format!("rm -f /run/{log}; {action}")).ok();
    lab.machine.wait(&format!("{action}: {log} by ISP {isp}"), LIMIT, || {
        let all = seen(lab, log);
        (all.iter().filter(|(_, by)| *by == isp).count() >= 20).then_some(all)
    })
}

/// How many went by the first uplink ahead of the first by the second, and in which time; none did after that.
#[track_caller]
fn early(what: &str, all: &[(u64, u8)]) -> usize {
    let first = all.iter().position(|(_, isp)| *isp == 2).expect("one by ISP 2");
    let took = Duration::from_micros(all[first].0 - all[0].0);
    println!(
        "{what}: {first} connections by the default route, then, {took:?} after the first, by the policy"
    );
    assert!(all[first..].iter().all(|(_, isp)| *isp == 2), "{what}: {all:?}");
    first
}

#[track_caller]
fn stands(lab: &Lab, policy: &str, state: &str, waits_for: &[&str]) -> Value {
    lab.machine.wait_status(&format!("policy {policy}: {state}, waits for {waits_for:?}"), LIMIT, |status| {
        let all = status["policies"].as_array().cloned().unwrap_or_default();
        let one = all.into_iter().find(|one| one["name"] == policy).unwrap_or_default();
        one["ipv4"]["state"] == state && one["waits_for"] == serde_json::json!(waits_for)
    })
}

#[test]
fn units_are_followed_as_they_start_are_made_anew_and_stop() {
    let odd = r"odd\x2djob@1.service";
    let lab = lab_or_skip!(spec(&format!(
        "[[policy]]\nname = 'job'\nmatch.unit = 'job'\nuplinks = 'two'\n\
         [[policy]]\nname = 'odd'\nmatch = {{ unit = ['none.service', '{odd}'], protocol = 'tcp' }}\nuplinks = 'two'\n\
         [[policy]]\nname = 'work'\nmatch.slice = 'work'\nuplinks = 'two'\n\
         [[policy]]\nname = 'user'\nmatch.unit = '1000/sync'\nuplinks = 'two'\n"
    )));
    for (file, log, more) in [
        ("job.service", "job", ""),
        (r"odd\x2djob@.service", "odd", ""),
        ("worker.service", "worker", "Slice=work-hard.slice"),
        ("other.service", "other", ""),
        // Only for their programs.
        ("user1000.service", "user1000", ""),
        ("user1001.service", "user1001", ""),
    ] {
        service(&lab, file, log, more);
    }
    stands(&lab, "job", "waits", &["job.service"]);
    stands(&lab, "odd", "waits", &["none.service", odd]);
    let told = lab.machine.cmd(&["uplinkctl"]).ok();
    assert!(told.contains("no such unit yet"), "{told}");
    let other = until_by(&lab, "other", 1, "systemctl start other");
    // Each start makes its control group anew; so does one by its own crash.
    let starts = [
        ("started", "systemctl start job"),
        ("restarted", "systemctl restart job"),
        ("started again", "systemctl stop job; systemctl start job"),
        ("killed and started", "systemctl kill -s KILL job; systemctl start job"),
    ];
    for (what, action) in starts {
        early(what, &until_by(&lab, "job", 2, action));
        stands(&lab, "job", "used", &[]);
    }
    early("odd name", &until_by(&lab, "odd", 2, &format!("systemctl start '{odd}'")));
    stands(&lab, "odd", "used", &["none.service"]);
    // A slice that is there ahead of its programs keeps the first of them from being early.
    lab.machine.cmd(&["systemctl", "start", "work.slice"]).ok();
    stands(&lab, "work", "used", &[]);
    assert_eq!(early("slice that is there", &until_by(&lab, "worker", 2, "systemctl start worker")), 0);
    // Over a restart of the daemon nothing is lost, and what went unheard meanwhile is found.
    lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
    lab.machine.sh("rm -f /run/job /run/odd; systemctl restart job").ok();
    lab.machine.wait("job goes on without a daemon", LIMIT, || (seen(&lab, "job").len() > 20).then_some(()));
    assert!(seen(&lab, "odd").iter().all(|(_, isp)| *isp == 2), "no daemon");
    // The second uplink has to answer first, as it carries nothing else.
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    stands(&lab, "job", "used", &[]);
    for log in ["job", "odd"] {
        let all = until_by(&lab, log, 2, "true");
        assert!(all.iter().all(|(_, isp)| *isp == 2), "found by a start: {log}: {all:?}");
    }
    // A user's own manager, as a folder by hand; another's unit of the same name is none of it.
    for user in [1000, 1001] {
        lab.machine
            .sh(&format!(
                "folder=/sys/fs/cgroup/user.slice/user-{user}.slice/user@{user}.service/app.slice/sync.service; mkdir -p $folder; \
                 setsid bash -c \"echo \\$\\$ >$folder/cgroup.procs; sleep 1; exec /usr/local/bin/user{user}\" >/dev/null 2>&1 &"
            ))
            .ok();
    }
    until_by(&lab, "user1000", 2, "true");
    let others = until_by(&lab, "user1001", 1, "true");
    assert!(others.iter().all(|(_, isp)| *isp == 1), "another user's: {others:?}");
    // They go; and nobody else was ever moved.
    lab.machine.sh(&format!("systemctl stop job worker '{odd}'")).ok();
    stands(&lab, "job", "waits", &["job.service"]);
    let others = seen(&lab, "other");
    assert!(others.len() > other.len() && others.iter().all(|(_, isp)| *isp == 1), "{others:?}");
    assert!(lab.machine.cmd(&["uplinkctl"]).success());
}

#[test]
fn units_that_come_and_go_without_end_hold_nothing_up() {
    let lab = lab_or_skip!(spec("[[policy]]\nname = 'job'\nmatch.unit = 'job'\nuplinks = 'two'\n"));
    service(&lab, "job.service", "job", "");
    lab.machine.write(
        "/etc/systemd/system/flap.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/bin/true\nRestart=always\nRestartSec=30ms\n",
    );
    let more = "[[policy]]\nname = 'flap'\nmatch.unit = 'flap'\nuplinks = 'two'\n\
                [[policy]]\nname = 'job'\nmatch.unit = 'job'\nuplinks = 'two'\n";
    lab.machine.write(FILE, &format!("{NAMES}{more}"));
    lab.machine.sh("systemctl daemon-reload; uplinkctl reload; systemctl start flap").ok();
    early("beside one that flaps", &until_by(&lab, "job", 2, "systemctl start job"));
    lab.machine.wait("ten more restarts", 2 * LIMIT, || {
        let count = lab.machine.cmd(&["systemctl", "show", "-p", "NRestarts", "--value", "flap"]).ok();
        count.trim().parse::<u32>().is_ok_and(|count| count >= 10).then_some(())
    });
    let all = seen(&lab, "job");
    let first = all.iter().position(|(_, isp)| *isp == 2).expect("one by ISP 2");
    // One may be under way in the very moment in which the kernel replaces the table.
    let strays = all[first..].iter().filter(|(_, isp)| *isp != 2).count();
    println!("{strays} of {} connections went by the default route while it flapped", all.len() - first);
    assert!(strays <= 1, "while it flaps: {all:?}");
    let start = Instant::now();
    lab.isp(2).carrier(false);
    lab.machine.wait("by the other at once", LIMIT, || {
        seen(&lab, "job").last().filter(|(_, isp)| *isp == 1).map(|_| ())
    });
    println!("lost uplink left after {:?}", start.elapsed());
    lab.machine.cmd(&["systemctl", "stop", "flap"]).ok();
    stands(&lab, "flap", "waits", &["flap.service"]);
    let journal = lab.machine.journal("uplinkd");
    println!("{} loads failed", journal.matches("cgroupv2 path fails").count());
}
