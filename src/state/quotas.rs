//! What was counted against quotas: in memory for the next daemon, on disk for the next boot.
//!
//! Every ledger is read by itself: one that makes no sense costs no other, and is not written over.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Directories, Error, set_aside, write_json};
use crate::core::quota::{Book, Place};
use crate::world::chain;

/// What was read.
#[derive(Debug, Default)]
pub struct Counted {
    /// The book.
    pub book: Book,
    /// Where it stood; none where there was none.
    pub from: Option<Place>,
    /// What could not be read, and where it lies now.
    pub lost: Vec<String>,
}

/// Reads what the last daemon of this boot wrote, else what is on disk.
pub fn load_quotas(dirs: &Directories) -> Counted {
    let mut counted = Counted::default();
    for place in [Place::Memory, Place::Disk] {
        let path = dirs.quotas(place);
        let (book, flaw) = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => (Book::default(), Some(error.to_string())),
            Ok(bytes) => read(&bytes),
        };
        // The one in memory is the newer, so it goes ahead.
        counted.book.join(book);
        counted.from = counted.from.or(Some(place));
        let Some(why) = flaw else { return counted };
        counted.lost.push(lost(&path, &why));
    }
    counted
}

/// The ledgers that make sense, and what is wrong with the others.
fn read(bytes: &[u8]) -> (Book, Option<String>) {
    let all: Map<String, Value> = match serde_json::from_slice(bytes) {
        Ok(all) => all,
        Err(error) => return (Book::default(), Some(error.to_string())),
    };
    let (mut book, mut flaw) = (Book::default(), None);
    for one in all {
        match serde_json::from_value(Value::Object(Map::from_iter([one]))) {
            Ok(one) => book.join(one),
            Err(error) => flaw = Some(error.to_string()),
        }
    }
    (book, flaw)
}

fn lost(path: &Path, why: &str) -> String {
    let aside = match set_aside(path) {
        Ok(aside) => format!("set aside as {}", aside.display()),
        Err(error) => chain(&error),
    };
    format!("{} does not tell all that was counted against quotas ({why}; {aside})", path.display())
}

/// Writes down what was counted against quotas.
pub fn save_quotas(dirs: &Directories, place: Place, book: &Book) -> Result<(), Error> {
    let write = |place| write_json(&dirs.quotas(place), serde_json::to_vec_pretty(book));
    if place == Place::Memory {
        return write(Place::Memory);
    }
    // What is in memory is what a restart finds, so it must not be older: where there is no room for it, the disk will do.
    write(Place::Disk)?;
    write(Place::Memory).or_else(|error| match fs::remove_file(dirs.quotas(Place::Memory)) {
        Err(other) if other.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::folder::Folder;

    /// What was counted of an uplink in its slot.
    fn note(used: u64) -> Value {
        let ledger = json!({
            "day": 15, "began": "2026-11-15", "counts": { "2026-11-15": used }, "unplaced": 0,
            "read": { "boot": "x", "index": 3, "newest": 7, "bytes": { "down": 5, "up": u64::MAX } }
        });
        json!({ "identity": { "name": "lte" }, "interface": "wwan0", "value": ledger })
    }

    fn book(notes: Value) -> Book {
        serde_json::from_value(notes).unwrap()
    }

    fn folders(name: &str) -> (Folder, Folder, Directories) {
        let (state, runtime) = (Folder::new(name), Folder::new(&format!("{name}-runtime")));
        let dirs = Directories { state: state.path(""), runtime: runtime.path("") };
        (state, runtime, dirs)
    }

    fn found(dirs: &Directories) -> (Book, Option<Place>, usize) {
        let Counted { book, from, lost } = load_quotas(dirs);
        (book, from, lost.len())
    }

    #[test]
    fn what_was_counted_outlives_the_daemon_and_the_machine() {
        let (state, runtime, dirs) = folders("counted");
        let [first, second] = [100, 200].map(|used| book(json!({ "1": note(used) })));
        assert_eq!(found(&dirs), (Book::default(), None, 0));
        save_quotas(&dirs, Place::Disk, &first).unwrap();
        save_quotas(&dirs, Place::Memory, &second).unwrap();
        assert_eq!(found(&dirs), (second.clone(), Some(Place::Memory), 0), "the daemon was killed");
        fs::remove_file(dirs.quotas(Place::Memory)).unwrap();
        assert_eq!(found(&dirs), (first.clone(), Some(Place::Disk), 0), "the machine was rebooted");
        runtime.write("quotas.json", "{\"1\":");
        assert_eq!(found(&dirs), (first, Some(Place::Memory), 1), "what cannot be read is done without");
        state.write("quotas.json", "[]");
        let lost = load_quotas(&dirs).lost.concat();
        assert!(lost.contains("quotas.json.corrupt"), "it is told where it lies: {lost}");
        assert_eq!(fs::read_to_string(state.path("quotas.json.corrupt")).unwrap(), "[]");
        save_quotas(&dirs, Place::Disk, &second).unwrap();
        fs::remove_file(dirs.quotas(Place::Memory)).unwrap();
        assert_eq!(found(&dirs).0, second);
    }

    #[test]
    fn one_that_makes_no_sense_costs_no_other() {
        let (state, _runtime, dirs) = folders("counted-badly");
        let mut bad = note(9);
        bad["value"]["day"] = json!(99);
        state.write("quotas.json", json!({ "1": bad, "2": note(100), "99": note(1) }).to_string());
        assert_eq!(found(&dirs), (book(json!({ "2": note(100) })), Some(Place::Disk), 1));
        assert!(state.path("quotas.json.corrupt").exists(), "nothing is written over it");
    }

    #[test]
    fn a_full_memory_keeps_nothing_off_the_disk_and_hides_nothing_that_is_there() {
        let (_state, runtime, dirs) = folders("counted-full");
        let [first, second] = [100, 200].map(|used| book(json!({ "1": note(used) })));
        save_quotas(&dirs, Place::Disk, &first).unwrap();
        // Nothing can be written beside the old one.
        fs::create_dir(runtime.path("quotas.new")).unwrap();
        save_quotas(&dirs, Place::Memory, &second).unwrap_err();
        save_quotas(&dirs, Place::Disk, &second).unwrap();
        assert_eq!(found(&dirs), (second, Some(Place::Disk), 0));
    }
}
