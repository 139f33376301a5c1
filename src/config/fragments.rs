//! Reads the administrator's own nftables tables, a file each.
//!
//! Nothing that is wrong with one is a problem of the configuration: all the rest counts without it.

use std::path::{Path, PathBuf};

use super::load::{LARGEST, bytes, list};
use crate::core::nft::{Fragment, FragmentName, Fragments};

/// The folder of fragments that belongs to a main file.
fn folder(main: &Path) -> PathBuf {
    main.with_file_name("nft.d")
}

/// Reads `nft.d/*.nft` beside a main file; the folder may be missing.
pub fn fragments(main: &Path) -> Fragments {
    let folder = folder(main);
    let mut found = Fragments::default();
    let paths = list(&folder, "nft").unwrap_or_else(|error| {
        found.unread = Some(format!("{}: cannot be read: {error}", folder.display()));
        Vec::new()
    });
    for path in paths {
        let file = path.display().to_string();
        match path.file_stem().and_then(|stem| stem.to_str()).and_then(FragmentName::new) {
            Some(name) => {
                let fragment = text(&path).and_then(|text| Fragment::read(name.clone(), &file, &text));
                found.files.insert(name, fragment);
            }
            None => found.strays.push(format!("{file}: is left out; {}", FragmentName::ALLOWED)),
        }
    }
    found
}

fn text(path: &Path) -> Result<String, String> {
    let bytes =
        bytes(path, LARGEST).map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
    String::from_utf8(bytes)
        .map_err(|_| format!("{}: not UTF-8; save the file in that encoding", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::folder::Folder;

    #[test]
    fn each_file_is_read_for_itself() {
        let folder = Folder::new("fragments");
        assert_eq!(fragments(&folder.main()), Fragments::default());
        std::fs::create_dir(folder.path("nft.d")).unwrap();
        folder.write("nft.d/good.nft", "chain a { accept; }\n");
        folder.write("nft.d/broken.nft", "chain a {\n}\n}\n");
        folder.write("nft.d/latin.nft", b"# \xfc\n");
        folder.write("nft.d/policy.nft", "chain a { accept; }\n");
        folder.write("nft.d/a b.nft", "");
        for other in ["README", ".hidden.nft", "good.nft~", "good.nft.dpkg-new"] {
            folder.write(Path::new("nft.d").join(other), "rubbish {");
        }
        symlink("nowhere", folder.path("nft.d/gone.nft")).unwrap();
        let found = fragments(&folder.main());
        assert_eq!(found.good().map(|f| f.name().table()).collect::<Vec<_>>(), ["uplinkd_good"]);
        let problems: Vec<String> = found.problems().map(|problem| folder.relative(problem)).collect();
        let beginnings = [
            "nft.d/a b.nft: is left out; a file is called NAME.nft",
            "nft.d/policy.nft: is left out; ",
            "nft.d/broken.nft:3: this } has no {",
            "nft.d/gone.nft: cannot be read: No such file",
            "nft.d/latin.nft: not UTF-8; ",
        ];
        assert_eq!(problems.len(), beginnings.len(), "{problems:?}");
        for (problem, beginning) in problems.iter().zip(beginnings) {
            assert!(problem.starts_with(beginning), "{problem}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_told() {
        let folder = Folder::new("fragments-unread");
        folder.write("nft.d", "");
        let unread = fragments(&folder.main()).unread.map(|why| folder.relative(why));
        assert_eq!(unread.as_deref(), Some("nft.d: cannot be read: Not a directory (os error 20)"));
    }
}
