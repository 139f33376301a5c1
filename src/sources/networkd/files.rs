//! The files of a link: its .network file with its drop-ins, and its lease.
//!
//! Decides which files there are, by the rules of systemd.network(5), and what it means that one cannot be read. They are
//! looked for here, although networkd 257 lists them: 252 does not, and so a new one counts before networkd has read it.

use std::io;
use std::path::{Path, PathBuf};

use crate::sources::systemd::{FOLDERS, drop_ins, read};

/// Files there are generated, so that nothing in them is meant for us; Netplan's are secret.
const GENERATED: &str = "/run/systemd/network/";

/// Where networkd keeps its leases, by the index of the interface.
const LEASES: &str = "/run/systemd/netif/leases";

/// What was found for a link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Paths and texts, the one that counts least first.
    pub(super) texts: Vec<(String, String)>,
    /// Files that cannot be read, and why.
    pub(super) problems: Vec<String>,
}

/// Reads a .network file and its drop-ins.
pub(super) fn configuration(file: &str) -> Found {
    let mut found = Found::default();
    for path in files(Path::new(file)) {
        let name = path.display().to_string();
        match read(&path) {
            Ok(text) => found.texts.push((name, text)),
            // Gone since it was listed, or another's secret in which nothing is meant for us.
            Err(error) if error.kind() == io::ErrorKind::NotFound || name.starts_with(GENERATED) => {}
            Err(error) => found.problems.push(format!("{name}: cannot be read: {error}")),
        }
    }
    found
}

fn files(file: &Path) -> Vec<PathBuf> {
    let folders = FOLDERS.map(|folder| Path::new(folder).join("network"));
    let name = file.file_name().and_then(|name| name.to_str());
    let more = name.map(|name| drop_ins(name, &folders)).unwrap_or_default();
    [file.to_owned()].into_iter().chain(more).collect()
}

/// The text of the lease on an interface, where there is one. "Private data. Do not parse", says its first line; there is
/// no other place that names the router of a lease whose routes networkd is told not to use.
pub(super) fn lease(index: u32) -> Option<String> {
    read(&Path::new(LEASES).join(index.to_string())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::folder::Folder;

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_and_one_that_has_gone_is_none() {
        let base = Folder::new("networkd-configuration");
        base.write("eth1.network", "[X-Uplinkd]\nweight=3\n");
        let path = |name| base.path(name).to_str().unwrap().to_owned();
        let text = (path("eth1.network"), "[X-Uplinkd]\nweight=3\n".to_owned());
        assert_eq!(configuration(&path("eth1.network")), Found { texts: vec![text], problems: Vec::new() });
        std::os::unix::fs::symlink("loop.network", base.path("loop.network")).unwrap();
        let found = configuration(&path("loop.network"));
        assert!(found.texts.is_empty() && found.problems.len() == 1, "{found:?}");
        assert_eq!(configuration("/nowhere/x.network"), Found::default());
        assert_eq!(configuration("/").problems.len(), 0);
    }
}
