//! Programs, and that nothing is left of a question that is given up.

use std::path::Path;
use std::time::Duration;

use uplinkd::probes::{Way, ask};

use super::{LONG, SHORT, run};

fn descriptors() -> usize {
    Path::new("/proc/thread-self/fd").read_dir().unwrap().count()
}

/// Processes with this in their command line.
fn processes(word: &str) -> usize {
    let lines = Path::new("/proc").read_dir().unwrap().flatten();
    lines
        .filter(|entry| {
            std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(word))
        })
        .count()
}

fn script(name: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    format!("command:/bin/sh {}", path.display())
}

#[test]
fn programs_are_run_and_none_is_left() {
    run("programs_are_run_and_none_is_left", |world| async move {
        let way = "test \"$(env | grep -c UPLINKD_)\" = 5 -a \"$UPLINKD_UPLINK $UPLINKD_DEVICE $UPLINKD_FAMILY \
                   $UPLINKD_GATEWAY $UPLINKD_MARK\" = 'fibre e0 ipv4 192.0.2.1 16777216' -a -z \"$HOME\"";
        world.answered(&script("env", way)).await;
        world
            .failed(
                &script("status", "echo out; echo; echo >&2 '\u{1b}[31mwhy'; echo >&2 more; exit 3"),
                LONG,
                "exit status 3: [31mwhy",
            )
            .await;
        world.failed(&script("signal", "kill -9 $$"), LONG, "killed by signal 9").await;
        world.failed("command:/nonexistent", LONG, "cannot run").await;
        world.failed(&script("hang", "sleep 7771 & sleep 7771"), SHORT, "did not end within 300ms").await;
        world
            .failed(
                &script("flood", "sleep 7771 & while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"),
                LONG,
                "4 KiB",
            )
            .await;
        // Children that hold the pipes, in the group and outside of it.
        world.answered(&script("fork", "sleep 7771 & exit 0")).await;
        world.answered(&script("escape", "setsid sleep 1.5 & exit 0")).await;
        let hang = script("dropped", "sleep 7771 & sleep 7771");
        let asked = world.ask(&hang, LONG);
        assert!(tokio::time::timeout(SHORT, asked).await.is_err());
        tokio::time::sleep(SHORT).await;
        assert_eq!(processes("7771"), 0);
        let own = format!("/proc/{}/task", std::process::id());
        let children = std::fs::read_dir(own).unwrap().flatten();
        let children: String =
            children.flat_map(|task| std::fs::read_to_string(task.path().join("children"))).collect();
        let zombie =
            |id: &&str| std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name == "sh\n");
        assert_eq!(children.split_whitespace().filter(zombie).count(), 0, "{children}");
    });
}

#[test]
fn a_dropped_question_leaves_nothing_open() {
    run("a_dropped_question_leaves_nothing_open", |world| async move {
        // Of the other tests' descriptors nothing is to be seen.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
        // What the runtime opens on first use stays.
        world.ask("arp", LONG).await;
        world.ask(&script("none", "exit 0"), LONG).await;
        let before = descriptors();
        for probe in
            ["icmp:192.0.2.9", "tcp:192.0.2.9:80", "dns:192.0.2.9", "http://x.example/", "https://192.0.2.9/"]
        {
            let asked = world.ask(probe, LONG);
            assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err(), "{probe}");
            assert_eq!(descriptors(), before, "{probe}");
        }
        let nobody = Way { gateway: Some("192.0.2.9".parse().unwrap()), ..world.way.clone() };
        let arp = "arp".parse().unwrap();
        assert!(tokio::time::timeout(SHORT, ask(&arp, &nobody, LONG)).await.is_err());
        assert_eq!(descriptors(), before, "arp");
    });
}
