//! A directory for one test, gone when the test ends.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes `NAME/conf.d`, for a name that no other test uses.
    pub(crate) fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("uplinkd-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("conf.d")).unwrap();
        Folder(root)
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// The main file, which need not exist.
    pub(crate) fn main(&self) -> PathBuf {
        self.path("uplinkd.toml")
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A text without the folder's own path, which differs from run to run.
    pub(crate) fn relative(&self, text: impl ToString) -> String {
        text.to_string().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
