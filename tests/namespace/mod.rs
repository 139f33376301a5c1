//! Network namespaces for tests: made by the test, gone with its threads, never the host's own network.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod router;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, geteuid, gettid};

/// Runs a test on a thread with a network namespace of its own, or says why it could not.
///
/// Needs root and these programs. Under CI a test that cannot run fails.
pub(crate) fn run<T: Future<Output = ()>>(
    name: &str,
    programs: &[&str],
    test: impl FnOnce() -> T + Send + 'static,
) {
    let missing = programs.iter().find(|p| Command::new(p).arg("-V").stdout(Stdio::null()).output().is_err());
    let reason = match missing {
        _ if !geteuid().is_root() => "needs root".to_owned(),
        Some(program) => format!("needs {program}"),
        None => {
            let thread = thread::spawn(move || {
                enter_new();
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
            });
            return thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    };
    println!("SKIPPED: {name}: {reason}");
    assert!(std::env::var_os("CI").is_none(), "skipped under CI: {name}: {reason}");
}

/// What a namespace runs ahead of its links where IPv6 is routed: a router whose link-local address is still
/// tentative finds no neighbours, for seconds.
pub(crate) const NO_DAD: &str =
    "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.dad_transmits=0";

/// Runs a command line of plain words in this thread's namespace; returns what it printed.
pub(crate) fn sh(line: &str) -> String {
    let mut words = line.split_whitespace();
    output(Command::new(words.next().unwrap()).args(words))
}

/// Loads nft text that is not ours.
pub(crate) fn nft(text: &str) -> String {
    output(Command::new("nft").arg(text))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn enter_new() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    sh("ip link set lo up");
}

/// A socket at an address. A program that another test starts holds all open files for a moment, between fork and exec.
pub(crate) fn bound<T>(to: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match bind(to) {
            Ok(socket) => return socket,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(2), "{to}: {error}"),
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A further namespace: a neighbour on the network.
pub(crate) struct Neighbour {
    jobs: Sender<Job>,
    /// By which `ip link … netns` finds it.
    pub(crate) tid: Pid,
}

impl Neighbour {
    /// Makes one; it ends when this value is dropped.
    pub(crate) fn new() -> Self {
        let (jobs, work) = channel::<Job>();
        let (tell, told) = channel();
        thread::spawn(move || {
            enter_new();
            tell.send(gettid()).unwrap();
            work.iter().for_each(|job| job());
        });
        Neighbour { jobs, tid: told.recv().unwrap() }
    }

    /// Runs something there and waits for it.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.jobs.send(Box::new(move || tell.send(job()).unwrap())).unwrap();
        told.recv().unwrap()
    }

    /// Runs command lines there.
    pub(crate) fn sh(&self, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        self.run(move || lines.iter().for_each(|line| drop(sh(line))));
    }
}
