//! The whole lab: put together, waited for, taken apart.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::internet::Internet;
use super::isp::Isp;
use super::machine::{Machine, Scratch};
use super::ns::Ns;
use super::process::{command, run};
use super::spec::{Install, Manager, Seed, Spec};

/// How long uplinks may take to get their leases and advertisements.
const LEASES: Duration = Duration::from_secs(30);

/// A running lab. Everything in it ends with the value.
#[derive(Debug)]
pub struct Lab {
    /// The machine under test.
    pub machine: Machine,
    /// The host behind the machine, where that is a router.
    pub client: Option<Client>,
    /// From the start to a machine with D-Bus.
    pub booted: Duration,
    /// From the start to default routes on every uplink.
    pub ready: Duration,
    isps: Vec<Isp>,
    /// Where the flows go.
    pub internet: Internet,
    _dir: Scratch,
    _turn: Flock<File>,
}

/// The LAN behind a router: one host with many addresses.
#[derive(Debug)]
pub struct Client {
    /// Where it lives: `lan0` with 10.77.0.10 to 10.77.0.29, default route to the machine.
    pub ns: Ns,
}

impl Lab {
    /// Build what `spec` describes. Panics where something fails; see [`super::lab_or_skip!`] for machines that have no lab.
    #[track_caller]
    pub fn start(spec: Spec) -> Lab {
        let turn = turn(spec.exclusive);
        let start = Instant::now();
        let root = root(&spec.suite).unwrap_or_else(|reason| panic!("{reason}"));
        let dir = Scratch::new();
        let ns = Ns::new("machine");
        let highest = spec.isps.iter().map(|isp| isp.number()).max().unwrap_or(0);
        let internet = Internet::start(highest);
        let isps: Vec<Isp> =
            spec.isps.iter().map(|isp| Isp::start(isp.clone(), &internet, &ns, dir.path(), &root)).collect();
        let client = spec.router.then(|| Client::start(&ns));
        if spec.router {
            ns.sysctl("net.ipv4.ip_forward", "1");
            ns.sysctl("net.ipv6.conf.all.forwarding", "1");
        }
        for (key, value) in &spec.sysctls {
            ns.sysctl(key, value);
        }
        let mut files = seeds(&spec);
        files.extend(spec.files.iter().cloned());
        let machine = Machine::boot(&root, ns, Scratch::new(), &files);
        let mut lab = Lab {
            booted: start.elapsed(),
            ready: Duration::ZERO,
            machine,
            client,
            isps,
            internet,
            _dir: dir,
            _turn: turn,
        };
        if spec.wait && spec.manager != Manager::Nobody {
            lab.wait_for_uplinks(&spec);
        }
        lab.ready = start.elapsed();
        println!("lab: D-Bus after {:.0?}, uplinks after {:.0?}", lab.booted, lab.ready);
        if let Install::Deb(package) = &spec.install {
            let took = lab.machine.install_deb(package);
            println!("lab: {} installed in {took:?}", package.display());
        }
        lab
    }

    /// ISP `number`, from 1.
    #[track_caller]
    pub fn isp(&self, number: u8) -> &Isp {
        let found = self.isps.iter().find(|isp| isp.number() == number);
        found.unwrap_or_else(|| panic!("the lab has no ISP {number}"))
    }

    /// All ISPs.
    pub fn isps(&self) -> &[Isp] {
        &self.isps
    }

    /// The host behind the router.
    #[track_caller]
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("only Spec::router() has a client")
    }

    /// Every namespace of the lab.
    pub fn namespaces(&self) -> Vec<Ns> {
        let mut all = vec![self.machine.netns().clone(), self.internet.ns.clone()];
        all.extend(self.isps.iter().flat_map(Isp::namespaces));
        all.extend(self.client.iter().map(|client| client.ns.clone()));
        all
    }

    #[track_caller]
    fn wait_for_uplinks(&self, spec: &Spec) {
        for isp in &spec.isps {
            let device = format!("eth{}", isp.number());
            let is_ours =
                |routes: Vec<(String, u32)>| routes.iter().any(|(name, _)| *name == device).then_some(());
            if isp.has_dhcp() {
                let what = format!("an IPv4 default route via {device}");
                self.machine.wait(&what, LEASES, || is_ours(self.machine.defaults4()));
            }
            if isp.has_ipv6() {
                let what = format!("an IPv6 default route via {device}");
                self.machine.wait(&what, LEASES, || is_ours(self.machine.defaults6()));
            }
        }
        if spec.router && spec.manager != Manager::Nobody {
            // Which one of IPv6 is the test's: some delegate it.
            let list = ["ip", "-o", "address", "show", "dev", "lan0", "scope", "global", "-tentative"];
            let is_there = |text: &str| text.contains(" 10.77.0.1/24 ") && text.contains(" inet6 ");
            self.machine.wait("the LAN's addresses", LEASES, || {
                is_there(&self.machine.cmd(&list).stdout).then_some(())
            });
        }
    }
}

impl Client {
    fn start(machine: &Ns) -> Client {
        let ns = Ns::new("client");
        let mut lines = format!(
            "link add lan0 type veth peer name lan0 address 02:77:00:00:00:fe netns {}\nlink set lan0 up\n",
            machine.path()
        );
        for n in 10..30 {
            lines += &format!("addr add 10.77.0.{n}/24 dev lan0\n");
        }
        lines += "addr add fd77::10/64 dev lan0 nodad\n";
        lines += "route add default via 10.77.0.1\nroute add default via fd77::1\n";
        ns.ip(&lines);
        Client { ns }
    }
}

/// What the machine is told about its network before it boots.
fn seeds(spec: &Spec) -> Vec<Seed> {
    let mut lab = Spec { files: Vec::new(), ..spec.clone() };
    let units = "/etc/systemd/system";
    match spec.manager {
        Manager::NetworkManager => {
            lab = lab.file(
                "/etc/NetworkManager/conf.d/lab.conf",
                "[main]\nauth-polkit=root-only\n\n[connectivity]\nenabled=false\n",
                0o644,
            );
            if spec.router {
                let lan = "[connection]\nid=lan\ntype=ethernet\ninterface-name=lan0\n\n\
                           [ipv4]\nmethod=manual\naddress1=10.77.0.1/24\n\n\
                           [ipv6]\nmethod=manual\naddress1=fd77::1/64\n";
                lab = lab.profile("lan", lan);
            }
        }
        Manager::Networkd => {
            let wanted = format!("{units}/multi-user.target.wants/systemd-networkd.service");
            lab = lab
                .link(&format!("{units}/NetworkManager.service"), "/dev/null")
                .link(&wanted, "/usr/lib/systemd/system/systemd-networkd.service");
            for isp in &spec.isps {
                let number = isp.number();
                let text = format!(
                    "[Match]\nName=eth{number}\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=yes\n\n\
                     [DHCPv4]\nRouteMetric={}\n",
                    1023 + u32::from(number)
                );
                lab = lab.file(&format!("/etc/systemd/network/eth{number}.network"), &text, 0o644);
            }
            if spec.router {
                let text = "[Match]\nName=lan0\n\n[Network]\nAddress=10.77.0.1/24\nAddress=fd77::1/64\nIPv6AcceptRA=no\n";
                lab = lab.file("/etc/systemd/network/lan0.network", text, 0o644);
            }
        }
        Manager::Nobody => lab = lab.link(&format!("{units}/NetworkManager.service"), "/dev/null"),
    }
    lab.files
}

/// Labs run beside each other, but for one that measures: it runs alone, also where several processes have labs.
fn turn(exclusive: bool) -> Flock<File> {
    let path = std::env::temp_dir().join("uplinkd-lab.turn");
    let file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (how, at_once) = match exclusive {
        true => (FlockArg::LockExclusive, FlockArg::LockExclusiveNonblock),
        false => (FlockArg::LockShared, FlockArg::LockSharedNonblock),
    };
    let waited = Flock::lock(file, at_once).or_else(|(file, _)| {
        eprintln!("lab: waits until another lab has ended");
        Flock::lock(file, how)
    });
    match waited {
        Ok(turn) => turn,
        Err((_, error)) => panic!("cannot lock {}: {error}", path.display()),
    }
}

/// The cached root of a suite, or why there is none.
fn root(suite: &str) -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/mkroot");
    let output = run(&mut command(&["bash", &script.to_string_lossy(), "--where", suite]), b"");
    if output.success() {
        Ok(PathBuf::from(output.stdout.trim()))
    } else {
        Err(output.stderr.trim().to_owned())
    }
}

/// Whether a lab can run here, or why not.
pub fn available(spec: &Spec) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    for tool in ["nft", "dnsmasq", "ip", "nsenter", "unshare", "setpriv"] {
        let found = Command::new(tool).arg("--version").output();
        let missing = found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
        if missing {
            return Err(format!("{tool} is not installed"));
        }
    }
    root(&spec.suite).map(drop)
}

/// Say that a test was skipped, past the harness that hides what tests print; under `CI` fail instead.
#[track_caller]
pub fn skipped(place: &str, reason: &str) {
    let name = place.strip_suffix("::here").unwrap_or(place);
    assert!(std::env::var_os("CI").is_none(), "{name} cannot run: {reason}");
    writeln!(std::io::stderr().lock(), "SKIPPED: {name}: {reason}").ok();
}
