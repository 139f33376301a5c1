//! systemd-networkd's own settings: whether it runs, since when, and what its files tell it.
//!
//! What they mean is decided in [`crate::core::tending`].

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::debug;
use zbus::names::WellKnownName;
use zbus::zvariant::{ObjectPath, Value};

use super::Presence;
use super::call::{Call, Error, owner, within};
use super::systemd::{FOLDERS, drop_ins, read};
use crate::core::tending::Tending;
use crate::state::replace_file;
use crate::world::chain;

/// Looks at networkd, and remembers which instance of it has read its settings: an upgrade writes the same file anew,
/// which does not make it unread.
#[derive(Debug)]
pub struct Watcher {
    memory: PathBuf,
    last: Option<Tending>,
    /// The instance that is to be remembered.
    fresh: Option<Duration>,
}

impl Watcher {
    /// `memory` is the file that holds when that instance was started.
    pub fn new(memory: &Path) -> Self {
        Watcher { memory: memory.to_owned(), last: None, fresh: None }
    }

    /// What networkd does with what is not its own; none where it does not run, or nobody can tell. Writes nothing.
    pub async fn look(&mut self, bus: &zbus::Connection) -> Option<Tending> {
        match within(BRIEFLY, "Get", UNIT, active_since(bus)).await {
            Ok(since) => self.last = since.map(|since| self.judge(since, &Files::read(Path::new("/")))),
            // What was last seen still counts.
            Err(error) => debug!("since when systemd-networkd runs: {}", chain(&error)),
        }
        self.last.clone()
    }

    /// Writes down the instance that was seen to have read its settings, if it is another than before.
    pub fn remember(&mut self) {
        if let Some(since) = self.fresh.take() {
            // At worst a note too many after an upgrade.
            let _ = replace_file(&self.memory, stamp(since).as_bytes());
        }
    }

    fn judge(&mut self, since: Duration, files: &Files) -> Tending {
        let known = fs::read_to_string(&self.memory).is_ok_and(|text| text == stamp(since));
        let tending = Tending::of(files.texts.iter().map(String::as_str), known || files.changed < since);
        self.fresh = (tending == Tending::Spares && !known).then_some(since);
        tending
    }
}

/// A time since the epoch, as it is remembered.
fn stamp(since: Duration) -> String {
    since.as_micros().to_string()
}

/// How long systemd is waited for: no round is to be held up by it.
const BRIEFLY: Duration = Duration::from_millis(50);
const UNIT: &str = "/org/freedesktop/systemd1/unit/systemd_2dnetworkd_2eservice";

/// Since when networkd has been running (`ActiveEnterTimestamp`, org.freedesktop.systemd1(5)); none where it is not. A
/// reload does not change it.
async fn active_since(bus: &zbus::Connection) -> Result<Option<Duration>, Error> {
    if let Presence::Absent = owner(bus, "org.freedesktop.network1").await? {
        return Ok(None);
    }
    let call = Call {
        destination: WellKnownName::from_static_str_unchecked("org.freedesktop.systemd1").into(),
        path: ObjectPath::from_static_str_unchecked(UNIT),
        interface: "org.freedesktop.DBus.Properties",
        method: "Get",
    };
    let reply = call.send(bus, &("org.freedesktop.systemd1.Unit", "ActiveEnterTimestamp")).await?;
    let body = reply.body();
    let value: Value<'_> = body.deserialize().map_err(|error| call.malformed(error))?;
    // Zero: it never was active.
    Ok(u64::try_from(value).ok().filter(|since| *since > 0).map(Duration::from_micros))
}

/// The name of networkd's own file.
const CONF: &str = "networkd.conf";

/// networkd's files, in the order in which they count.
#[derive(Debug, Default)]
struct Files {
    texts: Vec<String>,
    /// When the last of them came to its place or was written, since the epoch. (Not when its text was written: a
    /// package brings that time along.)
    changed: Duration,
}

impl Files {
    /// The first main file, then its drop-ins. One that cannot be read, or is a link to /dev/null, says nothing.
    fn read(root: &Path) -> Self {
        let folders = FOLDERS.map(|folder| root.join(folder.trim_start_matches('/')));
        let main = folders.iter().map(|folder| folder.join(CONF)).find(|path| path.exists());
        let mut files = Files::default();
        for path in main.into_iter().chain(drop_ins(CONF, &folders)) {
            let Ok(text) = read(&path) else { continue };
            files.texts.push(text);
            files.changed = files.changed.max(changed(&path));
        }
        files
    }
}

/// When a file, or the link that leads to it, was last changed in any way; zero where nobody can tell.
fn changed(path: &Path) -> Duration {
    let of = |meta: fs::Metadata| {
        let seconds = Duration::from_secs(u64::try_from(meta.ctime()).unwrap_or(0));
        seconds + Duration::from_nanos(u64::try_from(meta.ctime_nsec()).unwrap_or(0))
    };
    let is_file = |meta: &fs::Metadata| meta.is_file();
    let file = fs::metadata(path).ok().filter(is_file).map(of).unwrap_or_default();
    fs::symlink_metadata(path).map(of).unwrap_or_default().max(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::folder::Folder;

    /// Which files count, from those written below a root of our own.
    fn texts(name: &str, files: &[(&str, &str)], masked: &[&str]) -> Vec<String> {
        let root = Folder::new(name);
        let place = |path: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            path
        };
        files.iter().for_each(|(path, text)| fs::write(place(path), text).expect("a file"));
        masked.iter().for_each(|path| std::os::unix::fs::symlink("/dev/null", place(path)).expect("a link"));
        Files::read(&root.path("")).texts
    }

    #[test]
    fn folders_hide_each_other_by_name_and_names_give_the_order() {
        let found = texts(
            "networkd-order",
            &[
                ("usr/lib/systemd/networkd.conf", "hidden"),
                ("etc/systemd/networkd.conf", "main"),
                ("usr/lib/systemd/networkd.conf.d/10-uplinkd.conf", "hidden"),
                ("etc/systemd/networkd.conf.d/10-uplinkd.conf", "ten"),
                ("usr/lib/systemd/networkd.conf.d/90-more.conf", "ninety"),
                ("run/systemd/networkd.conf.d/20-run.conf", "twenty"),
                ("run/systemd/networkd.conf.d/README", "none"),
            ],
            &[],
        );
        assert_eq!(found, ["main", "ten", "twenty", "ninety"]);
    }

    #[test]
    fn a_link_to_nowhere_masks() {
        let ours = [("usr/lib/systemd/networkd.conf.d/10-uplinkd.conf", "ours")];
        assert_eq!(texts("networkd-ours", &ours, &[]), ["ours"]);
        assert_eq!(texts("networkd-masked", &ours, &["etc/systemd/networkd.conf.d/10-uplinkd.conf"]), [""]);
    }
    #[test]
    fn who_has_read_its_settings_is_remembered_and_only_on_demand() {
        let folder = Folder::new("networkd-memory");
        let memory = folder.path("networkd");
        let text = "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n";
        let second = Duration::from_secs;
        let files = |changed| Files { texts: vec![text.to_owned()], changed: second(changed) };
        let mut watcher = Watcher::new(&memory);
        assert_eq!(watcher.judge(second(20), &files(10)), Tending::Spares);
        assert!(!memory.exists(), "a look writes nothing");
        watcher.remember();
        assert!(memory.exists());
        assert_eq!(watcher.judge(second(20), &files(30)), Tending::Spares, "an upgrade wrote it anew");
        assert_eq!(watcher.judge(second(25), &files(30)), Tending::Unread, "another instance");
        fs::remove_file(&memory).expect("the memory");
        watcher.remember();
        assert!(!memory.exists(), "nothing is new");
    }
}
