//! Every folder of tests/scenarios, each a machine that a network engineer may have before them.
//!
//! `config.toml` is the configuration and `observed.txt` the machine as `ip` and `nmcli` show it (the form is told in
//! tests/support/text.rs). `plan.txt` is what uplinkd makes of it: its uplinks, its notes, and its changes from a
//! kernel that has nothing of ours yet. Where there is a `before.txt`, uplinkd has been at work on that first, and
//! the changes are those of the next round. `BLESS=1 cargo test --test scenarios` rewrites every `plan.txt`.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

mod support;

use std::fs;
use std::panic::catch_unwind;

use support::scenario::{self, Scenario};

#[test]
fn every_scenario_is_planned_as_written() {
    let bless = std::env::var_os("BLESS").is_some();
    let failures: Vec<String> = scenario::all().iter().filter_map(|s| failure(s, bless)).collect();
    assert!(failures.is_empty(), "{}\n{} scenarios differ", failures.join("\n"), failures.len());
}

/// What is wrong with a scenario.
fn failure(scenario: &Scenario, bless: bool) -> Option<String> {
    let Scenario { name, folder, .. } = scenario;
    let file = folder.join("plan.txt");
    // Why, the panic's own message has told already.
    let Ok(found) = catch_unwind(|| scenario.run()) else { return Some(format!("{name}: see above")) };
    if bless {
        fs::write(file, found).unwrap();
        return None;
    }
    let wanted = fs::read_to_string(file).unwrap_or_default();
    (found != wanted).then(|| format!("{name}:\n{}", differences(&wanted, &found)))
}

/// The lines that are only in one of two texts; where none is, their order differs.
fn differences(wanted: &str, found: &str) -> String {
    let only = |sign: char, a: &str, b: &str| -> String {
        a.lines()
            .filter(|line| !b.lines().any(|l| l == *line))
            .map(|line| format!("{sign} {line}\n"))
            .collect()
    };
    let text = only('-', wanted, found) + &only('+', found, wanted);
    if text.is_empty() { format!("the order differs; found:\n{found}") } else { text }
}
