//! The machine: a Debian booted with its own systemd in namespaces of its own.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::{self, Cgroup};
use super::ns::Ns;
use super::process::{Daemon, Output, command, poll, run, wait};
use super::spec::{Seed, profile_path};

const BOOT: &str = include_str!("boot.sh");
const PREFIX: &str = "uplinkd-lab-";

/// A booted machine. It is killed, with everything in it, when the value goes.
#[derive(Debug)]
pub struct Machine {
    init: Pid,
    ns: Ns,
    name: String,
    dir: Scratch,
    // Killed first, then its group is removed.
    boot: Option<Daemon>,
    cgroup: Option<Cgroup>,
}

/// A directory of our own under the temporary directory.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new one, after the remains of labs whose process was killed are removed.
    #[track_caller]
    pub(super) fn new() -> Scratch {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        sweep();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        if let Err(error) = fs::create_dir(&path) {
            panic!("cannot make {}: {error}", path.display());
        }
        Scratch(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("lab: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Remove directories and groups of labs whose process is gone.
fn sweep() {
    let groups = cgroup::hierarchy().unwrap_or_default();
    for base in [std::env::temp_dir(), groups.clone()] {
        for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            let Some(owner) = owner else { continue };
            if Path::new("/proc").join(owner).exists() {
                continue;
            }
            if base == groups {
                cgroup::remove(&entry.path());
            } else {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

impl Machine {
    /// Boot `root` in `ns` and return once its systemd runs. `dir` becomes the machine's own.
    #[track_caller]
    pub(super) fn boot(root: &Path, ns: Ns, dir: Scratch, files: &[Seed]) -> Machine {
        let name = dir.name();
        let seed = dir.path().join("seed");
        for path in [&seed, &dir.path().join("mnt")] {
            fs::create_dir_all(path).expect("the machine's directory is ours");
        }
        for file in files {
            write_seed(&seed, file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        }
        let cgroup = Cgroup::new(&name, dir.path());
        let script = dir.path().join("boot.sh");
        fs::write(&script, BOOT).expect("the machine's directory is ours");
        let log = File::create(dir.path().join("console")).expect("the machine's directory is ours");
        let mut boot = Command::new("sh");
        boot.arg(&script)
            .arg("enter")
            .env("LAB_ROOT", root)
            .env("LAB_DIR", dir.path())
            .env("LAB_CGROUP", cgroup.path());
        let mut boot = Daemon::start_logged(&ns, &boot, log);
        let console = dir.path().join("console");
        let init = wait_for_init(&dir.path().join("init"), &console, &mut boot);
        Machine { init, ns, name, dir, boot: Some(boot), cgroup: Some(cgroup) }
    }

    /// Its name: that of its directory and control group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A handle on its network namespace, to open sockets in it.
    pub fn netns(&self) -> &Ns {
        &self.ns
    }

    /// The process id of its systemd on the host.
    pub fn init(&self) -> i32 {
        self.init.as_raw()
    }

    /// Run a command in the machine.
    #[track_caller]
    pub fn cmd<S: AsRef<str>>(&self, words: &[S]) -> Output {
        run(&mut self.command(words), b"")
    }

    /// Run a shell script in the machine.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        self.cmd(&["sh", "-ec", script])
    }

    /// A command that runs in the machine, for those who want to start it themselves.
    pub fn command<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let mut outer = self.elsewhere(&["--net", "--"]);
        outer.args(words.iter().map(AsRef::as_ref));
        outer
    }

    /// Start a long-lived program of the machine's file system in another place of the lab: a server that the host need
    /// not have. It ends with the returned value.
    #[track_caller]
    pub fn daemon_at<S: AsRef<str>>(&self, ns: &Ns, words: &[S]) -> Daemon {
        let mut outer = self.elsewhere(&["--"]);
        outer.args(words.iter().map(AsRef::as_ref));
        Daemon::start(ns, &outer)
    }

    /// Run a program of the machine's file system in another place of the lab.
    #[track_caller]
    pub fn cmd_at<S: AsRef<str>>(&self, ns: &Ns, words: &[S]) -> Output {
        let mut outer = self.elsewhere(&["--"]);
        outer.args(words.iter().map(AsRef::as_ref));
        ns.visit(|| run(&mut outer, b""))
    }

    fn elsewhere(&self, more: &[&str]) -> Command {
        let mut outer = Command::new("nsenter");
        outer.arg(format!("--target={}", self.init));
        outer.args(["--mount", "--pid", "--ipc", "--uts", "--cgroup"]);
        outer.args(more);
        outer.env_clear();
        outer.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        outer.env("LC_ALL", "C.UTF-8").env("container", "lab");
        outer.env("DEBIAN_FRONTEND", "noninteractive");
        outer
    }

    /// Start a long-lived process in the machine that ends with the returned value.
    #[track_caller]
    pub fn daemon<S: AsRef<str>>(&self, words: &[S]) -> Daemon {
        Daemon::start(&self.ns, &self.command(words))
    }

    /// Write a file, whole and at once, mode 644.
    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        self.write_mode(path, text.as_bytes(), 0o644);
    }

    /// Write a file, whole and at once.
    #[track_caller]
    pub fn write_mode(&self, path: &str, content: &[u8], mode: u32) {
        let script =
            r#"mkdir -p "$(dirname "$1")"; cat >"$1.lab-new"; chmod "$2" "$1.lab-new"; mv "$1.lab-new" "$1""#;
        let mode = format!("{mode:o}");
        run(&mut self.command(&["sh", "-ec", script, "sh", path, &mode]), content).ok();
    }

    /// Read a text file.
    #[track_caller]
    pub fn read(&self, path: &str) -> String {
        self.cmd(&["cat", path]).ok()
    }

    /// Copy a file of the host into the machine.
    #[track_caller]
    pub fn copy_in(&self, host: &Path, path: &str, mode: u32) {
        match fs::read(host) {
            Ok(content) => self.write_mode(path, &content, mode),
            Err(error) => panic!("cannot read {}: {error}", host.display()),
        }
    }

    /// Load nftables text with the machine's own nft: an older one of the host's may crash over what a newer one has loaded.
    #[track_caller]
    pub fn nft(&self, text: &str) {
        self.write("/root/lab.nft", text);
        self.cmd(&["nft", "-f", "/root/lab.nft"]).ok();
    }

    /// Add or replace a NetworkManager profile and have it read.
    #[track_caller]
    pub fn profile(&self, name: &str, keyfile: &str) {
        let path = profile_path(name);
        self.write_mode(&path, keyfile.as_bytes(), 0o600);
        self.cmd(&["nmcli", "connection", "load", &path]).ok();
    }

    /// Have NetworkManager activate the device's connection anew: the address goes and comes, and with it a new lease. Takes
    /// about 0.3 s. For a new lease without losing the address see [`super::Isp::blip`] and [`super::IspSpec::renew_after`]
    /// (`nmcli device reapply` asks for no new lease).
    #[track_caller]
    pub fn renew(&self, device: &str) {
        self.cmd(&["nmcli", "device", "connect", device]).ok();
    }

    /// Look every 5 ms until `look` finds something; after `limit` panic with `what` and the state of the machine's network.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
        match poll(limit, look) {
            Some(found) => found,
            None => panic!("waited {limit:?} in vain: {what}\n{}", self.network_state()),
        }
    }

    /// What the journal has of a unit.
    #[track_caller]
    pub fn journal(&self, unit: &str) -> String {
        self.cmd(&["journalctl", "--sync"]).ok();
        self.cmd(&["journalctl", "--no-pager", "-o", "short-monotonic", "-u", unit]).ok()
    }

    /// Addresses, rules and routes, for messages.
    pub fn network_state(&self) -> String {
        let script = "ip -br addr; ip rule; ip route; ip -6 rule; ip -6 route";
        self.ns.run(|| run(&mut command(&["sh", "-c", script]), b"")).stdout
    }

    /// The devices that have a default route in `main`, with its metric, IPv4.
    pub fn defaults4(&self) -> Vec<(String, u32)> {
        let text = self.ns.run(|| fs::read_to_string("/proc/thread-self/net/route"));
        let text = text.unwrap_or_default();
        let routes = text.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_default = *fields.get(1)? == "00000000" && *fields.get(7)? == "00000000";
            let device = (*fields.first()?).to_owned();
            is_default.then_some((device, fields.get(6)?.parse().ok()?))
        });
        routes.collect()
    }

    /// The devices that have a default route in any table, with its metric, IPv6.
    pub fn defaults6(&self) -> Vec<(String, u32)> {
        let text = self.ns.run(|| fs::read_to_string("/proc/thread-self/net/ipv6_route"));
        let text = text.unwrap_or_default();
        let routes = text.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let any = "0".repeat(32);
            let is_default = *fields.first()? == any && *fields.get(1)? == "00" && *fields.get(4)? != any;
            let metric = u32::from_str_radix(fields.get(5)?, 16).ok()?;
            is_default.then_some(((*fields.get(9)?).to_owned(), metric))
        });
        routes.collect()
    }

    /// Install a package of the host, with apt; what it depends on must be in the root. Returns how long it took.
    #[track_caller]
    pub fn install_deb(&self, package: &Path) -> Duration {
        let start = Instant::now();
        self.copy_in(package, "/root/install.deb", 0o644);
        self.sh("apt-get -q -y --no-install-recommends -o Dpkg::Options::=--force-confold install /root/install.deb").ok();
        start.elapsed()
    }

    /// Forget that this value ends the machine, by ending it now.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Fails only if it is gone already.
        kill(self.init, Signal::SIGKILL).ok();
        // Its parent ends once it has reaped it.
        if let Some(boot) = self.boot.take() {
            boot.finish(Duration::from_secs(5));
        }
        self.cgroup = None;
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("UPLINKD_LAB_QUIET").is_none() {
            let journal = self.command(&["journalctl", "--no-pager", "-n", "25", "-o", "short-monotonic"]);
            let journal = { journal }.output();
            let journal = journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            eprintln!("--- the machine's network\n{}", self.network_state());
            eprintln!("--- the end of its journal\n{}", journal.unwrap_or_default());
        }
        self.end();
        let _ = &self.dir;
    }
}

fn write_seed(base: &Path, seed: &Seed) -> std::io::Result<()> {
    let (Seed::File { path, .. } | Seed::Link { path, .. }) = seed;
    let path = base.join(path.trim_start_matches('/'));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match seed {
        Seed::File { text, mode, .. } => {
            fs::write(&path, text)?;
            fs::set_permissions(&path, Permissions::from_mode(*mode))
        }
        Seed::Link { target, .. } => std::os::unix::fs::symlink(target, path),
    }
}

fn wait_for_init(file: &Path, console: &Path, boot: &mut Daemon) -> Pid {
    let init = wait("the machine's init", Duration::from_secs(20), || {
        let text = fs::read_to_string(file).ok();
        if text.is_none() && !boot.running() {
            let console = fs::read_to_string(console).unwrap_or_default();
            panic!("the machine did not start:\n{console}");
        }
        text?.trim().parse().ok().map(Pid::from_raw)
    });
    let bus = PathBuf::from(format!("/proc/{init}/root/run/dbus/system_bus_socket"));
    wait("the machine's D-Bus", Duration::from_secs(30), || {
        if !boot.running() {
            let console = fs::read_to_string(console).unwrap_or_default();
            panic!("the machine died while it booted:\n{console}");
        }
        bus.exists().then_some(())
    });
    init
}
