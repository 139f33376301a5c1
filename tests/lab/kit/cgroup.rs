//! A control group of one machine, in whatever cgroup2 hierarchy this host has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::process::{command, poll, run};

/// A cgroup2 group that is removed, with all groups below it, when the value goes.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
    /// The hierarchy was mounted by us, here.
    mounted: Option<PathBuf>,
}

impl Cgroup {
    /// Make the group `name`; `dir` is a place to mount the hierarchy on where the host has it nowhere.
    #[track_caller]
    pub(super) fn new(name: &str, dir: &Path) -> Cgroup {
        let (base, mounted) = match hierarchy() {
            Some(base) => (base, None),
            None => {
                let place = dir.join("cgroup");
                fs::create_dir_all(&place).expect("the machine's directory is ours");
                let at = place.to_string_lossy().into_owned();
                run(&mut command(&["mount", "-t", "cgroup2", "lab", &at]), b"").ok();
                (place.clone(), Some(place))
            }
        };
        let path = base.join(name);
        if let Err(error) = fs::create_dir(&path) {
            panic!("cannot make the control group {}: {error}", path.display());
        }
        Cgroup { path, mounted }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last process of a killed machine may need a moment to leave.
        let gone = poll(Duration::from_secs(5), || remove(&self.path).then_some(()));
        if gone.is_none() {
            eprintln!("lab: cannot remove {}", self.path.display());
        }
        if let Some(place) = &self.mounted {
            run(&mut command(&["umount", &place.to_string_lossy()]), b"");
        }
    }
}

/// Where this host has cgroup2 mounted.
pub(super) fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// Remove a group and those below it, deepest first; whether it is gone.
pub(super) fn remove(group: &Path) -> bool {
    let Ok(entries) = fs::read_dir(group) else {
        return !group.exists();
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    fs::remove_dir(group).is_ok()
}
