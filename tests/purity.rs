//! The border of the pure core, and what no source file may do.
//!
//! What can be decided from values is pure: it names no clock, no file, no socket, no task. Comments may.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

use std::fs;
use std::path::{Path, PathBuf};

/// What a pure file must not name, as it would stand in code.
const IMPURE: [&str; 27] = [
    "async fn",
    "async move",
    "async {",
    ".await",
    "futures_util",
    "Instant::now",
    "netlink",
    "nix::",
    "rand::",
    "rtnetlink",
    "std::env",
    "std::fs",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "std::sync",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "thread_local!",
    "tokio",
    "tracing",
    "UdpSocket",
    "UnixStream",
    "zbus",
    "crate::kernel",
];

/// Outside of src/core: those of the configuration that never touch a file, the daemon's pace, who fights it, and the status.
const PURE: [&str; 18] = [
    "config/keys.rs",
    "config/matcher.rs",
    "config/parse.rs",
    "config/parse/policy.rs",
    "config/parse/routes.rs",
    "config/routes.rs",
    "config/policy.rs",
    "config/problem.rs",
    "config/settings.rs",
    "daemon/contest.rs",
    "daemon/pace.rs",
    "sources/dhcp.rs",
    "sources/networkd/decode.rs",
    "sources/networkd/network.rs",
    "status.rs",
    "status/quota.rs",
    "status/policy.rs",
    "status/traffic.rs",
];

/// No file is longer; most should be far shorter.
const LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file: its path below src, and its text.
fn sources() -> Vec<(String, String)> {
    let (mut folders, mut files) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The lines of a text that are neither comments nor tests, by number. The tests of a file stand at its end; a module
/// of its own for them can be anywhere.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = text.lines().zip(1..);
    let mut code = Vec::new();
    while let Some((line, at)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push((at, line.split("//").next().unwrap_or_default()));
        } else if !lines.next().is_some_and(|(module, _)| module.ends_with(';')) {
            break;
        }
    }
    code
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/") || name == "config/folder.rs"
}

fn violations(pure: impl Fn(&str) -> bool, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| pure(name) && !is_test(name)) {
        for (at, line) in code(text) {
            let named = words.iter().filter(|word| line.contains(*word));
            found.extend(named.map(|word| format!("src/{name}:{at}: {word}: {}", line.trim())));
        }
    }
    found
}

#[test]
fn the_core_is_pure() {
    for file in PURE {
        assert!(root().join(file).is_file(), "src/{file} has gone: take it off the list");
    }
    let pure = |name: &str| name.starts_with("core/") || name == "core.rs" || PURE.contains(&name);
    let found = violations(pure, &IMPURE);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn nothing_panics_on_purpose() {
    let found = violations(|_| true, &[".unwrap()", "panic!(", "todo!(", "unimplemented!(", "dbg!("]);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn files_are_short() {
    let lines = |text: &str| text.lines().count();
    let long: Vec<String> = (sources().iter())
        .filter(|(_, text)| lines(text) > LINES)
        .map(|(name, text)| format!("src/{name}: {} lines, of which {LINES} are allowed", lines(text)))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

/// The check itself: it sees code, and neither comments nor tests.
#[test]
fn the_check_sees_code_alone() {
    let text = "use std::fmt; // tokio\n/// std::fs\n#[cfg(test)]\nmod folder;\nlet now = Instant::now();\n#[cfg(test)]\nmod tests { zbus }\n";
    let seen: Vec<_> = code(text).iter().map(|(at, line)| (*at, line.trim())).collect();
    assert_eq!(seen, [(1, "use std::fmt;"), (2, ""), (5, "let now = Instant::now();")]);
}
