//! The programs' command lines, as anybody can run them: no root, no daemon, no bus.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const UPLINKCTL: &str = env!("CARGO_BIN_EXE_uplinkctl");
const UPLINKD: &str = env!("CARGO_BIN_EXE_uplinkd");

/// What a command said: its exit code, standard output and standard error.
struct Said(Option<i32>, String, String);

/// Runs a command with a bus that is not there, so that nothing outside the test is ever asked.
fn run(command: &mut Command) -> Said {
    let output = command
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Said(output.status.code(), text(output.stdout), text(output.stderr))
}

fn uplinkctl(arguments: &[&str]) -> Said {
    run(Command::new(UPLINKCTL).args(arguments))
}

/// A configuration in a directory of its own, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("uplinkd-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("conf.d")).expect("a directory");
        Folder(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_left_out_is_told_by_a_check_with_its_place() {
    let folder = Folder::new("left-out");
    fs::create_dir_all(folder.0.join("nft.d")).expect("a directory");
    let list = folder.file("isp.routes", "192.0.2.0/24\ndefault\n");
    let main = folder
        .file("uplinkd.toml", &format!("[[uplink]]\nmatch.interface = \"eth1\"\nroutes = \"{list}\"\n"));
    let escape = folder.file("nft.d/escape.nft", "chain a { accept; }\n}\ntable inet foreign { }\n");
    let flush = folder.file("nft.d/flush.nft", "# All of it.\nflush ruleset\n");
    let stray = folder.file("nft.d/policy.nft", "");
    let Said(code, stdout, stderr) = uplinkctl(&["check", &main]);
    assert_eq!((code, stdout.as_str()), (Some(78), ""), "{stderr}");
    for place in [
        format!("{list}:2: route: default is not allowed; PREFIX or "),
        format!("{escape}:2: this }} has no {{ before it"),
        format!("{flush}:2: flush: a fragment is what stands inside of a table"),
        format!("{stray}: is left out; "),
    ] {
        assert!(stderr.contains(&place), "{place}: {stderr}");
    }
}

#[test]
fn every_fault_of_a_file_is_cited_with_its_place() {
    let folder = Folder::new("faults");
    let head = "[[uplink]]\nmatch.interface = \"eth1\"\n";
    for (fault, place, words) in [
        ("wieght = 2\n", "3:1", "did you mean `weight`?"),
        ("weight = \"2\"\n", "3:10", "(without quotes)"),
        ("weight = 0\n", "3:10", "a whole number from 1 to 256"),
        ("weight = 257\n", "3:10", "a whole number from 1 to 256"),
        ("weight = 99999999999999999999\n", "3:10", "99999999999999999999"),
        ("name = \"x\"\n[[uplink]]\nmatch.interface = \"eth2\"\nname = \"x\"\n", "6:8", "x is taken at"),
        ("name = \"local\"\n", "3:8", "local"),
        ("match.type = \"carrier pigeon\"\n", "3:14", "carrier pigeon"),
        ("weight = \n", "3:10", ""),
        ("[general]\n", "3:2", "no such key here"),
        ("\u{1b}[31m = 2\n", "3:1", ""),
    ] {
        let main = folder.file("uplinkd.toml", &format!("{head}{fault}"));
        let Said(code, stdout, stderr) = uplinkctl(&["check", &main]);
        assert_eq!((code, stdout.as_str()), (Some(78), ""), "{fault:?}: {stderr}");
        assert!(stderr.starts_with(&format!("uplinkctl: {main}:{place}: ")), "{fault:?}: {stderr}");
        assert!(stderr.contains(words), "{fault:?}: {stderr}");
        assert!(!stderr.contains('\u{1b}'), "the terminal is not told what a file says: {stderr:?}");
    }
    let main = folder.file("uplinkd.toml", "weight = 1\n");
    let more = folder.file("conf.d/10.toml", "tier = 1\n");
    let Said(_, _, stderr) = uplinkctl(&["check", &main]);
    let both = [main, more].iter().all(|file| stderr.contains(&format!("{file}:1:1: ")));
    assert!(both, "all files are judged at once: {stderr}");
}

#[test]
fn a_good_file_is_good() {
    let folder = Folder::new("good");
    let main = folder.file("uplinkd.toml", "[[uplink]]\nmatch.interface = \"wan7\"\nweight = 256\n");
    let Said(code, stdout, stderr) = uplinkctl(&["check", &main]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, format!("{main}: good; 1 [[uplink]] section\n"));
    let missing = format!("{main}.missing");
    for command in [&["check"][..], &["plan", "--full", "--config"]] {
        let Said(code, _, stderr) = uplinkctl(&[command, &[missing.as_str()]].concat());
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.contains("there is no such file"), "{stderr}");
    }
}

#[test]
fn a_wrong_command_line_is_told_from_a_failure() {
    for arguments in [
        &["frobnicate"][..],
        &["set"],
        &["set", "x"],
        &["nudge", "--wait", "soon"],
        &["status", "x", "y"],
        // Without --full the daemon answers, which has a configuration of its own.
        &["plan", "--config", "x"],
    ] {
        let Said(code, _, stderr) = uplinkctl(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
    }
    for assignment in
        ["weight", "weight=0", "weight=two", "wieght=2", "match=eth0", "name=a b", "=2", "metered=yes"]
    {
        let Said(code, _, stderr) = uplinkctl(&["set", "dsl", assignment]);
        assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{assignment}: {stderr}");
    }
    assert_eq!(run(Command::new(UPLINKD).arg("--frobnicate")).0, Some(2));
}

#[test]
fn without_a_bus_each_question_says_what_to_do() {
    for arguments in [
        &[][..],
        &["status", "--json"],
        &["plan"],
        &["reload"],
        &["nudge"],
        &["forget", "x"],
        &["set", "x", "tier=2"],
    ] {
        let Said(code, stdout, stderr) = uplinkctl(arguments);
        assert_eq!((code, stdout.as_str()), (Some(69), ""), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains("start it with: systemctl start"), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_whole_plan_needs_nobody() {
    let folder = Folder::new("plan");
    let main = folder.file("uplinkd.toml", "");
    let state = folder.0.join("nothing-there");
    let plan = |more: &[&str]| {
        let arguments = [&["plan", "--full", "--config", &main][..], more].concat();
        run(Command::new(UPLINKCTL)
            .args(arguments)
            .env("STATE_DIRECTORY", &state)
            .env("RUNTIME_DIRECTORY", &state))
    };
    let Said(code, stdout, stderr) = plan(&[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with("# "), "it says that there is no bus: {stdout}");
    assert!(!state.exists(), "a dry run writes nothing");
    let Said(_, json, _) = plan(&["--json"]);
    assert!(serde_json::from_str::<Vec<String>>(&json).is_ok(), "{json}");
    folder.file("uplinkd.toml", "weight = 2\n");
    let Said(code, _, stderr) = plan(&[]);
    assert!(code == Some(78) && stderr.contains(":1:1: "), "{stderr}");
}

#[test]
fn without_the_capability_the_daemon_says_so_in_one_line() {
    // Root keeps what its bounding set holds; others have nothing to drop.
    let mut command = Command::new(UPLINKD);
    if nix::unistd::geteuid().is_root() {
        command = Command::new("setpriv");
        command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", UPLINKD]);
    }
    for once in [false, true] {
        let command = if once { command.arg("--once") } else { &mut command };
        let Said(code, stdout, stderr) = run(command);
        assert_eq!((code, stdout.as_str()), (Some(77), ""), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("CAP_NET_ADMIN"), "{stderr}");
    }
}

#[test]
fn a_reader_that_goes_early_is_no_failure() {
    for script in [
        "\"$0\" completions zsh | head -c 1",
        "\"$0\" --help | head -c 1",
        "\"$0\" frobnicate 2>&1 | true",
        "\"$0\" plan 2>&1 | true",
    ] {
        let Said(_, _, stderr) = run(Command::new("sh").args(["-c", script, UPLINKCTL]));
        assert!(!stderr.contains("panicked"), "{script}: {stderr}");
    }
}
