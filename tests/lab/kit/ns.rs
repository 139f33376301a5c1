//! Network namespaces without names, mounts or holder processes: a namespace lives as long as a handle on it.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};

use super::process::{Daemon, Output, command, run};

/// A handle on a network namespace; clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Ns {
    name: Arc<str>,
    file: Arc<File>,
}

impl Ns {
    /// A new namespace with nothing but its loopback device, which is up. The name is for messages only.
    #[track_caller]
    pub fn new(name: &str) -> Ns {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let file = File::open("/proc/thread-self/ns/net")?;
            Ok::<_, std::io::Error>(file)
        })
        .join();
        let file = match made {
            Ok(Ok(file)) => file,
            Ok(Err(error)) => panic!("cannot make the network namespace of {name}: {error}"),
            Err(panic) => resume_unwind(panic),
        };
        let ns = Ns { name: name.into(), file: Arc::new(file) };
        for key in [
            "net.ipv6.conf.all.accept_dad",
            "net.ipv6.conf.default.accept_dad",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.conf.default.rp_filter",
        ] {
            ns.sysctl(key, "0");
        }
        ns.ip("link set lo up");
        ns
    }

    /// A handle on one that somebody else made.
    #[track_caller]
    pub fn open(name: &str, path: &Path) -> Ns {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Ns { name: name.into(), file: Arc::new(file) }
    }

    /// What it was called when it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path by which `ip … netns PATH` and `nsenter --net=PATH` find it, for as long as this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// The number by which /proc/PID/ns/net names it.
    pub fn inode(&self) -> u64 {
        self.file.metadata().map(|data| data.ino()).unwrap_or(0)
    }

    /// Move the calling thread into the namespace, for good. Sockets that it opens from now on live there.
    #[track_caller]
    pub fn enter(&self) {
        if let Err(error) = setns(&*self.file, CloneFlags::CLONE_NEWNET) {
            panic!("cannot enter the network namespace of {}: {error}", self.name);
        }
    }

    /// Do `work` inside the namespace on the calling thread, which is back where it was afterwards: a thread that stayed
    /// would keep the namespace alive.
    #[track_caller]
    pub fn visit<T>(&self, work: impl FnOnce() -> T) -> T {
        let file = File::open("/proc/thread-self/ns/net").expect("a thread has a namespace");
        let home = Ns { name: "the visitor".into(), file: Arc::new(file) };
        self.enter();
        let done = work();
        home.enter();
        done
    }

    /// Run `work` on a thread inside the namespace and hand back what it returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Start a thread that lives inside the namespace.
    #[track_caller]
    pub fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let ns = self.clone();
        thread::Builder::new()
            .name(format!("lab {}", self.name))
            .stack_size(256 * 1024)
            .spawn(move || {
                ns.enter();
                drop(ns);
                work()
            })
            .expect("a thread can be started")
    }

    /// Run a command inside the namespace (in the host's file system).
    #[track_caller]
    pub fn cmd<S: AsRef<str> + Sync>(&self, words: &[S]) -> Output {
        self.run(|| run(&mut command(words), b""))
    }

    /// Run a shell script inside the namespace (in the host's file system).
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        self.cmd(&["sh", "-ec", script])
    }

    /// Run `ip` commands, one a line, without the leading word; all must succeed.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        let output = self.run(|| run(&mut command(&["ip", "-batch", "-"]), lines.as_bytes()));
        assert!(output.success(), "in {}: {output}for the lines\n{lines}", self.name);
    }

    /// Load nftables text; it must load.
    #[track_caller]
    pub fn nft(&self, text: &str) {
        let output = self.run(|| run(&mut command(&["nft", "-f", "-"]), text.as_bytes()));
        assert!(output.success(), "in {}: {output}for the text\n{text}", self.name);
    }

    /// How many packets a named counter of a table has seen.
    #[track_caller]
    pub fn counter(&self, table: &str, name: &str) -> u64 {
        let command: Vec<&str> =
            ["nft", "list", "counter"].into_iter().chain(table.split(' ')).chain([name]).collect();
        let text = self.cmd(&command).ok();
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|number| number.parse().ok()).expect("nft prints the counter")
    }

    /// Write a network sysctl of the namespace; dots or slashes, slashes where a device's name has dots.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = sysctl_path(key);
        if let Err(error) = self.run(|| fs::write(&path, value)) {
            panic!("in {}: cannot write {value} to {path}: {error}", self.name);
        }
    }

    /// Read a network sysctl of the namespace.
    #[track_caller]
    pub fn sysctl_read(&self, key: &str) -> String {
        let path = sysctl_path(key);
        match self.run(|| fs::read_to_string(&path)) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => panic!("in {}: cannot read {path}: {error}", self.name),
        }
    }

    /// Start a process inside the namespace that ends with the returned value.
    #[track_caller]
    pub fn daemon(&self, command: &Command) -> Daemon {
        Daemon::start(self, command)
    }
}

fn sysctl_path(key: &str) -> String {
    let key = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    format!("/proc/sys/{key}")
}
