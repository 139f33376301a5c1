//! systemd's configuration files: where they are, which of them count, and how one is read.
//!
//! Knows nothing of what stands in them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file;

/// Where systemd's programs look for their files, what counts more first (networkd.conf(5), systemd.network(5)).
pub(super) const FOLDERS: [&str; 4] =
    ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// Longer files are not taken for configuration.
const LONGEST: u64 = 256 * 1024;

/// The drop-ins of the file with this name in the order in which they count: by their names, whatever the folder. Of two
/// with one name that of the first folder counts.
pub(super) fn drop_ins(name: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    for folder in folders {
        let entries = fs::read_dir(folder.join(format!("{name}.d")));
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

/// A configuration file as text.
pub(super) fn read(path: &Path) -> io::Result<String> {
    file::text(path, LONGEST)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::folder::Folder;

    #[test]
    fn drop_ins_are_sorted_by_name_and_the_first_folder_wins() {
        let base = Folder::new("systemd-drop-ins");
        let [etc, run, usr] = ["etc", "run", "usr"].map(|name| base.path(name));
        for (folder, names) in [
            (&usr, &["10-a.conf", "20-masked.conf", "30-b.conf"][..]),
            (&run, &["30-b.conf", "05-first.conf", "40-not.txt", ".50-hidden.conf"]),
            (&etc, &["10-a.conf"]),
        ] {
            let folder = folder.join("eth1.network.d");
            fs::create_dir_all(&folder).unwrap();
            names.iter().for_each(|name| fs::write(folder.join(name), "x").unwrap());
        }
        symlink("/dev/null", etc.join("eth1.network.d/20-masked.conf")).unwrap();
        let found = drop_ins("eth1.network", &[etc.clone(), run.clone(), base.path("missing"), usr]);
        let expected = [
            run.join("eth1.network.d/05-first.conf"),
            etc.join("eth1.network.d/10-a.conf"),
            etc.join("eth1.network.d/20-masked.conf"),
            run.join("eth1.network.d/30-b.conf"),
        ];
        assert_eq!(found, expected);
        assert_eq!(read(&expected[2]).unwrap(), "");
    }

    #[test]
    fn what_is_no_plain_text_holds_nobody_up() {
        let base = Folder::new("systemd-files");
        let [pipe, bytes, huge] = ["pipe", "bytes", "huge"].map(|name| base.path(name));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::write(&bytes, [b'a', 0xff, b'b']).unwrap();
        fs::File::create(&huge).unwrap().set_len(LONGEST + 1).unwrap();
        assert_eq!(read(&pipe).unwrap(), "");
        assert_eq!(read(&bytes).unwrap(), "a\u{fffd}b");
        assert_eq!(read(&huge).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
