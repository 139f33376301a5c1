//! Figures, printed and not judged: `make figures`.

use std::process::Stdio;
use std::time::Duration;

use crate::ctl::{Ctl, installed};
use crate::kit::{Lab, Spec, lab_or_skip, wait};

/// The middle one.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Records what the machine's kernel says of routes and rules, with its time, while something is done.
fn monitored(lab: &Lab, act: impl FnOnce()) -> Vec<(f64, String)> {
    // It ends by itself: nsenter stands between us and it.
    let mut command =
        lab.machine.command(&["timeout", "2", "ip", "-4", "-o", "-t", "monitor", "route", "rule"]);
    let monitor = command.stdout(Stdio::piped()).spawn().expect("ip runs");
    // Nothing is to be missed before it listens.
    std::thread::sleep(Duration::from_millis(100));
    act();
    let output = monitor.wait_with_output().expect("ended");
    let mut events = Vec::new();
    let mut time = 0.0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(stamp) = line.strip_prefix("Timestamp: ") {
            time = seconds_of_day(stamp);
        } else {
            events.push((time, line.to_owned()));
        }
    }
    events
}

/// `Sat Nov 21 04:42:07 2026 123456 usec`
fn seconds_of_day(stamp: &str) -> f64 {
    let words: Vec<&str> = stamp.split_whitespace().collect();
    let clock = words.iter().find(|word| word.matches(':').count() == 2).expect("a time of day");
    let clock: Vec<f64> = clock.split(':').map(|part| part.parse().expect("a number")).collect();
    let micros: f64 = words.iter().rev().nth(1).and_then(|word| word.parse().ok()).expect("microseconds");
    clock[0] * 3600.0 + clock[1] * 60.0 + clock[2] + micros / 1e6
}

/// Milliseconds from the last event that has `from` to the last one that has `to`.
fn between(events: &[(f64, String)], from: &str, to: &str) -> Option<f64> {
    let last =
        |text: &str| events.iter().filter(|(_, line)| line.contains(text)).map(|(time, _)| *time).next_back();
    Some((last(to)? - last(from)?) * 1e3)
}

#[test]
#[ignore = "prints figures and judges nothing"]
fn figures() {
    let lab = lab_or_skip!(installed(Spec::router().isp_count(4)).exclusive());
    let machine = &lab.machine;
    machine.wait_active(4);
    let moves = (0..9).filter_map(|n| {
        lab.isp(1).move_gateway(format!("192.168.1.{}", 100 + n).parse().expect("an address"));
        let events = monitored(&lab, || lab.isp(1).blip());
        let gateway = format!("default via 192.168.1.{}", 100 + n);
        between(&events, &format!("{gateway} dev eth1 proto dhcp"), &format!("{gateway} dev eth1 table"))
    });
    println!("gateway change: NetworkManager's route to our table, median {:.1} ms", median(moves.collect()));
    let comes = (0..9).filter_map(|_| {
        machine.cmd(&["nmcli", "device", "disconnect", "eth4"]).ok();
        machine.wait_active(3);
        let events = monitored(&lab, || drop(machine.cmd(&["nmcli", "device", "connect", "eth4"]).ok()));
        between(&events, "dev eth4 proto dhcp", "oif eth4")
    });
    println!("new uplink: NetworkManager's route to our last rule, median {:.1} ms", median(comes.collect()));

    machine.write(
        "/run/systemd/system/uplinkd.service.d/log.conf",
        "[Service]\nEnvironment=UPLINKD_LOG=uplinkd=debug\n",
    );
    machine.sh("systemctl daemon-reload; systemctl restart uplinkd").ok();
    machine.wait_active(4);
    for _ in 0..50 {
        machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    }
    let log = machine.journal("uplinkd");
    let rounds = log.lines().filter(|line| line.contains(" 0 changes,"));
    let rounds: Vec<f64> = rounds.filter_map(|line| millis(line.rsplit(", ").next()?)).collect();
    println!("round without changes, 4 uplinks: median {:.2} ms of {}", median(rounds.clone()), rounds.len());

    machine
        .sh("rm -r /run/systemd/system/uplinkd.service.d; systemctl daemon-reload; systemctl restart uplinkd")
        .ok();
    machine.wait_active(4);
    let pid = machine.cmd(&["systemctl", "show", "-P", "MainPID", "uplinkd"]).ok();
    let ticks = || {
        let stat = machine.read(&format!("/proc/{}/stat", pid.trim()));
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap_or("").split_whitespace().filter_map(|f| f.parse().ok()).collect();
        // utime and stime, the 14th and 15th of proc(5); the state between is no number.
        fields[10] + fields[11]
    };
    wait("start-up to be over", Duration::from_secs(10), || {
        let before = ticks();
        std::thread::sleep(Duration::from_secs(1));
        (ticks() == before).then_some(())
    });
    let before = ticks();
    std::thread::sleep(Duration::from_secs(60));
    println!("an idle minute: {} ticks of 10 ms", ticks() - before);
    let status = machine.read(&format!("/proc/{}/status", pid.trim()));
    for key in ["VmRSS", "RssAnon", "Threads"] {
        println!("{}", status.lines().find(|line| line.starts_with(key)).unwrap_or(key));
    }
    println!("{}", machine.sh("stat -c '%n %s bytes' /usr/sbin/uplinkd /usr/bin/uplinkctl").ok());
}

/// `1.234ms in all`, `456.7µs in all`
fn millis(text: &str) -> Option<f64> {
    let number = text.split_whitespace().next()?;
    match number.strip_suffix("ms") {
        Some(millis) => millis.parse().ok(),
        None => number.strip_suffix("µs")?.parse::<f64>().ok().map(|micros| micros / 1e3),
    }
}
