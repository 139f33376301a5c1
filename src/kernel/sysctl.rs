//! Kernel settings under `/proc/sys`, and what they held before we first wrote them.
//!
//! Decides how the originals outlive a crash. Which setting should hold what is decided elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::core::sysctl::Sysctl;
use crate::state::replace_file;

/// Where the kernel has them.
pub const ROOT: &str = "/proc/sys";

/// Why a setting, or the file of originals, could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file failed.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried with the file.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// The file of originals does not hold what we write into it; it now lies at `aside`.
    #[error("malformed original settings, set aside as {}: {reason}", .aside.display())]
    Malformed {
        /// Where it lies now.
        aside: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    fn of(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, path: path.to_owned(), source }
    }
}

/// What a setting below `root` holds, without white space around it; none where the kernel has no such
/// setting, as when its interface is gone.
pub fn read(root: &Path, sysctl: &Sysctl) -> Result<Option<String>, Error> {
    let path = root.join(sysctl.path());
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::of("read", &path)(error)),
    }
}

/// Writes a setting below `root`. One that the kernel does not have is an error, and is not made.
pub fn write(root: &Path, sysctl: &Sysctl, value: &str) -> Result<(), Error> {
    let path = root.join(sysctl.path());
    let open = File::options().write(true).truncate(true).open(&path);
    open.and_then(|mut file| file.write_all(value.as_bytes())).map_err(Error::of("write", &path))
}

/// What settings held before we first wrote them: a JSON object of path below `/proc/sys` to value.
#[derive(Debug)]
pub struct Originals {
    path: PathBuf,
    values: BTreeMap<Sysctl, String>,
}

impl Originals {
    /// Reads the file; where there is none, nothing is remembered.
    ///
    /// Malformed content does not stop anything: the file is set aside for a person to look at, what
    /// could be read of it counts, and the error comes beside.
    pub fn load(path: &Path) -> (Self, Option<Error>) {
        let mut originals = Originals { path: path.to_owned(), values: BTreeMap::new() };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return (originals, None),
            // Not text is as malformed as text that is not JSON.
            Err(error) if error.kind() == ErrorKind::InvalidData => String::new(),
            Err(error) => return (originals, Some(Error::of("read", path)(error))),
        };
        let outcome = originals.take_in(&text).or_else(|reason| originals.set_aside(reason));
        (originals, outcome.err())
    }

    /// What is remembered.
    pub fn values(&self) -> &BTreeMap<Sysctl, String> {
        &self.values
    }

    /// Remembers, on the disk, what a setting holds; to be done before it is first written. What is
    /// remembered of it already stays, as the later value is ours.
    pub fn remember(&mut self, sysctl: &Sysctl, value: &str) -> Result<(), Error> {
        if self.values.contains_key(sysctl) {
            return Ok(());
        }
        self.values.insert(sysctl.clone(), value.to_owned());
        // Not remembered unless it is on the disk, so that the next try writes again.
        self.save().inspect_err(|_| drop(self.values.remove(sysctl)))
    }

    /// Forgets a setting; to be done after its original was put back.
    pub fn forget(&mut self, sysctl: &Sysctl) -> Result<(), Error> {
        let Some(value) = self.values.remove(sysctl) else { return Ok(()) };
        self.save().inspect_err(|_| drop(self.values.insert(sysctl.clone(), value)))
    }

    /// Takes in what a file says; fails, after all that it understands, with what it does not.
    fn take_in(&mut self, text: &str) -> Result<(), String> {
        let values: BTreeMap<String, String> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut strange = Vec::new();
        for (path, value) in values {
            match Sysctl::from_path(&path) {
                Some(sysctl) => drop(self.values.insert(sysctl, value)),
                None => strange.push(path),
            }
        }
        if strange.is_empty() {
            Ok(())
        } else {
            Err(format!("not a setting of ours: {}", strange.join(", ")))
        }
    }

    fn set_aside(&self, reason: String) -> Result<(), Error> {
        let aside = self.path.with_extension("malformed");
        fs::rename(&self.path, &aside).map_err(Error::of("set aside", &self.path))?;
        if !self.values.is_empty() {
            self.save()?;
        }
        Err(Error::Malformed { aside, reason })
    }

    /// Writes the file so that a crash leaves either the old one or the new one.
    fn save(&self) -> Result<(), Error> {
        let values: BTreeMap<_, _> =
            self.values.iter().map(|(sysctl, value)| (sysctl.path(), value)).collect();
        let mut text =
            serde_json::to_vec_pretty(&values).map_err(|e| Error::of("write", &self.path)(e.into()))?;
        text.push(b'\n');
        replace_file(&self.path, &text).map_err(Error::of("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::{Family, IfName};

    /// A directory of this test's own, removed at its end.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("uplinkd-sysctl-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn rp_filter() -> Sysctl {
        Sysctl::RpFilter(IfName::new("wan.7").unwrap())
    }

    #[test]
    fn settings_are_read_trimmed_and_never_made() {
        let dir = Dir::new("settings");
        assert_eq!(read(&dir.0, &rp_filter()).unwrap(), None);
        assert!(write(&dir.0, &rp_filter(), "2").is_err());
        let file = dir.0.join(rp_filter().path());
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "10\n").unwrap();
        assert_eq!(read(&dir.0, &rp_filter()).unwrap().as_deref(), Some("10"));
        write(&dir.0, &rp_filter(), "2").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "2");
    }

    #[test]
    fn the_first_value_is_the_original() {
        let dir = Dir::new("originals");
        let path = dir.0.join("originals.json");
        let (mut originals, error) = Originals::load(&path);
        assert!(error.is_none() && originals.values().is_empty());
        originals.remember(&rp_filter(), "1").unwrap();
        originals.remember(&rp_filter(), "2").unwrap();
        originals.remember(&Sysctl::HashPolicy(Family::V6), "0").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "{\n  \"net/ipv4/conf/wan.7/rp_filter\": \"1\",\n  \"net/ipv6/fib_multipath_hash_policy\": \"0\"\n}\n"
        );
        originals.forget(&Sysctl::HashPolicy(Family::V6)).unwrap();
        let (originals, error) = Originals::load(&path);
        assert!(error.is_none());
        assert_eq!(originals.values(), &BTreeMap::from([(rp_filter(), "1".to_owned())]));
    }

    #[test]
    fn what_cannot_be_saved_is_not_remembered() {
        let (mut originals, _) = Originals::load(Path::new("/proc/no such directory/originals.json"));
        assert!(originals.remember(&rp_filter(), "1").is_err());
        assert!(originals.values().is_empty());
    }

    #[test]
    fn a_malformed_file_is_set_aside() {
        let dir = Dir::new("malformed");
        let path = dir.0.join("originals.json");
        for text in ["", "{", "[]", "{\"net/ipv4/conf/a/rp_filter\": 1}", "\u{0}"] {
            fs::write(&path, text).unwrap();
            let (originals, error) = Originals::load(&path);
            assert!(originals.values().is_empty() && !path.exists(), "{text}");
            assert!(error.unwrap().to_string().contains("originals.malformed"));
            assert_eq!(fs::read_to_string(dir.0.join("originals.malformed")).unwrap(), text);
        }
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(Originals::load(&path), (_, Some(Error::Malformed { .. }))));
    }

    #[test]
    fn what_is_understood_of_a_strange_file_counts() {
        let dir = Dir::new("strange");
        let path = dir.0.join("originals.json");
        fs::write(&path, r#"{"net/ipv4/conf/wan.7/rp_filter": "1", "net/ipv9/x": "2"}"#).unwrap();
        let (originals, error) = Originals::load(&path);
        assert_eq!(originals.values().len(), 1);
        assert!(error.unwrap().to_string().ends_with("not a setting of ours: net/ipv9/x"));
        assert!(matches!(Originals::load(&path), (again, None) if again.values() == originals.values()));
    }
}
