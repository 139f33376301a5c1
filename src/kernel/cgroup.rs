//! The control groups of systemd's units: which are there, and word of those that come and go.
//!
//! Reads the hierarchy below `/sys/fs/cgroup` (cgroups(7)) and has it watched (inotify(7)), which needs no privilege. Decides
//! where to look, from what a unit's path can be; what a group is for, it does not know.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe::Receiver;

use crate::core::policy::{Cgroup, Unit};

/// Where the hierarchy is mounted, for nft as well.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The file that the root of the one hierarchy has, and none of the older ones.
const UNIFIED: &str = "cgroup.controllers";

/// So many folders are looked into, those next to the root first: a user can make as many as he likes below his own manager.
const MOST: usize = 1024;

/// Where units are looked for, and for which it is worth to look again.
#[derive(Debug, Default)]
pub struct Cgroups {
    watch: Option<Arc<Watch>>,
}

/// Hears of groups that come and go, in the folders that were looked into.
#[derive(Debug)]
struct Watch {
    inotify: Inotify,
    wanted: Mutex<Vec<Unit>>,
}

impl Cgroups {
    /// Looks for groups, and watches the folders in which there may be others. The task that listens lives as long as the
    /// program, and calls `heard` when it may be worth looking again; `deaf` when it can hear no longer.
    ///
    /// # Errors
    ///
    /// Those of inotify.
    pub fn watched(
        heard: impl Fn() + Send + 'static,
        deaf: impl FnOnce(io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // No thread: with a second one nobody can say where the machine is now (tzset(3)).
        let news = Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)?;
        let watch = Arc::new(Watch { inotify, wanted: Mutex::default() });
        let listens = watch.clone();
        tokio::spawn(async move {
            loop {
                match listens.next(&news).await {
                    Ok(()) => heard(),
                    Err(error) => return deaf(error),
                }
            }
        });
        Ok(Cgroups { watch: Some(watch) })
    }

    /// The groups of these units, in order.
    ///
    /// # Errors
    ///
    /// There is no hierarchy of version 2 in its place. What vanishes while it is looked at is not there.
    pub fn look(&self, units: &[Unit]) -> io::Result<Vec<Cgroup>> {
        if let Some(watch) = &self.watch {
            watch.follow(units);
        }
        if units.is_empty() {
            return Ok(Vec::new());
        }
        self.look_below(Path::new(ROOT), units)
    }

    fn look_below(&self, root: &Path, units: &[Unit]) -> io::Result<Vec<Cgroup>> {
        fs::metadata(root.join(UNIFIED))?;
        let mut found = Vec::new();
        let mut folders = VecDeque::from([String::new()]);
        for _ in 0..MOST {
            let Some(folder) = folders.pop_front() else { break };
            let place = root.join(&folder);
            // Ahead of the look: what comes in between is heard of.
            if let Some(watch) = &self.watch {
                watch.add(&place);
            }
            for name in names(&place) {
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                if units.iter().any(|unit| unit.is(&path)) {
                    let id = fs::metadata(root.join(&path)).map(|there| there.ino());
                    found.extend(id.ok().map(|id| Cgroup { path: path.clone(), id }));
                }
                if units.iter().any(|unit| unit.may_be_below(&path)) {
                    folders.push_back(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The names of the folders in a folder.
fn names(place: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.filter_map(|entry| entry.file_name().into_string().ok())
}

impl Watch {
    /// Hears from now on of these alone.
    fn follow(&self, units: &[Unit]) {
        if let Ok(mut wanted) = self.wanted.lock() {
            units.clone_into(&mut wanted);
        }
    }

    /// Watches a folder as well; one that has gone is no loss, and one that is watched stays so.
    fn add(&self, place: &Path) {
        let what = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_ONLYDIR;
        let _ = self.inotify.add_watch(place, what);
    }

    /// Waits until a group has come or gone that matters to one of the units, or until news was lost.
    async fn next(&self, news: &Receiver) -> io::Result<()> {
        loop {
            news.readable().await?;
            match self.inotify.read_events() {
                Ok(events) => {
                    let mut names = events.iter().map(|event| event.name.as_ref());
                    // Without a name: news of the folder itself, or that some were lost.
                    let matters = |name: Option<&OsString>| {
                        name.is_none_or(|name| name.to_str().is_some_and(|name| self.is_wanted(name)))
                    };
                    if names.any(matters) {
                        return Ok(());
                    }
                }
                Err(Errno::EINTR) => {}
                // To have it waited for anew it is read to its end where that is seen; what came meanwhile may matter.
                Err(Errno::EAGAIN) => match news.try_read(&mut [0; 4096]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other.map(drop),
                },
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.wanted.lock().is_ok_and(|wanted| wanted.iter().any(|unit| unit.is_concerned(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::config::folder::Folder;

    fn hierarchy(name: &str) -> Folder {
        let folder = Folder::new(name);
        fs::create_dir_all(folder.path("")).unwrap();
        fs::write(folder.path(UNIFIED), "").unwrap();
        folder
    }

    fn paths(found: &[Cgroup]) -> Vec<&str> {
        found.iter().map(|group| group.path.as_str()).collect()
    }

    #[test]
    fn units_are_found_below_their_slices() {
        let folder = hierarchy("cgroups-found");
        for path in [
            "system.slice/x.service/inner.slice/x.service",
            "a.slice/a-b.slice/x.service",
            "machine.slice/some.scope/x.service",
            "user.slice/user-7.slice/user@7.service/app.slice/x.service",
            "user.slice/user-8.slice/user@8.service/app.slice/x.service",
            "b\".slice/x.service",
        ] {
            fs::create_dir_all(folder.path(path)).unwrap();
        }
        let units = [
            Unit::new(None, "x").unwrap(),
            Unit::new(Some(7), "x").unwrap(),
            Unit::slice(None, "a").unwrap(),
        ];
        let found = Cgroups::default().look_below(&folder.path(""), &units).unwrap();
        assert_eq!(
            paths(&found),
            [
                "a.slice",
                "a.slice/a-b.slice/x.service",
                "system.slice/x.service",
                "user.slice/user-7.slice/user@7.service/app.slice/x.service"
            ]
        );
        assert_eq!(found[0].id, fs::metadata(folder.path("a.slice")).unwrap().ino());
        assert_eq!(Cgroups::default().look_below(&folder.path(""), &[]).unwrap(), []);
        fs::remove_file(folder.path(UNIFIED)).unwrap();
        assert!(Cgroups::default().look_below(&folder.path(""), &units).is_err(), "an older hierarchy");
    }

    #[tokio::test]
    async fn only_what_matters_is_heard() {
        let folder = hierarchy("cgroups-heard");
        fs::create_dir(folder.path("system.slice")).unwrap();
        let (heard, mut hears) = mpsc::unbounded_channel();
        let groups =
            Cgroups::watched(move || heard.send(()).unwrap_or_default(), |error| panic!("{error}")).unwrap();
        let units = [Unit::new(None, "x").unwrap()];
        let look = || {
            groups.watch.as_ref().unwrap().follow(&units);
            groups.look_below(&folder.path(""), &units).unwrap()
        };
        let mut hears = async |millis| timeout(Duration::from_millis(millis), hears.recv()).await.is_ok();
        assert_eq!(look(), []);
        fs::create_dir(folder.path("system.slice/y.service")).unwrap();
        assert!(!hears(300).await, "somebody else's");
        fs::create_dir(folder.path("system.slice/x.service")).unwrap();
        assert!(hears(10_000).await, "it comes");
        assert_eq!(paths(&look()), ["system.slice/x.service"]);
        fs::remove_dir(folder.path("system.slice/x.service")).unwrap();
        assert!(hears(10_000).await, "it goes");
        assert_eq!(look(), []);
        // In a slice that comes with it.
        fs::create_dir_all(folder.path("new.slice/x.service")).unwrap();
        assert!(hears(10_000).await, "a slice");
        assert_eq!(paths(&look()), ["new.slice/x.service"]);
        fs::remove_dir(folder.path("new.slice/x.service")).unwrap();
        assert!(hears(10_000).await, "out of the new slice");
    }
}
