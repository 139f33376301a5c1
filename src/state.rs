//! The daemon's few files: the memory of slots, the names of the tables, the lock.
//!
//! Decides what is kept where and how it survives a crash; not what is in it.

mod quotas;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;

use crate::core::balance::{Directions, KeptChoices, Rate};
use crate::core::health::Manual;
use crate::core::layout::Slot;
use crate::core::net::IfIndex;
use crate::core::noted::Noted;
use crate::core::quota::Place;
use crate::core::slots::Slots;
pub use quotas::{Counted, load_quotas, save_quotas};

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Directories {
    /// Survives a reboot: `/var/lib/uplinkd`, or systemd's `STATE_DIRECTORY`.
    pub state: PathBuf,
    /// Survives a restart: `/run/uplinkd`, or systemd's `RUNTIME_DIRECTORY`.
    pub runtime: PathBuf,
}

impl Directories {
    /// As systemd says (systemd.exec(5)), else the usual places.
    pub fn from_environment() -> Self {
        let dir =
            |key, usual: &str| std::env::var_os(key).map_or_else(|| PathBuf::from(usual), PathBuf::from);
        Directories {
            state: dir("STATE_DIRECTORY", "/var/lib/uplinkd"),
            runtime: dir("RUNTIME_DIRECTORY", "/run/uplinkd"),
        }
    }

    /// Makes them, for when it was not systemd that started us.
    pub fn create(&self) -> Result<(), Error> {
        [&self.state, &self.runtime]
            .into_iter()
            .try_for_each(|dir| fs::create_dir_all(dir).map_err(Error::of("make", dir)))
    }

    fn slots(&self) -> PathBuf {
        self.state.join("slots.json")
    }

    fn capacities(&self) -> PathBuf {
        self.state.join("capacities.json")
    }

    fn choices(&self) -> PathBuf {
        self.runtime.join("choices.json")
    }

    fn quotas(&self, place: Place) -> PathBuf {
        match place {
            Place::Memory => self.runtime.join("quotas.json"),
            Place::Disk => self.state.join("quotas.json"),
        }
    }

    fn manual(&self) -> PathBuf {
        self.runtime.join("manual.json")
    }

    fn unasked(&self) -> PathBuf {
        self.runtime.join("unasked.json")
    }

    /// Which instance of systemd-networkd has read its settings.
    pub fn networkd(&self) -> PathBuf {
        self.runtime.join("networkd")
    }

    /// The remembered originals of sysctls.
    pub fn originals(&self) -> PathBuf {
        self.runtime.join("sysctls.json")
    }
}

/// What can go wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file failed.
    #[error("{what} {}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// Another instance runs.
    #[error("another uplinkd is running (it holds {})", .0.display())]
    Locked(PathBuf),
}

impl Error {
    fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, path: path.to_owned(), source }
    }
}

/// The lock that one instance holds for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its effect")] Flock<File>);

/// How long another instance is waited for: one that was started by a hook is done by then.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

impl Lock {
    /// Takes it, or says who has it.
    pub async fn take(dirs: &Directories) -> Result<Self, Error> {
        let path = dirs.runtime.join("lock");
        let deadline = Instant::now() + LOCK_LIMIT;
        let mut file = open_lock(&path).map_err(Error::of("open", &path))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Lock(lock)),
                Err((_, nix::Error::EWOULDBLOCK)) if Instant::now() >= deadline => {
                    return Err(Error::Locked(path));
                }
                Err((again, nix::Error::EWOULDBLOCK)) => file = again,
                Err((_, error)) => return Err(Error::of("lock", &path)(error.into())),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Opens the lock for its owner alone, as whoever can open it can keep us from starting; what root makes is given to
/// the directory's owner, who is the daemon's user.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Root opens it in a directory of the daemon's user, and gives it away below.
    options.custom_flags(nix::libc::O_NOFOLLOW);
    let open = || options.open(path);
    let file = open().or_else(|error| match error.kind() {
        // In a directory of ours, yet another's: left by somebody's hand, as root lets nothing of the kind stay.
        ErrorKind::PermissionDenied => fs::remove_file(path).and_then(|()| open()),
        _ => Err(error),
    })?;
    if nix::unistd::geteuid().is_root() {
        let owner = fs::metadata(path.with_file_name(""))?;
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(file)
}

/// What became of the memory of slots.
#[derive(Debug)]
pub enum Memory {
    /// It was read.
    Known(Slots),
    /// There was none.
    Blank,
    /// It was not readable and now lies at this place.
    SetAside(PathBuf, String),
}

/// Reads the memory of slots.
pub fn load_slots(dirs: &Directories) -> Result<Memory, Error> {
    let path = dirs.slots();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Memory::Blank),
        Err(error) => return Err(Error::of("read", &path)(error)),
    };
    match serde_json::from_slice::<Slots>(&bytes).map_err(|e| e.to_string()).and_then(Slots::checked) {
        Ok(slots) => Ok(Memory::Known(slots)),
        Err(why) => Ok(Memory::SetAside(set_aside(&path)?, why)),
    }
}

/// The memory of slots as far as it can be read, for somebody who only looks.
pub fn peek_slots(dirs: &Directories) -> Slots {
    let read: Slots = read_json(&dirs.slots());
    read.checked().unwrap_or_default()
}

/// Moves away what cannot be read, so that it is not written over; returns where it lies now.
fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let aside = path.with_extension("json.corrupt");
    fs::rename(path, &aside).map_err(Error::of("set aside", path))?;
    Ok(aside)
}

/// Writes the memory of slots.
pub fn save_slots(dirs: &Directories, slots: &Slots) -> Result<(), Error> {
    write_json(&dirs.slots(), serde_json::to_vec_pretty(slots))
}

/// The highest rates that uplinks were seen to carry. What cannot be read is learned again.
pub fn load_learned(dirs: &Directories) -> Noted<Directions<Rate>> {
    read_json(&dirs.capacities())
}

/// Writes the highest rates down.
pub fn save_learned(dirs: &Directories, learned: &Noted<Directions<Rate>>) -> Result<(), Error> {
    write_json(&dirs.capacities(), serde_json::to_vec_pretty(learned))
}

/// Whom methods had chosen when we last ran. A file that cannot be read tells of nobody.
pub fn load_choices(dirs: &Directories) -> KeptChoices {
    read_json(&dirs.choices())
}

/// Writes down whom methods have chosen, so that a restart moves nothing.
pub fn save_choices(dirs: &Directories, choices: &KeptChoices) -> Result<(), Error> {
    write_json(&dirs.choices(), serde_json::to_vec(choices))
}

/// What was decided by hand since the machine was started. A file that cannot be read decides nothing.
pub fn load_manual(dirs: &Directories) -> BTreeMap<Slot, Manual> {
    read_json(&dirs.manual())
}

/// Writes what was decided by hand.
pub fn save_manual(dirs: &Directories, manual: &BTreeMap<Slot, Manual>) -> Result<(), Error> {
    write_json(&dirs.manual(), serde_json::to_vec(manual))
}

/// The links that we had systemd-resolved not ask, by index: neither outlives a reboot. A file that cannot be read tells
/// of none.
pub fn load_unasked(dirs: &Directories) -> BTreeSet<IfIndex> {
    read_json::<Vec<u32>>(&dirs.unasked()).into_iter().map(IfIndex).collect()
}

/// Writes down the links that we have systemd-resolved not ask.
pub fn save_unasked(dirs: &Directories, links: &BTreeSet<IfIndex>) -> Result<(), Error> {
    let links: Vec<u32> = links.iter().map(|index| index.0).collect();
    write_json(&dirs.unasked(), serde_json::to_vec(&links))
}

/// Writes the names of the tables for iproute2; `/etc/iproute2/rt_tables.d/uplinkd.conf` is a link to this file.
pub fn save_table_names(dirs: &Directories, slots: &Slots) -> Result<(), Error> {
    let path = dirs.runtime.join("rt_tables.conf");
    let text = slots.table_names(&foreign_table_names(&path));
    if fs::read(&path).is_ok_and(|now| now == text.as_bytes()) {
        return Ok(());
    }
    replace(&path, text.as_bytes())
}

/// The names that iproute2's other files give to tables (iproute2's lib/rt_names.c says where it looks).
fn foreign_table_names(ours: &Path) -> BTreeSet<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for dir in ["/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2"].map(Path::new) {
        files.push(dir.join("rt_tables"));
        let more = fs::read_dir(dir.join("rt_tables.d")).into_iter().flatten().flatten();
        files.extend(more.map(|entry| entry.path()));
    }
    files.retain(|file| fs::canonicalize(file).is_ok_and(|real| real != *ours));
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let names = texts.flat_map(|text| {
        let of_line = |line: &str| line.split('#').next()?.split_whitespace().nth(1).map(str::to_owned);
        text.lines().filter_map(of_line).collect::<Vec<_>>()
    });
    names.collect()
}

/// What a file says; nothing where there is none, or it cannot be read.
fn read_json<T: DeserializeOwned + Default>(path: &Path) -> T {
    fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write_json(path: &Path, text: serde_json::Result<Vec<u8>>) -> Result<(), Error> {
    let text = text.map_err(|error| Error::of("write", path)(error.into()))?;
    replace(path, &text)
}

fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    replace_file(path, content).map_err(Error::of("write", path))
}

/// Replaces a file so that a crash leaves either the old one or the new one.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // Made anew, never followed: root may write here into a directory of the daemon's user.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&fresh)?;
    // Not left to the umask of a root who runs a hook by hand: the daemon's user and ip(8) read it too.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::folder::Folder;

    #[test]
    fn what_was_learned_or_chosen_is_read_again_and_rubbish_is_nothing() {
        let folder = Folder::new("learned");
        let dirs = Directories { state: folder.path(""), runtime: folder.path("") };
        assert_eq!(load_learned(&dirs), Noted::default());
        let note = |identity, rates| serde_json::json!({ "identity": identity, "interface": "eth0", "value": rates });
        let learned = serde_json::json!({
            "1": note(serde_json::json!({ "name": "fibre" }), serde_json::json!({ "down": 100_000_000, "up": 20_000_000 })),
            "63": note(serde_json::json!({ "interface": "eth0" }), serde_json::json!({ "down": 0, "up": u64::MAX })),
        });
        let learned = serde_json::from_value(learned).unwrap();
        save_learned(&dirs, &learned).unwrap();
        assert_eq!(load_learned(&dirs), learned);
        folder.write("capacities.json", "[[{\"name\": \"fibre\"}]");
        assert_eq!(load_learned(&dirs), Noted::default());
        let text = r#"[[{"method":"overflow","among":["fibre"]},{"v4":{"method":"overflow","choice":{"order":[],"full":[3]}},"v6":{"method":"weighted","choice":{"order":[2],"full":[]}}}]]"#;
        let chosen = serde_json::from_str(text).unwrap();
        save_choices(&dirs, &chosen).unwrap();
        assert_eq!(fs::read_to_string(dirs.choices()).unwrap(), text);
        assert_eq!(load_choices(&dirs), chosen);
        folder.write("choices.json", "[[");
        assert_eq!(load_choices(&dirs), KeptChoices::new());
    }
}
