//! The files of a link: its .network file with its drop-ins, and its lease.
//!
//! Decides which files there are, by the rules of systemd.network(5), and what it means that one cannot be read. They are
//! looked for here, although networkd 257 lists them: 252 does not, and so a new one counts before networkd has read it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::sources::file;

/// Where networkd looks, the place that wins first.
const DIRECTORIES: [&str; 4] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];

/// Files there are generated, so that nothing in them is meant for us; Netplan's are secret.
const GENERATED: &str = "/run/systemd/network/";

/// Where networkd keeps its leases, by the index of the interface.
const LEASES: &str = "/run/systemd/netif/leases";

/// Longer files are not taken for configuration.
const LONGEST: u64 = 256 * 1024;

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
    let path = Path::new(file);
    for path in [path.to_owned()].into_iter().chain(drop_ins(path, &DIRECTORIES.map(Path::new))) {
        let name = path.display().to_string();
        match file::text(&path, LONGEST) {
            Ok(text) => found.texts.push((name, text)),
            // Gone since it was listed, or another's secret in which nothing is meant for us.
            Err(error) if error.kind() == io::ErrorKind::NotFound || name.starts_with(GENERATED) => {}
            Err(error) => found.problems.push(format!("{name}: cannot be read: {error}")),
        }
    }
    found
}

/// The text of the lease on an interface, where there is one. "Private data. Do not parse", says its first line; there is
/// no other place that names the router of a lease whose routes networkd is told not to use.
pub(super) fn lease(index: u32) -> Option<String> {
    file::text(&Path::new(LEASES).join(index.to_string()), LONGEST).ok()
}

/// The drop-ins of a file by name, whatever the directory; of two with one name the one of the first directory counts.
fn drop_ins(file: &Path, directories: &[&Path]) -> Vec<PathBuf> {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let mut found = BTreeMap::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory.join(format!("{name}.d")));
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().starts_with(b".");
            let path = entry.path();
            if !hidden && path.extension().is_some_and(|extension| extension == "conf") {
                found.entry(name).or_insert(path);
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn drop_ins_are_sorted_by_name_and_the_first_directory_wins() {
        let base = scratch();
        let [etc, run, usr] = ["etc", "run", "usr"].map(|name| base.join(name));
        for (directory, names) in [
            (&usr, &["10-a.conf", "20-masked.conf", "30-b.conf"][..]),
            (&run, &["30-b.conf", "05-first.conf", "40-not.txt", ".50-hidden.conf"]),
            (&etc, &["10-a.conf"]),
        ] {
            let directory = directory.join("eth1.network.d");
            fs::create_dir_all(&directory).unwrap();
            names.iter().for_each(|name| fs::write(directory.join(name), "x").unwrap());
        }
        symlink("/dev/null", etc.join("eth1.network.d/20-masked.conf")).unwrap();
        let missing = base.join("missing");
        let directories = [&etc, &run, &missing, &usr].map(PathBuf::as_path);
        let found = drop_ins(Path::new("/anywhere/eth1.network"), &directories);
        let expected = [
            run.join("eth1.network.d/05-first.conf"),
            etc.join("eth1.network.d/10-a.conf"),
            etc.join("eth1.network.d/20-masked.conf"),
            run.join("eth1.network.d/30-b.conf"),
        ];
        assert_eq!(found, expected);
        assert_eq!(file::text(&expected[2], LONGEST).unwrap(), "");
        assert_eq!(drop_ins(Path::new("/"), &directories), [] as [PathBuf; 0]);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_is_no_plain_text_holds_nobody_up() {
        let base = scratch();
        let (pipe, bytes, huge) = (base.join("pipe"), base.join("bytes"), base.join("huge"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::write(&bytes, [b'a', 0xff, b'b']).unwrap();
        fs::File::create(&huge).unwrap().set_len(LONGEST + 1).unwrap();
        assert_eq!(file::text(&pipe, LONGEST).unwrap(), "");
        assert_eq!(file::text(&bytes, LONGEST).unwrap(), "a\u{fffd}b");
        assert_eq!(file::text(&huge, LONGEST).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let found = configuration(huge.to_str().unwrap());
        assert!(found.texts.is_empty() && found.problems.len() == 1, "{found:?}");
        assert_eq!(configuration("/nowhere/x.network"), Found::default());
        fs::remove_dir_all(base).unwrap();
    }

    fn scratch() -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("uplinkd-networkd-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }
}
