//! Reads the configuration's files.
//!
//! Decides which files count and what can be read at all. Refuses to know what they say.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

use super::Config;
use super::fragments::fragments;
use super::parse::resolve;
use super::policy::Outside;
use super::problem::{Flaw, Problem, Problems, Source};

/// More than any hand writes; a larger file is a mistake, and reading it would only cost memory.
pub(super) const LARGEST: u64 = 1 << 20;

/// The same of a list of prefixes: half a million of them.
const LARGEST_LIST: u64 = 16 << 20;

/// Reads the main file, which may be missing, and `conf.d/*.toml` beside it in byte order of their names;
/// and the fragments beside both.
pub fn load(main: &Path) -> Result<Config, Problems> {
    let (sources, problems) = sources(main);
    let config = resolve(&sources, problems, &Machine)?;
    Ok(Config { fragments: fragments(main), ..config })
}

/// This machine.
pub(super) struct Machine;

impl Outside for Machine {
    fn list(&self, path: &Path) -> Result<String, String> {
        let bytes = bytes(path, LARGEST_LIST).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
    }

    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    }
}

/// The directory of further files that belongs to a main file.
pub(super) fn directory(main: &Path) -> PathBuf {
    main.with_file_name("conf.d")
}

/// All files that could be read, the main file first, and what was wrong with the others.
pub(super) fn sources(main: &Path) -> (Vec<Source>, Vec<Problem>) {
    let mut sources = Vec::new();
    let mut problems = Vec::new();
    let directory = directory(main);
    let further = list(&directory, "toml").unwrap_or_else(|error| {
        problems.push(unreadable(&directory, &error));
        Vec::new()
    });
    let main_text = if exists(main) { read(main) } else { Ok(String::new()) };
    let texts = further.iter().map(|path| (path.as_path(), read(path)));
    for (path, text) in std::iter::once((main, main_text)).chain(texts) {
        match text {
            Ok(text) => sources.push(Source::new(path, &text)),
            Err(problem) => problems.push(problem),
        }
    }
    (sources, problems)
}

fn exists(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Files that end so, without hidden ones. Backups of editors end otherwise (`x.toml~`, `#x.toml#`) or are hidden.
pub(super) fn list(directory: &Path, wanted: &str) -> io::Result<Vec<PathBuf>> {
    if !exists(directory) {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| path.extension().is_some_and(|ending| ending == wanted) && !hidden(path));
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, Problem> {
    let bytes = bytes(path, LARGEST).map_err(|error| unreadable(path, &error))?;
    // Some editors begin a file with a byte order mark; it is no part of the text.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let source = Source::new(path, &String::from_utf8_lossy(bytes));
            let at = error.valid_up_to();
            let message = "not UTF-8; save the file in that encoding".to_owned();
            Err(source.problem(Flaw { span: at..at, message }))
        }
    }
}

pub(super) fn bytes(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    // Asked before opening: to open a named pipe would wait for whoever writes into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(io::Error::other(format!("larger than {} MiB", largest >> 20)));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::of_file(path, format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::folder::Folder;

    const SECTION: &str = "[[uplink]]\nmatch.interface = 'eth0'\n";

    fn origins(folder: &Folder) -> Vec<String> {
        let config = load(&folder.main()).unwrap_or_else(|problems| panic!("{problems}"));
        config.uplinks.iter().map(|section| folder.relative(&section.origin)).collect()
    }

    #[test]
    fn no_file_is_an_empty_configuration() {
        let folder = Folder::new("none");
        assert_eq!(load(&folder.main()), Ok(Config::default()));
        fs::remove_dir(folder.path("conf.d")).unwrap();
        assert_eq!(load(&folder.main()), Ok(Config::default()));
    }

    #[test]
    fn files_are_read_in_byte_order() {
        let folder = Folder::new("order");
        folder.write("uplinkd.toml", SECTION);
        for name in ["b.toml", "a.toml", "B.toml", "10.toml", "9.toml"] {
            folder.write(format!("conf.d/{name}"), SECTION);
        }
        folder.write(Path::new("conf.d").join(OsStr::from_bytes(b"\xff.toml")), SECTION);
        let expected =
            ["uplinkd", "conf.d/10", "conf.d/9", "conf.d/B", "conf.d/a", "conf.d/b", "conf.d/\u{fffd}"];
        assert_eq!(origins(&folder), expected.map(|name| format!("{name}.toml:1")));
    }

    #[test]
    fn hidden_files_and_backups_are_left_alone() {
        let folder = Folder::new("backups");
        for name in
            [".a.toml", ".toml", ".#a.toml", "#a.toml#", "a.toml~", "a.toml.bak", "a.toml.dpkg-new", "README"]
        {
            folder.write(format!("conf.d/{name}"), "not TOML");
        }
        symlink("nowhere", folder.path("conf.d/.#b.toml")).unwrap();
        assert_eq!(load(&folder.main()), Ok(Config::default()));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_judged() {
        let folder = Folder::new("unreadable");
        fs::create_dir(folder.path("uplinkd.toml")).unwrap();
        fs::create_dir(folder.path("conf.d/1.toml")).unwrap();
        symlink("nowhere", folder.path("conf.d/2.toml")).unwrap();
        symlink("/dev/zero", folder.path("conf.d/3.toml")).unwrap();
        folder.write("conf.d/4.toml", vec![b'#'; 1 + (1 << 20)]);
        folder.write("conf.d/5.toml", b"\xef\xbb\xbfa = '\xc3\xbc'\nb = '\xfc'\n");
        folder.write("conf.d/6.toml", "weight = 2");
        folder.write("conf.d/7.toml", vec![b'#'; 1 << 20]);
        assert_eq!(
            folder.relative(load(&folder.main()).unwrap_err()),
            "uplinkd.toml: cannot be read: not a regular file
conf.d/1.toml: cannot be read: not a regular file
conf.d/2.toml: cannot be read: No such file or directory (os error 2)
conf.d/3.toml: cannot be read: not a regular file
conf.d/4.toml: cannot be read: larger than 1 MiB
conf.d/5.toml:2:6: not UTF-8; save the file in that encoding
    2 | b = '\u{fffd}'
      |      ^
conf.d/6.toml:1:1: weight: no such key here; allowed: all-down, balance, firewall, forward, group, policy, router, uplink
    1 | weight = 2
      | ^^^^^^"
        );
        fs::remove_dir_all(folder.path("conf.d")).unwrap();
        folder.write("conf.d", "");
        assert_eq!(
            folder.relative(load(&folder.main()).unwrap_err()),
            "conf.d: cannot be read: Not a directory (os error 20)\n\
             uplinkd.toml: cannot be read: not a regular file"
        );
    }

    #[test]
    fn windows_editors_do_no_harm() {
        let folder = Folder::new("windows");
        folder.write("uplinkd.toml", format!("\u{feff}{}", SECTION.replace('\n', "\r\n")));
        folder.write("conf.d/a.toml", "\u{feff}a = 1\r\n");
        let problems = folder.relative(load(&folder.main()).unwrap_err());
        assert!(problems.starts_with("conf.d/a.toml:1:1: a: no such key here; "), "{problems}");
    }
}
