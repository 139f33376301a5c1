//! What a lab consists of.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::isp::IspSpec;

/// Whether and from where uplinkd is installed in the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Install {
    /// Not at all.
    None,
    /// From this package, once the uplinks are up.
    Deb(PathBuf),
}

impl Install {
    /// The package that `UPLINKD_DEB` names, else the newest in build/.
    pub fn newest() -> Result<Install, String> {
        if let Some(path) = env::var_os("UPLINKD_DEB") {
            return Ok(Install::Deb(PathBuf::from(path)));
        }
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("build");
        let packages = fs::read_dir(&build).into_iter().flatten().flatten();
        let newest = packages
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with("uplinkd_") && name.ends_with(".deb")
            })
            .max_by_key(|entry| {
                let age = entry.metadata().and_then(|data| data.modified());
                age.unwrap_or(SystemTime::UNIX_EPOCH)
            });
        newest
            .map(|entry| Install::Deb(entry.path()))
            .ok_or_else(|| "no package: set UPLINKD_DEB or build one into build/".to_owned())
    }
}

/// Who manages the machine's uplinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// NetworkManager with its automatic profiles, or those given by [`Spec::profile`].
    NetworkManager,
    /// systemd-networkd with DHCP and RA on each uplink.
    Networkd,
    /// Nobody: the test configures the devices by hand.
    Nobody,
}

/// Something to put into the machine before it boots.
#[derive(Debug, Clone)]
pub(super) enum Seed {
    /// A file.
    File { path: String, text: String, mode: u32 },
    /// A symbolic link.
    Link { path: String, target: String },
}

/// What a lab consists of. Start it with [`super::lab_or_skip!`] or [`super::Lab::start`].
#[derive(Debug, Clone)]
pub struct Spec {
    pub(super) suite: String,
    pub(super) isps: Vec<IspSpec>,
    pub(super) router: bool,
    pub(super) manager: Manager,
    pub(super) files: Vec<Seed>,
    pub(super) sysctls: Vec<(String, String)>,
    pub(super) install: Install,
    pub(super) wait: bool,
    pub(super) exclusive: bool,
}

impl Spec {
    /// A desktop with two uplinks: nothing behind it.
    pub fn desktop() -> Spec {
        Spec {
            suite: env::var("UPLINKD_LAB_SUITE").unwrap_or_else(|_| "trixie".to_owned()),
            isps: vec![IspSpec::new(1), IspSpec::new(2)],
            router: false,
            manager: Manager::NetworkManager,
            files: Vec::new(),
            sysctls: Vec::new(),
            install: Install::None,
            wait: true,
            exclusive: false,
        }
    }

    /// A router with two uplinks: forwards, and has a client on `lan0`. It does not masquerade by itself.
    pub fn router() -> Spec {
        Spec { router: true, ..Spec::desktop() }
    }

    /// These ISPs instead of the two; their numbers must be different.
    pub fn isps(self, isps: impl IntoIterator<Item = IspSpec>) -> Spec {
        Spec { isps: isps.into_iter().collect(), ..self }
    }

    /// ISPs 1 to `count`, all alike but for their numbers.
    pub fn isp_count(self, count: u8) -> Spec {
        self.isps((1..=count).map(IspSpec::new))
    }

    /// Have every ISP announce IPv6.
    pub fn ipv6(self) -> Spec {
        let isps = self.isps.iter().cloned().map(IspSpec::ipv6).collect();
        Spec { isps, ..self }
    }

    /// The Debian release: a root of it must have been built by `mkroot`.
    pub fn suite(self, suite: &str) -> Spec {
        Spec { suite: suite.to_owned(), ..self }
    }

    /// Who manages the uplinks.
    pub fn manager(self, manager: Manager) -> Spec {
        Spec { manager, ..self }
    }

    /// A file in the machine, there before it boots.
    pub fn file(mut self, path: &str, text: &str, mode: u32) -> Spec {
        self.files.push(Seed::File { path: path.to_owned(), text: text.to_owned(), mode });
        self
    }

    /// A symbolic link in the machine, there before it boots; to /dev/null it masks a unit.
    pub fn link(mut self, path: &str, target: &str) -> Spec {
        self.files.push(Seed::Link { path: path.to_owned(), target: target.to_owned() });
        self
    }

    /// A NetworkManager keyfile profile, there before boot. Without profiles NetworkManager makes its automatic ones.
    pub fn profile(self, name: &str, keyfile: &str) -> Spec {
        self.file(&profile_path(name), keyfile, 0o600)
    }

    /// A network sysctl of the machine, set before boot.
    pub fn sysctl(mut self, key: &str, value: &str) -> Spec {
        self.sysctls.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Install uplinkd once the uplinks are up.
    pub fn install(self, install: Install) -> Spec {
        Spec { install, ..self }
    }

    /// Do not wait until every uplink with DHCP or RA has its default route.
    pub fn no_wait(self) -> Spec {
        Spec { wait: false, ..self }
    }

    /// Run while no other lab does: for tests that measure.
    pub fn exclusive(self) -> Spec {
        Spec { exclusive: true, ..self }
    }
}

/// Where NetworkManager keeps the profile `name`.
pub(super) fn profile_path(name: &str) -> String {
    format!("/etc/NetworkManager/system-connections/{name}.nmconnection")
}

/// A keyfile that takes over `device` with DHCP and RA; `more` adds sections or keys to the last one, `[ipv4]`.
pub fn profile_auto(name: &str, device: &str, more: &str) -> String {
    format!(
        "[connection]\nid={name}\ntype=ethernet\ninterface-name={device}\n\n[ipv6]\nmethod=auto\n\n[ipv4]\nmethod=auto\n{more}\n"
    )
}
