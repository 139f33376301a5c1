//! Writes settings for `uplinkctl set`, where no manager's profile can hold them.
//!
//! Decides how `conf.d/50-uplinkctl.toml` changes; never writes another file, nor a configuration that [`super::load`]
//! would refuse. Refuses to know whether somebody may.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, InlineTable, Item, Table, TomlError};

use super::keys::Value;
use super::load::{Machine, directory, sources};
use super::matcher::Matcher;
use super::parse::{parse, resolve};
use super::problem::{Problems, Source};
use super::settings::Assignment;
use crate::core::net::{IfName, UplinkName};

/// The one file that is ours to write.
const FILE: &str = "50-uplinkctl.toml";

const HEADER: &str = "# Written by `uplinkctl set`. To edit it by hand is fine: comments stay.\n";

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has problems, or would have them.
    #[error("nothing was changed, because the configuration would not load")]
    Unsound(#[from] Problems),
    /// The editor does not understand what the reader did.
    #[error("nothing was changed, because {FILE} cannot be edited")]
    Uneditable(#[from] TomlError),
    /// The file could not be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Makes assignments to the link of an interface, in `conf.d` beside a main file.
///
/// They go into the last section that matches exactly this interface, or into a new one with the uplink's name as its
/// comment. Returns the path of the file, and whether it had to be changed.
pub fn edit(
    main: &Path,
    uplink: &UplinkName,
    interface: &IfName,
    assignments: &[Assignment],
) -> Result<(PathBuf, bool), Error> {
    let path = directory(main).join(FILE);
    let (mut sources, problems) = sources(main);
    if !problems.is_empty() {
        return Err(Problems(problems).into());
    }
    // As they are read: the main file first, the others by name.
    let place = sources.iter().skip(1).take_while(|source| source.path < path).count() + 1;
    let old = match sources.get(place) {
        Some(source) if source.path == path => sources.remove(place).text,
        _ => HEADER.to_owned(),
    };
    let new = edited(&path, &old, uplink, interface, assignments)?;
    sources.insert(place, Source::new(&path, &new));
    resolve(&sources, Vec::new(), &Machine)?;
    let changed = new != old;
    if changed {
        replace(&path, &new).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    Ok((path, changed))
}

fn edited(
    path: &Path,
    old: &str,
    uplink: &UplinkName,
    interface: &IfName,
    assignments: &[Assignment],
) -> Result<String, Error> {
    let matcher = Matcher::interface(interface);
    let existing = parse(path, old)?.uplinks.iter().rposition(|section| section.matcher == matcher);
    if existing.is_none() && assignments.iter().all(|assignment| assignment.value().is_none()) {
        return Ok(old.to_owned());
    }
    let mut document: DocumentMut = old.parse()?;
    let comments = document.trailing().as_str().unwrap_or_default().trim_end().to_owned();
    let item = &mut document["uplink"];
    // The sections can also stand in a list, `uplink = [{ … }]`; an empty list is no list of tables.
    let mut sections = mem::take(item).into_array_of_tables().unwrap_or_default();
    match existing.and_then(|index| sections.get_mut(index)) {
        Some(section) => {
            assign(section, assignments);
            *item = Item::ArrayOfTables(sections);
        }
        None => {
            let mut section = Table::new();
            section["match"] = InlineTable::from_iter([("interface", interface.as_str())]).into();
            assign(&mut section, assignments);
            // What ends the file belongs ahead of what is added to it.
            let end = if comments.is_empty() { "" } else { "\n" };
            section.decor_mut().set_prefix(format!("{comments}{end}\n# {uplink}\n"));
            sections.push(section);
            *item = Item::ArrayOfTables(sections);
            document.set_trailing("");
        }
    }
    Ok(document.to_string())
}

fn assign(section: &mut Table, assignments: &[Assignment]) {
    for assignment in assignments {
        let key = assignment.key();
        let Some(value) = assignment.value() else {
            section.remove(key);
            continue;
        };
        let mut value = match value {
            Value::Text(text) => toml_edit::Value::from(text),
            Value::Number(number) => toml_edit::Value::from(*number),
            Value::Flag(flag) => toml_edit::Value::from(*flag),
        };
        // The comment behind a value is kept with it.
        if let Some(old) = section.get(key).and_then(Item::as_value) {
            *value.decor_mut() = old.decor().clone();
        }
        section[key] = value.into();
    }
}

/// Replaces a file whole: whoever reads meanwhile, or after a power cut, sees the old text or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.with_file_name("");
    let temporary = path.with_file_name(format!(".{FILE}.{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let written = write_synced(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // It may not even exist; what counts is why the writing failed.
        let _ = fs::remove_file(&temporary);
    }
    written.and_then(|()| File::open(&directory)?.sync_all())
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    // Not left to the umask: `uplinkctl check` reads it without privilege.
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::config::folder::Folder;
    use crate::config::{Section, Settings, load};

    const OURS: &str = "conf.d/50-uplinkctl.toml";

    /// Does what `uplinkctl set fiber …` does to the link on eth0.
    fn set(folder: &Folder, assignments: &[&str]) -> Result<(PathBuf, bool), String> {
        let assignments: Vec<Assignment> = assignments.iter().map(|text| text.parse().unwrap()).collect();
        let (uplink, interface) = (UplinkName::new("fiber").unwrap(), IfName::new("eth0").unwrap());
        edit(&folder.main(), &uplink, &interface, &assignments).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            folder.relative(format!("{error}: {cause}"))
        })
    }

    #[test]
    fn the_file_is_made_and_changed() {
        let folder = Folder::new("edit-new");
        fs::remove_dir(folder.path("conf.d")).unwrap();
        let (path, changed) = set(&folder, &["weight=2", "metered=true", "name=fiber"]).unwrap();
        assert_eq!((&path, changed), (&folder.path(OURS), true));
        assert_eq!(
            folder.read(OURS),
            "# Written by `uplinkctl set`. To edit it by hand is fine: comments stay.

# fiber
[[uplink]]
match = { interface = \"eth0\" }
weight = 2
metered = true
name = \"fiber\"
"
        );
        set(&folder, &["weight=3", "metered=", "tier=2"]).unwrap();
        assert!(folder.read(OURS).ends_with("weight = 3\nname = \"fiber\"\ntier = 2\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(fs::read_dir(folder.path("conf.d")).unwrap().count(), 1, "nothing temporary stays");
        assert_eq!(load(&folder.main()).unwrap().uplinks.len(), 1);
    }

    #[test]
    fn nothing_is_written_where_nothing_changes() {
        let folder = Folder::new("edit-nothing");
        assert_eq!(set(&folder, &["weight=", "name="]), Ok((folder.path(OURS), false)));
        assert!(!folder.path(OURS).exists());
        let changed =
            [&["weight=2"], &["weight=2"], &["name="], &["weight="]].map(|a| set(&folder, a).unwrap().1);
        assert_eq!(changed, [true, false, false, true]);
    }

    #[test]
    fn comments_and_order_stay() {
        let folder = Folder::new("edit-comments");
        folder.write(
            OURS,
            "# Ours.\n\n[[uplink]] # cable\nmatch = { interface = ['eth0'] } # cellar\n  \
             weight = 5   # for now\n# why\ntier = 3\n\n# mobile\n[[uplink]]\nmatch.interface = 'wwan*'\n# the end\n",
        );
        set(&folder, &["weight=7", "ignore=false"]).unwrap();
        assert_eq!(
            folder.read(OURS),
            "# Ours.\n\n[[uplink]] # cable\nmatch = { interface = ['eth0'] } # cellar\n  \
             weight = 7   # for now\n# why\ntier = 3\nignore = false\n\n# mobile\n[[uplink]]\nmatch.interface = 'wwan*'\n# the end\n"
        );
    }

    #[test]
    fn a_new_section_comes_last() {
        let folder = Folder::new("edit-append");
        // None of these is exactly this interface, though most match it.
        let sections = "[[uplink]]\nmatch.interface = 'eth*'\n\n[[uplink]]\n[uplink.match]\ninterface = 'eth0'\n\
                        type = 'ethernet'\n# the end";
        folder.write(OURS, sections);
        set(&folder, &["weight=7"]).unwrap();
        let added = "\n\n# fiber\n[[uplink]]\nmatch = { interface = \"eth0\" }\nweight = 7\n";
        assert_eq!(folder.read(OURS), format!("{sections}{added}"));
    }

    #[test]
    fn a_list_of_tables_is_understood() {
        let folder = Folder::new("edit-list");
        folder.write(OURS, "# ours\nuplink = [{ match = { interface = 'eth0' }, weight = 5 }]\n");
        set(&folder, &["weight=7"]).unwrap();
        assert_eq!(folder.read(OURS), "# ours\n[[uplink]]\nmatch = { interface = 'eth0' }\nweight = 7\n");
        folder.write(OURS, "uplink = []\n");
        set(&folder, &["weight=7"]).unwrap();
        assert_eq!(load(&folder.main()).unwrap().uplinks.len(), 1);
    }

    #[test]
    fn a_broken_file_is_not_touched() {
        let folder = Folder::new("edit-broken");
        folder.write(OURS, "weight = \n");
        assert_eq!(
            set(&folder, &["weight=7"]).unwrap_err(),
            "nothing was changed, because the configuration would not load: \
             conf.d/50-uplinkctl.toml:1:10: string values must be quoted, expected literal string\n    \
             1 | weight = \n      \
               |          ^"
        );
        assert_eq!(folder.read(OURS), "weight = \n");
    }

    #[test]
    fn what_would_not_load_is_not_written() {
        let folder = Folder::new("edit-unsound");
        folder.write("uplinkd.toml", "[[uplink]]\nmatch.interface = 'eth1'\nname = 'dsl'\n");
        assert_eq!(
            set(&folder, &["name=dsl"]).unwrap_err(),
            "nothing was changed, because the configuration would not load: \
             conf.d/50-uplinkctl.toml:6:8: name: dsl is taken at uplinkd.toml:3:8; \
             each uplink needs a name of its own\n    \
             6 | name = \"dsl\"\n      \
               |        ^^^^^"
        );
        assert!(!folder.path(OURS).exists());
        folder.write("conf.d/90.toml", "wieght = 2\n");
        assert!(set(&folder, &["weight=7"]).unwrap_err().contains("conf.d/90.toml:1:1: wieght: "));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = Folder::new("edit-unwritable");
        fs::create_dir(folder.path(OURS)).unwrap();
        let error = replace(&folder.path(OURS), "").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(fs::read_dir(folder.path("conf.d")).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn only_the_section_of_the_link_changes(
            pieces in prop::collection::vec(select(vec![
                "# comment\n",
                "\r\n",
                "[[uplink]]\nmatch.interface = 'eth0' # a\n",
                "[[uplink]]\nmatch = { interface = 'eth0' }\nweight = 1 # b",
                "[[uplink]] # c\r\nweight = 0xff\r\n[uplink.match]\r\ninterface = ['eth0']\r\n",
                "[[ uplink ]]\n\"match\".mac = '02:00:5e:00:53:01'\n'weight' = 5\n",
            ]), 0..6),
        ) {
            let path = Path::new(FILE);
            let old = pieces.join("\n");
            let (uplink, interface) = (UplinkName::new("fiber").unwrap(), IfName::new("eth0").unwrap());
            let sections = |text: &str| -> Vec<(Matcher, Settings)> {
                let said = |section: Section| (section.matcher, section.settings);
                parse(path, text).unwrap().uplinks.into_iter().map(said).collect()
            };
            let mut expected = sections(&old);
            let ours = Matcher::interface(&interface);
            let (weight, _) = Settings::from_pairs([("weight", "7")]);
            match expected.iter_mut().rev().find(|(matcher, _)| *matcher == ours) {
                Some((_, settings)) => *settings = settings.clone().overlaid(weight),
                None => expected.push((ours, weight)),
            }
            let new = edited(path, &old, &uplink, &interface, &["weight=7".parse().unwrap()]).unwrap();
            prop_assert_eq!(sections(&new), expected);
            let comments = |text: &str| text.matches('#').count();
            prop_assert!(comments(&new) >= comments(&old), "{}", new);
        }
    }
}
